//! The end of a proxy.

use mesh_runtime::drain::Mode;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

use crate::harness::{DEADLINE, Mesh, exchange, read_out};

#[tokio::test]
async fn a_graceful_drain_lets_open_connections_end_and_accepts_no_more() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    let (target, _clients) = server.echo().await;
    mesh.discovery
        .route(target, Ok(server.tunnel_route(target, None)));
    let mut tunnelled = client.dial(target).await;
    let mut plain = server.dial_plain(client.address, target).await;
    exchange(&mut tunnelled, b"before").await;
    exchange(&mut plain, b"before").await;

    let draining = tokio::spawn(server.trigger.drain(Mode::Graceful));
    until_refused(server.proxy.hbone).await;
    until_refused(server.proxy.inbound).await;
    exchange(&mut tunnelled, b"during").await;
    exchange(&mut plain, b"during").await;
    assert!(!server.running.is_finished());
    drop((tunnelled, plain));
    timeout(DEADLINE, server.running).await.unwrap().unwrap();
    timeout(DEADLINE, draining).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_immediate_drain_closes_what_is_open_and_logs_it_once() {
    let mut mesh = Mesh::new();
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    let (target, _clients) = server.echo().await;
    mesh.discovery
        .route(target, Ok(server.tunnel_route(target, None)));
    let mut plain = server.dial_plain(client.address, target).await;
    exchange(&mut plain, b"before").await;
    timeout(DEADLINE, server.trigger.drain(Mode::Immediate))
        .await
        .unwrap();
    assert_eq!(read_out(&mut plain).await, b"");
    let line = mesh.access("inbound").await;
    assert!(
        line.ends_with("bytes_sent=6 bytes_recv=6 error=\"closed from drain\""),
        "{line}"
    );
    timeout(DEADLINE, server.running).await.unwrap().unwrap();
    let labels = [("reporter", "destination"), ("response_flags", "-")];
    assert_eq!(
        mesh.metric("istio_tcp_connections_closed_total", &labels),
        1
    );
}

#[tokio::test]
async fn an_immediate_drain_ends_both_directions_of_a_pod() {
    let mut mesh = Mesh::new();
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    let (target, _clients) = server.echo().await;
    mesh.discovery
        .route(target, Ok(server.tunnel_route(target, None)));
    let mut stream = client.dial(target).await;
    exchange(&mut stream, b"before").await;
    timeout(DEADLINE, client.trigger.drain(Mode::Immediate))
        .await
        .unwrap();
    assert_eq!(read_out(&mut stream).await, b"");
    let line = mesh.access("outbound").await;
    assert!(line.ends_with("error=\"closed from drain\""), "{line}");
    timeout(DEADLINE, client.running).await.unwrap().unwrap();
    // The other pod sees its client go, which is an ordinary end there.
    let line = mesh.access("inbound").await;
    assert!(!line.contains("error="), "{line}");
}

#[tokio::test]
async fn a_proxy_whose_owner_is_gone_ends_its_connections() {
    let mut mesh = Mesh::new();
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    let (target, _clients) = server.echo().await;
    let mut plain = server.dial_plain(client.address, target).await;
    exchange(&mut plain, b"x").await;
    server.running.abort();
    assert_eq!(read_out(&mut plain).await, b"");
    assert!(
        mesh.access("inbound")
            .await
            .ends_with("error=\"closed from drain\"")
    );
}

#[tokio::test]
async fn a_handshake_that_a_drain_meets_is_finished_and_the_client_told_to_go_elsewhere() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    let server_identity = server.identity();
    let stream = TcpStream::connect(server.proxy.hbone).await.unwrap();
    let held = [("reporter", "destination")];
    let accepted = async {
        while mesh.metric("istio_tcp_sockets_open", &held) < 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, accepted).await.unwrap();
    let draining = tokio::spawn(server.trigger.drain(Mode::Graceful));
    let begun = async { while TcpStream::connect(server.proxy.hbone).await.is_ok() {} };
    timeout(DEADLINE, begun).await.unwrap();

    let certificate = mesh.authority.issue(&client.identity());
    let handshake = certificate.connect(stream, std::slice::from_ref(&server_identity));
    let (stream, _) = timeout(DEADLINE, handshake).await.unwrap().unwrap();
    let builder = h2::client::Builder::new();
    let (_requests, connection) = builder.handshake::<_, bytes::Bytes>(stream).await.unwrap();
    // GOAWAY without an error: a pool opens the tunnel elsewhere, and the application sees nothing.
    timeout(DEADLINE, connection).await.unwrap().unwrap();
    timeout(DEADLINE, server.running).await.unwrap().unwrap();
    timeout(DEADLINE, draining).await.unwrap().unwrap();
}

/// Waits until nothing listens at `address`.
async fn until_refused(address: std::net::SocketAddr) {
    let refused = async {
        while let Ok(mut stream) = TcpStream::connect(address).await {
            // Accepted before the drain, or reset from the queue of the closed listener.
            drop(stream.read(&mut [0]).await);
        }
    };
    timeout(DEADLINE, refused)
        .await
        .expect("the listener closes");
}
