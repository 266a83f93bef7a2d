//! What the API server says when it is asked, which may be older or newer than what the watches have told.

use std::time::Duration;

use mesh_kube::watch::ObjectKey;
use mesh_net::netns::NetNsId;
use tokio::time::Instant;

use super::Registry;
use crate::{
    agent::pods::{Concerned, Pod},
    parts::PodUid,
};

impl Registry {
    /// The pod exists in this form, as the API server says to a question. The watch may know better.
    pub(crate) fn answer_pod(&mut self, pod: Pod, now: Instant) -> Concerned {
        let known = self.index.pod(&pod.uid);
        let named = known.or_else(|| self.index.pod_named(&pod.key(), ""));
        if named.is_some_and(|named| named.version >= pod.version) {
            return Concerned::new();
        }
        if known.is_none() {
            self.asked.insert(pod.uid.clone(), now);
        }
        let concerned = self.index.apply_pod(pod);
        self.refresh(concerned)
    }

    /// The pod of this name if it was asked for. What the watch, which has not shown it yet, says of the name
    /// is about one before it, such as the last of a StatefulSet.
    pub(super) fn asked_successor(&self, key: &ObjectKey) -> Option<&Pod> {
        let pod = self.index.pod_named(key, "")?;
        self.asked.contains_key(&pod.uid).then_some(pod)
    }

    /// The pods that were asked for long ago and that the watch has not shown since. They may have come and
    /// gone between two of its answers, or it may be the watch that is late: who asks again knows.
    pub(crate) fn unconfirmed(&self, now: Instant, long: Duration) -> Vec<(PodUid, ObjectKey)> {
        let overdue = |since: &Instant| now.duration_since(*since) >= long;
        let overdue = self.asked.iter().filter(|(_, since)| overdue(since));
        let overdue = overdue.filter_map(|(uid, _)| self.index.pod(uid));
        overdue.map(|pod| (pod.uid.clone(), pod.key())).collect()
    }

    /// A pod that was asked for still exists, or another of its name does.
    pub(crate) fn postpone(&mut self, uid: &PodUid, now: Instant) {
        if self.index.pod(uid).is_none() {
            self.asked.remove(uid);
        } else if let Some(since) = self.asked.get_mut(uid) {
            *since = now;
        }
    }

    /// A pod that was asked for does not exist any more, unless the watch has shown it meanwhile.
    pub(crate) fn forget(&mut self, uid: &PodUid) -> Concerned {
        let asked = self.asked.remove(uid).and_then(|_| self.index.pod(uid));
        let Some(key) = asked.map(Pod::key) else {
            return Concerned::new();
        };
        let concerned = self.index.delete_pod(&key);
        self.refresh(concerned)
    }

    /// Whether the pod that is known by this name may not be the one that gets this network: the runtime does
    /// not tell a UID, and the known one ends or has another network.
    pub(crate) fn may_be_another(
        &self,
        key: &ObjectKey,
        runtime_uid: &str,
        netns: Option<NetNsId>,
    ) -> bool {
        let Some(pod) = self.index.pod_named(key, "") else {
            return false;
        };
        let held = self
            .entries
            .get(&pod.uid)
            .map(|entry| entry.machine.netns());
        let elsewhere = held.flatten().is_some_and(|held| Some(held) != netns);
        runtime_uid.is_empty() && (pod.deleting || pod.ended || elsewhere)
    }
}
