//! What the server promises besides its contents: whom it serves, when it ends streams, what it shows.

use std::time::Duration;

use mesh_proto::{
    discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status as Refusal},
    type_url::{ADDRESS, AUTHORIZATION},
};
use mesh_xds::{
    Change,
    server::{self, Limits, Mode, Resources},
};
use tokio::{sync::mpsc, time::timeout};
use tonic::{Code, Extensions, Status, Streaming, metadata::MetadataMap};

use super::harness::{
    Client, ControlPlane, DEADLINE, addresses_only, mk_raw_stream, mk_request, mk_workload,
    try_raw_stream,
};

/// A client that answers only when told to.
struct Raw {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Raw {
    async fn open(server: &ControlPlane, types: &[&str]) -> Self {
        let first = types.iter().map(|type_url| mk_request(type_url));
        let (requests, responses) = mk_raw_stream(server, first).await;
        Self {
            requests,
            responses,
        }
    }

    /// The next response, or how the stream ends.
    async fn next(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        timeout(DEADLINE, self.responses.message()).await.unwrap()
    }

    async fn expect(&mut self) -> DeltaDiscoveryResponse {
        self.next().await.unwrap().unwrap()
    }

    async fn answer(&self, response: &DeltaDiscoveryResponse, refusal: Option<&str>) {
        let request = DeltaDiscoveryRequest {
            response_nonce: response.nonce.clone(),
            error_detail: refusal.map(|message| Refusal {
                message: message.to_owned(),
                ..Refusal::default()
            }),
            ..mk_request(&response.type_url)
        };
        self.requests.send(request).await.unwrap();
    }
}

/// Why a stream is not opened, if it is not.
async fn refusal(server: &ControlPlane) -> Option<Status> {
    let opened = try_raw_stream(server, [mk_request(ADDRESS)]).await;
    opened.err()
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "an authenticator, which could refuse"
)]
fn anyone(_: &MetadataMap, _: &Extensions) -> Result<server::Client, Status> {
    Ok(server::Client {
        identity: "spiffe://cluster.local/ns/istio-system/sa/ztunnel".into(),
        namespace: Some("istio-system".into()),
        ..server::Client::default()
    })
}

fn ready(changes: impl IntoIterator<Item = Change>) -> Resources {
    let resources = Resources::default();
    resources.apply(changes);
    resources.ready();
    resources
}

fn mk_node(namespace: &str) -> Node {
    let text = |text: &str| prost_types::Value::from(text.to_owned());
    let fields = [
        ("NAMESPACE", text(namespace)),
        ("ISTIO_VERSION", text("1.30.0")),
    ];
    Node {
        id: format!("ztunnel~10.0.0.1~z.{namespace}~{namespace}.svc.cluster.local"),
        metadata: Some(prost_types::Struct {
            fields: fields.map(|(k, v)| (k.to_owned(), v)).into(),
        }),
        ..Node::default()
    }
}

#[tokio::test]
async fn nothing_is_told_before_the_catalog_is_complete() {
    let before = ControlPlane::start([mk_workload("a", "n"), mk_workload("b", "n")]);
    let mut client = Client::start(&before);
    client.until(|view| view.held.len() == 2).await;

    // The next replica has read half of it when the client arrives.
    let resources = Resources::default();
    resources.apply([mk_workload("a", "n")]);
    let next = ControlPlane::serve(resources.clone(), anyone, Limits::default());
    *client.target.address.lock() = next.address;
    drop(before);
    client.attempts(4).await;
    assert_eq!(client.view.borrow().names(), ["a", "b"]);
    resources.apply([mk_workload("c", "n")]);
    resources.ready();
    let view = client.until(|view| view.held.contains_key("c")).await;
    assert_eq!(view.names(), ["a", "c"]);
    assert!(next.metrics().contains("{reason=\"not_ready\"}"));
}

