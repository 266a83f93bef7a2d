//! Reads the command line and the environment, in one place. Names and defaults are those of the Sail
//! operator, so that one image can replace the other in a Deployment. Its flags that have no effect here
//! are accepted and said so.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, Parser, Subcommand};
use mesh_api::sail::OPERATOR;
use mesh_kube::queue::Pace;
use mesh_render::PlatformKind;
use mesh_runtime::{
    environment::{self, Environment},
    log,
};

use crate::{
    config::{Config, Listen},
    engine::Patience,
    images::Overrides,
    world::Defaults,
};

/// Why the program cannot be configured. The one who deploys it is at fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable or flag has a value of the wrong form.
    #[error(transparent)]
    Value(#[from] environment::Error),
    /// The file of `--config-file` cannot be read.
    #[error("read the properties file {}", path.display())]
    Properties {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line of that file is not a property.
    #[error("read the properties file {}: line {line} is not of the form name=value", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
}

/// The command line. Without a command it runs.
#[derive(Debug, Parser)]
#[command(
    name = "operator",
    about = "Installs, upgrades and removes the mesh as its custom resources say.",
    after_help = "Flags, environment, ports, metrics and events: docs/reference/operator.md",
    disable_version_flag = true,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `run`, which may be left out.
    #[command(flatten)]
    pub flags: Flags,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator until SIGTERM or SIGINT.
    Run(Box<Flags>),
    /// Print the objects that resources become, as YAML, without a cluster.
    Render(Rendering),
    /// Print the rights that the operator needs, as YAML.
    Rights(Rights),
    /// Print the version and the OpenSSL in use.
    Version,
}

/// Flags of `operator render`.
#[derive(Clone, Debug, Args)]
pub struct Rendering {
    /// File with the resources, in YAML or JSON; `-` for standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub filename: PathBuf,
    /// The cluster: kubernetes, openshift, gke, k3d, k3s, microk8s or minikube.
    #[arg(long, value_name = "PLATFORM", default_value = "kubernetes", value_parser = platform)]
    pub platform: PlatformKind,
    /// The nodes are in FIPS mode.
    #[arg(long)]
    pub fips: bool,
}

/// Flags of `operator rights`.
#[derive(Clone, Debug, Args)]
pub struct Rights {
    /// The operator's namespace.
    #[arg(short = 'n', long, default_value = crate::rights::NAME)]
    pub namespace: String,
    /// What it needs beside that to deploy Istio's own images.
    #[arg(long)]
    pub istio_images: bool,
}

/// Flags of `operator run`.
#[derive(Clone, Debug, Default, Args)]
pub struct Flags {
    /// Address of the metrics over HTTPS; 0 for none [default: :8443].
    #[arg(long, value_name = "ADDRESS")]
    metrics_bind_address: Option<String>,
    /// Directory with tls.crt and tls.key for the metrics [default: a self-signed certificate].
    #[arg(long, value_name = "DIRECTORY")]
    metrics_cert_path: Option<PathBuf>,
    /// Address of /healthz and /readyz [default: :8081].
    #[arg(long, value_name = "ADDRESS")]
    health_probe_bind_address: Option<String>,
    /// File with properties such as images.v1_30_3.ztunnel=IMAGE [default:
    /// /etc/sail-operator/config.properties, if it exists].
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Resources that are reconciled at the same time [default: 1].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=32))]
    max_concurrent_reconciles: Option<u8>,
    /// Elect one replica, which alone writes [default: true].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    leader_elect: Option<bool>,
    /// Log every request to the API server.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    log_api_requests: Option<bool>,
    /// Log levels, as in RUST_LOG [default: info].
    #[arg(long, value_name = "LEVELS")]
    log_level: Option<String>,
    /// Write logs as JSON.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    log_as_json: Option<bool>,
    /// Kubeconfig of the API server [default: the pod's service account].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Print the version and end.
    #[arg(long)]
    pub version: bool,
    /// There are no charts: without effect.
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    resource_directory: Option<PathBuf>,
    /// Without effect: see RUST_LOG.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    log_enqueue_events: Option<bool>,
    /// As --log-level.
    #[arg(long, value_name = "LEVEL", hide = true)]
    zap_log_level: Option<String>,
    /// `json` is --log-as-json.
    #[arg(long, value_name = "ENCODER", hide = true)]
    zap_encoder: Option<String>,
    /// Without effect.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    zap_devel: Option<bool>,
    /// Without effect.
    #[arg(long, hide = true)]
    zap_stacktrace_level: Option<String>,
    /// Without effect.
    #[arg(long, hide = true)]
    zap_time_encoding: Option<String>,
}

