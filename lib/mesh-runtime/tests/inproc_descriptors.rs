//! The HTTP server when the process has no file descriptors left. One test, because they concern the
//! process as a whole.

use std::{fs::File, future::ready};

use http::StatusCode;
use mesh_runtime::http::{Limits, Router, text};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::time::timeout;

#[cfg(test)]
#[path = "support/client.rs"]
mod client;

use client::{DEADLINE, body, mk_server, read, status};

#[tokio::test]
async fn a_full_descriptor_table_delays_connections_and_loses_none() {
    let router = Router::new().get("/", "hello", |_| ready(text(StatusCode::OK, "hello\n")));
    let server = mk_server(router, Limits::default()).await;
    assert_eq!(status(&server.ask("GET / HTTP/1.1").await), "200 OK");
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();

    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    // One for the client, none for the server.
    files.pop();
    let waiting = server.send(b"GET / HTTP/1.1\r\n\r\n").await;
    let mut answered = tokio::spawn(read(waiting));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!server.tasks.running().contains_key("http-connection"));

    files.clear();
    let answer = timeout(DEADLINE, &mut answered).await.unwrap().unwrap();
    assert_eq!(body(&answer), "hello\n");
    server.stop().await;
}
