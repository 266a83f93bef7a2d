//! Everything the agent knows, behind one lock that is held for moments: pods and namespaces, the sandboxes
//! that the runtime told of, and the machine of every pod. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use mesh_core::workload::PodInfo;
use mesh_kube::watch::ObjectKey;
use mesh_net::netns::NetNsId;
use mesh_redirect::Family;
use tokio::{sync::watch, time::Instant};

use super::{
    machine::{
        Action, Cause, Desired, Enrolment, Introduction, Machine, Notice, Outcome, Step, Strip,
    },
    netns::{Located, sandbox::Sandbox},
    pods::{Concerned, Index, Namespace, Pod, Reason, Verdict, annotations::Shown},
};
use crate::parts::PodUid;

mod addresses;
mod asked;
mod sandboxes;

use self::addresses::Claims;

/// What the agent knows.
#[derive(Debug)]
pub(crate) struct Registry {
    index: Index,
    sandboxes: BTreeMap<Interface, Attached>,
    entries: BTreeMap<PodUid, Entry>,
    claims: Claims,
    /// Pods that were asked for rather than watched, and since when: the watch has to confirm them.
    asked: BTreeMap<PodUid, Instant>,
    /// Whether the first pass is over.
    serving: bool,
    epoch: u64,
    withdrawn: bool,
    sequence: u64,
}

/// What identifies an interface: the sandbox and its name there.
pub(crate) type Interface = (String, String);

/// A sandbox that the runtime told of.
#[derive(Debug)]
struct Attached {
    sandbox: Sandbox,
    /// Later ones are more.
    sequence: u64,
    /// Whether an earlier agent was told.
    inherited: bool,
}

/// One pod.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) machine: Machine,
    /// Who it is, or was.
    pub(crate) info: PodInfo,
    /// Its namespace, held open.
    pub(crate) located: Option<Located>,
    /// Why it is not in the mesh; none if it is to be.
    pub(crate) reason: Option<Reason>,
    /// What its annotation says, as of which version of the pod.
    pub(crate) shown: (Shown, u64),
    /// When it was last compared with the kernel.
    checked: Instant,
    /// Changes of the probe set for this pod, begun or ended.
    probe_changes: u64,
    /// How often people were told of its annotations, in the time that began then.
    complaints: (u32, Instant),
    /// Tells those who wait for this pod that something has happened.
    progress: watch::Sender<()>,
}

/// One action that is about to be carried out.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) action: Action,
    pub(crate) located: Option<Located>,
    /// Whether the pod is to be in the mesh.
    pub(crate) wanted: bool,
    /// Where to look for its namespace, the best first.
    pub(crate) paths: Vec<Sandbox>,
    /// The UIDs and addresses to look for by.
    pub(crate) runtime_uids: Vec<String>,
    pub(crate) addresses: BTreeSet<IpAddr>,
}

/// What became of the pod that the plugin asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is this one, and belongs in the mesh.
    InMesh(PodUid),
    /// It is this one, and does not.
    Outside(PodUid, Reason),
    /// It, or its namespace, is not known.
    Unknown,
}

/// How far a pod has come on which somebody waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Enrolled,
    /// Not yet, and why not, if something is wrong.
    Entering(Option<(Step, Cause)>),
    /// It does not belong in the mesh any more.
    Left,
}

/// How often in which time people are told that annotations of one pod have no effect.
const COMPLAINTS: (u32, Duration) = (3, Duration::from_secs(300));

// === impl Registry ===

impl Registry {
    /// Nothing is known yet but what an earlier agent was told.
    pub(crate) fn new(index: Index, inherited: Vec<Sandbox>) -> Self {
        let mut registry = Self {
            index,
            sandboxes: BTreeMap::new(),
            entries: BTreeMap::new(),
            claims: Claims::default(),
            asked: BTreeMap::new(),
            serving: false,
            epoch: 0,
            withdrawn: false,
            sequence: 0,
        };
        for sandbox in inherited {
            registry.attach(sandbox, true);
        }
        registry
    }

