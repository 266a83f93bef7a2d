//! Reads the command line and the environment, in one place. Names and defaults are those of Istio's
//! istiod as far as they concern ambient, so that one image can replace the other in a Deployment. What
//! asks for something that this control plane does not do is an error where it would change what is
//! protected, and a warning otherwise.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use mesh_api::control_plane::{self, HTTP_PORT, MONITORING_PORT, SECURE_PORT};
use mesh_runtime::{
    environment::{self, Environment, NUMBER, shortened},
    log,
};

use crate::config::{Authority, Callers, Config, Features, Listen, Pod, Streams};

/// Why the program cannot be configured. The one who deploys it is at fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable or flag has a value of the wrong form.
    #[error(transparent)]
    Value(#[from] environment::Error),
    /// A variable asks for something this control plane does not do.
    #[error("{name}=`{value}` is not supported by this control plane: {remedy}")]
    Unsupported {
        /// The variable.
        name: &'static str,
        /// Its value, shortened.
        value: String,
        /// What to do instead.
        remedy: &'static str,
    },
}

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "istiod",
    about = "Ambient control plane: workload discovery, L4 policy, certificate authority.",
    after_help = "Environment, ports and metrics: docs/reference/istiod.md",
    disable_version_flag = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane until SIGTERM or SIGINT.
    Discovery(Box<Flags>),
    /// Print the version and the OpenSSL in use.
    Version,
}

/// Flags of `istiod discovery`.
#[derive(Clone, Debug, Default, Args)]
#[command(rename_all = "camelCase")]
pub struct Flags {
    /// Address of discovery and certificates over TLS [default: :15012].
    #[arg(long = "secureGRPCAddr", value_name = "ADDRESS")]
    secure_grpc_addr: Option<String>,
    /// Address of readiness and debug endpoints [default: :8080].
    #[arg(long = "httpAddr", value_name = "ADDRESS")]
    http_addr: Option<String>,
    /// Address of metrics [default: :15014].
    #[arg(long = "monitoringAddr", value_name = "ADDRESS")]
    monitoring_addr: Option<String>,
    /// DNS domain of the cluster's services [default: cluster.local].
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// Kubeconfig of the API server [default: the pod's service account].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<std::path::PathBuf>,
    /// Mesh configuration where there is no ConfigMap [default: ./etc/istio/config/mesh].
    #[arg(long = "meshConfig", value_name = "FILE")]
    mesh_config: Option<std::path::PathBuf>,
    /// Namespace of the control plane [default: POD_NAMESPACE, or istio-system].
    #[arg(short = 'n', long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// How old a connection of a proxy may get [default: 30m].
    #[arg(long = "keepaliveMaxServerConnectionAge", value_name = "DURATION")]
    keepalive_max_server_connection_age: Option<String>,
    /// Log levels, as `level` or `scope:level,…` [default: info].
    #[arg(long = "log_output_level", value_name = "LEVELS")]
    log_output_level: Option<String>,
    /// Write logs as JSON.
    #[arg(long = "log_as_json", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    log_as_json: Option<bool>,
    /// There is no plaintext discovery port: must be empty or absent.
    #[arg(long = "grpcAddr", value_name = "ADDRESS", hide = true)]
    grpc_addr: Option<String>,
    /// There are no webhooks: passed over.
    #[arg(long = "httpsAddr", value_name = "ADDRESS", hide = true)]
    https_addr: Option<String>,
    /// HTTP/2 pings are always on: passed over.
    #[arg(long = "keepaliveInterval", value_name = "DURATION", hide = true)]
    keepalive_interval: Option<String>,
    /// HTTP/2 pings are always on: passed over.
    #[arg(long = "keepaliveTimeout", value_name = "DURATION", hide = true)]
    keepalive_timeout: Option<String>,
}

const DURATION: &str = environment::DURATION;
const DAY: Duration = Duration::from_secs(24 * 3600);

// === impl Config ===

