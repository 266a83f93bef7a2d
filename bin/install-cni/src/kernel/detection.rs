//! Which mechanism a node has.

use std::{fs, sync::Arc};

use mesh_net::nfnetlink::Socket;
use mesh_redirect::{Families, Family, Options, in_pod, on_host};
use tokio::sync::{Mutex, Semaphore};

use super::{Config, Error, Inner, Mechanism, Programs, Variant, blocking, nftables};

/// What Amazon's CNI plugin has switched off where pods may have interfaces of the cloud.
const EARLY_DEMULTIPLEXING: &str = "/proc/sys/net/ipv4/tcp_early_demux";

/// What was found to work.
struct Choice {
    mechanism: Mechanism,
    families: Families,
    programs: Option<Programs>,
}

/// The variants of iptables that are installed.
struct Installed {
    nft: Option<Programs>,
    legacy: Option<Programs>,
}

pub(super) async fn detect(config: &Config) -> Result<Inner, Error> {
    let installed = Installed {
        nft: Programs::find(Variant::Nft, config.host.id()).await,
        legacy: Programs::find(Variant::Legacy, config.host.id()).await,
    };
    let choice = choose(config, &installed).await?;
    let host = config.host.clone();
    let (has_nf_tables, may_branch) = blocking(move || {
        let early = host.run(|| fs::read_to_string(EARLY_DEMULTIPLEXING))?;
        let off = early.is_ok_and(|value| value.starts_with('0'));
        Ok((answers(&host), off))
    })
    .await?;
    Ok(Inner {
        mechanism: choice.mechanism,
        families: choice.families,
        probe_families: both(config.families, choice.families),
        probes: config.probes,
        host: config.host.clone(),
        programs: choice.programs,
        legacy: installed.legacy,
        has_nf_tables,
        branch_interfaces: config.branch_interfaces && may_branch,
        turns: Arc::new(Semaphore::new(config.parallel.max(1))),
        host_turn: Mutex::new(()),
    })
}

async fn choose(config: &Config, installed: &Installed) -> Result<Choice, Error> {
    if let (Some(variant), Some(false) | None) = (config.iptables, config.native_nftables) {
        return forced(config, installed, variant).await;
    }
    if config.native_nftables == Some(false) {
        let refused = "NATIVE_NFTABLES is false".to_owned();
        return iptables(config, installed, refused).await;
    }
    match nf_tables(config).await {
        Ok(families) => Ok(Choice {
            mechanism: Mechanism::Nftables,
            families,
            programs: None,
        }),
        Err(error) if config.native_nftables == Some(true) => Err(error),
        Err(error) => {
            tracing::warn!(error = %error.in_full(), "nf_tables does not work; trying iptables");
            iptables(config, installed, error.in_full()).await
        }
    }
}

/// Whether nf_tables knows all that our rules need: in a pod, and on the host. A kernel without IPv6 has
/// it for IPv4 alone.
async fn nf_tables(config: &Config) -> Result<Families, Error> {
    match nf_tables_for(config, Families::Dual).await {
        Ok(()) => Ok(Families::Dual),
        Err(first) => {
            let v4 = Families::Only(Family::V4);
            nf_tables_for(config, v4).await.map_err(|_also| first)?;
            tracing::warn!("nf_tables does not work with IPv6; IPv4 alone");
            Ok(v4)
        }
    }
}

async fn nf_tables_for(config: &Config, families: Families) -> Result<(), Error> {
    let (host, probes) = (config.host.clone(), config.probes);
    let pod = trial_rules(config, families);
    blocking(move || {
        nftables::trial(&host, &pod)?;
        nftables::trial(&host, &on_host(families, &probes))
    })
    .await
}

async fn forced(config: &Config, installed: &Installed, variant: Variant) -> Result<Choice, Error> {
    let programs = installed.of(variant).ok_or_else(|| {
        let missing = format!("no program iptables-{variant} and no iptables of this variant");
        Error::Forced(variant, missing)
    })?;
    let tried = try_programs(config, programs).await;
    tried.map_err(|error| Error::Forced(variant, error.in_full()))
}

/// The variant that others use, or the one that works.
async fn iptables(
    config: &Config,
    installed: &Installed,
    nftables: String,
) -> Result<Choice, Error> {
    let legacy_in_use = match &installed.legacy {
        Some(legacy) => legacy.hold_rules(&config.host).await,
        None => false,
    };
    let order = if legacy_in_use {
        [Variant::Legacy, Variant::Nft]
    } else {
        [Variant::Nft, Variant::Legacy]
    };
    let mut reasons = Vec::new();
    for variant in order {
        match installed.of(variant) {
            None => reasons.push(format!("iptables-{variant} is not installed")),
            Some(programs) => match try_programs(config, programs).await {
                Ok(choice) => return Ok(choice),
                Err(error) => reasons.push(error.in_full()),
            },
        }
    }
    let iptables = reasons.join("; ");
    Err(Error::Nothing { nftables, iptables })
}

async fn try_programs(config: &Config, programs: &Programs) -> Result<Choice, Error> {
    let rules = trial_rules(config, Families::Dual);
    Ok(Choice {
        mechanism: Mechanism::Iptables(programs.variant()),
        families: programs.trial(&config.host, &rules).await?,
        programs: Some(programs.clone()),
    })
}

/// Rules with everything in them that a pod may get.
fn trial_rules(config: &Config, families: Families) -> mesh_redirect::RuleSet {
    in_pod(&Options {
        families,
        probes: config.probes,
        virtual_interfaces: vec![mesh_redirect::model::InterfaceName::loopback()],
        ..Options::default()
    })
}

/// Whether there is nf_tables at all, and so something that may have been left in it.
fn answers(host: &mesh_net::netns::NetNs) -> bool {
    Socket::open(host).is_ok_and(|mut socket| socket.generation().is_ok())
}

fn both(one: Families, other: Families) -> Families {
    let [v4, v6] = Family::ALL.map(|family| one.contains(family) && other.contains(family));
    Families::new(v4, v6).unwrap_or(other)
}

// === impl Installed ===

impl Installed {
    fn of(&self, variant: Variant) -> Option<&Programs> {
        match variant {
            Variant::Nft => self.nft.as_ref(),
            Variant::Legacy => self.legacy.as_ref(),
        }
    }
}
