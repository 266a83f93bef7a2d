//! The packet filter of the node: rules in pods, and the host's probe set.
//!
//! [`Kernel`] hides which of the two mechanisms the node has. With nf_tables everything is spoken over
//! netlink, and no program is needed; otherwise `iptables-restore` and the kernel's IP sets are used.
//! What the mechanism that is not used left behind is removed on the way, so that a node changes from
//! one to the other without a restart of anything.

use std::{fmt, str::FromStr, sync::Arc};

use mesh_net::{
    ipset,
    netns::{self, NetNs},
    nfnetlink, routing,
};
use mesh_redirect::{
    Families, Options, Verdict, backend, in_pod, netlink::Batch, on_host, options::ProbeAddresses,
};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};

use crate::parts::Rules;

mod detection;
mod findings;
mod nftables;
mod probes;
mod programs;
mod routes;

use findings::Findings;
use programs::Programs;

/// What the node's packet filter is used for and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// The host's own network namespace, where the probe set is.
    pub host: Arc<NetNs>,
    /// Whether nf_tables must be used (`true`) or must not (`false`); `NATIVE_NFTABLES`. None: if the
    /// kernel has it.
    pub native_nftables: Option<bool>,
    /// The variant of iptables to use, instead of nf_tables over netlink unless `native_nftables` asks
    /// for that; `FORCE_IPTABLES_BINARY`. None: see [`Kernel::detect`].
    pub iptables: Option<Variant>,
    /// The families that are captured. The node's probe set has members of these alone; inserting another
    /// has no effect.
    pub families: Families,
    /// Where probes seem to come from.
    pub probes: ProbeAddresses,
    /// Whether probes are led back from pods that have a network interface of the cloud for themselves
    /// (security groups for pods, on AWS), where the host is set up for that;
    /// `AMBIENT_ENABLE_AWS_BRANCH_ENI_PROBE`.
    pub branch_interfaces: bool,
    /// How many namespaces are worked on at once, at least one. Each takes a thread while it lasts.
    pub parallel: usize,
}

/// A variant of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// `iptables-nft`: the same commands, kept by nf_tables.
    Nft,
    /// `iptables-legacy`: the kernel's older packet filter.
    Legacy,
}

/// No variant has this name; whoever sets `FORCE_IPTABLES_BINARY` has to correct it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no variant of iptables; known are nft and legacy")]
pub struct UnknownVariant(pub String);

/// What puts rules into this node's kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// nf_tables, over netlink.
    Nftables,
    /// The programs of iptables, and IP sets.
    Iptables(Variant),
}

/// The node's packet filter. Cheap to clone; clones share the bound on what is done at once.
#[derive(Clone, Debug)]
pub struct Kernel {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    mechanism: Mechanism,
    /// The families that the mechanism can do.
    families: Families,
    /// Those of the probe set.
    probe_families: Families,
    probes: ProbeAddresses,
    host: Arc<NetNs>,
    /// What is used, if the mechanism is iptables.
    programs: Option<Programs>,
    /// What removes leftovers of the legacy variant, if that is installed.
    legacy: Option<Programs>,
    /// Whether there may be tables of nf_tables.
    has_nf_tables: bool,
    /// Whether pods may have interfaces of the cloud for themselves.
    branch_interfaces: bool,
    turns: Arc<Semaphore>,
    /// Held while the host's rules and sets are changed.
    host_turn: Mutex<()>,
}

