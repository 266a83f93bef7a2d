//! The real kubectl, as the administrator of an embedded API server.

use std::path::PathBuf;

use testkit_kube::{
    auth::User,
    kubectl::{self, Said},
    server::{ApiServer, Options},
};
use tokio::process::Command;

/// kubectl as the administrator of a cluster.
pub(crate) struct Kubectl {
    server: ApiServer,
    program: kubectl::Kubectl,
}

impl Kubectl {
    pub(crate) async fn start() -> Self {
        let server = ApiServer::start(Options::default()).await.unwrap();
        let kubeconfig = server.kubeconfig(&User::admin()).unwrap();
        let program = kubectl::Kubectl::new(&kubeconfig).unwrap();
        Self { server, program }
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
        self.program.minor().await.unwrap()
    }

    pub(crate) async fn run(&self, command: &str, input: &str) -> Said {
        carry_out(self.program.command(command), command, input).await
    }

    /// What a shell says to some lines.
    pub(crate) async fn shell(&self, lines: &str) -> Said {
        carry_out(self.program.shell(lines), lines, "").await
    }

    pub(crate) async fn say(&self, command: &str) -> String {
        self.say_with(command, "").await
    }

    pub(crate) async fn say_with(&self, command: &str, input: &str) -> String {
        self.run(command, input).await.succeeds()
    }

    pub(crate) async fn complaint(&self, input: &str) -> String {
        self.run("apply -f -", input).await.fails()
    }
}

/// Runs a command where the files lie that guides name.
async fn carry_out(mut process: Command, name: &str, input: &str) -> Said {
    process.current_dir(root());
    kubectl::run(process, name, input).await.unwrap()
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
