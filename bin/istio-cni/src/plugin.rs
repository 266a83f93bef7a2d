//! The commands of the specification.

use std::{
    ffi::OsString,
    fs,
    io::Read,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use mesh_cni::{
    config::PLUGIN,
    enrolment::Belongs,
    protocol::{Added, Attachment, IstioAdd, Refusal, Valid, ValidAttachment, Verb},
    spec::{Call, Code, Failure, NetworkConfig, Outcome, Pod, Sandbox, Version, conf, version},
};
use serde::de::IgnoredAny;

use crate::{
    agent::{Agent, Deadlines, Error},
    log::{Level, Log},
    supervise::Patience,
};

/// The agent's DaemonSet, whose name is a contract; its pods' names begin with it.
const AGENT: &str = "istio-cni-node";

/// What Istio's agent says of a pod that it leaves outside, since 1.26 at the latest.
const NOT_ELIGIBLE: &str = "not eligible for ambient";

/// For the log.
const ISTIO_LISTENS: &str = "Istio's agent listens";

/// One run of the plugin.
#[derive(Debug)]
pub struct Plugin {
    /// How long things are waited for.
    pub patience: Patience,
    /// The version that the runtime speaks, as soon as it is known.
    pub version: Arc<OnceLock<Version>>,
    /// When it began.
    pub started: Instant,
}

/// What the runtime gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// For standard output.
    pub text: String,
    /// The exit status.
    pub status: u8,
}

/// A call with all that belongs to it.
struct Run<'a> {
    config: &'a NetworkConfig,
    agent: Agent,
    log: &'a mut Log,
    plugin: &'a Plugin,
}

// === impl Answer ===

impl Answer {
    /// An error object.
    pub fn failure(failure: &Failure, version: Version) -> Self {
        Self {
            text: failure.to_json(version),
            status: 1,
        }
    }

    /// Success without words.
    pub fn nothing() -> Self {
        Self::success(String::new())
    }

    fn success(text: String) -> Self {
        Self { text, status: 0 }
    }
}

// === impl Plugin ===

impl Plugin {
    /// Does what the environment and standard input say.
    pub fn answer(
        &mut self,
        variable: impl Fn(&'static str) -> Option<OsString>,
        stdin: &mut impl Read,
    ) -> Answer {
        let outcome = match Call::from_environment(variable) {
            Ok(None) => return Answer::success(about()),
            Ok(Some(call)) => self.call(&call, stdin),
            // The configuration still says in which version to complain.
            Err(error) => {
                if let Ok(version) = read(stdin).and_then(|bytes| Ok(conf::version_of(&bytes)?)) {
                    self.version.get_or_init(|| version);
                }
                Err(error.into())
            }
        };
        match outcome {
            Ok(text) => Answer::success(text),
            Err(failure) => {
                let version = self.version.get().copied().unwrap_or(Version::LATEST);
                Answer::failure(&failure, version)
            }
        }
    }

    fn call(&self, call: &Call, stdin: &mut impl Read) -> Result<String, Failure> {
        let bytes = read(stdin)?;
        let spoken = conf::version_of(&bytes).ok();
        if let Some(version) = spoken {
            self.version.get_or_init(|| version);
        }
        if *call == Call::Version {
            return Ok(version::answer(spoken));
        }
        let config = NetworkConfig::parse(&bytes, call)?;
        let mut log = Log::new(&config.plugin.plugin_log_level, call.name());
        let mut run = Run {
            config: &config,
            agent: Agent::at(&config.plugin.cni_agent_run_dir),
            log: &mut log,
            plugin: self,
        };
        let outcome = run.call(call);
        if let Err(failure) = &outcome {
            let text = format!(
                "{} failed: {}: {}",
                call.name(),
                failure.message,
                failure.details
            );
            log.line(Level::Error, text.trim_end_matches(": "));
        }
        let run_dir = Path::new(&config.plugin.cni_agent_run_dir);
        log.flush(run_dir, self.patience.log);
        outcome
    }
}

// === impl Run ===

impl Run<'_> {
    fn call(&mut self, call: &Call) -> Result<String, Failure> {
        match call {
            Call::Add(sandbox) => self.add(sandbox),
            Call::Check(sandbox) => self.check(sandbox),
            Call::Delete(sandbox) => {
                self.delete(sandbox);
                Ok(String::new())
            }
            Call::Collect => self.collect(),
            Call::Status => self.status(),
            Call::Version => Ok(version::answer(Some(self.config.version))),
        }
    }

