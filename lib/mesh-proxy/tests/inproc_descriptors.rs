//! What happens when the process has no file descriptor left. A program of its own, because the limit
//! is the process's.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a step that fails is a test that fails"
)]

#[path = "inproc_proxy/harness.rs"]
#[expect(dead_code, reason = "shared with the other tests")]
mod harness;

use std::fs::File;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use harness::{Mesh, exchange};

#[tokio::test]
async fn a_full_descriptor_table_delays_new_connections_and_harms_no_open_one() {
    let mut mesh = Mesh::new();
    let server = mesh.pod("server");
    let (target, _clients) = server.echo().await;
    let mut open = server.dial_plain(server.address, target).await;
    exchange(&mut open, b"before").await;

    // Everything but the one descriptor that the client needs.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 256, hard).unwrap();
    let mut taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    taken.pop();
    let mut waiting = server.dial_plain(server.address, target).await;
    let line = mesh.line(&["no file descriptor is left"]).await;
    assert!(line.contains("inbound-listener"), "{line}");
    exchange(&mut open, b"meanwhile").await;

    drop(taken);
    exchange(&mut waiting, b"after").await;
    mesh.line(&["connections are accepted again"]).await;
}
