//! The server's handle: start, stop, clients and the switches of tests.
