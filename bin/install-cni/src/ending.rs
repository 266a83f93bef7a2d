//! The agent's end: finds out whether it is replaced or removed for good, and cleans up if it is removed.

use std::{sync::Arc, time::Duration};

use kube::Client;
use mesh_kube::watch::ObjectKey;
use mesh_runtime::error::chain;
use tokio::{sync::Mutex, time::sleep};

use crate::{
    installer::{
        self, Installer,
        shutdown::{Answer, Decision, Gone, Question},
    },
    program::NodeAgent,
};

/// What is to be done in the end.
#[derive(Debug)]
pub struct Ending {
    /// Who knows; nobody if everything is to be removed in any case.
    pub question: Option<Rehearsed>,
    /// What is installed.
    pub installer: Installer,
    /// What is programmed.
    pub handle: NodeAgent,
    /// The agent's own pod.
    pub pod: ObjectKey,
}

/// The question whether the agent is replaced, asked once before it matters. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rehearsed(Arc<Mutex<Question>>);

/// How long the API server is asked whether the agent is removed for good. Together with [`WITHDRAWAL`] and what
/// removing files takes it is less than the 30 s that Kubernetes gives a pod to end.
const DECISION: Duration = Duration::from_secs(12);

/// How long pods have to leave the mesh.
const WITHDRAWAL: Duration = Duration::from_secs(8);

/// How long to wait before an API server that does not answer is asked again.
const REHEARSAL: Duration = Duration::from_secs(30);

// === impl Ending ===

impl Ending {
    /// Decides, and removes everything if the agent will not come back.
    pub async fn run(&self) {
        let decision = match &self.question {
            Some(question) => {
                let ending = || self.handle.is_ending(&self.pod);
                let question = question.0.lock().await;
                Box::pin(question.decide(DECISION, ending)).await
            }
            None => Decision::CleanUp(Gone::Unasked),
        };
        match decision {
            Decision::Keep(why) => {
                tracing::info!(?why, "plugin and rules stay for the agent that follows");
            }
            Decision::CleanUp(why) => {
                tracing::info!(?why, "the mesh leaves this node: removing plugin and rules");
                self.clean_up().await;
            }
        }
    }

    /// The configuration goes first: from then on no new pod is told to us. What fails is told and left.
    async fn clean_up(&self) {
        if let Err(errors) = self.installer.clone().uninstall().await {
            for error in &errors {
                tracing::error!(error = %chain(error), "the plugin is not removed entirely");
            }
            if errors.iter().any(is_taken) {
                return;
            }
        }
        let withdrawn = self.handle.withdraw(WITHDRAWAL).await;
        for pod in &withdrawn.left {
            tracing::error!(
                pod,
                "a pod keeps rules that lead nowhere: delete it to have it started anew"
            );
        }
        if let Some(error) = &withdrawn.probes {
            tracing::error!(error, "the set of probed addresses is not removed");
        }
        let left = withdrawn.left.len();
        tracing::info!(left, "the mesh has left this node");
    }
}

/// Whether another agent has taken over: all that is there is its own then.
pub(crate) fn is_taken(error: &installer::Error) -> bool {
    matches!(error, installer::Error::Taken { .. })
}

// === impl Rehearsed ===

impl Rehearsed {
    /// The question about the DaemonSet in `namespace`, with regard to `node`.
    pub fn new(client: Client, namespace: &str, node: &str) -> Self {
        Self(Arc::new(Mutex::new(Question::new(client, namespace, node))))
    }

    /// Asks until there is an answer, so that a refusal in the end says something.
    pub async fn rehearse(&self) {
        while self.0.lock().await.rehearse().await == Answer::None {
            sleep(REHEARSAL).await;
        }
    }
}