#[tokio::test]
async fn a_type_that_may_not_be_read_ends_the_stream_and_says_what_helps() {
    let server = ControlPlane::start_with([], addresses_only);
    let mut client = Raw::open(&server, &[ADDRESS, AUTHORIZATION]).await;
    let status = loop {
        match client.next().await {
            Ok(Some(response)) => assert_eq!(response.type_url, ADDRESS),
            Ok(None) => panic!("the stream ended without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains(AUTHORIZATION), "{status}");
    assert!(status.message().contains("service account"), "{status}");
}

#[tokio::test]
async fn a_claim_that_contradicts_the_identity_ends_the_stream() {
    let server = ControlPlane::serve(ready([]), anyone, Limits::default());
    for (namespace, code) in [
        ("istio-system", None),
        ("other", Some(Code::PermissionDenied)),
    ] {
        let first = [ADDRESS, AUTHORIZATION].map(|type_url| DeltaDiscoveryRequest {
            node: Some(mk_node(namespace)),
            ..mk_request(type_url)
        });
        let (_requests, mut responses) = mk_raw_stream(&server, first).await;
        let next = timeout(DEADLINE, responses.message()).await.unwrap();
        assert_eq!(next.err().map(|status| status.code()), code);
    }
}

#[tokio::test]
async fn addresses_alone_are_served_when_the_client_has_had_time_to_ask_for_policies() {
    let limits = Limits {
        companion: Duration::from_millis(20),
        ..Limits::default()
    };
    let server = ControlPlane::serve(ready([mk_workload("a", "n")]), anyone, limits);
    let mut client = Raw::open(&server, &[ADDRESS]).await;
    assert_eq!(client.expect().await.resources.len(), 1);
}

#[tokio::test]
async fn a_stream_ends_at_its_age_when_all_is_acknowledged_or_the_grace_is_over() {
    let limits = Limits {
        // A stream that is over before its first response has none.
        age: Duration::from_millis(500),
        grace: DEADLINE * 10,
        ..Limits::default()
    };
    let server = ControlPlane::serve(ready([mk_workload("a", "n")]), addresses_only, limits);
    let mut client = Raw::open(&server, &[ADDRESS]).await;
    let response = client.expect().await;
    // The age is over before; the acknowledgement ends it.
    let waited = timeout(limits.age * 2, client.responses.message()).await;
    assert!(waited.is_err(), "{waited:?}");
    client.answer(&response, None).await;
    assert_eq!(client.next().await.unwrap(), None);

    let limits = Limits {
        grace: Duration::from_millis(50),
        ..limits
    };
    let server = ControlPlane::serve(ready([mk_workload("a", "n")]), addresses_only, limits);
    let mut client = Raw::open(&server, &[ADDRESS]).await;
    client.expect().await;
    assert_eq!(client.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_shutdown_sends_all_clients_away_and_they_lose_nothing() {
    let old = ControlPlane::start([mk_workload("a", "n")]);
    let next = ControlPlane::start([mk_workload("a", "n"), mk_workload("b", "n")]);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::start(&old);
        client.until(|view| view.synced > 0).await;
        *client.target.address.lock() = next.address;
        clients.push(client);
    }
    old.streams.shutdown();
    timeout(DEADLINE, old.streams.drained()).await.unwrap();
    for client in &mut clients {
        let view = client.until(|view| view.held.contains_key("b")).await;
        assert_eq!(view.log.len(), 2, "{:?}", view.log);
    }
    let late = refusal(&old).await.unwrap();
    assert_eq!(late.code(), Code::Unavailable);
}

#[tokio::test]
async fn streams_beyond_the_limit_are_sent_elsewhere() {
    let limits = Limits {
        streams: 1,
        ..Limits::default()
    };
    let server = ControlPlane::serve(ready([]), addresses_only, limits);
    let mut first = Raw::open(&server, &[ADDRESS]).await;
    first.expect().await;
    let refused = refusal(&server).await.unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
    drop(first);
    timeout(DEADLINE, server.streams.drained()).await.unwrap();
    assert!(refusal(&server).await.is_none());
}

#[tokio::test]
async fn a_client_that_asks_in_a_tight_loop_is_read_slowly() {
    const REQUESTS: u32 = 10;
    let limits = Limits {
        requests: REQUESTS,
        ..Limits::default()
    };
    let server = ControlPlane::serve(ready([mk_workload("a", "n")]), addresses_only, limits);
    let mut client = Raw::open(&server, &[ADDRESS]).await;
    let begun = std::time::SystemTime::now();
    // Each is answered, and only after the one before was acknowledged.
    for _ in 0..=REQUESTS * 2 {
        let response = client.expect().await;
        client.answer(&response, None).await;
        let again = DeltaDiscoveryRequest {
            resource_names_subscribe: vec!["a".into()],
            ..mk_request(ADDRESS)
        };
        client.requests.send(again).await.unwrap();
    }
    let took = begun.elapsed().unwrap();
    assert!(took >= Duration::from_millis(900), "{took:?}");
}

#[tokio::test]
async fn connected_streams_show_what_they_were_told_and_refused() {
    let server = ControlPlane::serve(ready([mk_workload("a", "n")]), anyone, Limits::default());
    let first = [ADDRESS, AUTHORIZATION].map(|type_url| DeltaDiscoveryRequest {
        node: Some(mk_node("istio-system")),
        ..mk_request(type_url)
    });
    let (requests, responses) = mk_raw_stream(&server, first).await;
    let mut client = Raw {
        requests,
        responses,
    };
    let policies = client.expect().await;
    let addresses = client.expect().await;
    client.answer(&addresses, Some("a: bad")).await;
    client.answer(&policies, None).await;
    // A push that follows shows that the answers have arrived.
    server.resources.apply([mk_workload("b", "n")]);
    client.expect().await;

    let streams = server.streams.snapshot();
    assert_eq!(streams.len(), 1);
    let stream = &streams[0];
    assert_eq!(
        &*stream.client.identity,
        "spiffe://cluster.local/ns/istio-system/sa/ztunnel"
    );
    assert!(stream.client.address.is_some());
    assert_eq!(
        (stream.version.as_str(), stream.node.as_str()),
        ("1.30.0", mk_node("istio-system").id.as_str())
    );
    let status = &stream.types[ADDRESS];
    assert_eq!((status.mode, status.resources), (Mode::Everything, 2));
    let texts = [&status.acknowledged, &status.refused].map(|m| m.as_ref().unwrap().text.as_str());
    assert_eq!(texts, [addresses.nonce.as_str(), "a: bad"]);
    assert_ne!(status.sent.as_ref().unwrap().text, addresses.nonce);

    let metrics = server.metrics();
    for line in [
        "pilot_xds{version=\"1.30.0\"} 1",
        "pilot_xds_pushes{type=\"wds\"} 2",
        "pilot_xds_pushes{type=\"wads\"} 1",
        "pilot_total_xds_rejects{type=\"wds\"} 1",
        "pilot_xds_push_time_count{type=\"wds\"} 2",
        "pilot_xds_config_size_bytes_count{type=\"wds\"} 2",
        "pilot_proxy_convergence_time_count 1",
        "pilot_proxy_queue_time_count 1",
    ] {
        assert!(
            metrics.lines().any(|other| other == line),
            "{line} is not in {metrics}"
        );
    }
    drop(client);
    timeout(DEADLINE, server.streams.drained()).await.unwrap();
    assert!(!server.metrics().contains("1.30.0"));
}

#[tokio::test]
async fn many_clients_begin_one_after_another_and_all_are_served() {
    let limits = Limits {
        turns: 1,
        ..Limits::default()
    };
    let workloads = (0..2000).map(|i| mk_workload(&format!("w{i}"), "n"));
    let server = ControlPlane::serve(ready(workloads), anyone, limits);
    let mut clients: Vec<_> = (0..20).map(|_| Client::start(&server)).collect();
    for client in &mut clients {
        client.until(|view| view.synced > 0).await;
        assert_eq!(client.view.borrow().held.len(), 2000);
    }
}

#[tokio::test]
async fn changes_soon_after_a_push_wait_and_go_together_and_answers_do_not_wait() {
    let limits = Limits {
        window: DEADLINE * 10,
        ..Limits::default()
    };
    let server = ControlPlane::serve(ready([]), addresses_only, limits);
    let mut client = Raw::open(&server, &[ADDRESS]).await;
    let response = client.expect().await;
    client.answer(&response, None).await;
    for i in 0..50 {
        server.resources.apply([mk_workload(&format!("w{i}"), "n")]);
    }
    let waited = timeout(Duration::from_millis(200), client.responses.message()).await;
    assert!(waited.is_err(), "{waited:?}");
    let ask = DeltaDiscoveryRequest {
        resource_names_subscribe: vec!["w7".into()],
        ..mk_request(ADDRESS)
    };
    client.requests.send(ask).await.unwrap();
    assert_eq!(client.expect().await.resources.len(), 50);
}