impl Config {
    /// The configuration that flags and environment ask for. A flag wins over a variable.
    pub fn try_new(flags: &Flags, env: &Environment) -> Result<Self, Error> {
        refuse_unsupported(flags, env)?;
        let namespace = flags.namespace.as_deref();
        let namespace = namespace.or_else(|| env.filled("POD_NAMESPACE"));
        let namespace = namespace.unwrap_or("istio-system");
        let revision = env.filled("REVISION").unwrap_or_default();
        let kubeconfig = flags.kubeconfig.clone();
        let mesh_file = flags.mesh_config.clone();
        Ok(Self {
            pod: Pod {
                name: env.pod_name("istiod"),
                namespace: namespace.into(),
            },
            revision: if revision == "default" { "" } else { revision }.to_owned(),
            cluster_id: env.filled("CLUSTER_ID").unwrap_or("Kubernetes").into(),
            domain: domain(flags)?.into(),
            kubeconfig: kubeconfig.or_else(|| env.filled("KUBECONFIG").map(Into::into)),
            mesh_file: mesh_file.unwrap_or_else(|| "./etc/istio/config/mesh".into()),
            listen: Listen {
                secure: environment::address(
                    "--secureGRPCAddr",
                    flags.secure_grpc_addr.as_deref(),
                    SECURE_PORT,
                )?,
                http: environment::address("--httpAddr", flags.http_addr.as_deref(), HTTP_PORT)?,
                monitoring: environment::address(
                    "--monitoringAddr",
                    flags.monitoring_addr.as_deref(),
                    MONITORING_PORT,
                )?,
            },
            callers: callers(env, namespace)?,
            authority: authority(env)?,
            streams: Streams {
                max_age: max_age(flags)?,
            },
            features: features(env)?,
            log: log(flags, env)?,
        })
    }
}

/// Settings that change what is protected must not be passed over in silence.
fn refuse_unsupported(flags: &Flags, env: &Environment) -> Result<(), Error> {
    for refusal in control_plane::REFUSED {
        let value = env.text(refusal.name).unwrap_or_default();
        if !refusal.accepted.contains(&value) {
            return Err(Error::Unsupported {
                name: refusal.name,
                value: shortened(value),
                remedy: refusal.remedy,
            });
        }
    }
    match flags.grpc_addr.as_deref() {
        None | Some("") => Ok(()),
        Some(value) => Err(Error::Unsupported {
            name: "--grpcAddr",
            value: shortened(value),
            remedy: "leave it out: there is no plaintext discovery port, proxies use 15012",
        }),
    }
}

fn domain(flags: &Flags) -> Result<&str, Error> {
    let domain = flags.domain.as_deref().unwrap_or("cluster.local");
    let label = |label: &str| {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty() && label.len() <= 63 && label.chars().all(allowed)
    };
    if domain.len() <= 200 && domain.split('.').all(label) {
        Ok(domain)
    } else {
        let expected = "a DNS domain in lower case such as `cluster.local`";
        Err(environment::Error::new("--domain", domain, expected).into())
    }
}

fn callers(env: &Environment, namespace: &str) -> Result<Callers, Error> {
    const ACCOUNTS: &str = "CA_TRUSTED_NODE_ACCOUNTS";
    let list = |text: &str| -> Vec<String> {
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    };
    let accounts = env.filled(ACCOUNTS).map(list);
    let accounts = accounts.unwrap_or_else(|| vec![format!("{namespace}/ztunnel")]);
    for account in &accounts {
        let parts = account.split_once('/');
        if !parts
            .is_some_and(|(ns, name)| !ns.is_empty() && !name.is_empty() && !name.contains('/'))
        {
            let expected = "`namespace/service-account`, several separated by commas";
            return Err(environment::Error::new(ACCOUNTS, account, expected).into());
        }
    }
    Ok(Callers {
        token_audiences: list(env.filled("TOKEN_AUDIENCES").unwrap_or("istio-ca")),
        trusted_node_accounts: accounts,
    })
}

fn authority(env: &Environment) -> Result<Authority, Error> {
    const GRACE: &str = "CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE";
    const DEFAULT: &str = "DEFAULT_WORKLOAD_CERT_TTL";
    let workload_ttl = env.duration(DEFAULT, DAY)?;
    let max_workload_ttl = env.duration("MAX_WORKLOAD_CERT_TTL", 90 * DAY)?;
    if workload_ttl > max_workload_ttl || workload_ttl.is_zero() {
        let expected = "a duration above 0 and not above MAX_WORKLOAD_CERT_TTL";
        let given = env.filled(DEFAULT).unwrap_or("24h");
        return Err(environment::Error::new(DEFAULT, given, expected).into());
    }
    let grace = env.parsed::<u8>(GRACE, NUMBER)?.unwrap_or(20);
    if !(1..=99).contains(&grace) {
        let expected = "a percentage from 1 to 99";
        return Err(environment::Error::new(GRACE, &grace.to_string(), expected).into());
    }
    let custom = env.filled("ISTIOD_CUSTOM_HOST").unwrap_or_default();
    let names = custom.split(',').map(str::trim).filter(|n| !n.is_empty());
    let interval = Duration::from_secs(3600);
    Ok(Authority {
        directory: env.filled("ROOT_CA_DIR").unwrap_or("./etc/cacerts").into(),
        rsa_bits: rsa_bits(env)?,
        root_ttl: env.duration("CITADEL_SELF_SIGNED_CA_CERT_TTL", 3650 * DAY)?,
        check_interval: env.duration("CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL", interval)?,
        grace_percent: grace,
        jitter: env.flag("CITADEL_ENABLE_JITTER_FOR_ROOT_CERT_ROTATOR", true)?,
        workload_ttl,
        max_workload_ttl,
        further_names: names.map(str::to_owned).collect(),
    })
}