    /// What the API server holds.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// All pods.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&PodUid, &Entry)> {
        self.entries.iter()
    }

    /// A pod.
    pub(crate) fn entry(&self, uid: &str) -> Option<&Entry> {
        self.entries.get(uid)
    }

    /// A pod, to be changed.
    pub(crate) fn entry_mut(&mut self, uid: &str) -> Option<&mut Entry> {
        self.entries.get_mut(uid)
    }

    /// Whether ztunnels have been let in.
    pub(crate) fn is_serving(&self) -> bool {
        self.serving
    }

    // --- what the API server says

    /// The pod exists in this form, as the watch says.
    pub(crate) fn apply_pod(&mut self, pod: Pod) -> Concerned {
        let successor = self.asked_successor(&pod.key());
        if successor.is_some_and(|other| other.uid != pod.uid && other.version > pod.version) {
            return Concerned::new();
        }
        self.asked.remove(&pod.uid);
        let concerned = self.index.apply_pod(pod);
        self.refresh(concerned)
    }

    /// No pod of this name exists, as the watch says: none of those that it has shown.
    pub(crate) fn delete_pod(&mut self, key: &ObjectKey) -> Concerned {
        if self.asked_successor(key).is_some() {
            return Concerned::new();
        }
        let concerned = self.index.delete_pod(key);
        self.refresh(concerned)
    }

    /// The namespace exists, like this.
    pub(crate) fn apply_namespace(&mut self, name: String, told: Namespace) -> Concerned {
        let concerned = self.index.apply_namespace(name, told);
        self.refresh(concerned)
    }

    /// The namespace is gone.
    pub(crate) fn delete_namespace(&mut self, name: &str) {
        self.index.delete_namespace(name);
    }

    /// The mesh leaves the node: no pod belongs in it any more.
    pub(crate) fn withdraw(&mut self) -> Concerned {
        self.withdrawn = true;
        let all = self.index.pods().map(|pod| pod.uid.clone()).collect();
        self.refresh(all)
    }

    /// Whether the mesh leaves the node.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.withdrawn
    }

    /// Decides again about these pods. Says who has to be looked at for it.
    fn refresh(&mut self, concerned: Concerned) -> Concerned {
        let mut woken = Concerned::new();
        for uid in concerned {
            let lost = match self.index.pod(&uid) {
                Some(pod) if !pod.host_network && !pod.ended => {
                    let addresses = addresses::of(pod, &self.attached_to(pod));
                    self.claims.claim(&uid, &addresses)
                }
                _ => self.claims.release(&uid),
            };
            for uid in lost.into_iter().chain([uid]) {
                if self.decide(&uid) {
                    woken.insert(uid);
                }
            }
        }
        woken
    }

    /// Tells a pod's machine what should be. Says whether that is worth a look.
    fn decide(&mut self, uid: &PodUid) -> bool {
        let Some(pod) = self.index.pod(uid) else {
            let Some(entry) = self.entries.get_mut(uid) else {
                return false;
            };
            entry.reason = Some(Reason::Gone);
            entry.machine.want(Desired::Outside(Strip::Never));
            return true;
        };
        let verdict = match self.index.judge(pod) {
            Verdict::InMesh(_) if self.withdrawn => Verdict::Outside(Reason::Withdrawn),
            verdict => verdict,
        };
        let (desired, reason) = match verdict {
            Verdict::Undecided => return false,
            Verdict::Outside(reason) => {
                let inherited = self.attached_to(pod).iter().any(|a| a.inherited);
                (
                    Desired::Outside(strip(reason, pod, inherited)),
                    Some(reason),
                )
            }
            Verdict::InMesh(options) => {
                let mut addresses = self.claims.of(uid);
                // Nothing stands between a probe and the pod where a family is not captured.
                addresses.retain(|address| options.families.contains(Family::of(*address)));
                let enrolment = Enrolment {
                    options,
                    info: pod.info.clone(),
                    addresses,
                };
                (Desired::InMesh(Arc::new(enrolment)), None)
            }
        };
        let (shown, info) = ((pod.annotations.shown, pod.version), pod.info.clone());
        let (serving, epoch) = (self.serving, self.epoch);
        let mut new = false;
        let entry = self.entries.entry(uid.clone()).or_insert_with(|| {
            new = true;
            Entry::new(Machine::new(desired.clone(), serving, epoch), info, shown)
        });
        let changed = entry.machine.want(desired);
        entry.reason = reason;
        // What we have written since counts for more than what was seen before it.
        let seen = shown.1 == 0 || shown.1 >= entry.shown.1;
        let shows = seen && entry.shown.0 != shown.0;
        if seen {
            entry.shown = shown;
        }
        new || changed || shows
    }

    // --- what the plugin asks

    /// The pod of this name and UID, and whether it belongs in the mesh.
    pub(crate) fn find(&self, key: &ObjectKey, runtime_uid: &str) -> Found {
        let Some(pod) = self.index.pod_named(key, runtime_uid) else {
            return Found::Unknown;
        };
        match self.index.judge(pod) {
            Verdict::InMesh(_) if self.withdrawn => {
                Found::Outside(pod.uid.clone(), Reason::Withdrawn)
            }
            Verdict::InMesh(_) => Found::InMesh(pod.uid.clone()),
            Verdict::Outside(reason) => Found::Outside(pod.uid.clone(), reason),
            Verdict::Undecided => Found::Unknown,
        }
    }

    /// How far a pod has come towards being in the mesh, in this namespace.
    pub(crate) fn progress(&self, uid: &str, netns: NetNsId) -> Progress {
        let Some(entry) = self.entries.get(uid).filter(|entry| entry.reason.is_none()) else {
            return Progress::Left;
        };
        if entry.machine.is_enrolled_in(netns) {
            return Progress::Enrolled;
        }
        let failure = entry.machine.failure();
        Progress::Entering(failure.map(|f| (f.step, f.cause.clone())))
    }

    /// Hears of what happens to a pod.
    pub(crate) fn follow(&self, uid: &str) -> Option<watch::Receiver<()>> {
        Some(self.entries.get(uid)?.progress.subscribe())
    }

    // --- what is done

    /// What to do now for a pod, at the beginning of a pass: what has not been looked at for `every` is.
    pub(crate) fn begin(&mut self, uid: &str, now: Instant, every: Duration) -> Option<Task> {
        let entry = self.entries.get_mut(uid)?;
        // What has left with the mesh is not looked at again: it would seem to be on its way for that moment.
        if !self.withdrawn && now.duration_since(entry.checked) >= every {
            entry.checked = now;
            // One whose network was taken on its way out gets no other.
            let ends = self.index.pod(uid).is_some_and(|pod| pod.deleting);
            if !ends || entry.machine.netns().is_some() {
                entry.machine.doubt();
            }
        }
        self.next(uid)
    }

    /// What to do next for a pod.
    pub(crate) fn next(&mut self, uid: &str) -> Option<Task> {
        let entry = self.entries.get_mut(uid)?;
        let Some(action) = entry.machine.next() else {
            entry.machine.release();
            entry.let_go();
            return None;
        };
        if matches!(action, Action::Admit(_) | Action::Dismiss(_)) {
            entry.probe_changes += 1;
        }
        let mut task = Task {
            action,
            located: entry.located.clone(),
            wanted: entry.reason.is_none(),
            paths: Vec::new(),
            runtime_uids: Vec::new(),
            addresses: BTreeSet::new(),
        };
        let looks = matches!(task.action, Action::Find | Action::Recheck(_));
        if let Some(pod) = self.index.pod(uid).filter(|_| looks) {
            let attached = self.attached_to(pod);
            task.addresses = addresses::of(pod, &attached);
            task.paths = attached.iter().map(|a| a.sandbox.clone()).collect();
            task.runtime_uids = pod.runtime_uids();
        }
        Some(task)
    }

    /// How an action went, and the namespace that it found.
    pub(crate) fn done(
        &mut self,
        uid: &str,
        action: &Action,
        result: Result<(Outcome, Option<Located>), Cause>,
    ) -> Option<Notice> {
        let entry = self.entries.get_mut(uid)?;
        if matches!(action, Action::Admit(_) | Action::Dismiss(_)) {
            entry.probe_changes += 1;
        }
        let (result, located) = match result {
            Ok((outcome, located)) => (Ok(outcome), located),
            Err(cause) => (Err(cause), None),
        };
        let notice = entry.machine.done(action, result);
        let place = entry.machine.netns();
        if let Some(located) = located.filter(|located| place == Some(located.netns.id())) {
            entry.located = Some(located);
        }
        entry.let_go();
        notice
    }

    /// Removes a pod of which nothing is left to be done. Says whether it was one.
    pub(crate) fn bury(&mut self, uid: &str) -> bool {
        let gone = self.index.pod(uid).is_none();
        let settled = |entry: &Entry| entry.machine.next().is_none();
        let over = gone && self.entries.get(uid).is_some_and(settled);
        if over {
            self.entries.remove(uid);
        }
        over
    }

    /// The first pass is over. What ztunnels that connect are told of each pod.
    pub(crate) fn introduce(&mut self) -> Vec<(PodUid, PodInfo, Option<Located>)> {
        self.serving = true;
        let mut told = Vec::new();
        for (uid, entry) in &mut self.entries {
            let located = match entry.machine.introduce() {
                Introduction::Nothing => continue,
                Introduction::Keep => None,
                Introduction::Serve(_) => entry.located.clone(),
            };
            told.push((uid.clone(), entry.info.clone(), located));
        }
        told
    }

    /// A ztunnel has connected. Says which pods are to be confirmed.
    pub(crate) fn proxies_changed(&mut self) -> Concerned {
        self.epoch += 1;
        for entry in self.entries.values_mut() {
            entry.machine.proxies_changed(self.epoch);
        }
        self.entries.keys().cloned().collect()
    }

    /// How often the probe set was changed for each pod, to be given to [`probes_seen`](Self::probes_seen).
    pub(crate) fn probe_changes(&self) -> BTreeMap<PodUid, u64> {
        let entries = self.entries.iter();
        entries
            .map(|(uid, entry)| (uid.clone(), entry.probe_changes))
            .collect()
    }

    /// The probe set, as it was read after `changes`. Says for which pods it is wrong, and what in it is
    /// nobody's.
    pub(crate) fn probes_seen(
        &mut self,
        set: &BTreeMap<IpAddr, PodUid>,
        changes: &BTreeMap<PodUid, u64>,
    ) -> (Concerned, Vec<(IpAddr, PodUid)>) {
        let mut held: BTreeMap<&PodUid, BTreeSet<IpAddr>> = BTreeMap::new();
        for (address, uid) in set {
            held.entry(uid).or_default().insert(*address);
        }
        let mut wrong = Concerned::new();
        for (uid, entry) in &mut self.entries {
            // One that was changed meanwhile is seen next time.
            if changes.get(uid) != Some(&entry.probe_changes) {
                continue;
            }
            let seen = held.get(uid).cloned().unwrap_or_default();
            if *entry.machine.probes() != seen {
                entry.machine.probes_seen(seen);
                wrong.insert(uid.clone());
            }
        }
        // One that exists and cannot be decided about is left alone.
        let known = |uid: &PodUid| self.entries.contains_key(uid) || self.index.pod(uid).is_some();
        let strange = |(_, uid): &(&IpAddr, &PodUid)| !known(uid);
        let strangers = set.iter().filter(strange);
        let strangers = strangers
            .map(|(address, uid)| (*address, uid.clone()))
            .collect();
        (wrong, strangers)
    }
}

