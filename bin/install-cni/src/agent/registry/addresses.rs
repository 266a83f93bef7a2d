//! Which addresses are a pod's. An address is one pod's at a time: the last one that was given it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::Attached;
use crate::{agent::pods::Pod, parts::PodUid};

/// Who says to have which address, and who has it.
#[derive(Debug, Default)]
pub(super) struct Claims {
    owners: BTreeMap<IpAddr, PodUid>,
    said: BTreeMap<PodUid, BTreeSet<IpAddr>>,
}

/// The interface of a pod in the cluster's network, by whatever runtime.
const PRIMARY: &str = "eth0";

/// The addresses at which probes reach a pod. The runtime knows those of its sandboxes (the newest first)
/// earlier and better than the API server, which may still show those of a sandbox that is gone; but of
/// several networks only the API server knows which is the cluster's.
pub(super) fn of(pod: &Pod, attached: &[&Attached]) -> BTreeSet<IpAddr> {
    let Some(newest) = attached.first() else {
        return pod.addresses.clone();
    };
    let netns = newest.sandbox.netns_id();
    let here = attached
        .iter()
        .filter(|attached| attached.sandbox.netns_id() == netns);
    let (mut primary, mut all) = (BTreeSet::new(), BTreeSet::new());
    for attached in here {
        let addresses = attached.sandbox.addresses.iter().map(IpAddr::to_canonical);
        all.extend(addresses.clone());
        if attached.sandbox.interface == PRIMARY {
            primary.extend(addresses);
        }
    }
    let both: BTreeSet<_> = all.intersection(&pod.addresses).copied().collect();
    let known = [both, primary, all];
    let known = known.into_iter().find(|addresses| !addresses.is_empty());
    known.unwrap_or_else(|| pod.addresses.clone())
}

// === impl Claims ===

impl Claims {
    /// The pod says to have these addresses. Those that it did not have before are its from now on. Says
    /// who has gained or lost one by that.
    pub(super) fn claim(&mut self, uid: &PodUid, addresses: &BTreeSet<IpAddr>) -> BTreeSet<PodUid> {
        let before = self.said.insert(uid.clone(), addresses.clone());
        let before = before.unwrap_or_default();
        let mut others = BTreeSet::new();
        for address in addresses.difference(&before) {
            others.extend(self.owners.insert(*address, uid.clone()));
        }
        for address in before.difference(addresses) {
            others.extend(self.give_up(uid, *address));
        }
        others.remove(uid);
        others
    }

    /// The pod has no address any more. Says who has gained one by that.
    pub(super) fn release(&mut self, uid: &PodUid) -> BTreeSet<PodUid> {
        let before = self.said.remove(uid).unwrap_or_default();
        let gained = before
            .into_iter()
            .filter_map(|address| self.give_up(uid, address));
        gained.collect()
    }

    fn give_up(&mut self, uid: &PodUid, address: IpAddr) -> Option<PodUid> {
        if self.owners.get(&address) != Some(uid) {
            return None;
        }
        self.owners.remove(&address);
        let mut others = self.said.iter();
        let (heir, _) = others.find(|(other, said)| *other != uid && said.contains(&address))?;
        self.owners.insert(address, heir.clone());
        Some(heir.clone())
    }

    /// The addresses that are the pod's.
    pub(super) fn of(&self, uid: &PodUid) -> BTreeSet<IpAddr> {
        let said = self.said.get(uid).into_iter().flatten().copied();
        said.filter(|address| self.owners.get(address) == Some(uid))
            .collect()
    }
}
