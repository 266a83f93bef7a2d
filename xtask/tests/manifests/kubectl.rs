//! The real kubectl, as the administrator of an embedded API server.

use std::{path::PathBuf, process::Stdio, time::Duration};

use tempfile::TempDir;
use testkit_kube::{
    auth::User,
    server::{ApiServer, Options},
};
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// kubectl as the administrator of a cluster.
pub(crate) struct Kubectl {
    server: ApiServer,
    home: TempDir,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) ok: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Kubectl {
    pub(crate) async fn start() -> Self {
        let home = TempDir::new().unwrap();
        let server = ApiServer::start(Options::default()).await.unwrap();
        let kubeconfig = server.kubeconfig(&User::admin()).unwrap();
        std::fs::write(home.path().join("kubeconfig"), kubeconfig).unwrap();
        Self { server, home }
    }

    /// A cluster that has the CRDs already, which is quicker than to apply them.
    pub(crate) async fn with_crds() -> Self {
        let kubectl = Self::start().await;
        let crds = [mesh_api::sail::crds(), mesh_api::crds()].concat();
        kubectl.server.install_crds(crds).unwrap();
        kubectl
    }

    /// The minor version of kubectl.
    pub(crate) async fn minor(&self) -> u32 {
        let version = self.say("version --client -o json").await;
        let version: serde_json::Value = serde_json::from_str(&version).unwrap();
        let minor = version["clientVersion"]["minor"].as_str().unwrap();
        minor.trim_end_matches('+').parse().unwrap()
    }

    pub(crate) async fn run(&self, command: &str, input: &str) -> Said {
        let mut process = Command::new("kubectl");
        process.args(command.split(' '));
        self.carry_out(process, input).await
    }

    /// What a shell says to some lines.
    pub(crate) async fn shell(&self, lines: &str) -> Said {
        let mut process = Command::new("sh");
        process.args(["-e", "-c", lines]);
        self.carry_out(process, "").await
    }

    async fn carry_out(&self, mut process: Command, input: &str) -> Said {
        process
            .current_dir(root())
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("kubeconfig"))
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let started = process.spawn();
        let mut child = started
            .unwrap_or_else(|e| panic!("kubectl does not start, hack/setup.sh installs it: {e}"));
        let mut stdin = child.stdin.take().unwrap();
        // A command that does not read is free to end first.
        let _read = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = timeout(PATIENCE, child.wait_with_output()).await;
        let output = output.expect("an end").unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said {
            ok: output.status.success(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    pub(crate) async fn say(&self, command: &str) -> String {
        self.say_with(command, "").await
    }

    pub(crate) async fn say_with(&self, command: &str, input: &str) -> String {
        let said = self.run(command, input).await;
        assert!(said.ok, "kubectl {command}: {}{}", said.out, said.err);
        said.out
    }

    pub(crate) async fn complaint(&self, input: &str) -> String {
        let said = self.run("apply -f -", input).await;
        assert!(!said.ok, "{}", said.out);
        said.err
    }
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
