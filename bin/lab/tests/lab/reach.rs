//! Who reaches whom, and how: inside the mesh, into it, out of it, on one node and across.

use testkit_net::tcp::Behaviour;

use crate::fixture::{Lab, SECRET, closes, echoes, ports_opened};

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: demo}
spec: {mtls: {mode: STRICT}}
";

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_one_node_speak_hbone_too() {
    let mut lab = Lab::start().await;
    lab.add_enrolled("node1", "curl").await;
    lab.add_enrolled("node1", "web").await;
    let server = lab.serve("web", Behaviour::Echo);
    let mark = lab.mark("node1");
    let node = lab.node("node1").unwrap();
    let (told, wire) = lab
        .captured(node, lab.tell_secret("curl", server.address()))
        .await;
    told.unwrap();
    assert!(!wire.contains(SECRET));
    assert_eq!(ports_opened(&wire), [15008]);
    let client = lab.address("curl", false).unwrap();
    assert_eq!(server.clients().first().unwrap().ip(), client);
    for direction in ["inbound", "outbound"] {
        let direction = format!("direction=\"{direction}\"");
        let line = lab.line("node1", mark, &["complete", &direction]).await;
        let curl = format!("src.identity=\"{}\"", lab.identity("curl").unwrap());
        let web = format!("dst.identity=\"{}\"", lab.identity("web").unwrap());
        assert!(line.contains(&curl) && line.contains(&web), "{line}");
    }
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_outside_the_mesh_is_served_in_plain_text_and_has_no_identity() {
    let mut lab = Lab::start().await;
    lab.add_pod("node1", "outsider").await.unwrap();
    lab.add_enrolled("node2", "web").await;
    let server = lab.serve("web", Behaviour::Echo);
    let mark = lab.mark("node2");
    let (told, wire) = lab
        .captured(lab.fabric(), lab.tell_secret("outsider", server.address()))
        .await;
    told.unwrap();
    assert!(wire.contains(SECRET));
    let client = lab.address("outsider", false).unwrap();
    assert_eq!(server.clients().first().unwrap().ip(), client);
    let from = format!("src.addr={client}:");
    let line = lab
        .line("node2", mark, &["complete", &from, "direction=\"inbound\""])
        .await;
    assert!(!line.contains("identity="), "{line}");
    assert!(line.contains("dst.workload=\"web\""), "{line}");
    let to = format!("dst.addr={}", server.address());
    assert!(line.contains(&to), "{line}");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_mutual_tls_shuts_out_plain_text_and_nobody_else() {
    let mut lab = Lab::of_cluster().await;
    lab.add_pair().await;
    lab.add_pod("node1", "outsider").await.unwrap();
    let server = lab.serve("web", Behaviour::Echo);
    let mut plain = lab.connect("outsider", server.address()).await;
    let mut meshed = lab.connect("curl", server.address()).await;
    echoes(&mut plain).await.unwrap();
    echoes(&mut meshed).await.unwrap();
    let mark = lab.mark("node2");
    lab.control_plane().apply(STRICT).await.unwrap();
    // What istiod makes of it: whoever has no identity is denied.
    let key = "istio-system/istio_converted_static_strict";
    closes(&mut plain).await;
    let line = lab.line("node2", mark, &["policy change", key]).await;
    assert!(!line.contains("src.identity"), "{line}");
    let mark = lab.mark("node2");
    lab.tell_secret("outsider", server.address())
        .await
        .unwrap_err();
    let line = lab.line("node2", mark, &["policy rejection", key]).await;
    assert!(!line.contains("src.identity"), "{line}");
    echoes(&mut meshed).await.unwrap();
    lab.tell_secret("curl", server.address()).await.unwrap();
    drop(meshed);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_in_the_mesh_reaches_one_outside_in_plain_tcp() {
    let mut lab = Lab::start().await;
    lab.add_enrolled("node1", "curl").await;
    lab.add_pod("node2", "outsider").await.unwrap();
    let server = lab.serve("outsider", Behaviour::Echo);
    let mark = lab.mark("node1");
    let (told, wire) = lab
        .captured(lab.fabric(), lab.tell_secret("curl", server.address()))
        .await;
    told.unwrap();
    assert!(wire.contains(SECRET));
    assert_eq!(ports_opened(&wire), [server.address().port()]);
    let client = lab.address("curl", false).unwrap();
    assert_eq!(server.clients().first().unwrap().ip(), client);
    let line = lab
        .line("node1", mark, &["complete", "direction=\"outbound\""])
        .await;
    let to = format!("dst.addr={} dst.workload=\"outsider\"", server.address());
    assert!(line.replace('\t', " ").contains(&to), "{line}");
    assert!(
        !line.contains("identity=") && !line.contains("hbone"),
        "{line}"
    );
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_in_the_mesh_reaches_the_world_outside() {
    let mut lab = Lab::start().await;
    lab.add_enrolled("node1", "curl").await;
    // Discovery knows nothing of the fabric.
    let world = (lab.world(false), 8080).into();
    let server = testkit_net::tcp::Server::start(lab.fabric(), world, Behaviour::Echo).unwrap();
    let mark = lab.mark("node1");
    lab.tell_secret("curl", server.address()).await.unwrap();
    let to = format!("dst.addr={world}");
    let line = lab.line("node1", mark, &["complete", &to]).await;
    assert!(!line.contains("dst.workload"), "{line}");
    lab.end().await;
}
