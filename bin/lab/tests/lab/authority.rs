//! Identities that are not what they should be.

use mesh_core::workload::{TunnelProtocol, Workload};
use mesh_xds::Change;
use testkit_net::tcp::{Behaviour, Server};

use crate::fixture::{Lab, PORT, SECRET, workload};

/// Discovery says that `vault` is at an address at which in truth the pod `web` answers: the client's
/// proxy must notice before it says anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_with_another_identity_than_discovery_says_gets_nothing() {
    let lab = Lab::with_pair().await;
    let vault: std::net::Ipv4Addr = [10, 244, 2, 200].into();
    let web = lab.address("web", false).unwrap();
    let route = lab.node("node2").unwrap();
    let shown = route.ip(&format!("route show {web}")).unwrap();
    let (_before, device) = shown.split_once("dev ").unwrap();
    let cable = device.split_whitespace().next().unwrap();
    route
        .ip(&format!("route add {vault}/32 dev {cable}"))
        .unwrap();
    let pod = lab.pod("web").unwrap();
    pod.ip(&format!("addr add {vault}/32 dev eth0")).unwrap();
    let server = Server::start(pod, (vault, PORT).into(), Behaviour::Echo).unwrap();
    let account = "vault";
    lab.publish([Change::Workload(Workload {
        name: account.into(),
        namespace: lab::mesh::NAMESPACE.into(),
        service_account: account.into(),
        addresses: vec![vault.into()],
        protocol: TunnelProtocol::Hbone,
        node: "node2".into(),
        ..Workload::with_uid("Kubernetes//Pod/demo/vault")
    })]);
    lab.known("vault", |dump| workload(dump, account).is_some())
        .await
        .unwrap();

    let mark = lab.mark("node1");
    let (told, wire) = lab
        .captured(lab.fabric(), lab.tell_secret("curl", server.address()))
        .await;
    told.unwrap_err();
    assert!(!wire.contains(SECRET));
    assert_eq!(server.clients(), []);
    let line = lab.line("node1", mark, &["complete", "error="]).await;
    let (is, said) = ("ns/demo/sa/web", "ns/demo/sa/vault");
    let error = line.split("error=").nth(1).unwrap();
    assert!(error.contains(is) && error.contains(said), "{line}");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_certificate_is_refused_says_and_hears_nothing() {
    let mut lab = Lab::with_pair().await;
    lab.add_pod("node1", "ghost").await.unwrap();
    lab.refuse_certificates("ghost").unwrap();
    lab.enrol("ghost").await.unwrap();
    let identity = lab.identity("ghost").unwrap().to_string();
    let (web, ghost) = (
        lab.serve("web", Behaviour::Echo),
        lab.serve("ghost", Behaviour::Echo),
    );
    let mark = lab.mark("node1");
    let both = async {
        lab.tell_secret("ghost", web.address()).await.unwrap_err();
        lab.tell_secret("curl", ghost.address()).await.unwrap_err();
    };
    let ((), wire) = lab.captured(lab.node("node1").unwrap(), both).await;
    assert!(!wire.contains(SECRET));
    assert_eq!((web.clients(), ghost.clients()), (vec![], vec![]));
    let refused = [
        "complete",
        "direction=\"outbound\"",
        "src.workload=\"ghost\"",
    ];
    let line = lab.line("node1", mark, &refused).await;
    let error = line.split("error=").nth(1).unwrap();
    assert!(error.contains(&identity), "{line}");
    assert!(error.contains("PermissionDenied"), "{line}");
    // Others are not concerned.
    lab.tell_secret("curl", web.address()).await.unwrap();
    lab.end().await;
}
