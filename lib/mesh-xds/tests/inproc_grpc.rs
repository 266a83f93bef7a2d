//! Client and server over real gRPC on loopback.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mesh_proto::{
    discovery::DeltaDiscoveryRequest,
    type_url::{ADDRESS, AUTHORIZATION},
};
use mesh_xds::{
    Change,
    server::{self, Update},
};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tonic::{Extensions, Status, metadata::MetadataMap};

#[cfg(test)]
#[path = "support/harness.rs"]
mod harness;
#[cfg(test)]
#[path = "inproc_grpc/server.rs"]
mod server_side;

use harness::{
    Client, ControlPlane, DEADLINE, addresses_only, mk_raw_stream, mk_request, mk_workload,
};

#[tokio::test]
async fn the_first_picture_is_complete_before_sync_is_signalled() {
    let server = ControlPlane::start([mk_workload("a", "n1"), mk_workload("b", "n1")]);
    let mut client = Client::start(&server);
    let view = client.until(|view| view.synced > 0).await;
    assert_eq!(view.names(), ["a", "b"]);

    server
        .resources
        .apply([mk_workload("c", "n1"), Change::RemoveAddress("a".into())]);
    let view = client
        .until(|view| view.held.len() == 2 && view.log.len() == 4)
        .await;
    assert_eq!(view.names(), ["b", "c"]);
    assert_eq!(view.synced, 1);
}

#[tokio::test]
async fn a_malformed_resource_does_not_keep_the_others_away() {
    let server = ControlPlane::start([mk_workload("known", "n1")]);
    let mut client = Client::start(&server);
    client.until(|view| view.synced > 0).await;

    let garbage = |type_url, name: &str| Update {
        type_url,
        name: name.into(),
        resource: Some(Bytes::from_static(&[0xff; 16]).into()),
    };
    server.resources.publish([
        garbage(ADDRESS, "new"),
        garbage(ADDRESS, "known"),
        garbage(AUTHORIZATION, "ns/policy"),
    ]);
    server.resources.apply([mk_workload("good", "n1")]);
    let view = client.until(|view| view.held.contains_key("good")).await;
    assert_eq!(view.held.get("known"), Some(&mk_workload("known", "n1")));
    assert_eq!(view.names(), ["good", "known"]);

    // The stream lives on, and a corrected resource is taken.
    server.resources.apply([mk_workload("new", "n2")]);
    client.until(|view| view.held.contains_key("new")).await;
    assert_eq!(*client.target.attempts.borrow(), 1);
}

