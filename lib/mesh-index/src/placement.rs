//! Which pods run where: may a node's proxy ask for a workload's certificate?
//!
//! A proxy asks on behalf of the pods of its node. It is believed as far as its own pod is the one that
//! its token names, and gets the identities of pods that run beside it, and no others. This holds for
//! all namespaces, whether discovery looks at them or not: where a pod runs does not depend on it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use mesh_core::identity::Identity;

use crate::{object::Key, record::pod, text::Texts};

/// The pods of the cluster as the certificate authority needs them.
#[derive(Debug, Default)]
pub struct Placement {
    texts: Texts,
    pods: HashMap<Key, Record>,
    /// How many pods of a service account run on a node; the key holds node and account.
    running: HashMap<(Arc<str>, Key), usize>,
    trust_domains: Vec<String>,
    generation: u64,
}

/// A pod that asks on behalf of others, as its service-account token describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// The pod's service account.
    pub service_account: String,
}

/// Why a proxy may not have a certificate. News of pods may change the answer where
/// [`Denial::may_change`] says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The caller's pod is not known, or no longer.
    #[error("pod {0} of the caller is not known")]
    UnknownCaller(Key),
    /// A pod of this name exists, but it is another one.
    #[error("pod {0} has another uid than the caller's token")]
    OtherCaller(Key),
    /// The pod has another service account than the token.
    #[error("pod {pod} does not run as service account {claimed}")]
    OtherAccount {
        /// The caller's pod.
        pod: Key,
        /// The account of the token.
        claimed: String,
    },
    /// The caller's pod has ended.
    #[error("pod {0} of the caller has ended")]
    EndedCaller(Key),
    /// The caller's pod has no node yet.
    #[error("pod {0} of the caller is on no node")]
    Unscheduled(Key),
    /// The identity belongs to another mesh.
    #[error("trust domain {0} is not this mesh's")]
    TrustDomain(String),
    /// No pod of that service account runs on the caller's node.
    #[error("no pod of service account {account} runs on node {node}")]
    NotHere {
        /// The service account whose certificate was asked for.
        account: Key,
        /// The caller's node.
        node: String,
    },
}

/// What is kept of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    uid: Arc<str>,
    service_account: Arc<str>,
    /// Empty as long as the pod has none.
    node: Arc<str>,
    ended: bool,
}

// === impl Placement ===

impl Placement {
    /// Takes in a pod that is new or has changed.
    pub fn apply(&mut self, pod: &Pod) {
        let meta = &pod.metadata;
        let key = self.key(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        );
        let spec = pod.spec.as_ref();
        let account = spec.map_or("default", pod::service_account);
        let node = spec.and_then(|spec| spec.node_name.as_deref());
        let record = Record {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            service_account: self.texts.share(account),
            node: self.texts.share(node.unwrap_or_default()),
            ended: pod.status.as_ref().is_some_and(pod::ended),
        };
        self.set(&key, Some(record));
    }

    /// Forgets a pod.
    pub fn delete(&mut self, key: &Key) {
        self.set(key, None);
    }

