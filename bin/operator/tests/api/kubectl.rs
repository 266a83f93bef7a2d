//! kubectl as a stranger would run it against the cluster.

use std::{path::PathBuf, process::Stdio, time::Duration};

use tempfile::TempDir;
use testkit_kube::auth::User;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use super::cluster::Cluster;

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// kubectl, as the administrator, with a home of its own.
pub(crate) struct Kubectl {
    kubeconfig: PathBuf,
    home: TempDir,
}

impl Kubectl {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let home = TempDir::new().unwrap();
        let kubeconfig = home.path().join("kubeconfig");
        let text = cluster.server.kubeconfig(&User::admin()).unwrap();
        std::fs::write(&kubeconfig, text).unwrap();
        Self { kubeconfig, home }
    }

    /// The output of a command that must succeed; its words are separated by spaces.
    pub(crate) async fn say(&self, command: &str) -> String {
        self.say_with(command, "").await
    }

    /// As [`say`](Self::say), with something to read.
    pub(crate) async fn say_with(&self, command: &str, input: &str) -> String {
        let (ok, out, err) = self.attempt(command, input).await;
        assert!(ok, "kubectl {command}: {out}{err}");
        out
    }

    /// Whether the command succeeds, what it says, and what it complains about.
    pub(crate) async fn attempt(&self, command: &str, input: &str) -> (bool, String, String) {
        let mut process = Command::new("kubectl");
        process
            .env("HOME", self.home.path())
            .env("KUBECONFIG", &self.kubeconfig)
            .arg("--cache-dir")
            .arg(self.home.path().join("cache"))
            .args(command.split_whitespace())
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = process
            .spawn()
            .expect("kubectl does not start, hack/setup.sh installs it");
        let mut stdin = child.stdin.take().unwrap();
        // A command that does not read is free to end first.
        let _read = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = timeout(PATIENCE, child.wait_with_output()).await;
        let output = output.expect("kubectl does not come to an end").unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.success(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    /// The cells of a table without its last column, the age.
    pub(crate) async fn table(&self, command: &str) -> Vec<String> {
        let out = self.say(command).await;
        let lines = out.lines().map(|line| {
            let cells = line
                .split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty());
            let mut cells = cells.collect::<Vec<_>>();
            cells.pop();
            cells.join(" | ")
        });
        lines.collect()
    }
}
