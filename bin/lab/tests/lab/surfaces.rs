//! What operators and tools read: sockets, metrics, the dump, the log.

use testkit_net::{eventually, tcp::Behaviour};

use crate::fixture::{Lab, PATIENCE, workload};

#[tokio::test(flavor = "multi_thread")]
async fn in_a_pod_the_proxy_listens_on_its_ports_on_all_addresses() {
    let lab = Lab::with_pair().await;
    for pod in ["curl", "web"] {
        let sockets = lab.pod(pod).unwrap().exec("ss", &["-ltnH"], "").unwrap();
        let mut listening: Vec<_> = sockets
            .lines()
            .filter_map(|line| line.split_whitespace().nth(3))
            .collect();
        listening.sort_unstable();
        listening.dedup();
        assert_eq!(listening, ["*:15001", "*:15006", "*:15008"], "{pod}");
    }
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_connections_and_bytes_on_both_sides() {
    let lab = Lab::with_pair().await;
    let server = lab.serve("web", Behaviour::Echo);
    let pod = lab.pod("curl").unwrap();
    testkit_net::tcp::exchange(pod, server.address(), &[7; 1000])
        .await
        .unwrap();
    for (node, reporter) in [("node1", "source"), ("node2", "destination")] {
        let metrics = || {
            lab.ask_proxy(node, "http://127.0.0.1:15020/metrics")
                .unwrap()
        };
        let value = |metrics: &str, name: &str| {
            let line = metrics.lines().find(|line| {
                line.starts_with(&format!("{name}{{reporter=\"{reporter}\""))
                    && line.contains("source_workload=\"curl\"")
                    && line.contains("destination_workload=\"web\"")
                    && line.contains("connection_security_policy=\"mutual_tls\"")
            })?;
            line.rsplit(' ').next()?.parse::<u64>().ok()
        };
        let closed = "istio_tcp_connections_closed_total";
        eventually("a connection counted", PATIENCE, || {
            value(&metrics(), closed) == Some(1)
        })
        .await
        .unwrap();
        let metrics = metrics();
        let count = |name| value(&metrics, name);
        assert_eq!(count("istio_tcp_connections_opened_total"), Some(1));
        assert_eq!(count("istio_tcp_sent_bytes_total"), Some(1000));
        assert_eq!(count("istio_tcp_received_bytes_total"), Some(1000));
        let build = metrics
            .lines()
            .find(|line| line.starts_with("istio_build{"))
            .unwrap();
        assert!(build.contains("component=\"ztunnel\""), "{build}");
    }
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dump_shows_what_the_proxy_knows_and_serves() {
    let lab = Lab::with_pair().await;
    let service = crate::fixture::service("web", [10, 96, 0, 10]);
    lab.add_service(service).await.unwrap();
    let deny = crate::fixture::deny(crate::fixture::principal(&lab, "web"));
    lab.add_policy(deny).await.unwrap();
    let server = lab.serve("web", Behaviour::Echo);
    lab.tell_secret("curl", server.address()).await.unwrap();
    let open = lab.connect("curl", server.address()).await;
    let (node1, node2) = (lab.dump("node1"), lab.dump("node2"));
    for dump in [&node1, &node2] {
        for name in ["curl", "web"] {
            let found = workload(dump, name).unwrap();
            assert_eq!(found["protocol"], "HBONE");
            assert_eq!(found["serviceAccount"], name);
        }
        assert_eq!(dump["services"][0]["name"], "web");
        assert_eq!(dump["policies"][0]["name"], "deny");
    }
    let certificates = node1["certificates"].as_array().unwrap();
    let own = certificates
        .iter()
        .find(|c| c["identity"] == lab.identity("curl").unwrap().to_string())
        .unwrap();
    assert_eq!(own["state"], "Available");
    assert!(own["certChain"][0]["serialNumber"].is_string());
    let [pod] = &node1["workloadState"]
        .as_object()
        .unwrap()
        .values()
        .collect::<Vec<_>>()[..]
    else {
        panic!("{}", node1["workloadState"])
    };
    assert_eq!(pod["info"]["name"], "curl");
    assert_eq!(pod["state"], "Up");
    let connection = &pod["connections"]["outbound"][0];
    assert_eq!(connection["originalDst"], server.address().to_string());
    drop(open);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_access_log_lines_have_the_contracts_fields_in_its_order() {
    const FIELDS: [&str; 16] = [
        "src.addr=",
        "src.workload=",
        "src.namespace=",
        "src.identity=",
        "src.cluster=",
        "dst.addr=",
        "dst.hbone_addr=",
        "dst.service=",
        "dst.workload=",
        "dst.namespace=",
        "dst.identity=",
        "dst.cluster=",
        "direction=",
        "bytes_sent=",
        "bytes_recv=",
        "duration=",
    ];
    let mut lab = Lab::start().await;
    let service = crate::fixture::service("web", [10, 96, 0, 10]);
    lab.add_service(service.clone()).await.unwrap();
    lab.add_enrolled("node1", "curl").await;
    lab.add_pod("node2", "web").await.unwrap();
    lab.put_behind("web", &service).unwrap();
    lab.enrol("web").await.unwrap();
    let _server = lab.serve("web", Behaviour::Echo);
    let marks = [lab.mark("node1"), lab.mark("node2")];
    lab.tell_secret("curl", ([10, 96, 0, 10], 80).into())
        .await
        .unwrap();
    for (node, mark) in ["node1", "node2"].into_iter().zip(marks) {
        let line = lab.line(node, mark, &["connection complete"]).await;
        let words: Vec<&str> = line.split(['\t', ' ']).collect();
        let [time, level, target, connection, complete, fields @ ..] = &words[..] else {
            panic!("{line}")
        };
        assert!(time.ends_with('Z') && time.len() == 27, "{line}");
        let said = [*level, *target, *connection, *complete];
        assert_eq!(said, ["info", "access", "connection", "complete"]);
        assert_eq!(fields.len(), FIELDS.len(), "{line}");
        for (field, expected) in fields.iter().zip(FIELDS) {
            assert!(
                field.starts_with(expected),
                "{field} is not {expected} in {line}"
            );
        }
    }
    lab.end().await;
}
