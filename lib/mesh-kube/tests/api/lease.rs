//! Elections with a server; the hard cases are beside the code, under a paused clock.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use mesh_kube::lease::{Config, run};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use super::support::start;

/// Times as short as the record can hold.
fn mk_config(identity: &str) -> Config {
    Config {
        duration: Duration::from_secs(2),
        renew_deadline: Duration::from_millis(1200),
        retry: Duration::from_millis(100),
        ..Config::new("default", "leader", identity)
    }
}

fn stand(client: &Client, identity: &str) -> (watch::Receiver<bool>, oneshot::Sender<()>) {
    let (sender, leads) = watch::channel(false);
    let (stop, stopped) = oneshot::channel();
    let stopped = async { drop(stopped.await) };
    tokio::spawn(run(client.clone(), mk_config(identity), sender, stopped));
    (leads, stop)
}

async fn until(leads: &mut watch::Receiver<bool>, wanted: bool) {
    let change = leads.wait_for(|now| *now == wanted);
    timeout(Duration::from_secs(20), change)
        .await
        .expect("in time")
        .unwrap();
}

#[tokio::test]
async fn a_lease_is_held_by_one_and_handed_over_when_it_stops() {
    let (_server, client) = start().await;
    let (mut one, stop) = stand(&client, "one");
    until(&mut one, true).await;
    let (mut two, _stop) = stand(&client, "two");
    let api = Api::<Lease>::namespaced(client, "default");
    drop(stop);
    until(&mut two, true).await;
    assert!(!*one.borrow());
    let spec = api.get("leader").await.unwrap().spec.unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("two"));
    assert_eq!(spec.lease_transitions, Some(1));
}

#[tokio::test]
async fn a_leader_without_a_server_resigns_and_the_election_goes_on_when_it_is_back() {
    let (server, client) = start().await;
    let (mut one, _stop_one) = stand(&client, "one");
    until(&mut one, true).await;
    let (mut two, _stop_two) = stand(&client, "two");
    server.stop().await;
    until(&mut one, false).await;
    assert!(!*two.borrow());
    server.start_again().await.unwrap();
    let elected = async {
        tokio::select! {
            () = until(&mut one, true) => {}
            () = until(&mut two, true) => {}
        }
    };
    elected.await;
    assert!(*one.borrow() ^ *two.borrow());
}
