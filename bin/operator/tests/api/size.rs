//! What the operator costs in a large cluster, as a process of its own.

use std::process::{Child, Command, Stdio};

use serde_json::json;
use testkit_kube::{auth::User, store::GroupResource, wait};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::cluster::{Cluster, DEADLINE, SYSTEM};

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

const NAMESPACES: usize = 500;
const PODS: usize = 10_000;
/// What may be resident beside the program's file, in KiB. The file is large in a build for tests.
const OWN: u64 = 20 * 1024;

fn fill(cluster: &Cluster) {
    let store = cluster.server.store();
    for number in 0..NAMESPACES {
        let labels = json!({"istio.io/dataplane-mode": "ambient", "team": format!("t{number}")});
        let metadata = json!({"name": format!("ns-{number}"), "labels": labels});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        store.put(&GroupResource::named("", "namespaces"), namespace);
    }
    for number in 0..PODS {
        let metadata = json!({
            "name": format!("service-{number}-6d5f8b7c9-x{number}"),
            "namespace": format!("ns-{}", number % NAMESPACES),
            "labels": {"app": format!("service-{number}"), "pod-template-hash": "6d5f8b7c9"},
            "annotations": {"ambient.istio.io/redirection": "enabled"},
        });
        let spec = json!({"nodeName": "node", "containers": [{"name": "c", "image": "i"}]});
        let status = json!({"phase": "Running", "podIP": "10.0.0.1"});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status,
        });
        store.put(&GroupResource::named("", "pods"), pod);
    }
}

async fn is_ready(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else {
        return false;
    };
    let request = "GET /readyz HTTP/1.1\r\nHost: operator\r\n\r\n";
    let sent = stream.write_all(request.as_bytes()).await;
    let mut page = String::new();
    let read = stream.read_to_string(&mut page).await;
    sent.is_ok() && read.is_ok() && page.starts_with("HTTP/1.1 200")
}

fn own_memory(process: &Process) -> u64 {
    let path = format!("/proc/{}/status", process.0.id());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.unwrap().trim().strip_suffix(" kB").unwrap();
    number.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_ten_thousand_pods_the_operator_holds_less_than_20_mib() {
    let cluster = Cluster::start().await;
    fill(&cluster);
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    let text = cluster.server.kubeconfig(&User::admin()).unwrap();
    std::fs::write(&kubeconfig, text).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let process = Command::new(env!("CARGO_BIN_EXE_operator"))
        .args(["--metrics-bind-address=127.0.0.1:0", "--leader-elect=false"])
        .arg(format!("--health-probe-bind-address=127.0.0.1:{port}"))
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .env("POD_NAMESPACE", SYSTEM)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let process = Process(process.unwrap());
    let ready = wait::eventually("readiness", DEADLINE, || is_ready(port), |ready| *ready);
    ready.await.unwrap();
    let own = own_memory(&process);
    println!("own memory: {own} KiB");
    assert!(own < OWN, "{own} KiB");
}
