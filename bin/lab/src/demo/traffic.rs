//! The applications of the demo and what is asked of them: curl, an HTTP server, iperf3.

use std::process::Command;

use anyhow::Context as _;
use testkit_net::{Capture, capture::Captured};

use crate::{
    control_plane::{self, Cluster},
    mesh::Mesh,
    node::PATIENCE,
};

/// What the server keeps, and nobody on the wire should read.
pub(super) const SECRET: &str = "card 4929-1811-0000-7431";

/// Port of the HTTP server in the pod.
pub(super) const HTTP_PORT: u16 = 8080;

/// Port of iperf3.
pub(super) const IPERF_PORT: u16 = 5201;

/// Starts the HTTP server and iperf3 in pod `web`.
pub(super) async fn start_servers(mesh: &mut Mesh<Cluster>) -> anyhow::Result<()> {
    let folder = mesh.dir().join("www");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("account"), format!("{SECRET}\n"))?;
    let mut http = Command::new("python3");
    http.args([
        "-u",
        "-m",
        "http.server",
        "--bind",
        "::",
        &HTTP_PORT.to_string(),
    ])
    .current_dir(folder);
    mesh.start_application("web", http)?
        .wait_for("Serving HTTP", PATIENCE)
        .await?;
    let mut iperf = Command::new("iperf3");
    iperf.args([
        "--server",
        "--forceflush",
        "--port",
        &IPERF_PORT.to_string(),
    ]);
    mesh.start_application("web", iperf)?
        .wait_for("Server listening", PATIENCE)
        .await?;
    Ok(())
}

/// Asks for the account with curl.
pub(super) fn curl(mesh: &Mesh<Cluster>, pod: &str, url: &str) -> anyhow::Result<String> {
    let arguments = [
        "--silent",
        "--show-error",
        "--fail",
        "--max-time",
        "10",
        url,
    ];
    Ok(mesh.pod(pod)?.exec("curl", &arguments, "")?)
}

/// Captures what passes between the nodes while `work` is done.
pub(super) async fn captured<T>(
    mesh: &Mesh<Cluster>,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Captured)> {
    let capture = Capture::start(mesh.fabric(), control_plane::POD_TRAFFIC).await?;
    let done = work()?;
    Ok((done, capture.finish().await?))
}

/// The destination ports of the TCP connections that were opened, from the capture itself.
pub(super) fn ports_opened(mesh: &Mesh<Cluster>, captured: &Captured) -> anyhow::Result<Vec<u16>> {
    let file = mesh.dir().join("capture.pcap");
    std::fs::write(&file, captured.pcap())?;
    let syn = "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn";
    let file = file.to_string_lossy();
    let listing = mesh
        .fabric()
        .exec("tcpdump", &["-n", "-q", "-r", &file, syn], "")?;
    // `… IP 10.244.1.1.34567 > 10.244.2.1.15008: tcp 0`
    let port = |line: &str| {
        let (_before, destination) = line.split_once(" > ")?;
        destination
            .split_once(':')?
            .0
            .rsplit_once('.')?
            .1
            .parse()
            .ok()
    };
    let mut ports: Vec<u16> = listing.lines().filter_map(port).collect();
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

/// Gigabits per second that iperf3 carries from one pod to `web` in a second.
pub(super) fn throughput(mesh: &Mesh<Cluster>, pod: &str) -> anyhow::Result<f64> {
    let server = mesh.address("web", false)?.to_string();
    let port = IPERF_PORT.to_string();
    let arguments = [
        "--client", &server, "--port", &port, "--time", "1", "--json",
    ];
    let result = mesh.pod(pod)?.exec("iperf3", &arguments, "")?;
    let result: serde_json::Value = serde_json::from_str(&result)?;
    let bits = result["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.context("iperf3 reports no throughput")? / 1e9)
}

/// What a pod's kernel holds that enrolment may change: rules, routes, sockets that listen.
pub(super) fn kernel_state(mesh: &Mesh<Cluster>, pod: &str) -> anyhow::Result<String> {
    let pod = mesh.pod(pod)?;
    let mut state = pod.exec("nft", &["--stateless", "list", "ruleset"], "")?;
    for family in ["-4", "-6"] {
        state += &pod.exec("ip", &[family, "rule"], "")?;
        state += &pod
            .exec("ip", &[family, "route", "show", "table", "100"], "")
            .unwrap_or_default();
    }
    Ok(state
        + &pod.exec(
            "ss",
            &["--listening", "--tcp", "--numeric", "--no-header"],
            "",
        )?)
}
