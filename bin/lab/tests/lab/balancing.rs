//! Services with several endpoints.

use mesh_core::service::Service;
use serde_json::Value;
use testkit_net::tcp::{Behaviour, Server};

use crate::fixture::{Lab, service};

const ADDRESS: [u8; 4] = [10, 96, 0, 10];

async fn connect_often(lab: &Lab) {
    for _ in 0..50 {
        lab.tell_secret("curl", (ADDRESS, 80).into()).await.unwrap();
    }
}

fn endpoints(dump: &Value, service: &Service) -> usize {
    let services = dump["services"].as_array().unwrap();
    let found = services.iter().find(|s| s["hostname"] == *service.hostname);
    found.map_or(0, |found| found["endpoints"].as_object().unwrap().len())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_spread_over_the_endpoints_of_a_service() {
    let mut lab = Lab::start().await;
    let service = service("web", ADDRESS);
    lab.add_service(service.clone()).await.unwrap();
    lab.add_enrolled("node1", "curl").await;
    for (node, pod) in [("node1", "near"), ("node2", "far")] {
        lab.add_pod(node, pod).await.unwrap();
        lab.put_behind(pod, &service).unwrap();
        lab.enrol(pod).await.unwrap();
    }
    let near = lab.serve("near", Behaviour::Echo);
    let far = lab.serve("far", Behaviour::Echo);
    let served = |server: &Server| server.clients().len();

    connect_often(&lab).await;
    assert_eq!(served(&near) + served(&far), 50);
    assert!(served(&near) > 5 && served(&far) > 5);

    let before = served(&far);
    lab.describe("far", |far| far.services.clear()).unwrap();
    lab.known("one endpoint", |dump| endpoints(dump, &service) == 1)
        .await
        .unwrap();
    connect_often(&lab).await;
    assert_eq!(served(&far), before);

    lab.describe("near", |near| near.services.clear()).unwrap();
    lab.known("no endpoint", |dump| endpoints(dump, &service) == 0)
        .await
        .unwrap();
    let mark = lab.mark("node1");
    let told = lab.tell_secret("curl", (ADDRESS, 80).into()).await;
    told.unwrap_err();
    let named = format!("{}", service.hostname);
    lab.line("node1", mark, &["error=", &named]).await;
    lab.end().await;
}
