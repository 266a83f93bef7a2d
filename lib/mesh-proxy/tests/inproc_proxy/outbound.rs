//! Connections that leave a pod.

use std::{sync::atomic::Ordering, time::Duration};

use mesh_core::{
    address::NamespacedHostname,
    route::{Route, RouteError},
    workload::Workload,
};
use tokio::{io::AsyncReadExt as _, time::timeout};

use crate::harness::{DEADLINE, Mesh, exchange, free_address, read_out};

#[tokio::test]
async fn what_is_outside_of_the_mesh_is_reached_from_the_pods_own_address() {
    let mut mesh = Mesh::new();
    let client = mesh.pod("client");
    let outside = mesh.unknown_pod("outside", free_address());
    let (target, mut clients) = outside.echo().await;
    let mut stream = client.dial(target).await;
    exchange(&mut stream, b"hello").await;
    let local = stream.local_addr().unwrap();
    drop(stream);
    assert_eq!(clients.recv().await.unwrap().ip(), client.address);
    assert_eq!(
        mesh.access("outbound").await,
        format!(
            "connection complete src.addr={local} src.workload=\"client-pod\" \
             src.namespace=\"default\" src.cluster=\"Kubernetes\" dst.addr={target} \
             direction=\"outbound\" bytes_sent=5 bytes_recv=5"
        )
    );
    let labels = [
        ("destination_workload", "unknown"),
        ("connection_security_policy", "unknown"),
        ("source_principal", "unknown"),
        ("response_flags", "-"),
    ];
    assert_eq!(
        mesh.metric("istio_tcp_connections_closed_total", &labels),
        1
    );
    assert_eq!(mesh.metric("istio_tcp_received_bytes_total", &labels), 5);
}

#[tokio::test]
async fn a_workload_without_a_tunnel_is_reached_as_it_is() {
    let mut mesh = Mesh::new();
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    let (target, _clients) = server.echo().await;
    let workload = server.workload.clone();
    mesh.discovery.route(
        target,
        Ok(Route::Direct {
            workload,
            target,
            service: None,
        }),
    );
    let mut stream = client.dial(target).await;
    exchange(&mut stream, b"hi").await;
    drop(stream);
    let line = mesh.access("outbound").await;
    assert!(
        line.contains(&format!("dst.addr={target} dst.workload=\"server-pod\"")),
        "{line}"
    );
    assert!(!line.contains("identity"), "{line}");
}

#[tokio::test]
async fn without_a_healthy_upstream_the_connection_is_closed_and_nothing_falls_back_to_plain_text()
{
    let mut mesh = Mesh::new();
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    let (target, mut clients) = server.echo().await;
    let service = NamespacedHostname {
        namespace: "default".into(),
        hostname: "server.default.svc.cluster.local".into(),
    };
    let error = RouteError::NoHealthyUpstream {
        service,
        port: target.port(),
    };
    mesh.discovery.route(target, Err(error));
    assert_eq!(read_out(&mut client.dial(target).await).await, b"");
    let line = mesh
        .line(&["connection failed", "direction=\"outbound\""])
        .await;
    let error = "service default/server.default.svc.cluster.local has no healthy endpoint";
    assert!(
        line.contains(&format!("error=\"no route to {target}: {error}")),
        "{line}"
    );
    assert!(clients.try_recv().is_err());
}

#[tokio::test]
async fn a_pod_that_discovery_does_not_name_gets_no_connection() {
    let mut mesh = Mesh::new();
    let unknown = mesh.unknown_pod("unknown", free_address());
    let (target, mut clients) = mesh.pod("server").echo().await;
    let mut stream = unknown.dial(target).await;
    let local = stream.local_addr().unwrap();
    assert_eq!(read_out(&mut stream).await, b"");
    let line = mesh.line(&["connection failed"]).await;
    let expected = format!(
        "src.addr={local} dst.addr={target} direction=\"outbound\" error=\"no workload is known for \
         pod default/unknown-pod with service account unknown\""
    );
    assert!(line.ends_with(&expected), "{line}");
    assert!(clients.try_recv().is_err());
}

