//! The probe set of the host, and the rule that uses it.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use mesh_net::{
    branch,
    ipset::{self, Set},
    netns::NetNs,
    nfnetlink::Socket,
    routing,
};
use mesh_redirect::{
    Family, Verdict,
    contract::probe_set,
    netlink::{self, Batch, Members, members::COMMENT_LIMIT},
};

use super::{
    Error, Inner, Kernel, Mechanism, blocking,
    nftables::{self, Owner},
    programs, remove_rules,
};
use crate::parts::{PodUid, Probes};

/// How often, and after what time, a set is destroyed again that rules used which have just been
/// removed: the kernel lets go of it some time after it has said that they are gone.
const DESTROY_ATTEMPTS: usize = 50;
const DESTROY_AGAIN: Duration = Duration::from_millis(20);

// === impl Kernel ===

impl Probes for Kernel {
    type Error = Error;

    async fn ensure(&self) -> Result<(), Error> {
        let _turn = self.inner.host_turn.lock().await;
        ensure(&self.inner).await
    }

    async fn list(&self) -> Result<BTreeMap<IpAddr, PodUid>, Error> {
        let inner = self.inner.clone();
        let members = blocking(move || match inner.mechanism {
            Mechanism::Nftables => nftables::members(&inner.host),
            Mechanism::Iptables(_) => set_members(&inner.host),
        })
        .await?;
        let entries = members.into_iter();
        Ok(entries
            .map(|(address, uid)| (address, uid.into()))
            .collect())
    }

    async fn insert(&self, address: IpAddr, pod: &PodUid) -> Result<(), Error> {
        if !self.inner.probe_families.contains(Family::of(address)) {
            // There is no set, and nothing that keeps probes from the pod.
            return Ok(());
        }
        if pod.len() > COMMENT_LIMIT {
            return Err(Error::Uid(pod.len()));
        }
        let _turn = self.inner.host_turn.lock().await;
        // Somebody may have removed the set; once is enough to tell.
        if !insert(&self.inner, address, pod).await? {
            ensure(&self.inner).await?;
            insert(&self.inner, address, pod).await?;
        }
        on_branches(&self.inner, move || branch::ensure(address).map(drop)).await
    }

    async fn remove(&self, address: IpAddr, pod: &PodUid) -> Result<(), Error> {
        let _turn = self.inner.host_turn.lock().await;
        let (inner, pod) = (self.inner.clone(), pod.clone());
        let another = blocking(move || match inner.mechanism {
            Mechanism::Nftables => nftables::remove_member(&inner.host, address, &pod),
            Mechanism::Iptables(_) => remove_from_set(&inner.host, address, &pod),
        });
        match another.await? {
            Owner::Another => Ok(()),
            Owner::Nobody => on_branches(&self.inner, move || branch::remove(address)).await,
        }
    }

    async fn clear(&self) -> Result<(), Error> {
        let _turn = self.inner.host_turn.lock().await;
        remove_rules(&self.inner, &self.inner.host).await?;
        destroy_sets(&self.inner.host).await?;
        on_branches(&self.inner, branch::clear).await
    }
}

/// Changes rules for pods with interfaces of their own, on hosts where there may be such.
async fn on_branches(
    inner: &Arc<Inner>,
    change: impl FnOnce() -> Result<(), routing::Error> + Send + 'static,
) -> Result<(), Error> {
    if !inner.branch_interfaces {
        return Ok(());
    }
    let host = inner.host.clone();
    blocking(move || Ok(host.run(change)??)).await
}

async fn ensure(inner: &Arc<Inner>) -> Result<(), Error> {
    let of = inner.clone();
    match inner.mechanism {
        Mechanism::Nftables => {
            blocking(move || ensure_tables(&of)).await?;
            programs::remove_unused(inner, &inner.host).await?;
            destroy_sets(&inner.host).await
        }
        Mechanism::Iptables(_) => {
            blocking(move || ensure_sets(&of)).await?;
            let rules = inner.host_rules();
            programs::apply(inner, &inner.host, &rules).await?;
            let of = inner.clone();
            blocking(move || nftables::apply(&of, &of.host, &rules)).await?;
            programs::remove_unused(inner, &inner.host).await
        }
    }
}

