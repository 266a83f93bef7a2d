//! Clients of the tunnel port that are not what they should be.

use std::net::IpAddr;

use http::{Method, Request, StatusCode, Uri};
use mesh_core::identity::Identity;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

use crate::harness::{DEADLINE, Mesh, Pod, exchange, free_address, mk_socket, read_out};

/// An HTTP/2 client of `server`'s tunnel port with the identity of the service account `name`.
async fn connect(
    mesh: &Mesh,
    server: &Pod,
    identity: &str,
) -> h2::client::SendRequest<bytes::Bytes> {
    connect_from(free_address(), mesh, server, identity).await
}

async fn connect_from(
    client: IpAddr,
    mesh: &Mesh,
    server: &Pod,
    identity: &str,
) -> h2::client::SendRequest<bytes::Bytes> {
    let identity: Identity = identity.parse().unwrap();
    let stream = mk_socket(client)
        .unwrap()
        .connect(server.proxy.hbone)
        .await
        .unwrap();
    let certificate = mesh.authority.issue(&identity);
    let (stream, _) = certificate
        .connect(stream, &[server.identity()])
        .await
        .unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    drop(tokio::spawn(connection));
    requests
}

async fn status(
    requests: &mut h2::client::SendRequest<bytes::Bytes>,
    method: Method,
    target: &str,
) -> StatusCode {
    let request = Request::builder()
        .method(method)
        .uri(target.parse::<Uri>().unwrap())
        .body(())
        .unwrap();
    let mut ready = requests.clone().ready().await.unwrap();
    let (response, _body) = ready.send_request(request, false).unwrap();
    timeout(DEADLINE, response).await.unwrap().unwrap().status()
}

const PEER: &str = "spiffe://cluster.local/ns/default/sa/peer";

#[tokio::test]
async fn a_connect_for_another_address_is_answered_400() {
    let mut mesh = Mesh::new();
    let server = mesh.pod("server");
    let mut requests = connect(&mesh, &server, PEER).await;
    assert_eq!(
        status(&mut requests, Method::CONNECT, "10.9.9.9:80").await,
        StatusCode::BAD_REQUEST
    );
    let line = mesh
        .line(&["connection failed", "direction=\"inbound\""])
        .await;
    let reason = format!(
        "error=\"the CONNECT cannot be delivered: CONNECT asks for 10.9.9.9:80, but the connection \
         arrived at {}\"",
        server.address
    );
    assert!(line.ends_with(&reason), "{line}");
}

#[tokio::test]
async fn a_connect_for_an_unknown_host_is_answered_400() {
    let mut mesh = Mesh::new();
    let server = mesh.pod("server");
    let mut requests = connect(&mesh, &server, PEER).await;
    let target = "nobody.default.svc.cluster.local:80";
    assert_eq!(
        status(&mut requests, Method::CONNECT, target).await,
        StatusCode::BAD_REQUEST
    );
    mesh.line(&["connection failed", "does not serve"]).await;
}

#[tokio::test]
async fn a_connect_for_the_proxy_itself_is_answered_503() {
    let mut mesh = Mesh::new();
    let server = mesh.pod("server");
    let mut requests = connect(&mesh, &server, PEER).await;
    let target = format!("{}:15001", server.address);
    let answer = status(&mut requests, Method::CONNECT, &target).await;
    assert_eq!(answer, StatusCode::SERVICE_UNAVAILABLE);
    mesh.line(&["connection failed", "port 15001 of the proxy itself"])
        .await;
}

#[tokio::test]
async fn a_request_that_is_no_connect_is_answered_400_and_the_next_is_served() {
    let mut mesh = Mesh::new();
    let server = mesh.pod("server");
    let (target, _clients) = server.echo().await;
    let mut requests = connect(&mesh, &server, PEER).await;
    let answer = status(&mut requests, Method::GET, &format!("http://{target}/")).await;
    assert_eq!(answer, StatusCode::BAD_REQUEST);
    let line = mesh
        .line(&["connection failed", "direction=\"inbound\""])
        .await;
    let reason = "error=\"the request is refused: method GET instead of CONNECT\"";
    assert!(line.ends_with(reason), "{line}");
    let answer = status(&mut requests, Method::CONNECT, &target.to_string()).await;
    assert_eq!(answer, StatusCode::OK);
}

#[tokio::test]
async fn the_answer_says_what_the_destination_is() {
    let mesh = Mesh::new();
    let server = mesh.pod("server");
    let (target, _clients) = server.echo().await;
    let mut requests = connect(&mesh, &server, PEER).await;
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(target.to_string())
        .body(())
        .unwrap();
    let (response, _body) = requests.send_request(request, false).unwrap();
    let response = timeout(DEADLINE, response).await.unwrap().unwrap();
    assert_eq!(
        response.headers()["baggage"],
        "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,\
         k8s.deployment.name=server-deployment,service.name=server,service.version=v1"
    );
}