#[tokio::test]
async fn the_proxy_does_not_call_itself() {
    let mut mesh = Mesh::new();
    let client = mesh.pod("client");
    for destination in [
        "127.0.0.1:15001".parse().unwrap(),
        (client.address, 15008).into(),
    ] {
        assert_eq!(read_out(&mut client.dial(destination).await).await, b"");
        let line = mesh.line(&["connection failed"]).await;
        assert!(line.contains("is a port of the proxy itself"), "{line}");
    }
    // Another address of the pod than the one it connects from.
    let second = [192, 0, 2, 1];
    mesh.discovery.update(Workload {
        addresses: vec![client.address, second.into()],
        ..Workload::clone(&client.workload)
    });
    let mut stream = client.dial((second, 15006).into()).await;
    assert_eq!(read_out(&mut stream).await, b"");
    let line = mesh.line(&["connection failed"]).await;
    assert!(line.contains("is a port of the proxy itself"), "{line}");
}

#[tokio::test]
async fn a_client_that_resets_its_connection_waits_for_no_tunnel() {
    let mut mesh = Mesh::new();
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    // Where the tunnel should lead, connections are taken and no word is said.
    let (listener, silent) = server.listen().await;
    let target = (server.address, 80).into();
    let Route::Hbone {
        workload,
        authority,
        expected,
        ..
    } = server.tunnel_route(target, None)
    else {
        panic!("a tunnel");
    };
    let route = Route::Hbone {
        workload,
        waypoint: false,
        gateway: silent,
        authority,
        expected,
        service: None,
    };
    mesh.discovery.route(target, Ok(route));
    let stream = client.dial(target).await;
    let _taken = timeout(DEADLINE, listener.accept()).await.unwrap().unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
    let line = mesh.access("outbound").await;
    assert!(
        line.ends_with("error=\"the client gave the connection up\""),
        "{line}"
    );
}

#[tokio::test]
async fn a_certificate_that_does_not_come_is_not_blamed_on_the_network() {
    let mut mesh = Mesh::new();
    mesh.settings.hbone.connect_timeout = Duration::from_millis(100);
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    let target = (server.address, 80).into();
    mesh.discovery
        .route(target, Ok(server.tunnel_route(target, None)));
    mesh.authority.silent.store(true, Ordering::Relaxed);
    assert_eq!(read_out(&mut client.dial(target).await).await, b"");
    let line = mesh.access("outbound").await;
    assert!(line.contains("get a certificate for the source"), "{line}");
    let labels = [("reporter", "source"), ("response_flags", "IDENTITY_ERROR")];
    assert_eq!(
        mesh.metric("istio_tcp_connections_failed_total", &labels),
        1
    );
}

#[tokio::test]
async fn a_refused_connection_counts_as_opened_closed_and_failed() {
    let mut mesh = Mesh::new();
    let client = mesh.pod("client");
    let (listener, target) = mesh.pod("server").listen().await;
    drop(listener);
    assert_eq!(read_out(&mut client.dial(target).await).await, b"");
    let line = mesh.access("outbound").await;
    assert!(
        line.contains(&format!("error=\"connect to {target}: Connection refused")),
        "{line}"
    );
    for (count, flag) in [
        ("opened", "-"),
        ("closed", "CONNECT"),
        ("failed", "CONNECT"),
    ] {
        let family = format!("istio_tcp_connections_{count}_total");
        assert_eq!(
            mesh.metric(&family, &[("response_flags", flag)]),
            1,
            "{count}"
        );
        assert_eq!(mesh.series(&family).len(), 1, "{count}");
    }
}

#[tokio::test]
async fn sockets_are_counted_while_they_are_open() {
    let mut mesh = Mesh::new();
    let client = mesh.pod("client");
    let (target, _clients) = mesh.pod("server").echo().await;
    let mut stream = client.dial(target).await;
    exchange(&mut stream, b"x").await;
    let open = |mesh: &Mesh| mesh.metric("istio_tcp_sockets_open", &[("reporter", "source")]);
    assert_eq!(open(&mesh), 1);
    drop(stream);
    mesh.access("outbound").await;
    tokio::task::yield_now().await;
    assert_eq!(open(&mesh), 0);
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let mesh = Mesh::new();
    let client = mesh.pod("client");
    let (listener, target) = mesh.pod("server").listen().await;
    let mut stream = client.dial(target).await;
    let (mut accepted, _) = listener.accept().await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut accepted, b"220 ready")
        .await
        .unwrap();
    let mut greeting = [0; 9];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 ready");
}
