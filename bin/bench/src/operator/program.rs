//! The operator as a process of its own, so that what it uses is not counted as the cluster's.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use ::operator::{args::Flags, config::Config, rights};
use anyhow::{Context as _, bail, ensure};
use kube::Client;
use mesh_runtime::environment::Environment;
use nix::{
    sys::signal::{Signal, kill},
    time::ClockId,
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use super::within;
use crate::{
    figures::Figures,
    process::{memory, mib},
};

/// A running operator; it is killed when dropped.
pub(crate) struct Operator {
    child: Child,
    pid: Pid,
    probes: SocketAddr,
    metrics: Client,
}

/// What its metrics say.
#[derive(Debug)]
pub(crate) struct Page(String);

/// Time between two looks at something that cannot be waited for.
const PAUSE: Duration = Duration::from_millis(20);
/// A time in which an operator that has something to do uses the processor ..
const WINDOW: Duration = Duration::from_millis(100);
/// .. for longer than this, and one that only keeps its lock does not.
const IDLE: Duration = Duration::from_millis(3);
/// So many of them in a row are rest.
const WINDOWS: u32 = 3;

/// Is the operator: the entry of the child.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let config = Config::try_new(flags, &Environment::of_process())?;
    Ok(::operator::program::run(config, &flags.without_effect())?)
}

// === impl Operator ===

impl Operator {
    /// Starts one and waits until it has seen the cluster and leads. `token` may read its metrics.
    pub(crate) async fn start(kubeconfig: &Path, token: &str) -> anyhow::Result<Self> {
        let [metrics, probes] = [free()?, free()?];
        let child = Command::new(std::env::current_exe()?)
            .args(["operator-process", "--log-level=warn"])
            .arg(format!("--metrics-bind-address={metrics}"))
            .arg(format!("--health-probe-bind-address={probes}"))
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .env("POD_NAMESPACE", rights::NAME)
            .stdin(Stdio::null())
            // Standard output is for figures.
            .stdout(std::io::stderr())
            .spawn()
            .context("start the operator")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let metrics = reader(metrics, token)?;
        let mut operator = Self {
            child,
            pid,
            probes,
            metrics,
        };
        within("the operator does not become ready", operator.ready()).await??;
        within("the operator does not lead", operator.leads()).await??;
        Ok(operator)
    }

    /// Ends it as Kubernetes does: it gives its lock back.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        kill(self.pid, Signal::SIGTERM)?;
        let ended = async {
            while self.child.try_wait()?.is_none() {
                sleep(PAUSE).await;
            }
            anyhow::Ok(())
        };
        within("the operator does not stop", ended).await?
    }

    /// What it has used of all processors. Other load of the machine changes it little.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        Ok(ClockId::pid_cpu_clock_id(self.pid)?.now()?.into())
    }

    /// Waits until it does nothing.
    pub(crate) async fn rest(&self) -> anyhow::Result<()> {
        let resting = async {
            let (mut idle, mut before) = (0, self.cpu()?);
            while idle < WINDOWS {
                sleep(WINDOW).await;
                let now = self.cpu()?;
                let busy = now.saturating_sub(before) > IDLE;
                idle = if busy { 0 } else { idle + 1 };
                before = now;
            }
            anyhow::Ok(())
        };
        within("the operator does not come to rest", resting).await?
    }

    pub(crate) async fn page(&self) -> anyhow::Result<Page> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        let page = self.metrics.request_text(request).await;
        Ok(Page(page.context("read the operator's metrics")?))
    }

    /// Its memory as it is.
    pub(crate) fn weigh(&self, when: &str, figures: &mut Figures) -> anyhow::Result<()> {
        let process = self.pid.to_string();
        for (what, field) in [
            ("resident", "VmRSS:"),
            ("resident and its own", "RssAnon:"),
            ("resident at most", "VmHWM:"),
        ] {
            let bytes = memory(&process, field)?;
            figures.set(&format!("{when}: {what}, MiB"), mib(bytes));
        }
        Ok(())
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        while !self.is_ready().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("the operator ended: {status}");
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.probes).await else {
            return false;
        };
        let request = "GET /readyz HTTP/1.1\r\nHost: operator\r\n\r\n";
        let sent = stream.write_all(request.as_bytes()).await;
        let mut page = String::new();
        let read = stream.read_to_string(&mut page).await;
        sent.is_ok() && read.is_ok() && page.starts_with("HTTP/1.1 200")
    }

    async fn leads(&self) -> anyhow::Result<()> {
        while self.page().await?.sum("lateen_operator_leader") < 1.0 {
            sleep(PAUSE).await;
        }
        Ok(())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// An address that nobody listens on.
fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A client of the metrics.
fn reader(address: SocketAddr, token: &str) -> anyhow::Result<Client> {
    let mut config = kube::Config::new(format!("https://{address}").parse()?);
    // Self-signed, as Prometheus has to take it too.
    config.accept_invalid_certs = true;
    config.auth_info.token = Some(token.to_owned().into());
    Ok(Client::try_from(config)?)
}

// === impl Page ===

impl Page {
    /// The sum of all series that begin so.
    pub(crate) fn sum(&self, series: &str) -> f64 {
        let lines = self.0.lines().filter(|line| line.starts_with(series));
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        // The sum of none of them is -0.
        values.fold(0.0, |sum, value| sum + value)
    }

    /// Requests that change the cluster.
    pub(crate) fn writes(&self) -> f64 {
        self.sum("lateen_operator_writes_total")
    }

    /// Fails unless every resource has been looked at since.
    pub(crate) fn looked_since(&self, before: Option<&Self>) -> anyhow::Result<()> {
        for controller in ["istio", "istiorevision", "istiocni", "ztunnel"] {
            let series = format!("controller_runtime_reconcile_total{{controller=\"{controller}\"");
            let before = before.map_or(0.0, |page| page.sum(&series));
            let grown = self.sum(&series) > before;
            ensure!(grown, "the operator has not looked at the {controller}");
        }
        Ok(())
    }
}