#[tokio::test]
async fn a_client_from_another_network_is_known_by_what_it_says() {
    let mut mesh = Mesh::new();
    let (gateway, server) = (mesh.pod("gateway"), mesh.pod("server"));
    let (target, _clients) = server.echo().await;
    // The address is that of the gateway, and known as such.
    let mut requests = connect_from(gateway.address, &mesh, &server, PEER).await;
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(target.to_string())
        .header("x-forwarded-network", "elsewhere")
        .header(
            "baggage",
            "k8s.namespace.name=far,k8s.deployment.name=peer-v1,service.name=peer",
        )
        .body(())
        .unwrap();
    let (response, mut body) = requests.send_request(request, false).unwrap();
    assert_eq!(
        timeout(DEADLINE, response).await.unwrap().unwrap().status(),
        StatusCode::OK
    );
    body.send_data(bytes::Bytes::new(), true).unwrap();
    let line = mesh.access("inbound").await;
    let source = format!("src.workload=\"peer\" src.namespace=\"far\" src.identity=\"{PEER}\"");
    assert!(line.contains(&source), "{line}");
}

#[tokio::test]
async fn a_client_from_another_trust_domain_gets_no_tunnel() {
    let mut mesh = Mesh::new();
    let server = mesh.pod("server");
    let identity = "spiffe://elsewhere.example/ns/default/sa/peer"
        .parse()
        .unwrap();
    let stream = TcpStream::connect(server.proxy.hbone).await.unwrap();
    let certificate = mesh.authority.issue(&identity);
    // Under TLS 1.3 the client may believe that it is done before the server has looked at it.
    if let Ok((stream, _)) = certificate.connect(stream, &[server.identity()]).await {
        let served = async {
            let (_requests, connection) = h2::client::handshake(stream).await?;
            connection.await
        };
        timeout(DEADLINE, served).await.unwrap().unwrap_err();
    }
    let line = mesh
        .line(&["connection failed", "direction=\"inbound\""])
        .await;
    assert!(
        line.contains("error=\"accept a tunnel: the identity of the peer is refused"),
        "{line}"
    );
    assert!(line.contains("elsewhere.example"), "{line}");
}

#[tokio::test]
async fn a_client_that_does_not_speak_tls_is_logged_and_closed() {
    let mut mesh = Mesh::new();
    let server = mesh.pod("server");
    let mut stream = TcpStream::connect(server.proxy.hbone).await.unwrap();
    let local = stream.local_addr().unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    read_out(&mut stream).await;
    let line = mesh.line(&["connection failed"]).await;
    let hbone = server.proxy.hbone;
    let fields =
        format!("src.addr={local} dst.addr={hbone} direction=\"inbound\" error=\"accept a tunnel");
    assert!(line.contains(&fields), "{line}");
}

#[tokio::test]
async fn a_client_that_does_not_speak_http2_is_logged_and_closed() {
    let mut mesh = Mesh::new();
    let server = mesh.pod("server");
    let stream = TcpStream::connect(server.proxy.hbone).await.unwrap();
    let certificate = mesh.authority.issue(&PEER.parse().unwrap());
    let (mut stream, _) = certificate
        .connect(stream, &[server.identity()])
        .await
        .unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
        .await
        .unwrap();
    let line = mesh.line(&["connection failed"]).await;
    assert!(
        line.contains("error=\"accept a tunnel: read the preface of HTTP/2"),
        "{line}"
    );
}

#[tokio::test]
async fn clients_that_stall_in_the_handshake_hold_up_nobody() {
    let mut mesh = Mesh::new();
    mesh.settings.max_handshakes = 4;
    let (client, server) = (mesh.pod("client"), mesh.pod("server"));
    let (target, _clients) = server.echo().await;
    mesh.discovery
        .route(target, Ok(server.tunnel_route(target, None)));
    // More than there are places, and they stay.
    let mut stalled = Vec::new();
    for _ in 0..12 {
        stalled.push(TcpStream::connect(server.proxy.hbone).await.unwrap());
    }
    exchange(&mut client.dial(target).await, b"served").await;
    let line = mesh
        .line(&["connection failed", "too many handshakes are under way"])
        .await;
    let oldest = stalled[0].local_addr().unwrap();
    assert!(
        line.contains(&format!("src.addr={oldest}")),
        "the oldest yields: {line}"
    );
    assert_eq!(read_out(&mut stalled[0]).await, b"");
}

#[tokio::test(start_paused = true)]
async fn a_stalled_handshake_ends_in_time() {
    let mesh = Mesh::new();
    let server = mesh.pod("server");
    let mut stream = TcpStream::connect(server.proxy.hbone).await.unwrap();
    let began = tokio::time::Instant::now();
    assert_eq!(read_out(&mut stream).await, b"");
    assert!(
        began.elapsed() <= std::time::Duration::from_secs(11),
        "{:?}",
        began.elapsed()
    );
}
