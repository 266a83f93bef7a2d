//! `lab demo` as a user runs it, and what is on the machine afterwards.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use testkit_net::{Process, cni::built_plugin, eventually, leftover};

use crate::fixture::{PATIENCE, turn};

/// A whole demo takes a few seconds on an idle machine.
const LONG: Duration = Duration::from_secs(120);

/// A demo under way.
struct Demo {
    lab: Process,
    traces: Traces,
}

/// What a demo leaves on the machine while it runs, and should not after.
struct Traces {
    process: u32,
    /// A folder of its own, for its files and as working directory.
    dir: TempDir,
}

// === impl Demo ===

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let lab = Process::spawn(demo(&dir, arguments), None).unwrap();
        let process = lab.id();
        Self {
            lab,
            traces: Traces { process, dir },
        }
    }

    async fn step(&mut self, title: &str) {
        self.lab.wait_for(title, LONG).await.unwrap();
    }

    async fn end(&mut self) -> ExitStatus {
        self.lab.wait(LONG).await.unwrap()
    }
}

fn demo(dir: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command
        .arg("demo")
        .arg("--istio-cni")
        .arg(built_plugin().unwrap())
        .args(arguments)
        .env("TMPDIR", dir.path())
        .current_dir(dir.path());
    command
}

// === impl Traces ===

impl Traces {
    fn namespaces(&self) -> Vec<String> {
        let own = format!("{}{}.", leftover::PREFIX, self.process);
        let all = leftover::list().unwrap().into_iter().map(|left| left.name);
        all.filter(|name| name.starts_with(&own)).collect()
    }

    /// Programs of the demo that run. All of them began in its folder, or in one below.
    fn processes(&self) -> Vec<PathBuf> {
        let processes = std::fs::read_dir("/proc").unwrap();
        let belongs = |process: &Path| {
            let folder = std::fs::read_link(process.join("cwd"));
            folder.is_ok_and(|folder| folder.starts_with(self.dir.path()))
        };
        let paths = processes.map(|entry| entry.unwrap().path());
        paths.filter(|path| belongs(path)).collect()
    }

    fn files(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.dir.path()).unwrap();
        files.map(|file| file.unwrap().path()).collect()
    }

    async fn processes_end(&self) {
        // Killed is not yet reaped by whoever inherits it.
        let gone = || self.processes().is_empty();
        eventually("the end of all programs", PATIENCE, gone)
            .await
            .unwrap();
    }

    fn are_everywhere(&self) -> bool {
        !self.namespaces().is_empty() && !self.processes().is_empty() && !self.files().is_empty()
    }

    async fn are_gone(&self) {
        assert_eq!(self.namespaces(), Vec::<String>::new());
        self.processes_end().await;
        assert_eq!(self.files(), Vec::<PathBuf>::new());
    }
}

async fn shows_all(backend: &str) {
    let _turn = turn().await;
    let mut demo = Demo::start(&["--backend", backend]);
    let status = demo.end().await;
    let (said, erred) = (demo.lab.stdout(), demo.lab.stderr());
    assert!(status.success(), "{status}\n{said}\n{erred}");
    assert_eq!(erred, "");
    let verified = said
        .lines()
        .filter(|line| line.ends_with("  holds"))
        .count();
    assert!(verified >= 31, "{said}");
    assert!(!said.contains("FAILS"), "{said}");
    let summary = format!("{verified} of {verified} checks hold.\n");
    assert!(said.ends_with(&summary), "{said}");
    demo.traces.are_gone().await;
}

async fn is_stopped(signal: Signal, step: &str) {
    let _turn = turn().await;
    let mut demo = Demo::start(&[]);
    demo.step(step).await;
    assert!(demo.traces.are_everywhere());
    demo.lab.signal(signal).unwrap();
    let status = demo.end().await;
    let erred = demo.lab.stderr();
    assert_eq!(status.code(), Some(1), "{erred}");
    assert_eq!(erred, "\nlab: interrupted; everything was removed\n");
    demo.traces.are_gone().await;
}

