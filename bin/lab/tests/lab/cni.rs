//! How pods come into the mesh and stay in it: the agent, and the plugin that it has installed.

use k8s_openapi::api::core::v1::Pod;
use lab::{mesh::NAMESPACE, traces};
use mesh_api::{
    annotations::REDIRECTION,
    labels::{DATAPLANE_MODE, dataplane_mode::AMBIENT},
};
use testkit_net::{Namespace, tcp::Behaviour};

use crate::fixture::{Lab, SECRET, ports_opened};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_pod_of_a_labelled_namespace_is_in_the_mesh_before_it_runs() {
    let mut lab = Lab::of_cluster().await;
    let label = lab.control_plane();
    let labelled = label.label_namespace(NAMESPACE, DATAPLANE_MODE, Some(AMBIENT));
    labelled.await.unwrap();
    for (node, pod) in [("node1", "curl"), ("node2", "web")] {
        // The plugin returns when the pod is in the mesh.
        lab.add_pod(node, pod).await.unwrap();
        let rules = lab.pod(pod).unwrap();
        let rules = rules.exec("nft", &["list", "ruleset"], "").unwrap();
        assert!(rules.contains("istio-ambient-nat"), "{rules}");
        lab.joined(pod).await.unwrap();
    }
    let server = lab.serve("web", Behaviour::Echo);
    let (told, wire) = lab
        .captured(lab.fabric(), lab.tell_secret("curl", server.address()))
        .await;
    told.unwrap();
    assert!(!wire.contains(SECRET));
    assert_eq!(ports_opened(&wire), [15008]);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_agent_a_node_s_pods_stay_in_the_mesh_and_new_ones_wait() {
    let mut lab = Lab::of_cluster().await;
    lab.add_pair().await;
    let server = lab.serve("web", Behaviour::Echo);
    lab.kill_agent("node2").await.unwrap();
    let (told, wire) = lab
        .captured(lab.fabric(), lab.tell_secret("curl", server.address()))
        .await;
    told.unwrap();
    assert_eq!(ports_opened(&wire), [15008]);
    // It may belong in the mesh by a label of its own, which only the agent knows.
    let refused = lab.add_pod("node2", "late").await.unwrap_err();
    assert!(format!("{refused:#}").contains("istio-cni"), "{refused:#}");
    lab.restart_agent("node2").await.unwrap();
    lab.tell_secret("curl", server.address()).await.unwrap();
    let is = |pod: &serde_json::Value| pod["metadata"]["annotations"][REDIRECTION] == "enabled";
    let pods = lab.control_plane();
    pods.until::<Pod>(NAMESPACE, "web", is).await.unwrap();
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_daemon_set_goes_nothing_of_the_mesh_is_left_on_the_nodes() {
    let mut lab = Lab::of_cluster().await;
    lab.add_pair().await;
    let of_mesh = |network: &Namespace| traces::of_mesh(network).unwrap();
    for (node, pod) in [("node1", "curl"), ("node2", "web")] {
        for network in [lab.pod(pod).unwrap(), lab.node(node).unwrap()] {
            assert_ne!(of_mesh(network), [""; 0], "{node}");
        }
    }
    lab.uninstall_agents().await.unwrap();
    for (node, pod) in [("node1", "curl"), ("node2", "web")] {
        for network in [lab.pod(pod).unwrap(), lab.node(node).unwrap()] {
            assert_eq!(of_mesh(network), [""; 0], "{node}");
        }
        assert_eq!(lab.agent(node).unwrap().left().unwrap(), [""; 0]);
    }
    lab.end().await;
}
