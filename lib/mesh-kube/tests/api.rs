//! Against the embedded API server: what the mechanics do with a real conversation, over HTTPS.

#[cfg(test)]
mod api {
    mod apply;
    mod client;
    mod events;
    mod finalizer;
    mod lease;
    mod watch;

    mod support;
}