async fn fails(arguments: &[&str], text: &str) {
    let _turn = turn().await;
    let mut demo = Demo::start(arguments);
    let status = demo.end().await;
    let erred = demo.lab.stderr();
    assert_eq!(status.code(), Some(1), "{erred}");
    assert!(erred.contains("lab: the demo failed: "), "{erred}");
    assert!(erred.contains(text), "{erred}");
    demo.traces.are_gone().await;
}

#[tokio::test]
async fn the_demo_shows_everything_with_nftables_and_nothing_remains() {
    shows_all("nftables").await;
}

#[tokio::test]
async fn the_demo_shows_everything_with_iptables_and_nothing_remains() {
    shows_all("iptables").await;
}

#[tokio::test]
async fn an_interrupted_demo_removes_everything() {
    is_stopped(Signal::SIGINT, "1. Two nodes").await;
    is_stopped(Signal::SIGINT, "3. The same request").await;
}

#[tokio::test]
async fn a_demo_that_was_to_be_kept_ends_well_and_nothing_remains() {
    let _turn = turn().await;
    let mut demo = Demo::start(&["--keep"]);
    demo.step("/debug/syncz").await;
    assert!(demo.traces.are_everywhere());
    demo.lab.signal(Signal::SIGINT).unwrap();
    let status = demo.end().await;
    let (said, erred) = (demo.lab.stdout(), demo.lab.stderr());
    assert!(status.success(), "{status}\n{said}\n{erred}");
    assert!(said.ends_with(" checks hold.\n"), "{said}");
    demo.traces.are_gone().await;
}

#[tokio::test]
async fn a_terminated_demo_removes_everything() {
    is_stopped(Signal::SIGTERM, "2. The pods join").await;
    is_stopped(Signal::SIGTERM, "5. A policy").await;
}

#[tokio::test]
async fn a_demo_that_nobody_reads_removes_everything() {
    let _turn = turn().await;
    let dir = TempDir::new().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = demo(&dir, &[]);
    command.stdout(writer).stderr(Stdio::piped());
    let lab = command.spawn().unwrap();
    let process = lab.id();
    let output = lab.wait_with_output().unwrap();
    let erred = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{erred}");
    assert!(erred.contains("write to standard output"), "{erred}");
    assert!(!erred.contains("panicked"), "{erred}");
    Traces { process, dir }.are_gone().await;
}

#[tokio::test]
async fn a_proxy_that_ends_at_once_fails_the_demo_with_its_status() {
    fails(
        &["--ztunnel", "/bin/false"],
        "ztunnel-node1-1 did not come up: it ended with exit status: 1",
    )
    .await;
}

#[tokio::test]
async fn an_istiod_that_ends_at_once_fails_the_demo_with_its_status() {
    fails(
        &["--istiod", "/bin/false"],
        "istiod did not come up: it ended with exit status: 1",
    )
    .await;
}

#[tokio::test]
async fn a_proxy_that_is_not_there_fails_the_demo_with_its_path() {
    fails(
        &["--ztunnel-node2", "/nonexistent/ztunnel"],
        "start `/nonexistent/ztunnel`; is it installed?",
    )
    .await;
}

#[tokio::test]
async fn what_a_killed_demo_left_is_removed_on_request() {
    let _turn = turn().await;
    let mut demo = Demo::start(&[]);
    demo.step("3. The same request").await;
    demo.lab.signal(Signal::SIGKILL).unwrap();
    demo.end().await;
    assert!(demo.traces.are_everywhere());
    let mut clean = Command::new(env!("CARGO_BIN_EXE_lab"));
    let clean = clean.arg("clean").output().unwrap();
    let said = String::from_utf8_lossy(&clean.stderr);
    assert!(clean.status.success(), "{said}");
    assert_eq!(demo.traces.namespaces(), Vec::<String>::new());
    demo.traces.processes_end().await;
}
