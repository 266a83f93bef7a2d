//! Who leads, on a paused clock.

use std::time::Duration;

use mesh_identity::issuer::{Material, Root, RootKind};
use serde_json::json;
use tokio::time::sleep;

use super::*;
use crate::fake::FakeApi;

const HOUR: Duration = Duration::from_secs(3600);
const MAP: &str = "/api/v1/namespaces/shop/configmaps/istio-ca-root-cert";

fn mk_issuer() -> Arc<Issuer> {
    let root = Root::generate(RootKind::EcP256, "cluster.local", 24 * HOUR).unwrap();
    let issuer = Issuer::from_pem(Material {
        certificate: &root.certificate,
        key: &root.key,
        chain: "",
        roots: &root.certificate,
    });
    Arc::new(issuer.unwrap())
}

#[tokio::test(start_paused = true)]
async fn who_does_not_lead_tells_nobody() {
    let api = FakeApi::default();
    api.put(
        "/api/v1/namespaces/shop",
        json!({"metadata": {"name": "shop"}}),
    );
    let issuers = watch::Sender::new(mk_issuer());
    let leader = watch::Sender::new(false);
    let (_scope, scope_changes) = watch::channel(0);
    let controller = Controller::new(
        api.client(),
        issuers.subscribe(),
        Arc::new(|_: &str, _: &BTreeMap<String, String>| true),
        scope_changes,
        collection::Metrics::default(),
    );
    let running = tokio::spawn(controller.run(leader.subscribe()));
    let told = || {
        let map = api.object(MAP)?;
        let roots = map.pointer("/data/root-cert.pem")?.as_str()?.to_owned();
        Some(roots)
    };
    let roots = || Some(issuers.borrow().roots().to_owned());

    sleep(HOUR).await;
    assert!(api.writes().is_empty());
    leader.send_replace(true);
    sleep(HOUR).await;
    assert_eq!(told(), roots());

    leader.send_replace(false);
    let (before, written) = (roots(), api.writes());
    issuers.send_replace(mk_issuer());
    sleep(HOUR).await;
    assert_eq!((told(), api.writes()), (before, written));
    leader.send_replace(true);
    sleep(HOUR).await;
    assert_eq!(told(), roots());
    running.abort();
}
