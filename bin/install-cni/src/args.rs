//! Reads the command line and the environment, in one place. Names and defaults are those of Istio's agent,
//! so that one image can replace the other in a DaemonSet. A flag `--a-b` is the variable `A_B`, and wins
//! over it. What asks for something that this agent does not do is an error where it would change what is
//! protected, and told once otherwise.

use std::{path::PathBuf, str::FromStr as _};

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand};
use mesh_cni::{
    config::PluginConfig,
    enrolment::{Invalid, Selector},
};
use mesh_redirect::{
    Families,
    options::{InvalidProbeAddress, ProbeAddresses},
};
use mesh_runtime::environment::{self, BOOL, Environment, shortened};
use serde_json::Value;

use crate::{
    config::{Config, Enrolment, Install, Listen, Paths, Pod, Rules},
    installer::{InvalidName, Mode},
    kernel::Variant,
};

mod log;
mod names;

use self::names::{FLAGS, Form, WITHOUT_EFFECT};

/// Why the program cannot be configured. The one who deploys it is at fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable or flag has a value of the wrong form.
    #[error(transparent)]
    Value(#[from] environment::Error),
    /// A variable that must be set is not.
    #[error("{name} is not set: {remedy}")]
    Missing {
        /// The variable.
        name: &'static str,
        /// What to set it to.
        remedy: &'static str,
    },
    /// A variable asks for something that this agent does not do.
    #[error("{name}=`{value}` is not supported by this agent: {remedy}")]
    Unsupported {
        /// The variable.
        name: &'static str,
        /// Its value, shortened.
        value: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// The selectors are not YAML.
    #[error("read {SELECTOR} as YAML: {LIST}")]
    Yaml(#[source] serde_yaml_ng::Error),
    /// The selectors are not such as Kubernetes has them.
    #[error("read {SELECTOR}: {LIST}")]
    Selector(#[source] Invalid),
    /// A file has a name that no container runtime would read.
    #[error("correct CNI_CONF_NAME or ISTIO_OWNED_CNI_CONFIG_FILENAME")]
    File(#[from] InvalidName),
    /// A probe address could be somebody else's.
    #[error("{name} is not usable: choose an address that nobody else has")]
    Probes {
        /// The variable.
        name: &'static str,
        /// What is wrong with it.
        source: InvalidProbeAddress,
    },
}

/// The command line. Without a command it runs.
#[derive(Debug, Parser)]
#[command(
    name = "install-cni",
    about = "Puts the node's pods in the mesh, keeps them there, and installs the CNI plugin.",
    after_help = "Flags, environment, ports, sockets and metrics: docs/reference/install-cni.md",
    disable_version_flag = true,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Task>,
    /// Flags of the agent.
    #[command(flatten)]
    pub flags: Flags,
}

/// What to do instead of running the agent.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Remove from this node what an agent has installed and programmed, whose DaemonSet has gone.
    Uninstall(Flags),
    /// Print the version and the OpenSSL in use.
    Version,
}

/// Flags that were given, by the variables that they stand for.
#[derive(Clone, Debug, Default)]
pub struct Flags(Vec<(String, String)>);

/// Selectors of the pods that belong in the mesh.
const SELECTOR: &str = "AMBIENT_ENABLEMENT_SELECTOR";
/// What it takes.
const LIST: &str = "write a list of selectors as in cni.ambient.enablementSelectors";

// === impl Flags ===

impl Flags {
    /// The environment with the flags over it.
    pub fn over(&self, env: &Environment) -> Environment {
        let variables = env.prefixed("").map(|(k, v)| (k.to_owned(), v.to_owned()));
        variables.chain(self.0.iter().cloned()).collect()
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        FLAGS.iter().fold(command, |command, flag| {
            let argument = Arg::new(flag.name).long(flag.name).help(flag.help);
            let argument = argument.hide(flag.help.is_empty());
            command.arg(match flag.form {
                Form::Switch => argument
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
                    .value_name("BOOL"),
                Form::Text(name) => argument.value_name(name),
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = FLAGS.iter().filter_map(|flag| {
            let value = matches.get_one::<String>(flag.name)?;
            Some((names::variable(flag.name), value.clone()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

// === impl Config ===

impl Config {
    /// The configuration that flags and environment ask for. A flag wins over a variable.
    pub fn try_new(flags: &Flags, env: &Environment) -> Result<Self, Error> {
        let env = &flags.over(env);
        refuse_unsupported(env)?;
        let node = env.filled("NODE_NAME");
        let node = node.or_else(|| env.filled("KUBERNETES_NODE_NAME"));
        Ok(Self {
            pod: Pod {
                name: env.pod_name("install-cni"),
                namespace: text(env, "POD_NAMESPACE", "istio-system"),
            },
            node: node.map(str::to_owned).ok_or(Error::Missing {
                name: "NODE_NAME",
                remedy: "have the downward API set it to spec.nodeName",
            })?,
            system_namespace: text(env, "SYSTEM_NAMESPACE", "istio-system"),
            kubeconfig: env.filled("KUBECONFIG").map(Into::into),
            listen: listen(env)?,
            paths: paths(env)?,
            install: install(env)?,
            enrolment: enrolment(env)?,
            rules: rules(env)?,
            safe_upgrade: !switch(env, "AMBIENT_DISABLE_SAFE_UPGRADE", false)?,
            log: log::log(env)?,
        })
    }
}

impl Config {
    /// What is needed to remove things from the node that this runs on, whatever it is called.
    pub fn of_node(flags: &Flags, env: &Environment) -> Result<Self, Error> {
        let unnamed = [("NODE_NAME".to_owned(), "unknown".to_owned())];
        let given = env.prefixed("").map(|(k, v)| (k.to_owned(), v.to_owned()));
        Self::try_new(flags, &unnamed.into_iter().chain(given).collect())
    }
}

/// Variables that are set and have no effect here, for the log.
pub fn without_effect(flags: &Flags, env: &Environment) -> Vec<(&'static str, &'static str)> {
    let env = flags.over(env);
    let asks = |name: &str| {
        let value = env.filled(name)?;
        // What asks for what happens anyway is not worth a word.
        (go_bool(value) != Some(false)).then_some(())
    };
    let given = WITHOUT_EFFECT
        .iter()
        .filter(|(name, _)| asks(name).is_some());
    given.copied().collect()
}

fn refuse_unsupported(env: &Environment) -> Result<(), Error> {
    const AMBIENT: &str = "AMBIENT_ENABLED";
    if switch(env, AMBIENT, true)? {
        return Ok(());
    }
    Err(Error::Unsupported {
        name: AMBIENT,
        value: shortened(env.filled(AMBIENT).unwrap_or_default()),
        remedy: "leave it out, or use Istio's image: this agent does nothing for sidecars",
    })
}

fn text(env: &Environment, name: &str, default: &str) -> String {
    env.filled(name).unwrap_or(default).to_owned()
}

/// Go's ways to write a boolean.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn optional_switch(env: &Environment, name: &str) -> Result<Option<bool>, Error> {
    let parse = |text| go_bool(text).ok_or_else(|| environment::Error::new(name, text, BOOL));
    Ok(env.filled(name).map(parse).transpose()?)
}

fn switch(env: &Environment, name: &str, default: bool) -> Result<bool, Error> {
    Ok(optional_switch(env, name)?.unwrap_or(default))
}

fn listen(env: &Environment) -> Result<Listen, Error> {
    const PORT: &str = "a port from 1 to 65535, or 0 for none";
    let port = |name, default: u16| -> Result<Option<u16>, Error> {
        // Istio takes any number that is not above 0 for none.
        let port = env
            .parsed::<i32>(name, PORT)?
            .unwrap_or_else(|| default.into());
        let valid = u16::try_from(port.max(0));
        let invalid = |_| environment::Error::new(name, &port.to_string(), PORT);
        Ok(Some(valid.map_err(invalid)?).filter(|port| *port > 0))
    };
    let everywhere = environment::unspecified();
    let local = match env.filled("CTRLZ_ADDRESS") {
        None | Some("localhost") => std::net::Ipv4Addr::LOCALHOST.into(),
        Some(_) => {
            let expected = "an IP address, or `localhost`";
            env.parsed("CTRLZ_ADDRESS", expected)?.unwrap_or(everywhere)
        }
    };
    Ok(Listen {
        metrics: port("MONITORING_PORT", 15014)?.map(|port| (everywhere, port).into()),
        probes: (everywhere, 8000).into(),
        debug: port("CTRLZ_PORT", 9876)?.map(|port| (local, port).into()),
    })
}

fn paths(env: &Environment) -> Result<Paths, Error> {
    let path = |name, default| text(env, name, default).into();
    let host: PathBuf = path("HOST_ROOT_DIR", "/host");
    let enter = switch(env, "ALLOW_SWITCH_TO_HOST_NS", false)?;
    Ok(Paths {
        run_dir: path("CNI_AGENT_RUN_DIR", PluginConfig::RUN_DIR),
        ztunnel: path("ZTUNNEL_UDS_ADDRESS", "/var/run/ztunnel/ztunnel.sock"),
        host_network: enter.then(|| host.join("proc/1/ns/net")),
        host,
        image_bin: path("IMAGE_CNI_BIN_DIR", "/opt/cni/bin"),
        cni_bin: path("MOUNTED_CNI_BIN_DIR", "/host/opt/cni/bin"),
        cni_net: path("MOUNTED_CNI_NET_DIR", "/host/etc/cni/net.d"),
    })
}

fn install(env: &Environment) -> Result<Install, Error> {
    // Istio's charts and Istio's agent do not agree on the name.
    let names = [
        "ISTIO_OWNED_CNI_CONFIG_FILENAME",
        "ISTIO_OWNED_CNI_CONF_FILENAME",
    ];
    let owned = names.iter().find_map(|name| env.filled(name));
    let owned = switch(env, "ISTIO_OWNED_CNI_CONFIG", false)?.then(|| owned.unwrap_or_default());
    let chained = switch(env, "CHAINED_CNI_PLUGIN", true)?;
    let conf_name = env.filled("CNI_CONF_NAME").unwrap_or_default();
    Ok(Install {
        mode: Mode::new(chained, conf_name, owned)?,
        group_read: switch(env, "CNI_CONF_GROUP_READ", false)?,
        plugin_log_level: log::plugin_level(env)?,
        status_needs_agent: status_needs_agent(env)?,
    })
}

/// Refused where it would keep the agent itself from starting.
fn status_needs_agent(env: &Environment) -> Result<bool, Error> {
    const STATUS: &str = "STATUS_NEEDS_AGENT";
    let needed = switch(env, STATUS, false)?;
    if needed && switch(env, "ALLOW_SWITCH_TO_HOST_NS", false)? {
        return Err(Error::Unsupported {
            name: STATUS,
            value: needed.to_string(),
            remedy: "leave it out, or give the agent the node's network \
                     (cni.ambient.shareHostNetworkNamespace): its pod could not start while STATUS fails",
        });
    }
    Ok(needed)
}

fn enrolment(env: &Environment) -> Result<Enrolment, Error> {
    let selectors = match env.filled(SELECTOR) {
        None => Selector::defaults(),
        Some(text) => {
            let list: Value = serde_yaml_ng::from_str(text).map_err(Error::Yaml)?;
            Selector::parse_list(&list).map_err(Error::Selector)?
        }
    };
    let excluded = env.filled("EXCLUDE_NAMESPACES").unwrap_or_default();
    let excluded = excluded.split(',').map(str::trim).filter(|n| !n.is_empty());
    Ok(Enrolment {
        selectors,
        excluded: excluded.map(str::to_owned).collect(),
    })
}

fn rules(env: &Environment) -> Result<Rules, Error> {
    const BINARY: &str = "FORCE_IPTABLES_BINARY";
    let variant = |name| Variant::from_str(name).ok();
    let iptables = match env.filled(BINARY).map(|name| (name, variant(name))) {
        Some((name, None)) => {
            let expected = "`legacy` or `nft`, or nothing to let the agent find out";
            return Err(environment::Error::new(BINARY, name, expected).into());
        }
        known => known.and_then(|(_name, variant)| variant),
    };
    let ipv6 = switch(env, "AMBIENT_IPV6", true)?;
    Ok(Rules {
        native_nftables: optional_switch(env, "NATIVE_NFTABLES")?,
        iptables,
        branch_interfaces: switch(env, "AMBIENT_ENABLE_AWS_BRANCH_ENI_PROBE", true)?,
        families: Families::new(true, ipv6).unwrap_or(Families::Dual),
        dns_capture: switch(env, "AMBIENT_DNS_CAPTURE", false)?,
        probes: probes(env)?,
    })
}

fn probes(env: &Environment) -> Result<ProbeAddresses, Error> {
    use std::net::IpAddr::{V4, V6};
    const NAMES: [&str; 2] = ["HOST_PROBE_SNAT_IP", "HOST_PROBE_SNAT_IPV6"];
    let default = ProbeAddresses::default();
    let (V4(v4), V6(v6)) = (
        default.of(mesh_redirect::Family::V4),
        default.of(mesh_redirect::Family::V6),
    ) else {
        return Ok(default);
    };
    let v4 = env
        .parsed(NAMES[0], "an IPv4 address in 169.254.0.0/16")?
        .unwrap_or(v4);
    let v6 = env
        .parsed(NAMES[1], "an IPv6 address in fc00::/7")?
        .unwrap_or(v6);
    ProbeAddresses::new(v4, v6).map_err(|source| Error::Probes {
        name: match source {
            InvalidProbeAddress::NotLinkLocal(_) => NAMES[0],
            InvalidProbeAddress::NotPrivate(_) => NAMES[1],
        },
        source,
    })
}

#[cfg(test)]
mod tests;
