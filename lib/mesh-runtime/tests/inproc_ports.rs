//! The admin, readiness and metrics ports as their clients see them.

use std::{io, sync::Arc};

use mesh_runtime::{
    admin,
    http::Limits,
    log::{self, Config},
    readiness::Readiness,
    shutdown::{self, Cause},
    stats,
};
use parking_lot::Mutex;
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use serde_json::json;
use tokio::time::timeout;
use tracing::subscriber::set_default;

#[cfg(test)]
#[path = "support/client.rs"]
mod client;

use client::{DEADLINE, Server, body, mk_server, status};

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
fn mk_log(output: Memory) -> (log::Handle, tracing::subscriber::DefaultGuard) {
    let (subscriber, handle) = log::build(&Config::default(), output).unwrap();
    (handle, set_default(subscriber))
}

async fn mk_admin(log: log::Handle, quit: shutdown::Quit) -> Server {
    let dump = || json!({"workloads": [{"name": "a"}]});
    mk_server(admin::routes("Test", log, quit, dump), Limits::default()).await
}

#[tokio::test]
async fn the_dump_is_json() {
    let (log, _guard) = mk_log(Memory::default());
    let server = mk_admin(log, shutdown::Quit::default()).await;
    let dump = server.ask("GET /config_dump HTTP/1.1").await;
    assert!(
        dump.contains("content-type: application/json\r\n"),
        "{dump}"
    );
    let dump: serde_json::Value = serde_json::from_str(body(&dump)).unwrap();
    assert_eq!(dump, json!({"workloads": [{"name": "a"}]}));
    server.stop().await;
}

#[tokio::test]
async fn log_levels_change_on_request_and_take_effect() {
    let output = Memory::default();
    let (log, _guard) = mk_log(output.clone());
    let server = mk_admin(log.clone(), shutdown::Quit::default()).await;
    let set = async |query: &str| {
        let response = server.ask(&format!("POST /logging{query} HTTP/1.1")).await;
        format!("{} {}", status(&response), body(&response))
    };
    let logged = || {
        assert!(log.flush(DEADLINE));
        output.0.lock().clear();
        tracing::debug!(target: "access", "opened");
        assert!(log.flush(DEADLINE));
        String::from_utf8_lossy(&output.0.lock()).contains("opened")
    };

    assert_eq!(set("").await, "200 OK current log level is info\n");
    assert!(!logged());
    let changed = set("?level=warn,access%3Ddebug").await;
    assert_eq!(changed, "200 OK current log level is access=debug,warn\n");
    assert!(logged());
    let changed = set("?level=error&reset").await;
    assert_eq!(changed, "200 OK current log level is error\n");
    assert!(!logged());
    assert_eq!(set("?reset").await, "200 OK current log level is info\n");

    let refused = set("?level=loud").await;
    assert!(
        refused.starts_with("400 Bad Request `loud` is not a log directive"),
        "{refused}"
    );
    let refused = set("?levle=debug").await;
    assert!(
        refused.starts_with("400 Bad Request `levle` is not a parameter"),
        "{refused}"
    );
    let refused = server.ask("GET /logging?level=debug HTTP/1.1").await;
    assert_eq!(status(&refused), "405 Method Not Allowed");
    assert_eq!(log.current(), "info");
    server.stop().await;
}

#[tokio::test]
async fn the_process_quits_on_a_post_only() {
    let (log, _guard) = mk_log(Memory::default());
    let mut signals = shutdown::signals().unwrap();
    let server = mk_admin(log, signals.quitter()).await;
    let refused = server.ask("GET /quitquitquit HTTP/1.1").await;
    assert_eq!(status(&refused), "405 Method Not Allowed");
    let accepted = server.ask("POST /quitquitquit HTTP/1.1").await;
    assert_eq!(body(&accepted), "shutdown now\n");
    assert_eq!(timeout(DEADLINE, signals.next()).await, Ok(Cause::Quit));
    server.stop().await;
}

#[tokio::test]
async fn the_probe_names_what_is_pending() {
    let readiness = Readiness::new();
    let state = readiness.pending("state manager");
    let proxies = readiness.pending("proxies");
    let server = mk_server(readiness.routes(), Limits::default()).await;
    let ask = || server.ask("GET /healthz/ready HTTP/1.1");

    let response = ask().await;
    assert_eq!(status(&response), "500 Internal Server Error");
    assert_eq!(
        body(&response),
        "not ready, pending: proxies, state manager\n"
    );
    proxies.ready();
    state.ready();
    let response = ask().await;
    assert_eq!((status(&response), body(&response)), ("200 OK", "ready\n"));
    let _again = readiness.pending("proxies");
    assert_eq!(body(&ask().await), "not ready, pending: proxies\n");
    server.stop().await;
}

async fn mk_stats() -> Server {
    let (log, _guard) = mk_log(Memory::default());
    let mut registry = Registry::default();
    let build = stats::Build {
        component: "test".into(),
        tag: "1.2.3".into(),
    };
    stats::register(&mut registry, &build, &log);
    stats::register_runtime(&mut registry, &tokio::runtime::Handle::current());
    let counter: Counter = Counter::default();
    counter.inc();
    registry.register("connections", "Connections", counter);
    mk_server(stats::routes(Arc::new(registry)), Limits::default()).await
}

#[tokio::test]
async fn metrics_come_in_the_form_that_is_asked_for() {
    let server = mk_stats().await;
    for path in ["/metrics", "/stats/prometheus"] {
        let text = server.ask(&format!("GET {path} HTTP/1.1")).await;
        assert!(text.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"));
        assert!(
            text.contains("# TYPE connections_total counter\nconnections_total 1\n"),
            "{text}"
        );

        let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        let open = server
            .ask(&format!("GET {path} HTTP/1.1\r\n{accept}"))
            .await;
        assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0"));
        assert!(
            open.contains("# TYPE connections counter\nconnections_total 1\n"),
            "{open}"
        );
        assert!(open.ends_with("# EOF\n"), "{open}");
    }
    server.stop().await;
}

#[tokio::test]
async fn every_process_reports_its_build_descriptors_runtime_and_lost_lines() {
    let server = mk_stats().await;
    let response = server.ask("GET /metrics HTTP/1.1").await;
    let metrics = body(&response);
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        let line = line.unwrap_or_else(|| panic!("{name} is missing in {metrics}"));
        line.trim().parse::<u64>().unwrap()
    };
    assert_eq!(value("istio_build{component=\"test\",tag=\"1.2.3\"} "), 1);
    assert_eq!(value("log_dropped_total "), 0);
    assert_eq!(value("tokio_num_workers "), 1);
    assert!(value("tokio_num_alive_tasks ") >= 2);
    assert!(metrics.contains("\ntokio_global_queue_depth "));
    assert!(value("tokio_worker_park_count_total{worker=\"0\"} ") >= 1);
    let busy = "\ntokio_worker_total_busy_duration_seconds_total{worker=\"0\"} ";
    assert!(metrics.contains(busy), "{metrics}");
    let open = value("process_open_fds ");
    assert!(open >= 3 && open <= value("process_max_fds "), "{open}");

    // The promise about names: what is not marked is kept.
    let promised: Vec<_> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP "))
        .filter(|help| !help.contains("unstable"))
        .filter_map(|help| help.split(' ').next())
        .collect();
    assert_eq!(promised, ["istio_build", "connections_total"]);
    server.stop().await;
}
