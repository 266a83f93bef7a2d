//! Connections that go through a tunnel, from one pod's proxy to another's.

use std::{net::SocketAddr, sync::Arc};

use mesh_core::{
    address::NamespacedHostname,
    route::{Route, ServiceRef},
    workload::{ApplicationProtocol, ApplicationTunnel, Workload},
};
use mesh_proxy::connections::{Dump, Protocol, View};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::harness::{DEADLINE, Mesh, Pod, exchange, read_out};

/// Two pods and a route from the first to an address of the second.
fn mk_route(mesh: &Mesh, server: &Pod, target: SocketAddr) {
    mesh.discovery
        .route(target, Ok(server.tunnel_route(target, None)));
}

fn mk_service() -> Arc<ServiceRef> {
    Arc::new(ServiceRef {
        name: "server".into(),
        namespace: "default".into(),
        hostname: "server.default.svc.cluster.local".into(),
    })
}

/// Makes `pod` stand behind `service`, so that its proxy believes a client that names it.
fn mk_behind(mesh: &Mesh, pod: &Pod, service: &Arc<ServiceRef>) {
    mesh.discovery.add_service(service);
    let key = NamespacedHostname {
        namespace: service.namespace.clone(),
        hostname: service.hostname.clone(),
    };
    mesh.discovery.update(Workload {
        services: [(key, [(80, 80)].into())].into(),
        ..(*pod.workload).clone()
    });
}

#[tokio::test]
async fn both_proxies_log_the_connection_with_the_fields_of_the_contract() {
    let mut mesh = Mesh::new();
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    let (listener, target) = server.listen().await;
    let service = mk_service();
    mk_behind(&mesh, &server, &service);
    mesh.discovery
        .route(target, Ok(server.tunnel_route(target, Some(service))));

    let mut stream = client.dial(target).await;
    let (mut accepted, from) = listener.accept().await.unwrap();
    assert_eq!(from.ip(), client.address, "the source is preserved");
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_out(&mut accepted).await, b"hello");
    accepted.write_all(b"hi").await.unwrap();
    drop(accepted);
    assert_eq!(read_out(&mut stream).await, b"hi");
    let local = stream.local_addr().unwrap();
    drop(stream);

    let hbone = server.proxy.hbone;
    let common = format!(
        "src.workload=\"client-pod\" src.namespace=\"default\" \
         src.identity=\"spiffe://cluster.local/ns/default/sa/client\" src.cluster=\"Kubernetes\" \
         dst.addr={hbone} dst.hbone_addr={target} \
         dst.service=\"server.default.svc.cluster.local\" dst.workload=\"server-pod\" \
         dst.namespace=\"default\" dst.identity=\"spiffe://cluster.local/ns/default/sa/server\" \
         dst.cluster=\"Kubernetes\""
    );
    let outbound = mesh.access("outbound").await;
    let expected = format!(
        "connection complete src.addr={local} {common} direction=\"outbound\" bytes_sent=5 bytes_recv=2"
    );
    assert_eq!(outbound, expected);
    let inbound = mesh.access("inbound").await;
    let (head, tail) = inbound.split_once(" src.workload").unwrap();
    assert!(head.starts_with(&format!("connection complete src.addr={}:", client.address)));
    assert_eq!(
        format!("src.workload{tail}"),
        format!("{common} direction=\"inbound\" bytes_sent=2 bytes_recv=5")
    );
}