/// Whether rules have to be looked for in a pod outside the mesh.
fn strip(reason: Reason, pod: &Pod, inherited: bool) -> Strip {
    match reason {
        Reason::HostNetwork | Reason::Ended | Reason::Gone => Strip::Never,
        _ if inherited || pod.annotations.shown != Shown::Nothing => Strip::Search,
        _ => Strip::Known,
    }
}

// === impl Entry ===

impl Entry {
    fn new(machine: Machine, info: PodInfo, shown: (Shown, u64)) -> Self {
        Self {
            machine,
            info,
            located: None,
            reason: None,
            shown,
            checked: Instant::now(),
            probe_changes: 0,
            complaints: (0, Instant::now()),
            progress: watch::Sender::new(()),
        }
    }

    /// Whether people are to be told now that annotations of the pod have no effect. Who changes them all the
    /// time is not told of every change.
    pub(crate) fn may_complain(&mut self, now: Instant) -> bool {
        let (count, began) = &mut self.complaints;
        if now.duration_since(*began) >= COMPLAINTS.1 {
            (*count, *began) = (0, now);
        }
        *count = count.saturating_add(1);
        *count <= COMPLAINTS.0
    }

    /// A namespace lives as long as it is held: not longer than it is the pod's.
    fn let_go(&mut self) {
        if self.machine.netns().is_none() {
            self.located = None;
        }
    }

    /// Tells those who wait that something has happened.
    pub(crate) fn tell(&self) {
        self.progress.send_replace(());
    }
}

#[cfg(test)]
mod tests;
