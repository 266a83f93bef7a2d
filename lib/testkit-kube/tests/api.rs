//! The server through real clients over TLS.
