//! What goes on while a part of the mesh is away, and what comes back with it.

use nix::sys::signal::Signal;
use testkit_net::{eventually, tcp::Behaviour};

use crate::fixture::{
    Lab, PATIENCE, SECRET, closes, deny, echoes, is_refused, ports_opened, principal, proxy,
};

#[tokio::test(flavor = "multi_thread")]
async fn traffic_goes_on_without_the_control_plane_and_what_changed_arrives_with_it() {
    let mut lab = Lab::with_pair().await;
    lab.add_enrolled("node1", "batch").await;
    let server = lab.serve("web", Behaviour::Echo);
    let mut open = lab.connect("batch", server.address()).await;
    echoes(&mut open).await.unwrap();

    let mark = lab.mark("node2");
    lab.stop_control_plane();
    let lost = ["discovery"];
    lab.line("node2", mark, &lost).await;
    echoes(&mut open).await.unwrap();
    for pod in ["curl", "batch"] {
        lab.tell_secret(pod, server.address()).await.unwrap();
    }

    let policy = deny(principal(&lab, "batch"));
    let key = policy.key();
    let mark = lab.mark("node2");
    lab.publish([mesh_xds::Change::Policy(policy)]);
    lab.start_control_plane().unwrap();
    closes(&mut open).await;
    lab.line("node2", mark, &["policy change", &key]).await;
    lab.tell_secret("batch", server.address())
        .await
        .unwrap_err();
    lab.tell_secret("curl", server.address()).await.unwrap();
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_proxy_a_pod_is_closed_and_a_new_proxy_serves_it_without_enrolment() {
    let mut lab = Lab::with_pair().await;
    lab.add_pod("node1", "outsider").await.unwrap();
    let server = lab.serve("web", Behaviour::Echo);
    for killed in ["node1", "node2"] {
        let mut open = lab.connect("curl", server.address()).await;
        echoes(&mut open).await.unwrap();
        let proxy = lab.proxy_mut(killed).unwrap();
        proxy.signal(Signal::SIGKILL).unwrap();
        proxy.wait().await.unwrap();
        closes(&mut open).await;

        let before = server.clients().len();
        let both = async {
            lab.tell_secret("curl", server.address()).await.unwrap_err();
            if killed == "node2" {
                let plain = lab.tell_secret("outsider", server.address()).await;
                plain.unwrap_err();
            }
        };
        let ((), wire) = lab.captured(lab.fabric(), both).await;
        assert!(!wire.contains(SECRET), "{killed}");
        assert_eq!(server.clients().len(), before, "{killed}");

        drop(lab.renew_proxy(killed).await.unwrap());
        let (told, wire) = lab
            .captured(lab.fabric(), lab.tell_secret("curl", server.address()))
            .await;
        told.unwrap();
        assert!(!wire.contains(SECRET), "{killed}");
        assert_eq!(ports_opened(&wire), [15008], "{killed}");
    }
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_told_to_stop_lets_connections_go_on_until_its_deadline() {
    let mut lab = Lab::with_pair().await;
    let server = lab.serve("web", Behaviour::Echo);
    let mut open = lab.connect("curl", server.address()).await;
    echoes(&mut open).await.unwrap();
    let mark = lab.mark("node1");
    let proxy = lab.proxy_mut("node1").unwrap();
    proxy.signal(Signal::SIGTERM).unwrap();
    lab.line("node1", mark, &["stopping"]).await;
    echoes(&mut open).await.unwrap();
    is_refused(&lab, "curl", server.address()).await;
    echoes(&mut open).await.unwrap();
    closes(&mut open).await;
    lab.line("node1", mark, &["complete", "closed from drain"])
        .await;
    let ended = lab.proxy_mut("node1").unwrap().wait().await.unwrap();
    assert!(ended.success(), "{ended}");
    drop(lab.renew_proxy("node1").await.unwrap());
    lab.tell_secret("curl", server.address()).await.unwrap();
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_replaces_another_takes_over_without_a_refused_connection() {
    let mut lab = Lab::with_proxy(proxy().variable("CONNECTION_TERMINATION_DEADLINE", "60s")).await;
    lab.add_pair().await;
    let server = lab.serve("web", Behaviour::Echo);
    for (node, pod) in [("node1", "curl"), ("node2", "web")] {
        let mut open = lab.connect("curl", server.address()).await;
        echoes(&mut open).await.unwrap();
        let mut old = lab.renew_proxy(node).await.unwrap();
        assert_eq!(listeners(&lab, pod), 6);
        for _ in 0..10 {
            lab.tell_secret("curl", server.address()).await.unwrap();
        }
        old.signal(Signal::SIGTERM).unwrap();
        let closed = || listeners(&lab, pod) == 3;
        eventually("the end of the old listeners", PATIENCE, closed)
            .await
            .unwrap();
        for _ in 0..10 {
            lab.tell_secret("curl", server.address()).await.unwrap();
        }
        echoes(&mut open).await.unwrap();
        drop(open);
        let ended = old.wait().await.unwrap();
        assert!(ended.success(), "{node}: {ended}");
    }
    lab.end().await;
}

/// How many of the proxies' sockets listen in a pod.
fn listeners(lab: &Lab, pod: &str) -> usize {
    let sockets = lab.pod(pod).unwrap().exec("ss", &["-ltnH"], "").unwrap();
    let own = |line: &&str| line.contains("*:150");
    sockets.lines().filter(own).count()
}