/// Makes tables, sets and rules where they are not as they should be. All is made anew in one
/// transaction, with the members that were there, also those that iptables had.
fn ensure_tables(inner: &Inner) -> Result<(), Error> {
    let rules = inner.host_rules();
    let of_iptables = set_members(&inner.host)?;
    nftables::change(inner, &inner.host, |seen| {
        let mut members = of_iptables.clone();
        members.extend(seen.members.clone());
        let nothing_new = members.len() == seen.members.len();
        if nothing_new && seen.dump.compare(&rules) == Verdict::Same {
            return Batch::default();
        }
        let mut batch = netlink::restore(&rules, &members);
        seen.dump.remove_leftovers(&mut batch);
        batch
    })
}

/// Makes the sets of iptables if they are not there, with the members that nf_tables had.
fn ensure_sets(inner: &Inner) -> Result<(), Error> {
    let of_nf_tables = if inner.has_nf_tables {
        nftables::members(&inner.host)?
    } else {
        Members::new()
    };
    let mut socket = open(&inner.host)?;
    for family in inner.probe_families.iter() {
        let set = set_of(family);
        set.create(&mut socket)?;
        let held = set.list(&mut socket)?.unwrap_or_default();
        let missing = of_nf_tables
            .iter()
            .filter(|(address, _)| Family::of(**address) == family && !held.contains_key(address));
        for (address, comment) in missing {
            set.insert(&mut socket, *address, comment)?;
        }
    }
    Ok(())
}

/// False if there is no set.
async fn insert(inner: &Arc<Inner>, address: IpAddr, pod: &PodUid) -> Result<bool, Error> {
    let (inner, pod) = (inner.clone(), pod.clone());
    blocking(move || match inner.mechanism {
        Mechanism::Nftables => nftables::insert_member(&inner.host, address, &pod),
        Mechanism::Iptables(_) => {
            let mut socket = open(&inner.host)?;
            Ok(set_of(Family::of(address)).insert(&mut socket, address, &pod)?)
        }
    })
    .await
}

fn remove_from_set(host: &NetNs, address: IpAddr, pod: &str) -> Result<Owner, Error> {
    let mut socket = open(host)?;
    let set = set_of(Family::of(address));
    let members = set.list(&mut socket)?.unwrap_or_default();
    match members.get(&address) {
        None => Ok(Owner::Nobody),
        Some(other) if other != pod => Ok(Owner::Another),
        Some(_this) => {
            set.remove(&mut socket, address)?;
            Ok(Owner::Nobody)
        }
    }
}

/// The members of the sets of iptables; none if there are no sets.
fn set_members(host: &NetNs) -> Result<Members, Error> {
    let mut socket = open(host)?;
    let mut members = Members::new();
    for family in Family::ALL {
        members.extend(set_of(family).list(&mut socket)?.unwrap_or_default());
    }
    Ok(members)
}

/// Destroys the sets of iptables.
async fn destroy_sets(host: &Arc<NetNs>) -> Result<(), Error> {
    for family in Family::ALL {
        let mut attempt = 0;
        loop {
            let there = host.clone();
            let destroyed =
                blocking(move || Ok(set_of(family).destroy(&mut open(&there)?))).await?;
            attempt += 1;
            match destroyed {
                Err(ipset::Error::Busy { .. }) if attempt < DESTROY_ATTEMPTS => {
                    tokio::time::sleep(DESTROY_AGAIN).await;
                }
                result => {
                    result?;
                    break;
                }
            }
        }
    }
    Ok(())
}

fn set_of(family: Family) -> Set {
    Set {
        name: probe_set(family),
        ipv6: family == Family::V6,
    }
}

fn open(host: &NetNs) -> Result<Socket, Error> {
    Socket::open(host).map_err(Error::of_listing)
}