    fn add(&mut self, sandbox: &Sandbox) -> Result<String, Failure> {
        self.log.of(sandbox);
        let previous = self.previous()?;
        if let Some(pod) = self.concerned(sandbox) {
            refuse_own_network(&sandbox.netns)?;
            let attachment = self.attachment(sandbox, pod, previous.as_ref());
            let asked = self.agent.ask(Verb::Add, &attachment, self.patient());
            match asked {
                Ok(Added { enrolled }) => {
                    let verdict = if enrolled {
                        "in the mesh"
                    } else {
                        "does not belong in the mesh"
                    };
                    self.log.line(Level::Debug, verdict);
                }
                Err(Error::Unknown) => self.add_by_istio(pod, &attachment)?,
                Err(error) => self.without_agent(pod, error)?,
            }
        }
        let version = self.config.version;
        let outcome = match previous {
            Some(previous) => previous.into_version(version),
            None => Outcome::empty(version),
        };
        Ok(outcome.to_json())
    }

    fn check(&mut self, sandbox: &Sandbox) -> Result<String, Failure> {
        self.log.of(sandbox);
        let previous = self.previous()?;
        if let Some(pod) = self.concerned(sandbox) {
            let attachment = self.attachment(sandbox, pod, previous.as_ref());
            let asked = self.agent.ask(Verb::Check, &attachment, self.patient());
            match asked {
                Ok(IgnoredAny) => {}
                // Its own plugin checks nothing either.
                Err(Error::Unknown) => self.log.line(Level::Debug, ISTIO_LISTENS),
                Err(error) => self.without_agent(pod, error)?,
            }
        }
        Ok(String::new())
    }

    /// Never fails: a pod that cannot be deleted would occupy the node, and the agent sees by itself that it has
    /// gone.
    fn delete(&mut self, sandbox: &Sandbox) {
        self.log.of(sandbox);
        let Some(pod) = &sandbox.pod else {
            return;
        };
        // Also of namespaces that are excluded now: the pod may have been added before.
        let attachment = self.attachment(sandbox, pod, None);
        let asked = self.agent.ask(Verb::Delete, &attachment, self.brief());
        match asked {
            Ok(IgnoredAny) => {}
            Err(Error::Unreachable(reason)) => {
                let text = format!("the agent cannot be told that the pod goes: {reason}");
                self.log.line(Level::Info, &text);
            }
            Err(Error::Refused(refusal)) => self.log.line(Level::Warn, &refusal.message),
            Err(Error::Unknown) => self.log.line(Level::Debug, ISTIO_LISTENS),
        }
    }

    fn collect(&mut self) -> Result<String, Failure> {
        let valid = self.config.valid.iter().map(|attachment| ValidAttachment {
            container_id: attachment.container_id.clone(),
            interface: attachment.ifname.clone(),
        });
        let valid = Valid {
            network: self.config.network.clone(),
            attachments: valid.collect(),
        };
        match self.agent.ask(Verb::Collect, &valid, self.brief()) {
            // Istio's agent sees by itself which pods have gone.
            Ok(IgnoredAny) | Err(Error::Unknown) => Ok(String::new()),
            Err(Error::Refused(refusal)) => Err(refused(refusal)),
            Err(Error::Unreachable(reason)) => Err(Failure {
                code: Code::TryAgain,
                message: format!("what pods left is not collected: {}", self.absence()),
                details: reason,
            }),
        }
    }

    /// Fails only where the configuration says so. While it fails the node is not ready: no pod with a network of
    /// its own is started, whether it belongs in the mesh or not, and after some minutes those that run are
    /// evicted. ADD is what keeps pods of the mesh from running outside of it.
    fn status(&mut self) -> Result<String, Failure> {
        let failure = match self.agent.ask(Verb::Status, &(), self.brief()) {
            // Whether Istio's agent takes pods in is seen when one is added.
            Ok(IgnoredAny) | Err(Error::Unknown) => return Ok(String::new()),
            Err(Error::Unreachable(reason)) => Failure {
                code: Code::NotAvailable,
                message: format!("pods cannot be added: {}", self.absence()),
                details: reason,
            },
            Err(Error::Refused(refusal)) => Failure::new(Code::NotAvailable, refusal.message),
        };
        if self.config.plugin.status_needs_agent {
            return Err(failure);
        }
        let text = format!("{}: {}", failure.message, failure.details);
        self.log.line(Level::Warn, text.trim_end_matches(": "));
        Ok(String::new())
    }

    /// Istio's agent listens: it replaces ours, and its plugin has not yet replaced this one. It takes pods in and
    /// says which ones it does not, as its own plugin would not ask it about them.
    fn add_by_istio(&mut self, pod: &Pod, attachment: &Attachment) -> Result<(), Failure> {
        self.log.line(Level::Debug, ISTIO_LISTENS);
        let event = IstioAdd::from(attachment);
        match self.agent.ask(Verb::IstioAdd, &event, self.patient()) {
            Ok(IgnoredAny) => self.log.line(Level::Debug, "in the mesh"),
            Err(Error::Refused(refusal)) if refusal.message.contains(NOT_ELIGIBLE) => {
                self.log.line(Level::Debug, "does not belong in the mesh");
            }
            Err(error) => self.without_agent(pod, error)?,
        }
        Ok(())
    }

