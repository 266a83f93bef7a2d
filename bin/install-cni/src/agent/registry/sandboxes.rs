//! What the runtime says: which sandboxes there are, and whose.

use std::collections::BTreeSet;

use mesh_cni::protocol::Valid;
use mesh_kube::watch::ObjectKey;
use mesh_net::netns::NetNsId;

use super::{Attached, Interface, Registry};
use crate::{
    agent::{
        netns::{Located, sandbox::Sandbox},
        pods::{Concerned, Pod},
    },
    parts::PodUid,
};

impl Registry {
    /// The runtime has made this. Says which pods it concerns.
    pub(crate) fn attached(&mut self, sandbox: &Sandbox) -> Concerned {
        self.attach(sandbox.clone(), false);
        self.reconsider(sandbox)
    }

    pub(super) fn attach(&mut self, sandbox: Sandbox, inherited: bool) {
        self.sandboxes.retain(|_, other| {
            // The number belongs to another namespace now.
            other.sandbox.netns_id() != sandbox.netns_id() || other.sandbox.netns == sandbox.netns
        });
        self.sequence += 1;
        let sequence = self.sequence;
        let attached = Attached {
            sandbox,
            sequence,
            inherited,
        };
        self.sandboxes.insert(attached.sandbox.key(), attached);
    }

    /// The pod's namespace is this one, as the runtime says.
    pub(crate) fn settle_in(&mut self, uid: &PodUid, located: Located) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.machine.attached(located.netns.id());
            entry.located = Some(located);
        }
    }

    /// The runtime takes this interface: forgets it. Says which pods have lost their network with it.
    pub(crate) fn detached(&mut self, interface: &Interface) -> Concerned {
        let Some(gone) = self.sandboxes.remove(interface) else {
            return Concerned::new();
        };
        let netns = gone.sandbox.netns_id();
        if self
            .sandboxes
            .values()
            .any(|left| left.sandbox.netns_id() == netns)
        {
            return Concerned::new();
        }
        let mut concerned = self.lose(netns);
        concerned.extend(self.reconsider(&gone.sandbox));
        concerned
    }

    /// The interface is gone, by what the node's files say. Says whose it was: they are to be looked at.
    pub(crate) fn vanished(&mut self, interface: &Interface) -> Concerned {
        let Some(gone) = self.sandboxes.remove(interface) else {
            return Concerned::new();
        };
        let netns = gone.sandbox.netns_id();
        let mut concerned = self.reconsider(&gone.sandbox);
        for (uid, entry) in &mut self.entries {
            if entry.machine.netns() == Some(netns) {
                entry.machine.doubt();
                concerned.insert(uid.clone());
            }
        }
        concerned
    }

    /// Decides again about the pod of a sandbox, whose addresses may be others now.
    fn reconsider(&mut self, sandbox: &Sandbox) -> Concerned {
        let pod = self.index.pod_named(&key_of(sandbox), &sandbox.pod_uid);
        let uid = pod.map(|pod| pod.uid.clone());
        self.refresh(Concerned::from_iter(uid))
    }

    /// This namespace goes. Says whose it was.
    fn lose(&mut self, netns: NetNsId) -> Concerned {
        let mut concerned = Concerned::new();
        for (uid, entry) in &mut self.entries {
            if entry.machine.netns() == Some(netns) {
                entry.machine.detached();
                entry.located = None;
                concerned.insert(uid.clone());
            }
        }
        concerned
    }

    /// What the runtime told of, with the namespaces that it named.
    pub(crate) fn sandboxes(&self) -> Vec<Sandbox> {
        self.sandboxes
            .values()
            .map(|attached| attached.sandbox.clone())
            .collect()
    }

    /// The interfaces of this namespace path, by whatever names.
    pub(crate) fn interfaces_at(&self, netns: &str, key: &ObjectKey) -> Vec<Interface> {
        let there = |attached: &&Attached| {
            attached.sandbox.netns == netns && key_of(&attached.sandbox) == *key
        };
        let found = self.sandboxes.values().filter(there);
        found.map(|attached| attached.sandbox.key()).collect()
    }

    /// What the runtime told of a network and does not count among what is left of it.
    pub(crate) fn unaccounted(&self, left: &Valid) -> Vec<Sandbox> {
        let valid: BTreeSet<(&str, &str)> = left
            .attachments
            .iter()
            .map(|valid| (&*valid.container_id, &*valid.interface))
            .collect();
        let unaccounted = self.sandboxes.values().filter(|attached| {
            let sandbox = &attached.sandbox;
            sandbox.network == left.network
                && !valid.contains(&(&*sandbox.container_id, &*sandbox.interface))
        });
        unaccounted
            .map(|attached| attached.sandbox.clone())
            .collect()
    }

    /// The sandboxes of a pod, the newest first.
    pub(super) fn attached_to(&self, pod: &Pod) -> Vec<&Attached> {
        let ours = |attached: &&Attached| {
            let sandbox = &attached.sandbox;
            *sandbox.pod_name == *pod.info.name
                && *sandbox.pod_namespace == *pod.info.namespace
                && pod.is(&sandbox.pod_uid)
        };
        let mut found: Vec<_> = self.sandboxes.values().filter(ours).collect();
        found.sort_by_key(|attached| std::cmp::Reverse(attached.sequence));
        found
    }
}

fn key_of(sandbox: &Sandbox) -> ObjectKey {
    ObjectKey {
        namespace: sandbox.pod_namespace.clone(),
        name: sandbox.pod_name.clone(),
    }
}
