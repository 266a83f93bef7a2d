//! The packet filter of the node: rules in pods, and the host's probe set.
//!
//! [`Kernel`] hides which of the two mechanisms the node has. With nf_tables everything is spoken over
//! netlink, and no program is needed; otherwise `iptables-restore` and the kernel's IP sets are used.
//! What the mechanism that is not used left behind is removed on the way.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr, sync::Arc};

use mesh_net::netns::NetNs;
use mesh_redirect::{Families, Options, Verdict, options::ProbeAddresses};

use crate::parts::{PodUid, Probes, Rules};

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
    /// The families of the node's probe set.
    pub families: Families,
    /// Where probes seem to come from.
    pub probes: ProbeAddresses,
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
}

/// What could not be done to the packet filter.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not there yet.
    #[error("{0} is not available")]
    Unavailable(Mechanism),
}

// === impl Kernel ===

impl Kernel {
    /// Finds out what this node has, by trying it in the host's namespace without effect.
    ///
    /// What is configured is used, and it is an error if the node does not have it. Otherwise nf_tables
    /// is used if the kernel has all of it that is needed, then `iptables-legacy` if rules are in it
    /// already, then `iptables-nft`, then `iptables-legacy`.
    #[expect(clippy::unused_async, reason = "the bodies follow")]
    pub async fn detect(config: &Config) -> Result<Self, Error> {
        let mechanism = config
            .iptables
            .map_or(Mechanism::Nftables, Mechanism::Iptables);
        let inner = Arc::new(Inner { mechanism });
        Ok(Self { inner })
    }

    /// What is used; to be logged and exported as a metric.
    pub fn mechanism(&self) -> Mechanism {
        self.inner.mechanism
    }

    fn missing(&self) -> Error {
        Error::Unavailable(self.inner.mechanism)
    }
}

impl Rules for Kernel {
    type Error = Error;

    async fn verify(&self, _netns: &Arc<NetNs>, _wanted: &Options) -> Result<Verdict, Error> {
        Err(self.missing())
    }

    async fn apply(&self, _netns: &Arc<NetNs>, _wanted: &Options) -> Result<(), Error> {
        Err(self.missing())
    }

    async fn remove(&self, _netns: &Arc<NetNs>) -> Result<(), Error> {
        Err(self.missing())
    }
}

impl Probes for Kernel {
    type Error = Error;

    async fn ensure(&self) -> Result<(), Error> {
        Err(self.missing())
    }

    async fn list(&self) -> Result<BTreeMap<IpAddr, PodUid>, Error> {
        Err(self.missing())
    }

    async fn insert(&self, _address: IpAddr, _pod: &PodUid) -> Result<(), Error> {
        Err(self.missing())
    }

    async fn remove(&self, _address: IpAddr, _pod: &PodUid) -> Result<(), Error> {
        Err(self.missing())
    }

    async fn clear(&self) -> Result<(), Error> {
        Err(self.missing())
    }
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