/// Where Sail's Deployment projects its annotations to.
const PROPERTIES: &str = "/etc/sail-operator/config.properties";

// === impl Config ===

impl Config {
    /// The configuration that flags and environment ask for. A flag wins over a variable.
    pub fn try_new(flags: &Flags, env: &Environment) -> Result<Self, Error> {
        let namespace = env.filled("POD_NAMESPACE").unwrap_or(OPERATOR);
        Ok(Self {
            pod: env.pod_name("operator"),
            defaults: Defaults {
                namespace: namespace.to_owned(),
                images: images(flags, env)?,
            },
            kubeconfig: flags
                .kubeconfig
                .clone()
                .or_else(|| env.filled("KUBECONFIG").map(Into::into)),
            listen: Listen {
                metrics: match flags.metrics_bind_address.as_deref() {
                    Some("0") => None,
                    given => Some(environment::address("--metrics-bind-address", given, 8443)?),
                },
                certificate: flags.metrics_cert_path.clone(),
                probes: environment::address(
                    "--health-probe-bind-address",
                    flags.health_probe_bind_address.as_deref(),
                    8081,
                )?,
            },
            elect: flags.leader_elect.unwrap_or(true),
            workers: flags.max_concurrent_reconciles.unwrap_or(1).into(),
            pace: Pace::default(),
            patience: Patience::default(),
            log: log(flags, env),
        })
    }
}

// === impl Flags ===

impl Flags {
    /// Flags that were given and have no effect, for the log.
    pub fn without_effect(&self) -> Vec<&'static str> {
        let flags = [
            ("--resource-directory", self.resource_directory.is_some()),
            ("--log-enqueue-events", self.log_enqueue_events.is_some()),
            ("--zap-devel", self.zap_devel.is_some()),
            (
                "--zap-stacktrace-level",
                self.zap_stacktrace_level.is_some(),
            ),
            ("--zap-time-encoding", self.zap_time_encoding.is_some()),
        ];
        let given = flags.into_iter().filter(|(_, given)| *given);
        given.map(|(flag, _)| flag).collect()
    }
}

fn platform(name: &str) -> Result<PlatformKind, String> {
    let known = PlatformKind::named(name).filter(|_| !name.is_empty());
    known.ok_or_else(|| "use kubernetes, openshift, gke, k3d, k3s, microk8s or minikube".to_owned())
}

/// Images from the environment and the properties file, of which the environment wins.
fn images(flags: &Flags, env: &Environment) -> Result<Overrides, Error> {
    let mut images = Overrides::default();
    let file = match &flags.config_file {
        Some(path) => Some((path.as_path(), fs::read_to_string(path))),
        None => Some(Path::new(PROPERTIES))
            .filter(|path| path.exists())
            .map(|path| (path, fs::read_to_string(path))),
    };
    if let Some((path, text)) = file {
        let text = text.map_err(|source| Error::Properties {
            path: path.to_owned(),
            source,
        })?;
        properties(path, &text, &mut images)?;
    }
    for (name, image) in env.prefixed("RELATED_IMAGE_") {
        images.take_variable(name, image);
    }
    Ok(images)
}

/// Lines `name=value`; a value may be quoted, as the downward API writes annotations. Properties that
/// are not about images of ours are passed over: other annotations of the pod are among them.
fn properties(path: &Path, text: &str, images: &mut Overrides) -> Result<(), Error> {
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| Error::Line {
            path: path.to_owned(),
            line: number + 1,
        })?;
        images.take_property(name.trim(), value.trim().trim_matches('"'));
    }
    Ok(())
}

fn log(flags: &Flags, env: &Environment) -> log::Config {
    let level = flags
        .log_level
        .as_deref()
        .or(flags.zap_log_level.as_deref());
    let level = match level {
        // Go's logs count from 0, which is info.
        Some(level) if level.parse::<i8>().is_ok_and(|level| level > 0) => "debug",
        Some(level) => level,
        None => "info",
    };
    let mut filter = env.filled("RUST_LOG").unwrap_or(level).to_owned();
    if flags.log_api_requests == Some(true) {
        filter.push_str(",kube=debug,kube_client=debug");
    }
    let zap = || flags.zap_encoder.as_deref() == Some("json");
    log::Config {
        filter,
        format: log::Format::json_if(flags.log_as_json.unwrap_or_else(zap)),
    }
}

#[cfg(test)]
mod tests;