    /// Takes in all pods: those that are known and not among them are gone.
    pub fn reset<'a>(&mut self, pods: impl IntoIterator<Item = &'a Pod>) {
        let mut kept = HashSet::new();
        for pod in pods {
            let meta = &pod.metadata;
            kept.insert(Key::new(
                meta.namespace.as_deref().unwrap_or_default(),
                meta.name.as_deref().unwrap_or_default(),
            ));
            self.apply(pod);
        }
        let known = self.pods.keys().filter(|key| !kept.contains(*key));
        for key in known.cloned().collect::<Vec<_>>() {
            self.set(&key, None);
        }
    }

    /// Sets which trust domains are this mesh's: its own and its aliases. Until then none is, and
    /// nobody gets a certificate.
    pub fn configure(&mut self, trust_domains: Vec<String>) {
        if self.trust_domains != trust_domains {
            self.trust_domains = trust_domains;
            self.generation += 1;
        }
    }

    /// Whether the proxy that runs as `caller` may have a certificate of `identity`: its pod runs, and a
    /// pod of that service account runs on the same node.
    pub fn may_impersonate(&self, caller: &Caller, identity: &Identity) -> Result<(), Denial> {
        let node = &self.running_caller(caller)?.node;
        let trust_domain = identity.trust_domain();
        if !self.trust_domains.iter().any(|own| own == trust_domain) {
            return Err(Denial::TrustDomain(trust_domain.to_owned()));
        }
        let account = Key::new(identity.namespace(), identity.service_account());
        let place = (node.clone(), account);
        if self.running.contains_key(&place) {
            return Ok(());
        }
        Err(Denial::NotHere {
            account: place.1,
            node: node.to_string(),
        })
    }

    /// The node on which the caller runs, once it is known to be who it says it is.
    pub fn node_of(&self, caller: &Caller) -> Result<&str, Denial> {
        self.running_caller(caller).map(|record| &*record.node)
    }

    /// Grows with every change that may change an answer. Whoever got a denial that may pass waits for
    /// it to grow.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How many pods are known.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether no pod is known.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    fn running_caller(&self, caller: &Caller) -> Result<&Record, Denial> {
        let key = Key::new(&*caller.namespace, &*caller.name);
        let Some(record) = self.pods.get(&key) else {
            return Err(Denial::UnknownCaller(key));
        };
        // An empty uid is never anybody's.
        if record.uid.is_empty() || *record.uid != *caller.uid {
            return Err(Denial::OtherCaller(key));
        }
        if *record.service_account != *caller.service_account {
            return Err(Denial::OtherAccount {
                pod: key,
                claimed: caller.service_account.clone(),
            });
        }
        if record.ended {
            return Err(Denial::EndedCaller(key));
        }
        if record.node.is_empty() {
            return Err(Denial::Unscheduled(key));
        }
        Ok(record)
    }

    fn set(&mut self, key: &Key, record: Option<Record>) {
        if self.pods.get(key) == record.as_ref() {
            return;
        }
        self.generation += 1;
        if let Some(place) = record.as_ref().and_then(|record| record.place(key)) {
            *self.running.entry(place).or_default() += 1;
        }
        let before = match record {
            Some(record) => self.pods.insert(key.clone(), record),
            None => self.pods.remove(key),
        };
        if let Some(place) = before.and_then(|record| record.place(key))
            && let Some(number) = self.running.get_mut(&place)
        {
            *number -= 1;
            if *number == 0 {
                self.running.remove(&place);
            }
        }
        self.texts.sweep();
    }

    fn key(&mut self, namespace: &str, name: &str) -> Key {
        Key {
            namespace: self.texts.share(namespace),
            // Names of pods are hardly ever shared.
            name: name.into(),
        }
    }
}

// === impl Record ===

impl Record {
    /// Where the pod runs and as whom; nothing if it does not run.
    fn place(&self, key: &Key) -> Option<(Arc<str>, Key)> {
        let runs = !self.ended && !self.node.is_empty();
        runs.then(|| {
            let account = Key {
                namespace: key.namespace.clone(),
                name: self.service_account.clone(),
            };
            (self.node.clone(), account)
        })
    }
}

// === impl Denial ===

