//! The server through real clients over TLS.

#[cfg(test)]
mod api {
    mod collector;
    mod definitions;
    mod faults;
    mod lists;
    mod namespaces;
    mod objects;
    mod tables;
    mod watches;

    mod fixture;
}