#[tokio::test]
async fn both_proxies_count_the_connection_with_the_labels_of_the_contract() {
    let mut mesh = Mesh::new();
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    let (listener, target) = server.listen().await;
    mk_route(&mesh, &server, target);
    let mut stream = client.dial(target).await;
    let (mut accepted, _) = listener.accept().await.unwrap();
    stream.write_all(b"seven b").await.unwrap();
    accepted.write_all(b"abc").await.unwrap();
    let mut seven = [0; 7];
    accepted.read_exact(&mut seven).await.unwrap();
    let mut three = [0; 3];
    stream.read_exact(&mut three).await.unwrap();

    // While the connection is open its bytes are counted already.
    for reporter in ["source", "destination"] {
        let labels = [
            ("reporter", reporter),
            ("connection_security_policy", "mutual_tls"),
        ];
        assert_eq!(
            mesh.metric("istio_tcp_connections_opened_total", &labels),
            1
        );
        assert_eq!(
            mesh.metric("istio_tcp_connections_closed_total", &labels),
            0
        );
        // Received is what the server receives, whoever reports.
        assert_eq!(mesh.metric("istio_tcp_received_bytes_total", &labels), 7);
        assert_eq!(mesh.metric("istio_tcp_sent_bytes_total", &labels), 3);
    }
    drop((stream, accepted));
    mesh.access("outbound").await;
    mesh.access("inbound").await;
    for reporter in ["source", "destination"] {
        let labels = [("reporter", reporter)];
        assert_eq!(
            mesh.metric("istio_tcp_connections_closed_total", &labels),
            1
        );
        assert_eq!(mesh.metric("istio_tcp_received_bytes_total", &labels), 7);
        assert_eq!(
            mesh.metric("istio_tcp_connections_failed_total", &labels),
            0
        );
    }
    let mut closed = mesh.series("istio_tcp_connections_closed_total");
    closed.sort();
    assert_eq!(
        closed[0],
        "istio_tcp_connections_closed_total{reporter=\"destination\",\
         source_workload=\"client-deployment\",source_canonical_service=\"client\",\
         source_canonical_revision=\"v1\",source_workload_namespace=\"default\",\
         source_principal=\"spiffe://cluster.local/ns/default/sa/client\",source_app=\"client\",\
         source_version=\"v1\",source_cluster=\"Kubernetes\",destination_service=\"unknown\",\
         destination_service_namespace=\"unknown\",destination_service_name=\"unknown\",\
         destination_workload=\"server-deployment\",destination_canonical_service=\"server\",\
         destination_canonical_revision=\"v1\",destination_workload_namespace=\"default\",\
         destination_principal=\"spiffe://cluster.local/ns/default/sa/server\",\
         destination_app=\"server\",destination_version=\"v1\",destination_cluster=\"Kubernetes\",\
         request_protocol=\"tcp\",response_flags=\"-\",\
         connection_security_policy=\"mutual_tls\",source_region=\"unknown\",\
         source_zone=\"unknown\",destination_region=\"unknown\",destination_zone=\"unknown\"} 1"
    );
}

#[tokio::test]
async fn each_side_may_close_its_direction_and_go_on_reading() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    let (listener, target) = server.listen().await;
    mk_route(&mesh, &server, target);
    for client_first in [true, false] {
        let mut near = client.dial(target).await;
        let (mut far, _) = listener.accept().await.unwrap();
        let (first, second) = if client_first {
            (&mut near, &mut far)
        } else {
            (&mut far, &mut near)
        };
        first.write_all(b"question").await.unwrap();
        first.shutdown().await.unwrap();
        assert_eq!(read_out(second).await, b"question");
        second.write_all(b"answer after the end").await.unwrap();
        second.shutdown().await.unwrap();
        assert_eq!(read_out(first).await, b"answer after the end");
    }
}

#[tokio::test]
async fn what_is_large_arrives_whole() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    let (target, _clients) = server.echo().await;
    mk_route(&mesh, &server, target);
    let (mut read, mut write) = client.dial(target).await.into_split();
    let sent: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut echoed = Vec::new();
    timeout(DEADLINE, read.read_to_end(&mut echoed))
        .await
        .unwrap()
        .unwrap();
    writer.await.unwrap();
    assert!(echoed == expected, "8 MB come back unchanged");
}

#[tokio::test]
async fn an_open_connection_stands_in_the_dumps_of_both_pods_and_then_leaves_them() {
    let mut mesh = Mesh::new();
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    let (target, mut clients) = server.echo().await;
    mk_route(&mesh, &server, target);
    let mut stream = client.dial(target).await;
    exchange(&mut stream, b"x").await;
    let outbound = View {
        src: stream.local_addr().unwrap(),
        original_dst: target,
        actual_dst: server.proxy.hbone,
        protocol: Protocol::Hbone,
    };
    let expected = Dump {
        inbound: Vec::new(),
        outbound: vec![outbound],
    };
    assert_eq!(client.connections.dump(), expected);
    let dump = server.connections.dump();
    let [inbound] = &dump.inbound[..] else {
        panic!("{dump:?}")
    };
    assert_eq!((inbound.original_dst, inbound.actual_dst), (target, target));
    assert_eq!(inbound.src.ip(), clients.recv().await.unwrap().ip());
    drop(stream);
    mesh.access("outbound").await;
    mesh.access("inbound").await;
    tokio::task::yield_now().await;
    assert_eq!(client.connections.dump(), Dump::default());
    assert_eq!(server.connections.dump(), Dump::default());
}