impl Denial {
    /// Whether news of pods may turn this into a permission. A pod is often heard of a moment after its
    /// proxy asks. One whose name was used before may be heard of as the one before.
    pub fn may_change(&self) -> bool {
        matches!(
            self,
            Self::UnknownCaller(_)
                | Self::OtherCaller(_)
                | Self::Unscheduled(_)
                | Self::NotHere { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, account: &str, node: &str, phase: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}")},
            "spec": {"nodeName": node, "serviceAccountName": account, "containers": []},
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    fn ztunnel() -> Caller {
        Caller {
            namespace: "shop".into(),
            name: "ztunnel-1".into(),
            uid: "uid-ztunnel-1".into(),
            service_account: "ztunnel".into(),
        }
    }

    fn identity(text: &str) -> Identity {
        text.parse().unwrap()
    }

    /// A proxy on node n1 beside a pod of account web; one of account db runs on n2.
    fn placement() -> Placement {
        let mut placement = Placement::default();
        placement.configure(vec!["td".into(), "old".into()]);
        placement.reset(&[
            pod("ztunnel-1", "ztunnel", "n1", "Running"),
            pod("web", "web", "n1", "Pending"),
            pod("db", "db", "n2", "Running"),
        ]);
        placement
    }

    #[test]
    fn a_proxy_gets_the_identities_of_its_node_and_no_others() {
        let placement = placement();
        for trust_domain in ["td", "old"] {
            let web = identity(&format!("spiffe://{trust_domain}/ns/shop/sa/web"));
            assert_eq!(placement.may_impersonate(&ztunnel(), &web), Ok(()));
        }
        let denial = |text| {
            placement
                .may_impersonate(&ztunnel(), &identity(text))
                .unwrap_err()
        };
        assert_eq!(
            denial("spiffe://td/ns/shop/sa/db").to_string(),
            "no pod of service account shop/db runs on node n1"
        );
        assert_eq!(
            denial("spiffe://td/ns/bank/sa/web").to_string(),
            "no pod of service account bank/web runs on node n1"
        );
        assert_eq!(
            denial("spiffe://foreign/ns/shop/sa/web"),
            Denial::TrustDomain("foreign".into())
        );
        assert_eq!(placement.node_of(&ztunnel()), Ok("n1"));
    }

    #[test]
    fn a_caller_that_is_not_who_it_says_gets_nothing() {
        let mut placement = placement();
        placement.apply(&pod("ended", "ztunnel", "n1", "Failed"));
        placement.apply(&pod("pending", "ztunnel", "", "Pending"));
        let key = |name| Key::new("shop", name);
        let as_pod = |name: &str| Caller {
            name: name.into(),
            uid: format!("uid-{name}"),
            ..ztunnel()
        };
        let other_uid = Caller {
            uid: "another".into(),
            ..ztunnel()
        };
        let other_account = Caller {
            service_account: "web".into(),
            ..ztunnel()
        };
        for (caller, denial) in [
            (as_pod("nobody"), Denial::UnknownCaller(key("nobody"))),
            (other_uid, Denial::OtherCaller(key("ztunnel-1"))),
            (
                other_account,
                Denial::OtherAccount {
                    pod: key("ztunnel-1"),
                    claimed: "web".into(),
                },
            ),
            (as_pod("ended"), Denial::EndedCaller(key("ended"))),
            (as_pod("pending"), Denial::Unscheduled(key("pending"))),
        ] {
            let web = identity("spiffe://td/ns/shop/sa/web");
            assert_eq!(placement.may_impersonate(&caller, &web), Err(denial));
        }
    }

    #[test]
    fn an_identity_is_gone_with_the_last_pod_that_has_it() {
        let mut placement = placement();
        let web = identity("spiffe://td/ns/shop/sa/web");
        let may = |placement: &Placement| placement.may_impersonate(&ztunnel(), &web).is_ok();
        placement.apply(&pod("web-2", "web", "n1", "Running"));
        placement.delete(&Key::new("shop", "web"));
        assert!(may(&placement));
        placement.apply(&pod("web-2", "web", "n1", "Succeeded"));
        assert!(!may(&placement));
        placement.apply(&pod("web-3", "web", "n2", "Running"));
        assert!(!may(&placement));
        placement.reset(&[
            pod("ztunnel-1", "ztunnel", "n1", "Running"),
            pod("web-3", "web", "n1", "Running"),
        ]);
        assert!(may(&placement));
        assert_eq!(placement.len(), 2);
        placement.reset(&[]);
        assert!(placement.is_empty() && placement.running.is_empty());
    }

    #[test]
    fn whoever_was_denied_hears_of_news() {
        let mut placement = placement();
        let before = placement.generation();
        placement.apply(&pod("web", "web", "n1", "Pending"));
        assert_eq!(placement.generation(), before, "nothing is new");
        placement.apply(&pod("late", "late", "n1", "Pending"));
        assert!(placement.generation() > before);
        let denial = placement.may_impersonate(&ztunnel(), &identity("spiffe://td/ns/a/sa/b"));
        assert!(denial.is_err_and(|denial| denial.may_change()));
    }
}