    /// Decides on a pod of which the agent has not said that it is right.
    fn without_agent(&mut self, pod: &Pod, error: Error) -> Result<(), Failure> {
        let reason = match error {
            Error::Refused(refusal) => return Err(refused(refusal)),
            Error::Unreachable(reason) => reason,
            Error::Unknown => "what listens on its socket is no agent of a mesh".to_owned(),
        };
        let (belongs, unknown) = self.agent.belongs(&pod.namespace);
        let why = match belongs {
            Belongs::No => {
                let text = format!("let through by {PLUGIN} alone, the agent is away: {reason}");
                self.log.line(Level::Warn, &text);
                return Ok(());
            }
            Belongs::Yes => "belongs in the mesh",
            Belongs::Perhaps => "may belong in the mesh",
        };
        let mut details = reason;
        if let Some(unknown) = unknown {
            details = format!("{details}; who belongs in the mesh is not known: {unknown}");
        }
        Err(Failure {
            code: Code::TryAgain,
            message: format!(
                "pod {}/{} {why} and must not start outside: {}",
                pod.namespace,
                pod.name,
                self.absence()
            ),
            details,
        })
    }

    /// What is wrong if the agent is away, and what to look at.
    fn absence(&self) -> String {
        let namespace = &self.config.plugin.pod_namespace;
        format!(
            "the mesh's agent on this node cannot be reached, which is a pod of DaemonSet {namespace}/{AGENT}; see why it is not running and ready"
        )
    }

    /// The pod, if the agent is to be asked about it.
    fn concerned<'s>(&mut self, sandbox: &'s Sandbox) -> Option<&'s Pod> {
        let plugin = &self.config.plugin;
        let verdict = match &sandbox.pod {
            None => "not a pod",
            _ if !plugin.ambient_enabled => "the mesh is off",
            Some(pod) if is_own(pod, &plugin.pod_namespace) => "a pod of the agent",
            Some(pod) if plugin.exclude_namespaces.contains(&pod.namespace) => {
                "of an excluded namespace"
            }
            Some(pod) => return Some(pod),
        };
        self.log
            .line(Level::Debug, &format!("let through: {verdict}"));
        None
    }

    fn previous(&self) -> Result<Option<Outcome>, Failure> {
        let previous = self.config.previous.clone();
        let parsed = previous.map(|previous| Outcome::parse(previous, self.config.version));
        Ok(parsed.transpose()?)
    }

    fn attachment(&self, sandbox: &Sandbox, pod: &Pod, previous: Option<&Outcome>) -> Attachment {
        Attachment {
            network: self.config.network.clone(),
            container_id: sandbox.container_id.clone(),
            interface: sandbox.interface.clone(),
            netns: sandbox.netns.clone(),
            pod_name: pod.name.clone(),
            pod_namespace: pod.namespace.clone(),
            pod_uid: pod.uid.clone(),
            addresses: previous.map(Outcome::addresses).unwrap_or_default(),
        }
    }

    fn patient(&self) -> Deadlines {
        let patience = &self.plugin.patience;
        Deadlines {
            answer: self.plugin.started + patience.call,
            absence: patience.absence,
            pause: patience.pause,
        }
    }

    fn brief(&self) -> Deadlines {
        let patience = &self.plugin.patience;
        Deadlines {
            answer: Instant::now() + patience.brief,
            absence: Duration::ZERO,
            pause: patience.pause,
        }
    }
}

/// What the runtime is told of what the agent will not do.
fn refused(refusal: Refusal) -> Failure {
    let code = if refusal.again {
        Code::TryAgain
    } else {
        Code::Refused
    };
    Failure::new(code, refusal.message)
}

/// The agent's own pods must start without it.
fn is_own(pod: &Pod, namespace: &str) -> bool {
    let name = pod.name.strip_prefix(AGENT);
    pod.namespace == namespace && name.is_some_and(|rest| rest.starts_with('-'))
}

/// A sandbox in the node's own network is a mistake of the caller: rules there would cut off the node.
fn refuse_own_network(netns: &str) -> Result<(), Failure> {
    let identity = |path: &str| fs::metadata(path).map(|about| (about.dev(), about.ino()));
    match (identity("/proc/self/ns/net"), identity(netns)) {
        (Ok(own), Ok(given)) if own == given => Err(Failure::new(
            Code::InvalidEnvironment,
            "CNI_NETNS must be the network namespace of a pod, not the node's own",
        )),
        // Where it cannot be opened from here, the agent says what is wrong.
        _ => Ok(()),
    }
}

fn read(stdin: &mut impl Read) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    // One byte more than allowed, so that more is seen to be too much.
    let most = u64::try_from(conf::MAX_BYTES).unwrap_or(u64::MAX);
    match stdin.take(most.saturating_add(1)).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failure {
            code: Code::InputOutput,
            message: "read the network configuration from standard input".to_owned(),
            details: error.to_string(),
        }),
    }
}

/// For somebody who starts it by hand.
fn about() -> String {
    let versions = Version::ALL.map(Version::as_str).join(", ");
    format!("{PLUGIN} is called by container runtimes. It speaks CNI {versions}.\n")
}
