//! Policies, before a connection and during it.

use std::time::Duration;

use mesh_core::{
    policy::{Action, Match, StringMatch},
    workload::Workload,
};
use tokio::time::timeout;

use crate::harness::{DEADLINE, Mesh, Pod, exchange, mk_policy, read_out};

fn from_service_account(name: &str) -> Match {
    let principal = format!("cluster.local/ns/default/sa/{name}");
    Match {
        principals: vec![StringMatch::Exact(principal.into())],
        ..Match::default()
    }
}

const DENIED: &str = "error=\"connection closed due to policy rejection: \
                      explicitly denied by: default/deny-curl\"";

#[tokio::test]
async fn a_denied_connection_is_answered_401_and_the_log_names_the_policy() {
    let mut mesh = Mesh::new();
    let (client, server) = (mesh.pod("curl"), mesh.pod("server"));
    let (target, mut clients) = server.echo().await;
    mesh.discovery
        .route(target, Ok(server.tunnel_route(target, None)));
    let deny = mk_policy("deny-curl", Action::Deny, from_service_account("curl"));
    mesh.discovery.policies(vec![deny]);
    assert_eq!(read_out(&mut client.dial(target).await).await, b"");
    let inbound = mesh.access("inbound").await;
    assert!(inbound.ends_with(DENIED), "{inbound}");
    assert!(inbound.contains("bytes_sent=0 bytes_recv=0"), "{inbound}");
    let outbound = mesh.access("outbound").await;
    assert!(
        outbound.ends_with("error=\"http status: 401 Unauthorized\""),
        "{outbound}"
    );
    let flags = [("reporter", "destination"), ("response_flags", "DENY")];
    assert_eq!(mesh.metric("istio_tcp_connections_failed_total", &flags), 1);
    assert!(
        clients.try_recv().is_err(),
        "the application hears nothing of it"
    );
}

#[tokio::test]
async fn a_policy_that_arrives_closes_the_connections_it_denies_and_no_others() {
    let mut mesh = Mesh::new();
    let (curl, other, server) = (mesh.pod("curl"), mesh.pod("other"), mesh.pod("server"));
    let (target, _clients) = server.echo().await;
    mesh.discovery
        .route(target, Ok(server.tunnel_route(target, None)));
    let mut denied = curl.dial(target).await;
    let mut allowed = other.dial(target).await;
    exchange(&mut denied, b"before").await;
    exchange(&mut allowed, b"before").await;

    let deny = mk_policy("deny-curl", Action::Deny, from_service_account("curl"));
    mesh.discovery.policies(vec![deny]);
    assert_eq!(
        read_out(&mut denied).await,
        b"",
        "closed without a further byte from the client"
    );
    let inbound = mesh.access("inbound").await;
    let late = "error=\"connection closed due to policy change: \
                explicitly denied by: default/deny-curl\"";
    assert!(inbound.ends_with(late), "{inbound}");
    assert!(inbound.contains("src.workload=\"curl-pod\""), "{inbound}");
    assert!(inbound.contains("bytes_sent=6 bytes_recv=6"), "{inbound}");
    exchange(&mut allowed, b"after").await;
    let flags = [("reporter", "destination"), ("response_flags", "DENY")];
    assert_eq!(mesh.metric("istio_tcp_connections_closed_total", &flags), 1);
    assert_eq!(mesh.metric("istio_tcp_connections_failed_total", &flags), 1);
}

#[tokio::test]
async fn once_an_allow_policy_exists_what_it_does_not_name_is_denied() {
    let mut mesh = Mesh::new();
    let (curl, other, server) = (mesh.pod("curl"), mesh.pod("other"), mesh.pod("server"));
    let (target, _clients) = server.echo().await;
    mesh.discovery
        .route(target, Ok(server.tunnel_route(target, None)));
    let allow = mk_policy("allow-curl", Action::Allow, from_service_account("curl"));
    mesh.discovery.policies(vec![allow]);
    exchange(&mut curl.dial(target).await, b"allowed").await;
    assert_eq!(read_out(&mut other.dial(target).await).await, b"");
    let line = mesh
        .line(&["connection complete", "other-pod", "inbound"])
        .await;
    assert!(
        line.contains("policy rejection: allow policies exist, but none allowed"),
        "{line}"
    );
}

