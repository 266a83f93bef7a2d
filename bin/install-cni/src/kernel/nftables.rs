//! Rules by nf_tables over netlink. Everything here blocks for as long as the kernel works.

use std::{net::IpAddr, ops::ControlFlow};

use mesh_net::{
    netns::NetNs,
    nfnetlink::{self, Snapshot, Socket},
};
use mesh_redirect::{
    RuleSet, Verdict,
    netlink::{self, Batch, Dump, Members, members},
};

use super::{Error, Inner, Mechanism, Variant, findings::Findings};

/// How often a change is planned anew because others changed rules meanwhile.
const ATTEMPTS: usize = 16;

/// What a namespace holds, at one moment.
pub(super) struct Reading<'a> {
    netns: &'a NetNs,
    /// None if the kernel still has answers for the one that asked.
    socket: Option<Socket>,
    generation: u32,
    pub(super) seen: Seen,
}

/// What is kept of the kernel's answers while they come.
pub(super) struct Seen {
    pub(super) dump: Dump,
    pub(super) members: Members,
}

/// Whose an address is after it was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// It is no member, or no more.
    Nobody,
    /// It has passed to another pod, which keeps it.
    Another,
}

// === impl Reading ===

impl<'a> Reading<'a> {
    /// Reads the rules of a pod. Whoever has `NET_ADMIN` there decides how many there are, but not how
    /// many are read.
    fn of_pod(netns: &'a NetNs) -> Result<Self, Error> {
        Self::of(netns, netlink::requests(), Dump::of_pod)
    }

    /// Reads the rules and probe sets of the host.
    fn of_host(netns: &'a NetNs) -> Result<Self, Error> {
        let mut requests = netlink::requests();
        requests.extend(members::requests());
        Self::of(netns, requests, Dump::of_host)
    }

    fn of(netns: &'a NetNs, requests: Vec<Vec<u8>>, begin: fn() -> Dump) -> Result<Self, Error> {
        let reading = Self::at_once(netns, &requests, begin)?;
        let further = reading.seen.dump.further_requests();
        if further.is_empty() {
            return Ok(reading);
        }
        Self::at_once(netns, &[requests, further].concat(), begin)
    }

    fn at_once(netns: &'a NetNs, requests: &[Vec<u8>], begin: fn() -> Dump) -> Result<Self, Error> {
        let begin = || Seen {
            dump: begin(),
            members: Members::new(),
        };
        let mut socket = Socket::open(netns).map_err(Error::of_listing)?;
        let survey = socket.survey(requests, begin, Seen::add);
        let survey = survey.map_err(Error::of_listing)?;
        Ok(Self {
            netns,
            socket: survey.whole.then_some(socket),
            generation: survey.generation,
            seen: survey.of,
        })
    }

    /// Has the kernel make a change that was planned on this reading; false if others were faster.
    fn commit(mut self, batch: Batch) -> Result<bool, Error> {
        if batch.is_empty() {
            return Ok(true);
        }
        let batch = batch.at_generation(self.generation);
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => Socket::open(self.netns).map_err(Error::of_listing)?,
        };
        match socket.commit(&batch.to_bytes()) {
            Ok(()) => Ok(true),
            Err(error) if error.is_stale() => Ok(false),
            Err(error) => Err(Error::of_batch(&batch, error)),
        }
    }
}

// === impl Seen ===

impl Seen {
    fn add(&mut self, message: &[u8]) -> ControlFlow<()> {
        members::read(&mut self.members, message);
        self.dump.add(message)
    }
}

/// Looks at our tables; if nf_tables is not the mechanism, there should be none.
pub(super) fn verify(
    inner: &Inner,
    netns: &NetNs,
    wanted: &RuleSet,
    findings: &mut Findings,
) -> Result<(), Error> {
    if !inner.has_nf_tables {
        return Ok(());
    }
    let dump = Reading::of_pod(netns)?.seen.dump;
    let Mechanism::Iptables(variant) = inner.mechanism else {
        findings.rules(dump.compare(wanted));
        return Ok(());
    };
    if dump.has_tables() {
        findings.foreign("nf_tables", "tables of the mechanism that is not used");
    }
    if variant == Variant::Legacy && dump.has_leftovers() {
        findings.foreign("iptables-nft", "rules of the mechanism that is not used");
    }
    Ok(())
}

