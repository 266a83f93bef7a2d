//! A kernel that can be told to fail, to be slow and to stop.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use install_cni::parts::{PodUid, Probes, Rules};
use mesh_net::netns::{NetNs, NetNsId};
use mesh_redirect::{Options, Verdict};
use tokio::{sync::watch, time::timeout};

use crate::{node::DEADLINE, pod_net::Net};

/// A kernel without rules in it.
#[derive(Clone, Default)]
pub(crate) struct Kernel(Arc<watch::Sender<State>>);

#[derive(Default)]
struct State {
    rules: BTreeMap<NetNsId, Options>,
    probes: BTreeMap<IpAddr, PodUid>,
    /// Changes so far.
    writes: usize,
    /// From now on everything fails.
    fails: bool,
    /// The change after which nothing is answered any more.
    freezes_after: Option<usize>,
    /// Rules that were compared so far.
    looks: usize,
    /// How often the probe set was asked for.
    ensured: usize,
    /// The namespace in which everything takes for ever.
    slow: Option<NetNsId>,
}

#[derive(Debug, thiserror::Error)]
#[error("the kernel is out of order")]
pub(crate) struct OutOfOrder;

// === impl State ===

impl State {
    fn is_frozen(&self) -> bool {
        let after = self.freezes_after;
        after.is_some_and(|after| self.writes >= after)
    }
}

// === impl Kernel ===

impl Kernel {
    pub(crate) fn holds_rules(&self, net: &Net) -> bool {
        self.0.borrow().rules.contains_key(&net.id())
    }

    pub(crate) fn rules(&self, net: &Net) -> Option<Options> {
        self.0.borrow().rules.get(&net.id()).cloned()
    }

    pub(crate) fn damage(&self, net: &Net) {
        self.0.send_modify(|state| {
            let rules = state.rules.get_mut(&net.id()).expect("there are rules");
            rules.dns_capture = !rules.dns_capture;
        });
    }

    pub(crate) fn probes(&self) -> BTreeMap<IpAddr, PodUid> {
        self.0.borrow().probes.clone()
    }

    /// Holds nothing, as after the node's start.
    pub(crate) fn reset(&self) {
        self.0.send_modify(|state| {
            state.rules.clear();
            state.probes.clear();
        });
    }

    pub(crate) fn set_probe(&self, address: &str, uid: Option<&str>) {
        let address = address.parse().unwrap();
        self.0.send_modify(|state| match uid {
            Some(uid) => drop(state.probes.insert(address, uid.into())),
            None => drop(state.probes.remove(&address)),
        });
    }

    pub(crate) fn writes(&self) -> usize {
        self.0.borrow().writes
    }

    pub(crate) fn ensured(&self) -> usize {
        self.0.borrow().ensured
    }

    pub(crate) fn looks(&self) -> usize {
        self.0.borrow().looks
    }

    pub(crate) fn fail(&self, fails: bool) {
        self.0.send_modify(|state| state.fails = fails);
    }

    /// Nothing is answered any more after so many changes; or all is again.
    pub(crate) fn freeze_after(&self, writes: Option<usize>) {
        self.0.send_modify(|state| {
            state.freezes_after = writes.map(|writes| state.writes + writes);
        });
    }

    pub(crate) fn slow(&self, net: Option<&Net>) {
        self.0.send_modify(|state| state.slow = net.map(Net::id));
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.0.borrow().is_frozen()
    }

    /// Waits until it is like this. It is looked at whenever something in it has changed.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut changes = self.0.subscribe();
        let waiting = async {
            while !holds(self) {
                changes.changed().await.unwrap();
            }
        };
        let waited = timeout(DEADLINE, waiting).await;
        waited.unwrap_or_else(|_| panic!("the kernel does not come to this: {what}"));
    }

    async fn look<T>(&self, look: impl FnOnce(&mut State) -> T) -> Result<T, OutOfOrder> {
        tokio::task::yield_now().await;
        let mut seen = Err(OutOfOrder);
        self.0.send_modify(|state| {
            if !state.fails {
                seen = Ok(look(state));
            }
        });
        seen
    }

    async fn write(&self, change: impl FnOnce(&mut State)) -> Result<(), OutOfOrder> {
        let mut outcome = Err(OutOfOrder);
        self.0.send_modify(|state| {
            if state.fails {
                return;
            }
            if !state.is_frozen() {
                change(state);
                state.writes += 1;
            }
            outcome = Ok(state.is_frozen());
        });
        if outcome? {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

impl Rules for Kernel {
    type Error = OutOfOrder;

    async fn verify(&self, netns: &Arc<NetNs>, wanted: &Options) -> Result<Verdict, OutOfOrder> {
        self.look(|state| {
            state.looks += 1;
            match state.rules.get(&netns.id()) {
                None => Verdict::Absent,
                Some(held) if held == wanted => Verdict::Same,
                Some(_) => Verdict::Differs(Vec::new()),
            }
        })
        .await
    }

    async fn apply(&self, netns: &Arc<NetNs>, wanted: &Options) -> Result<(), OutOfOrder> {
        let mut changes = self.0.subscribe();
        let quick = |state: &State| state.slow != Some(netns.id());
        drop(changes.wait_for(quick).await);
        self.write(|state| drop(state.rules.insert(netns.id(), wanted.clone())))
            .await
    }

    async fn remove(&self, netns: &Arc<NetNs>) -> Result<(), OutOfOrder> {
        self.write(|state| drop(state.rules.remove(&netns.id())))
            .await
    }
}

impl Probes for Kernel {
    type Error = OutOfOrder;

    async fn ensure(&self) -> Result<(), OutOfOrder> {
        self.look(|state| state.ensured += 1).await
    }

    async fn list(&self) -> Result<BTreeMap<IpAddr, PodUid>, OutOfOrder> {
        self.look(|state| state.probes.clone()).await
    }

    async fn insert(&self, address: IpAddr, pod: &PodUid) -> Result<(), OutOfOrder> {
        self.write(|state| drop(state.probes.insert(address, pod.clone())))
            .await
    }

    async fn remove(&self, address: IpAddr, pod: &PodUid) -> Result<(), OutOfOrder> {
        self.write(|state| {
            if state.probes.get(&address) == Some(pod) {
                state.probes.remove(&address);
            }
        })
        .await
    }

    async fn clear(&self) -> Result<(), OutOfOrder> {
        self.write(|state| state.probes.clear()).await
    }
}
