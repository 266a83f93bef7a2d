//! The program as a DaemonSet runs it, in a network namespace of its own: how it starts, what its ports
//! say, and how it ends. What it does to traffic is tested with the engine and in the lab.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::{process::Command, time::Duration};

use testkit_net::{Namespace, Process, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy without control plane and agent, as after the start of a node.
fn proxy(environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ztunnel"));
    command
        .env_clear()
        .env("INPOD_UDS", "/nonexistent/ztunnel.sock")
        .env("ZTUNNEL_WORKER_THREADS", "1")
        .envs(environment.iter().copied());
    command
}

async fn started(namespace: &Namespace, environment: &[(&str, &str)]) -> Process {
    let process = namespace.spawn(proxy(environment)).unwrap();
    let listens = || ask(namespace, &["http://127.0.0.1:15021/healthz/ready"]).is_some();
    eventually("the readiness port", PATIENCE, listens)
        .await
        .unwrap();
    process
}

/// What curl prints, whatever the status; nothing if nobody answers.
fn ask(namespace: &Namespace, arguments: &[&str]) -> Option<String> {
    let always = ["--silent", "--max-time", "5"];
    namespace
        .exec("curl", &[&always, arguments].concat(), "")
        .ok()
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let namespace = Namespace::new("ready").unwrap();
    let _proxy = started(&namespace, &[]).await;
    let answer = ask(&namespace, &["http://127.0.0.1:15021/healthz/ready"]).unwrap();
    assert_eq!(
        answer,
        "not ready, pending: state manager, workload proxy manager\n"
    );
    let status = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    let url = ["http://[::1]:15021/healthz/ready"];
    assert_eq!(
        ask(&namespace, &[&status[..], &url].concat()).unwrap(),
        "500"
    );
}

#[tokio::test]
async fn without_discovery_only_the_agent_is_missing() {
    let namespace = Namespace::new("noxds").unwrap();
    let _proxy = started(&namespace, &[("XDS_ADDRESS", "")]).await;
    let answer = ask(&namespace, &["http://127.0.0.1:15021/healthz/ready"]).unwrap();
    assert_eq!(answer, "not ready, pending: workload proxy manager\n");
}

#[tokio::test]
async fn the_dump_shows_the_configuration_and_no_secret() {
    let namespace = Namespace::new("dump").unwrap();
    let secrets = [
        ("AUTH_TOKEN", "aaa.whisper.ccc"),
        ("XDS_HEADER_X-KEY", "hush"),
        ("NODE_NAME", "n1"),
        ("ISTIO_META_ISTIO_VERSION", "1.28.0"),
    ];
    let _proxy = started(&namespace, &secrets).await;
    for host in ["127.0.0.1", "[::1]"] {
        let text = ask(&namespace, &[&format!("http://{host}:15000/config_dump")]).unwrap();
        assert!(
            !text.contains("whisper") && !text.contains("hush"),
            "{text}"
        );
        let dump: serde_json::Value = serde_json::from_str(&text).unwrap();
        for list in ["workloads", "services", "policies", "certificates"] {
            assert!(dump[list].is_array(), "{list} in {text}");
        }
        assert!(dump["workloadState"].is_object(), "{text}");
        assert_eq!(dump["config"]["node"]["name"], "n1");
        assert_eq!(dump["version"]["istioVersion"], "1.28.0");
        let compiler = dump["version"]["rustVersion"].as_str().unwrap();
        assert!(compiler.starts_with("1."), "{compiler}");
        let openssl = dump["version"]["cryptoProvider"].as_str().unwrap();
        assert!(openssl.starts_with("OpenSSL 3"), "{openssl}");
    }
}

#[tokio::test]
async fn admin_is_on_loopback_alone() {
    let namespace = Namespace::new("admin").unwrap();
    namespace
        .ip_batch("link add eth0 type veth peer name eth1\nlink set eth0 up\naddr add 10.9.9.9/24 dev eth0\n")
        .unwrap();
    let _proxy = started(&namespace, &[]).await;
    assert!(ask(&namespace, &["http://10.9.9.9:15021/healthz/ready"]).is_some());
    assert!(ask(&namespace, &["http://10.9.9.9:15020/metrics"]).is_some());
    assert_eq!(
        ask(&namespace, &["http://10.9.9.9:15000/config_dump"]),
        None
    );
}

#[tokio::test]
async fn metrics_have_the_contracts_names() {
    let namespace = Namespace::new("metrics").unwrap();
    let _proxy = started(&namespace, &[]).await;
    let metrics = ask(&namespace, &["http://127.0.0.1:15020/stats/prometheus"]).unwrap();
    for name in [
        "istio_build{component=\"ztunnel\"",
        "istio_tcp_sockets_open",
        "istio_xds_connection_terminations",
        "workload_manager_active_proxy_count",
        "workload_manager_pending_proxy_count",
        "process_open_fds",
        "tokio_num_workers",
        "tokio_worker_park_unpark_count_total",
    ] {
        assert!(metrics.contains(name), "{name} in:\n{metrics}");
    }
}

#[tokio::test]
async fn the_log_level_can_be_changed_while_it_runs() {
    let namespace = Namespace::new("level").unwrap();
    let mut proxy = started(&namespace, &[("RUST_LOG", "warn")]).await;
    let post = [
        "--request",
        "POST",
        "http://127.0.0.1:15000/logging?level=debug",
    ];
    ask(&namespace, &post).unwrap();
    proxy
        .wait_for("log filter changed", PATIENCE)
        .await
        .unwrap();
}

#[tokio::test]
async fn it_ends_when_told_by_signal_or_by_request() {
    let namespace = Namespace::new("end").unwrap();
    let mut proxy = started(&namespace, &[]).await;
    assert!(proxy.terminate(PATIENCE).await.unwrap().success());
    let mut proxy = started(&namespace, &[]).await;
    let quit = ["--request", "POST", "http://127.0.0.1:15000/quitquitquit"];
    assert_eq!(ask(&namespace, &quit).unwrap(), "shutdown now\n");
    assert!(proxy.wait(PATIENCE).await.unwrap().success());
}

#[tokio::test]
async fn what_is_wrong_at_the_start_is_said_and_ends_it() {
    let namespace = Namespace::new("wrong").unwrap();
    let cases: [(&str, &str, &[&str]); 4] = [
        ("PACKET_MARK", "many", &["`many`", "whole number"]),
        ("CRL_PATH", "/crl", &["not supported"]),
        ("XDS_ADDRESS", "http://istiod:15010", &["https"]),
        ("RUST_LOG", "loud", &["`loud`", "directive"]),
    ];
    for (name, value, said) in cases {
        let mut proxy = namespace.spawn(proxy(&[(name, value)])).unwrap();
        assert_eq!(proxy.wait(PATIENCE).await.unwrap().code(), Some(1));
        let stderr = proxy.stderr();
        let all = said.iter().all(|part| stderr.contains(part));
        assert!(all, "{name}={value}: {stderr}");
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let namespace = Namespace::new("taken").unwrap();
    let _first = started(&namespace, &[]).await;
    let mut second = namespace.spawn(proxy(&[])).unwrap();
    assert_eq!(second.wait(PATIENCE).await.unwrap().code(), Some(1));
    let stderr = second.stderr();
    assert!(
        stderr.contains("15000") && stderr.contains("admin"),
        "{stderr}"
    );
}

#[tokio::test]
async fn without_its_privileges_it_does_not_start() {
    let namespace = Namespace::new("caps").unwrap();
    // The kernel lets CAP_NET_RAW mark sockets too (Linux 5.17).
    let cases = [
        ("-sys_admin", "CAP_SYS_ADMIN"),
        ("-net_admin,-net_raw", "CAP_NET_ADMIN"),
    ];
    for (dropped, named) in cases {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--bounding-set={dropped}"))
            .arg(env!("CARGO_BIN_EXE_ztunnel"));
        let mut proxy = namespace.spawn(command).unwrap();
        assert_eq!(proxy.wait(PATIENCE).await.unwrap().code(), Some(1));
        assert!(proxy.stderr().contains(named), "{}", proxy.stderr());
    }
}