#[tokio::test]
async fn an_application_that_refuses_is_answered_503_and_logged_at_both_ends() {
    let mut mesh = Mesh::new();
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    let (listener, target) = server.listen().await;
    drop(listener);
    mk_route(&mesh, &server, target);
    assert_eq!(read_out(&mut client.dial(target).await).await, b"");
    let inbound = mesh.access("inbound").await;
    assert!(
        inbound.contains(&format!("error=\"connect to {target}: Connection refused")),
        "{inbound}"
    );
    let outbound = mesh.access("outbound").await;
    assert!(
        outbound.ends_with("error=\"http status: 503 Service Unavailable\""),
        "{outbound}"
    );
    for reporter in ["source", "destination"] {
        let labels = [("reporter", reporter), ("response_flags", "CONNECT")];
        assert_eq!(
            mesh.metric("istio_tcp_connections_failed_total", &labels),
            1
        );
    }
}

#[tokio::test]
async fn a_peer_that_is_not_who_it_should_be_gets_no_byte() {
    let mut mesh = Mesh::new();
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    let (target, mut clients) = server.echo().await;
    let Route::Hbone {
        workload,
        waypoint,
        gateway,
        authority,
        service,
        ..
    } = server.tunnel_route(target, None)
    else {
        panic!("a tunnel")
    };
    let expected = ["spiffe://cluster.local/ns/default/sa/other"
        .parse()
        .unwrap()]
    .into();
    let route = Route::Hbone {
        workload,
        waypoint,
        gateway,
        authority,
        expected,
        service,
    };
    mesh.discovery.route(target, Ok(route));
    let mut stream = client.dial(target).await;
    stream.write_all(b"secret").await.unwrap();
    assert_eq!(read_out(&mut stream).await, b"");
    let line = mesh.access("outbound").await;
    assert!(
        line.contains("the identity of the peer is refused"),
        "{line}"
    );
    let flag = [("reporter", "source"), ("response_flags", "TLS_FAILURE")];
    assert_eq!(mesh.metric("istio_tcp_connections_failed_total", &flag), 1);
    assert!(clients.try_recv().is_err());
}

#[tokio::test]
async fn an_application_that_is_a_proxy_is_told_who_the_client_is() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    let (listener, application) = server.listen().await;
    let target = SocketAddr::new(server.address, 80);
    mk_route(&mesh, &server, target);
    mesh.discovery.update(Workload {
        application_tunnel: Some(ApplicationTunnel {
            protocol: ApplicationProtocol::Proxy,
            port: Some(application.port()),
        }),
        ..(*server.workload).clone()
    });
    let mut stream = client.dial(target).await;
    stream.write_all(b"GET").await.unwrap();
    stream.shutdown().await.unwrap();
    let (mut accepted, from) = listener.accept().await.unwrap();
    assert_eq!(
        from.ip(),
        server.address,
        "the header speaks for the client"
    );
    let read = read_out(&mut accepted).await;
    let identity = b"spiffe://cluster.local/ns/default/sa/client";
    assert_eq!(&read[..12], b"\r\n\r\n\0\r\nQUIT\n");
    assert_eq!(
        &read[16..20],
        &<[u8; 4]>::try_from(
            client
                .address
                .to_string()
                .split('.')
                .map(|n| n.parse::<u8>().unwrap())
                .collect::<Vec<_>>()
        )
        .unwrap()
    );
    assert_eq!(&read[26..28], &80_u16.to_be_bytes());
    assert_eq!(
        &read[28..31],
        &[0xD0, 0, u8::try_from(identity.len()).unwrap()]
    );
    assert_eq!(&read[31..], [&identity[..], b"GET"].concat());
}

#[tokio::test]
async fn connections_to_one_peer_share_a_tunnel() {
    let mut mesh = Mesh::new();
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    let (target, _clients) = server.echo().await;
    mk_route(&mesh, &server, target);
    for _ in 0..3 {
        let mut stream = client.dial(target).await;
        exchange(&mut stream, b"x").await;
        drop(stream);
        mesh.access("outbound").await;
    }
    let held = [("reporter", "destination")];
    assert_eq!(mesh.metric("istio_tcp_sockets_open", &held), 1);
    assert_eq!(mesh.metric("istio_tcp_connections_opened_total", &held), 3);
}

#[tokio::test]
async fn ipv6_takes_the_same_way() {
    let mut mesh = Mesh::new();
    let loopback = "::1".parse().unwrap();
    let pod = mesh.unknown_pod("both", loopback);
    mesh.discovery.update((*pod.workload).clone());
    let (target, _clients) = pod.echo().await;
    mk_route(&mesh, &pod, target);
    let mut stream = pod.dial(target).await;
    exchange(&mut stream, b"six").await;
    drop(stream);
    let line = mesh.access("outbound").await;
    let hbone = pod.proxy.hbone;
    assert!(
        line.contains(&format!("dst.addr={hbone} dst.hbone_addr={target} ")),
        "{line}"
    );
    assert!(line.contains("src.addr=[::1]:"), "{line}");
}