/// What could not be done to the packet filter.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The agent may not change rules. Give its container `CAP_NET_ADMIN`.
    #[error("{doing}: not permitted; the agent needs the capability NET_ADMIN")]
    NotPermitted {
        /// What was to be done.
        doing: String,
        /// The kernel's words.
        source: nfnetlink::Error,
    },
    /// The kernel does not know a part of a rule: a module is missing. Load it, or have the node's
    /// kernel built with it.
    #[error(
        "{doing}: the kernel lacks {module} (CONFIG_NF_TABLES and its modules); load it on the node, or \
         set FORCE_IPTABLES_BINARY to use iptables"
    )]
    NoModule {
        /// What was to be done.
        doing: String,
        /// The module that is most likely missing.
        module: &'static str,
        /// The kernel's words.
        source: nfnetlink::Error,
    },
    /// The kernel refused, or others change rules all the time. Retrying may help.
    #[error("{doing}")]
    Netfilter {
        /// What was to be done.
        doing: String,
        /// The reason.
        source: nfnetlink::Error,
    },
    /// A pod's namespace cannot be entered.
    #[error("enter the namespace")]
    Namespace(#[from] netns::Error),
    /// The policy route.
    #[error("change the policy route")]
    Route(#[from] routing::Error),
    /// A program of iptables failed; its words say why.
    #[error("change rules with iptables")]
    Program(#[from] mesh_net::command::Error),
    /// What a program of iptables printed cannot be understood. Nothing was changed.
    #[error("plan rules for iptables")]
    Plan(#[from] backend::Error),
    /// A set for iptables.
    #[error("change the probe set")]
    Set(#[from] ipset::Error),
    /// The variant that is asked for is not installed in the agent's image, or does not work with the
    /// node's kernel. Correct `FORCE_IPTABLES_BINARY`, or take an image with iptables.
    #[error("iptables-{0} is asked for, and does not work here: {1}")]
    Forced(Variant, String),
    /// The node has neither. Load the modules of nf_tables, or of iptables and take an image that has
    /// its programs.
    #[error(
        "neither nf_tables nor iptables works here; nf_tables: {nftables}; iptables: {iptables}"
    )]
    Nothing {
        /// Why not nf_tables.
        nftables: String,
        /// Why not iptables.
        iptables: String,
    },
    /// A pod's UID is no comment; the API server gave it.
    #[error("a pod's UID of {0} bytes is too long for the probe set")]
    Uid(usize),
    /// The program ends.
    #[error("the agent ends")]
    Ended,
}

// === impl Kernel ===

impl Kernel {
    /// Finds out what this node has, by trying it in the host's namespace without effect.
    ///
    /// What is configured is used, and it is an error if the node does not have it. Otherwise nf_tables
    /// is used if the kernel has all of it that is needed, then `iptables-legacy` if rules are in it
    /// already, then `iptables-nft`, then `iptables-legacy`.
    pub async fn detect(config: &Config) -> Result<Self, Error> {
        let inner = Arc::new(detection::detect(config).await?);
        tracing::info!(
            mechanism = %inner.mechanism,
            ipv6 = inner.families != Families::Only(mesh_redirect::Family::V4),
            "packet filter chosen"
        );
        Ok(Self { inner })
    }

    /// What is used; to be logged and exported as a metric.
    pub fn mechanism(&self) -> Mechanism {
        self.inner.mechanism
    }

    /// The families that rules can be made for on this node.
    pub fn families(&self) -> Families {
        self.inner.families
    }

    /// Waits until another namespace may be worked on.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, Error> {
        let turns = self.inner.turns.clone();
        turns.acquire_owned().await.map_err(|_closed| Error::Ended)
    }
}

impl Inner {
    /// What a pod of this node can have of what is wanted.
    fn within_means(&self, wanted: &Options) -> Options {
        let has = |family| wanted.families.contains(family) && self.families.contains(family);
        let [v4, v6] = mesh_redirect::Family::ALL.map(has);
        Options {
            // For a family that the node does not have rules do no harm, and there is nothing else.
            families: Families::new(v4, v6).unwrap_or(wanted.families),
            ..wanted.clone()
        }
    }

    fn host_rules(&self) -> mesh_redirect::RuleSet {
        on_host(self.probe_families, &self.probes)
    }
}

impl Rules for Kernel {
    type Error = Error;

    async fn verify(&self, netns: &Arc<NetNs>, wanted: &Options) -> Result<Verdict, Error> {
        let _turn = self.turn().await?;
        let wanted = self.inner.within_means(wanted);
        let rules = in_pod(&wanted);
        let mut findings = Findings::default();
        programs::verify(&self.inner, netns, &rules, &mut findings).await?;
        let (inner, netns) = (self.inner.clone(), netns.clone());
        blocking(move || {
            nftables::verify(&inner, &netns, &rules, &mut findings)?;
            routes::verify(&netns, wanted.families, &mut findings)?;
            Ok(findings.verdict())
        })
        .await
    }

    async fn apply(&self, netns: &Arc<NetNs>, wanted: &Options) -> Result<(), Error> {
        let _turn = self.turn().await?;
        let wanted = self.inner.within_means(wanted);
        let rules = in_pod(&wanted);
        // The way back first: it does nothing until rules mark packets.
        let there = netns.clone();
        blocking(move || routes::apply(&there, wanted.families)).await?;
        programs::apply(&self.inner, netns, &rules).await?;
        let (inner, there) = (self.inner.clone(), netns.clone());
        blocking(move || nftables::apply(&inner, &there, &rules)).await?;
        programs::remove_unused(&self.inner, netns).await
    }

    async fn remove(&self, netns: &Arc<NetNs>) -> Result<(), Error> {
        let _turn = self.turn().await?;
        remove_rules(&self.inner, netns).await?;
        let there = netns.clone();
        blocking(move || routes::remove(&there)).await
    }
}

/// Removes the rules of every mechanism from a namespace.
async fn remove_rules(inner: &Arc<Inner>, netns: &Arc<NetNs>) -> Result<(), Error> {
    let (of, there) = (inner.clone(), netns.clone());
    blocking(move || nftables::remove(&of, &there)).await?;
    programs::remove(inner, netns).await
}

/// Runs what waits for the kernel where it holds up nothing else.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(work).await.map_err(|_ended| Error::Ended)?
}