#[tokio::test]
async fn a_dry_run_policy_is_logged_and_denies_nothing() {
    let mut mesh = Mesh::new();
    mesh.settings.policy_info_logging = true;
    let (curl, server) = (mesh.pod("curl"), mesh.pod("server"));
    let (target, _clients) = server.echo().await;
    mesh.discovery
        .route(target, Ok(server.tunnel_route(target, None)));
    let mut deny = mk_policy("deny-curl", Action::Deny, from_service_account("curl"));
    deny.dry_run = true;
    mesh.discovery.policies(vec![deny]);
    exchange(&mut curl.dial(target).await, b"allowed").await;
    let line = mesh.line(&["dry-run policy matches"]).await;
    assert!(line.contains("policy=\"default/deny-curl\""), "{line}");
}

#[tokio::test]
async fn plain_text_satisfies_no_policy_that_asks_for_an_identity() {
    let mut mesh = Mesh::new();
    let (curl, server) = (mesh.pod("curl"), mesh.pod("server"));
    let (target, mut clients) = server.echo().await;
    let allow = mk_policy("allow-curl", Action::Allow, from_service_account("curl"));
    mesh.discovery.policies(vec![allow]);
    let mut stream = server.dial_plain(curl.address, target).await;
    assert_eq!(read_out(&mut stream).await, b"");
    let line = mesh.access("inbound").await;
    assert!(
        line.contains("policy rejection: allow policies exist"),
        "{line}"
    );
    assert!(clients.try_recv().is_err());
}

#[tokio::test]
async fn a_policy_that_arrives_closes_plain_connections_too() {
    let mut mesh = Mesh::new();
    let (curl, server) = (mesh.pod("curl"), mesh.pod("server"));
    let (target, _clients) = server.echo().await;
    let mut stream = server.dial_plain(curl.address, target).await;
    exchange(&mut stream, b"before").await;
    let allow = mk_policy("allow-curl", Action::Allow, from_service_account("curl"));
    mesh.discovery.policies(vec![allow]);
    assert_eq!(read_out(&mut stream).await, b"");
    let line = mesh.access("inbound").await;
    assert!(
        line.contains("policy change: allow policies exist"),
        "{line}"
    );
}

#[tokio::test]
async fn a_policy_that_arrives_closes_connections_of_a_pod_that_discovery_has_forgotten() {
    let mut mesh = Mesh::new();
    let (curl, server) = (mesh.pod("curl"), mesh.pod("server"));
    let (target, _clients) = server.echo().await;
    let mut stream = server.dial_plain(curl.address, target).await;
    exchange(&mut stream, b"before").await;
    mesh.discovery.forget();
    let allow = mk_policy("allow-curl", Action::Allow, from_service_account("curl"));
    mesh.discovery.policies(vec![allow]);
    assert_eq!(read_out(&mut stream).await, b"");
    mesh.line(&["connection complete", "policy change"]).await;
}

/// Has the workload of `server` name a policy that discovery has not described.
fn name_policy(mesh: &Mesh, server: &Pod, name: &str) {
    mesh.discovery.update(Workload {
        authorization_policies: vec![format!("default/{name}").into()],
        ..Workload::clone(&server.workload)
    });
}

#[tokio::test]
async fn a_connection_waits_for_a_policy_that_its_workload_names() {
    let mut mesh = Mesh::new();
    mesh.settings.policy_patience = DEADLINE;
    let (curl, server) = (mesh.pod("curl"), mesh.pod("server"));
    let (target, _clients) = server.echo().await;
    mesh.discovery
        .route(target, Ok(server.tunnel_route(target, None)));
    name_policy(&mesh, &server, "late");
    let mut tunnelled = curl.dial(target).await;
    let mut plain = server.dial_plain(curl.address, target).await;
    timeout(DEADLINE, async {
        while server.connections.dump().inbound.len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let late = mk_policy("late", Action::Allow, from_service_account("curl"));
    mesh.discovery.policies(vec![late]);
    exchange(&mut tunnelled, b"allowed").await;
    assert_eq!(read_out(&mut plain).await, b"", "it proves no identity");
}

#[tokio::test]
async fn a_connection_is_denied_when_a_policy_that_its_workload_names_stays_away() {
    let mut mesh = Mesh::new();
    mesh.settings.policy_patience = Duration::from_millis(1);
    let (curl, server) = (mesh.pod("curl"), mesh.pod("server"));
    let (target, _clients) = server.echo().await;
    mesh.discovery
        .route(target, Ok(server.tunnel_route(target, None)));
    name_policy(&mesh, &server, "late");
    assert_eq!(read_out(&mut curl.dial(target).await).await, b"");
    let line = mesh.access("inbound").await;
    let error = "policy default/late is selected for this workload but not known\"";
    assert!(line.ends_with(error), "{line}");
}
