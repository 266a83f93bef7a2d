//! A small ambient mesh on one Linux host: the demo and the end-to-end tests.
