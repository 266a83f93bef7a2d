//! Connections that reach a pod without a tunnel.

use crate::harness::{Mesh, exchange, free_address, read_out};

#[tokio::test]
async fn the_application_sees_the_client_and_the_log_says_that_nothing_is_proved() {
    let mut mesh = Mesh::new();
    let server = mesh.pod("server");
    let (target, mut clients) = server.echo().await;
    let outsider = free_address();
    let mut stream = server.dial_plain(outsider, target).await;
    exchange(&mut stream, b"hello").await;
    let local = stream.local_addr().unwrap();
    drop(stream);
    assert_eq!(clients.recv().await.unwrap().ip(), outsider);
    assert_eq!(
        mesh.access("inbound").await,
        format!(
            "connection complete src.addr={local} dst.addr={target} dst.workload=\"server-pod\" \
             dst.namespace=\"default\" dst.cluster=\"Kubernetes\" direction=\"inbound\" \
             bytes_sent=5 bytes_recv=5"
        )
    );
    let labels = [
        ("reporter", "destination"),
        ("connection_security_policy", "unknown"),
        ("source_workload", "unknown"),
        ("destination_workload", "server-deployment"),
    ];
    assert_eq!(
        mesh.metric("istio_tcp_connections_opened_total", &labels),
        1
    );
    assert_eq!(
        mesh.metric("istio_tcp_connections_closed_total", &labels),
        1
    );
}

#[tokio::test]
async fn a_client_that_discovery_knows_is_named_though_not_proved() {
    let mut mesh = Mesh::new();
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    let (target, _clients) = server.echo().await;
    let mut stream = server.dial_plain(client.address, target).await;
    exchange(&mut stream, b"x").await;
    drop(stream);
    let line = mesh.access("inbound").await;
    assert!(line.contains("src.workload=\"client-pod\""), "{line}");
    assert!(!line.contains("src.identity"), "{line}");
    let labels = [
        ("source_workload", "client-deployment"),
        ("source_principal", "unknown"),
    ];
    assert_eq!(
        mesh.metric("istio_tcp_connections_closed_total", &labels),
        1
    );
}

#[tokio::test]
async fn the_proxys_own_ports_are_no_targets() {
    let mut mesh = Mesh::new();
    let server = mesh.pod("server");
    for port in [15001, 15006, 15008] {
        let target = (server.address, port).into();
        let mut stream = server.dial_plain(free_address(), target).await;
        assert_eq!(read_out(&mut stream).await, b"");
        let line = mesh
            .line(&["connection failed", "direction=\"inbound\""])
            .await;
        assert!(
            line.contains(&format!("error=\"{target} is a port of the proxy itself\"")),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_pod_is_no_relay_to_other_addresses() {
    let mut mesh = Mesh::new();
    let (server, other) = (mesh.pod("server"), mesh.pod("other"));
    let (elsewhere, mut clients) = other.echo().await;
    for target in [elsewhere, ([192, 0, 2, 1], 80).into()] {
        let mut stream = server.dial_plain(free_address(), target).await;
        assert_eq!(read_out(&mut stream).await, b"");
        let line = mesh
            .line(&["connection failed", "direction=\"inbound\""])
            .await;
        let error = format!("error=\"{target} is not an address of the pod\"");
        assert!(line.contains(&error), "{line}");
    }
    assert!(clients.try_recv().is_err(), "nobody hears of it");
}
