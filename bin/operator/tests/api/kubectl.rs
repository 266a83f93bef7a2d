//! kubectl as a stranger would run it against the cluster.

use testkit_kube::{
    auth::User,
    kubectl::{self, Said},
};

use super::cluster::Cluster;

/// kubectl, as the administrator.
pub(crate) struct Kubectl(kubectl::Kubectl);

impl Kubectl {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let kubeconfig = cluster.server.kubeconfig(&User::admin()).unwrap();
        Self(kubectl::Kubectl::new(&kubeconfig).unwrap())
    }

    /// The output of a command that must succeed.
    pub(crate) async fn say(&self, command: &str) -> String {
        self.say_with(command, "").await
    }

    /// As [`say`](Self::say), with something to read.
    pub(crate) async fn say_with(&self, command: &str, input: &str) -> String {
        self.attempt(command, input).await.succeeds()
    }

    /// What a command says that may fail.
    pub(crate) async fn attempt(&self, command: &str, input: &str) -> Said {
        self.0.attempt(command, input).await.unwrap()
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