#[tokio::test]
async fn after_a_restart_of_the_server_only_what_changed_is_sent() {
    let (same, gone) = (mk_workload("same", "n1"), mk_workload("gone", "n1"));
    let old = ControlPlane::start([same.clone(), gone, mk_workload("moved", "n1")]);
    let mut client = Client::start(&old);
    let before = client.until(|view| view.synced > 0).await.log.len();

    let (moved, new) = (mk_workload("moved", "n2"), mk_workload("new", "n1"));
    let next = ControlPlane::start([new.clone(), moved.clone(), same.clone()]);
    *client.target.address.lock() = next.address;
    drop(old);

    let view = client
        .until(|view| view.held.get("moved") == Some(&moved))
        .await;
    let mut after = view.log.get(before..).unwrap_or_default().to_vec();
    after.sort_by_key(|change| format!("{change:?}"));
    assert_eq!(after, [Change::RemoveAddress("gone".into()), moved, new]);
    assert_eq!(view.held.get("same"), Some(&same));
    assert_eq!(view.synced, 1);
    let metrics = client.metrics();
    assert!(
        metrics.contains("istio_xds_connection_terminations_total{reason="),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_client_waits_for_a_server_that_is_not_there_yet() {
    let gone = ControlPlane::start([]);
    let mut client = Client::start(&gone);
    client.until(|view| view.synced > 0).await;
    drop(gone);
    client.attempts(4).await;
    let server = ControlPlane::start([mk_workload("a", "n1")]);
    *client.target.address.lock() = server.address;
    client.until(|view| view.held.contains_key("a")).await;
    let metrics = client.metrics();
    assert!(
        metrics.contains("{reason=\"ConnectionError\"}"),
        "{metrics}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_the_stream_and_says_nothing_is_left_after_five_minutes() {
    // The kernel takes the connections, and nobody ever reads them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::start_at(silent.local_addr().unwrap());
    let mut attempts = client.target.attempts.subscribe();
    let again = attempts.wait_for(|attempts| *attempts >= 3);
    let before = Instant::now();
    timeout(60 * DEADLINE, again).await.unwrap().unwrap();
    assert!(before.elapsed() >= Duration::from_secs(600));
}

#[tokio::test]
async fn credentials_are_read_again_for_each_stream() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let admit = {
        let seen = Arc::clone(&seen);
        move |metadata: &MetadataMap, _: &Extensions| {
            let header = |name| {
                metadata
                    .get(name)
                    .map(|value| value.to_str().unwrap().to_owned())
            };
            let token = header("authorization").unwrap_or_default();
            seen.lock().push((token.clone(), header("clusterid")));
            if token != "Bearer second" {
                return Err(Status::unauthenticated("the token is not valid"));
            }
            Ok(server::Client::default())
        }
    };
    let server = ControlPlane::start_with([mk_workload("a", "n1")], admit);
    let mut client = Client::start(&server);
    client.attempts(2).await;
    *client.target.token.lock() = "second".into();
    client.until(|view| view.synced > 0).await;
    let cluster = Some("Kubernetes".to_owned());
    let seen = seen.lock();
    assert_eq!(
        seen.first(),
        Some(&("Bearer first".to_owned(), cluster.clone()))
    );
    assert_eq!(seen.last(), Some(&("Bearer second".to_owned(), cluster)));
}

#[tokio::test]
async fn a_response_above_the_limit_ends_the_stream_and_is_not_taken() {
    let server = ControlPlane::start((0..100).map(|i| mk_workload(&format!("w{i}"), "node")));
    let mut client = Client::start_with(&server, |config| config.response_limit = 2048);
    client.attempts(3).await;
    let metrics = client.metrics();
    assert!(metrics.contains("{reason=\"Error\"} 2"), "{metrics}");
    assert!(client.view.borrow().held.is_empty());
    // When it fits again, the client is back.
    let removed = (2..100).map(|i| Change::RemoveAddress(format!("w{i}").into()));
    server.resources.apply(removed);
    client.until(|view| view.synced > 0).await;
    assert_eq!(client.view.borrow().held.len(), 2);
}

#[tokio::test]
async fn held_names_beyond_the_request_limit_are_reconciled() {
    let workloads = || (0..50).map(|i| mk_workload(&format!("cluster1//Pod/ns/pod-{i:03}"), "n"));
    let old = ControlPlane::start(workloads());
    let mut client = Client::start_with(&old, |config| config.request_limit = 700);
    client.until(|view| view.synced > 0).await;
    let next = ControlPlane::start(workloads().skip(30).chain([mk_workload("new", "n")]));
    *client.target.address.lock() = next.address;
    drop(old);
    let view = client.until(|view| view.held.contains_key("new")).await;
    assert_eq!(view.held.len(), 21);
}

#[tokio::test]
async fn a_slow_client_is_told_the_latest_state_once() {
    let server = ControlPlane::start_with([mk_workload("a", "n")], addresses_only);
    let (requests, mut responses) = mk_raw_stream(&server, [mk_request(ADDRESS)]).await;
    let first = timeout(DEADLINE, responses.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    // Unacknowledged, while the same workload moves a thousand times.
    for i in 0..1000 {
        server.resources.apply([mk_workload("a", &format!("n{i}"))]);
    }
    let ack = DeltaDiscoveryRequest {
        type_url: ADDRESS.into(),
        response_nonce: first.nonce,
        ..DeltaDiscoveryRequest::default()
    };
    requests.send(ack).await.unwrap();
    let next = timeout(DEADLINE, responses.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let content = next
        .resources
        .into_iter()
        .next()
        .unwrap()
        .resource
        .unwrap()
        .value;
    let (_, change) =
        mesh_xds::convert::address_from_proto(content, &mut mesh_xds::convert::Interner::default())
            .unwrap();
    assert_eq!(change, mk_workload("a", "n999"));
}