/// Puts rules into a namespace and removes what iptables left there, in one transaction; does nothing if
/// all is as it should be. Where iptables is used, only what nf_tables left is removed.
pub(super) fn apply(inner: &Inner, netns: &NetNs, rules: &RuleSet) -> Result<(), Error> {
    match inner.mechanism {
        Mechanism::Nftables => change(inner, netns, |seen| {
            if seen.dump.compare(rules) == Verdict::Same {
                return Batch::default();
            }
            // After a batch that removes anything, even what it has added itself, closing the socket waits
            // until no packet is looking at that any more.
            let mut batch = if seen.dump.has_tables() {
                netlink::apply(rules)
            } else {
                netlink::add(rules)
            };
            seen.dump.remove_leftovers(&mut batch);
            batch
        }),
        Mechanism::Iptables(_) if !inner.has_nf_tables => Ok(()),
        Mechanism::Iptables(Variant::Legacy) => remove(inner, netns),
        Mechanism::Iptables(Variant::Nft) => change(inner, netns, |seen| {
            if seen.dump.has_tables() {
                netlink::remove()
            } else {
                Batch::default()
            }
        }),
    }
}

/// Removes all that is ours, in our tables and those of iptables.
pub(super) fn remove(inner: &Inner, netns: &NetNs) -> Result<(), Error> {
    if !inner.has_nf_tables {
        return Ok(());
    }
    change(inner, netns, |seen| {
        let mut batch = Batch::default();
        if seen.dump.has_tables() {
            batch = netlink::remove();
        }
        seen.dump.remove_leftovers(&mut batch);
        batch
    })
}

/// Learns whether the kernel would take these rules.
pub(super) fn trial(netns: &NetNs, rules: &RuleSet) -> Result<(), Error> {
    let mut socket = Socket::open(netns).map_err(Error::of_listing)?;
    let batch = netlink::add(rules);
    match socket.commit(&batch.to_trial()) {
        // The kernel knows it all, and something else has our names: it will be replaced.
        Err(error) if error.is_conflict() => Ok(()),
        result => result.map_err(|error| Error::of_batch(&batch, error)),
    }
}

/// The members of the probe sets; none if there are no sets.
pub(super) fn members(netns: &NetNs) -> Result<Members, Error> {
    let mut socket = Socket::open(netns).map_err(Error::of_listing)?;
    let listed = snapshot(&mut socket, &members::requests())?;
    Ok(members::decode(&listed.bytes))
}

/// Makes an address a member; false if there is no set.
pub(super) fn insert_member(netns: &NetNs, address: IpAddr, comment: &str) -> Result<bool, Error> {
    let mut socket = Socket::open(netns).map_err(Error::of_listing)?;
    for _attempt in 0..ATTEMPTS {
        let listed = snapshot(&mut socket, &members::requests())?;
        let batch = match members::decode(&listed.bytes).get(&address) {
            Some(held) if held == comment => return Ok(true),
            Some(_another) => members::insert(address, comment),
            // Nothing is removed, so that closing the socket does not wait.
            None => members::add(address, comment),
        };
        let batch = batch.at_generation(listed.generation);
        match socket.commit(&batch.to_bytes()) {
            Ok(()) => return Ok(true),
            Err(error) if error.is_absent() => return Ok(false),
            Err(error) if error.is_stale() => {}
            Err(error) => return Err(Error::of_batch(&batch, error)),
        }
    }
    Err(Error::of_listing(nfnetlink::Error::Unsettled))
}

/// Removes a member if its comment is this, in one step.
pub(super) fn remove_member(netns: &NetNs, address: IpAddr, comment: &str) -> Result<Owner, Error> {
    let mut socket = Socket::open(netns).map_err(Error::of_listing)?;
    for _attempt in 0..ATTEMPTS {
        let listed = snapshot(&mut socket, &members::requests())?;
        match members::decode(&listed.bytes).get(&address) {
            None => return Ok(Owner::Nobody),
            Some(other) if other != comment => return Ok(Owner::Another),
            Some(_this) => {}
        }
        let batch = members::remove(address).at_generation(listed.generation);
        match socket.commit(&batch.to_bytes()) {
            Ok(()) => return Ok(Owner::Nobody),
            Err(error) if error.is_stale() => {}
            Err(error) => return Err(Error::of_batch(&batch, error)),
        }
    }
    Err(Error::of_listing(nfnetlink::Error::Unsettled))
}

/// Plans a change on what is there and makes it, again if others changed something in between.
pub(super) fn change(
    inner: &Inner,
    netns: &NetNs,
    plan: impl Fn(&Seen) -> Batch,
) -> Result<(), Error> {
    let is_host = netns.id() == inner.host.id();
    for _attempt in 0..ATTEMPTS {
        let reading = if is_host {
            Reading::of_host(netns)?
        } else {
            Reading::of_pod(netns)?
        };
        let batch = plan(&reading.seen);
        if reading.commit(batch)? {
            return Ok(());
        }
    }
    Err(Error::of_listing(nfnetlink::Error::Unsettled))
}

fn snapshot(socket: &mut Socket, requests: &[Vec<u8>]) -> Result<Snapshot, Error> {
    socket.snapshot(requests).map_err(Error::of_listing)
}