// === impl Error ===

impl Error {
    /// What the kernel said to a batch.
    fn of_batch(batch: &Batch, source: nfnetlink::Error) -> Self {
        let step = match &source {
            nfnetlink::Error::Refused { sequence, .. } => batch.step(*sequence),
            _ => None,
        };
        let doing = step.map_or_else(|| "change rules".to_owned(), |step| format!("`{step}`"));
        if source.is_forbidden() {
            Self::NotPermitted { doing, source }
        } else if source.is_unsupported() {
            let module = module_of(step.unwrap_or_default());
            Self::NoModule {
                doing,
                module,
                source,
            }
        } else {
            Self::Netfilter { doing, source }
        }
    }

    /// What the kernel said to a request to list something.
    fn of_listing(source: nfnetlink::Error) -> Self {
        let doing = "list rules".to_owned();
        if source.is_forbidden() {
            Self::NotPermitted { doing, source }
        } else if source.is_unsupported() {
            Self::NoModule {
                doing,
                module: "nf_tables",
                source,
            }
        } else {
            Self::Netfilter { doing, source }
        }
    }

    /// With all that led to it, for texts that quote it.
    fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// The module of the kernel that knows a part of a rule.
fn module_of(step: &str) -> &'static str {
    let parts = [
        ("redirect to", "nft_redir"),
        ("snat ", "nft_nat"),
        ("ct ", "nft_ct"),
        ("istio-ambient-nat prerouting", "nft_chain_nat"),
        ("istio-ambient-nat output", "nft_chain_nat"),
        ("istio-ambient-nat postrouting", "nft_chain_nat"),
        ("add set", "nf_tables_set"),
    ];
    let found = parts.iter().find(|(part, _)| step.contains(part));
    found.map_or("nf_tables", |(_, module)| module)
}

// === impl Variant ===

impl FromStr for Variant {
    type Err = UnknownVariant;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "nft" => Ok(Self::Nft),
            "legacy" => Ok(Self::Legacy),
            other => Err(UnknownVariant(other.to_owned())),
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        })
    }
}

// === impl Mechanism ===

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nftables => f.write_str("nftables"),
            Self::Iptables(variant) => write!(f, "iptables-{variant}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_redirect::netlink;

    use super::*;

    #[test]
    fn a_part_that_the_kernel_lacks_is_named_with_its_module() {
        let batch = netlink::add(&in_pod(&Options::default()));
        let mut named = Vec::new();
        for sequence in 1..100 {
            let Some(step) = batch.step(sequence).map(str::to_owned) else {
                break;
            };
            let source = nfnetlink::Error::Refused {
                sequence,
                source: std::io::Error::from_raw_os_error(nix::libc::ENOENT),
            };
            let text = Error::of_batch(&batch, source).to_string();
            assert!(
                text.contains(&step) && text.contains("FORCE_IPTABLES_BINARY"),
                "{text}"
            );
            named.push(module_of(&step));
        }
        for module in ["nf_tables", "nft_chain_nat", "nft_redir", "nft_ct"] {
            assert!(named.contains(&module), "{module}");
        }
    }

    #[test]
    fn a_missing_capability_is_told_as_such() {
        let source = nfnetlink::Error::Refused {
            sequence: 0,
            source: std::io::Error::from_raw_os_error(nix::libc::EPERM),
        };
        let text = Error::of_batch(&netlink::remove(), source).to_string();
        assert!(text.contains("NET_ADMIN"), "{text}");
    }

    #[test]
    fn names_of_variants_read_back() {
        for variant in [Variant::Nft, Variant::Legacy] {
            assert_eq!(variant.to_string().parse(), Ok(variant));
        }
        assert_eq!(
            "bpf".parse::<Variant>(),
            Err(UnknownVariant("bpf".to_owned()))
        );
    }
}