fn rsa_bits(env: &Environment) -> Result<Option<u32>, Error> {
    const NAME: &str = "CITADEL_SELF_SIGNED_CA_RSA_KEY_SIZE";
    let bits = env.parsed::<u32>(NAME, NUMBER)?;
    match bits {
        Some(bits) if ![2048, 3072, 4096].contains(&bits) => {
            let expected = "2048, 3072 or 4096";
            Err(environment::Error::new(NAME, &bits.to_string(), expected).into())
        }
        accepted => Ok(accepted),
    }
}

fn max_age(flags: &Flags) -> Result<Duration, Error> {
    let Some(text) = &flags.keepalive_max_server_connection_age else {
        return Ok(Duration::from_secs(30 * 60));
    };
    let parsed = environment::duration(text).filter(|age| *age >= Duration::from_secs(1));
    parsed.ok_or_else(|| {
        environment::Error::new("--keepaliveMaxServerConnectionAge", text, DURATION).into()
    })
}

fn features(env: &Environment) -> Result<Features, Error> {
    const UNREADY: &str = "WAYPOINT_UNREADY";
    Ok(Features {
        status: env.flag("AMBIENT_ENABLE_STATUS", true)?,
        dry_run_policies: env.flag("AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY", false)?,
        allocate_addresses: env.flag("PILOT_ENABLE_IP_AUTOALLOCATE", true)?,
        bypass_unready_waypoints: match env.filled(UNREADY) {
            None | Some("block") => false,
            Some("bypass") => true,
            Some(other) => {
                let expected = "`block` or `bypass`";
                return Err(environment::Error::new(UNREADY, other, expected).into());
            }
        },
    })
}

fn log(flags: &Flags, env: &Environment) -> Result<log::Config, Error> {
    let filter = match (&flags.log_output_level, env.filled("RUST_LOG")) {
        (_, Some(filter)) => filter.to_owned(),
        (Some(levels), None) => filter(levels)?,
        (None, None) => "info".to_owned(),
    };
    let format = log::Format::json_if(flags.log_as_json.unwrap_or(false));
    Ok(log::Config { filter, format })
}

/// Istio's scopes in terms of ours. A scope that this program does not have is passed over.
fn filter(levels: &str) -> Result<String, Error> {
    let directive = |part: &str| {
        let (scope, level) = part.split_once(':').unwrap_or(("default", part));
        let known = ["none", "error", "warn", "info", "debug"].contains(&level);
        let level = if level == "none" { "off" } else { level };
        let directives = match scope {
            "default" | "all" => level.to_owned(),
            "ads" | "delta" => format!("mesh_xds={level}"),
            "ca" | "pkica" | "serverca" | "rootcertrotator" => {
                format!("mesh_identity={level},istiod::ca={level}")
            }
            "ambient" | "krt" | "model" => format!("mesh_index={level}"),
            "kube" | "klog" | "controllers" => format!("mesh_kube={level},kube={level}"),
            "authn" | "security" => format!("istiod::authn={level}"),
            _ => String::new(),
        };
        known.then_some(directives)
    };
    let directives = levels.split(',').map(|part| directive(part.trim()));
    let directives: Option<Vec<_>> = directives.collect();
    let directives = directives.ok_or_else(|| {
        let expected = "`level` or `scope:level`, with a level of none, error, warn, info or debug";
        environment::Error::new("--log_output_level", levels, expected)
    })?;
    let directives: Vec<_> = directives.into_iter().filter(|d| !d.is_empty()).collect();
    Ok(if directives.is_empty() {
        "info".to_owned()
    } else {
        directives.join(",")
    })
}

#[cfg(test)]
mod tests;
