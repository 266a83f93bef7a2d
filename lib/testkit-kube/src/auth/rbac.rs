//! Role-based access control, indexed by whom it is granted to.
//!
//! [`Index`] is made from all roles and bindings at once and never changes; [`Cache`] makes another when
//! one of them has been written. A question costs what is granted to the user and their groups.

mod aggregation;
pub mod escalation;
mod rule;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::rbac::v1::{
    ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use kube::ResourceExt;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use super::user::{User, group};
use crate::store::{GroupResource, Store};

pub use self::aggregation::aggregated;

/// What somebody wants to do.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Who.
    pub user: &'a User,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for paths the
    /// HTTP method in lower case.
    pub verb: &'a str,
    /// What it is done to.
    pub target: Target<'a>,
}

/// What something is done to.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// An object or a collection.
    Resource {
        /// The API group, empty for core.
        group: &'a str,
        /// The plural name.
        resource: &'a str,
        /// `status`, `log` and the like, or empty.
        subresource: &'a str,
        /// Empty for all namespaces and for cluster-scoped resources.
        namespace: &'a str,
        /// Empty for collections.
        name: &'a str,
    },
    /// A path that is none: `/healthz`.
    Path(&'a str),
}

/// Whether it may be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Yes or no.
    pub allowed: bool,
    /// Why, for the answer and for SubjectAccessReview.
    pub reason: String,
}

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Roles that hold everywhere, and what they may be granted with.
pub static CLUSTER_ROLES: GroupResource = GroupResource::new(GROUP, "clusterroles");
/// Grants that hold everywhere.
pub static CLUSTER_ROLE_BINDINGS: GroupResource = GroupResource::new(GROUP, "clusterrolebindings");
/// Roles of one namespace.
pub static ROLES: GroupResource = GroupResource::new(GROUP, "roles");
/// Grants that hold in one namespace.
pub static ROLE_BINDINGS: GroupResource = GroupResource::new(GROUP, "rolebindings");

/// The index of the roles and bindings in a store.
#[derive(Debug, Default)]
pub struct Cache {
    current: Mutex<Option<(Revision, Arc<Index>)>>,
}

/// All roles and bindings, ready to be asked.
#[derive(Debug, Default)]
pub struct Index {
    /// What holds everywhere.
    cluster: HashMap<Holder, Vec<Arc<Grant>>>,
    /// What holds in one namespace, by its name.
    namespaces: HashMap<String, HashMap<Holder, Vec<Arc<Grant>>>>,
    cluster_roles: BTreeMap<String, Arc<[PolicyRule]>>,
    /// By namespace and name.
    roles: HashMap<(String, String), Arc<[PolicyRule]>>,
}

/// Which versions of the four resources an index was made of.
type Revision = [u64; 4];

/// Whom something is granted to. Service accounts are users with a name of their own form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Holder {
    User(String),
    Group(String),
}

/// A binding, as one of its subjects sees it.
#[derive(Debug)]
struct Grant {
    /// The rules of the role, or what is missing.
    rules: Result<Arc<[PolicyRule]>, String>,
    /// The binding, the role and the subject in words.
    words: String,
}

// === impl Cache ===

impl Cache {
    /// The index of what the store holds now.
    pub fn current(&self, store: &Store) -> Arc<Index> {
        let mut current = self.current.lock();
        // Asked for before the objects are: what is written in between is seen the next time.
        let revision = [
            &CLUSTER_ROLES,
            &CLUSTER_ROLE_BINDINGS,
            &ROLES,
            &ROLE_BINDINGS,
        ]
        .map(|resource| store.last_changed(resource));
        if let Some((known, index)) = &*current
            && *known == revision
        {
            return Arc::clone(index);
        }
        let index = Arc::new(Index::of(store));
        *current = Some((revision, Arc::clone(&index)));
        index
    }
}

// === impl Index ===

impl Index {
    /// Indexes what a store holds.
    pub fn of(store: &Store) -> Self {
        let mut index = Self {
            cluster_roles: aggregation::effective(&read(store, &CLUSTER_ROLES)),
            ..Self::default()
        };
        for role in read::<Role>(store, &ROLES) {
            let key = (role.namespace().unwrap_or_default(), role.name_any());
            index
                .roles
                .insert(key, role.rules.unwrap_or_default().into());
        }
        for binding in read::<ClusterRoleBinding>(store, &CLUSTER_ROLE_BINDINGS) {
            index.bind_everywhere(&binding);
        }
        for binding in read::<RoleBinding>(store, &ROLE_BINDINGS) {
            index.bind(&binding);
        }
        index
    }

    /// May this be done?
    pub fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.is_in(group::MASTERS) {
            return Decision {
                allowed: true,
                reason: String::new(),
            };
        }
        let namespace = match attributes.target {
            Target::Resource { namespace, .. } => namespace,
            Target::Path(_) => "",
        };
        let mut missing = Vec::new();
        for grant in self.grants(attributes.user, namespace) {
            match &grant.rules {
                Ok(rules) if rules.iter().any(|rule| rule::allows(rule, attributes)) => {
                    return Decision {
                        allowed: true,
                        reason: format!("RBAC: allowed by {}", grant.words),
                    };
                }
                Ok(_) => {}
                Err(what) => missing.push(what.as_str()),
            }
        }
        let reason = match missing.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            several => format!("RBAC: [{}]", several.join(", ")),
        };
        Decision {
            allowed: false,
            reason,
        }
    }

    /// The rules that hold for a user in a namespace; those that hold everywhere if it is empty.
    pub fn rules(&self, user: &User, namespace: &str) -> Vec<PolicyRule> {
        let grants = self.grants(user, namespace);
        let known = grants.filter_map(|grant| grant.rules.as_ref().ok());
        known.flat_map(|rules| rules.iter().cloned()).collect()
    }

    /// What a user holds by name and by groups.
    fn grants<'a>(&'a self, user: &User, namespace: &str) -> impl Iterator<Item = &'a Grant> {
        let here = (!namespace.is_empty())
            .then(|| self.namespaces.get(namespace))
            .flatten();
        let holders: Vec<_> = std::iter::once(Holder::User(user.name.clone()))
            .chain(user.groups.iter().cloned().map(Holder::Group))
            .collect();
        let of = move |grants: &'a HashMap<Holder, Vec<Arc<Grant>>>| {
            let found: Vec<_> = holders
                .iter()
                .filter_map(|holder| grants.get(holder))
                .collect();
            found.into_iter().flatten().map(AsRef::as_ref)
        };
        std::iter::once(&self.cluster).chain(here).flat_map(of)
    }

    /// The rules of the role that a binding in `namespace` (or in none) refers to.
    fn referenced(&self, role: &RoleRef, namespace: &str) -> Result<Arc<[PolicyRule]>, String> {
        let found = if role.kind == "ClusterRole" {
            self.cluster_roles.get(&role.name)
        } else {
            let key = (namespace.to_owned(), role.name.clone());
            self.roles.get(&key)
        };
        let kind = role.kind.to_lowercase();
        let missing = || format!("{kind}.{GROUP} {:?} not found", role.name);
        found.cloned().ok_or_else(missing)
    }

    fn bind_everywhere(&mut self, binding: &ClusterRoleBinding) {
        let words = format!("ClusterRoleBinding {:?}", binding.name_any());
        let rules = self.referenced(&binding.role_ref, "");
        let granted = granted(
            &words,
            &binding.role_ref,
            &rules,
            "",
            binding.subjects.as_deref(),
        );
        for (holder, grant) in granted {
            self.cluster.entry(holder).or_default().push(grant);
        }
    }

    fn bind(&mut self, binding: &RoleBinding) {
        let namespace = binding.namespace().unwrap_or_default();
        let name = format!("{}/{namespace}", binding.name_any());
        let words = format!("RoleBinding {name:?}");
        let rules = self.referenced(&binding.role_ref, &namespace);
        let subjects = binding.subjects.as_deref();
        let granted: Vec<_> =
            granted(&words, &binding.role_ref, &rules, &namespace, subjects).collect();
        let here = self.namespaces.entry(namespace).or_default();
        for (holder, grant) in granted {
            here.entry(holder).or_default().push(grant);
        }
    }
}

/// What a binding gives to each of its subjects. `namespace` is that of service accounts without one.
fn granted(
    binding: &str,
    role: &RoleRef,
    rules: &Result<Arc<[PolicyRule]>, String>,
    namespace: &str,
    subjects: Option<&[Subject]>,
) -> impl Iterator<Item = (Holder, Arc<Grant>)> {
    let of = format!("of {} {:?}", role.kind, role.name);
    subjects
        .unwrap_or_default()
        .iter()
        .filter_map(move |subject| {
            let (holder, who) = holder(subject, namespace)?;
            let grant = Grant {
                rules: rules.clone(),
                words: format!("{binding} {of} to {} {who:?}", subject.kind),
            };
            Some((holder, Arc::new(grant)))
        })
}

/// Whom a subject means, and how it is put in words. Kinds that do not exist mean nobody.
fn holder(subject: &Subject, namespace: &str) -> Option<(Holder, String)> {
    let name = &subject.name;
    match subject.kind.as_str() {
        "User" => Some((Holder::User(name.clone()), name.clone())),
        "Group" => Some((Holder::Group(name.clone()), name.clone())),
        "ServiceAccount" => {
            let namespace = subject.namespace.as_deref().unwrap_or(namespace);
            let user = User::service_account(namespace, name).name;
            Some((Holder::User(user), format!("{name}/{namespace}")))
        }
        _ => None,
    }
}

/// The objects of a resource. One that cannot be read grants nothing; the API does not let it in.
fn read<T: DeserializeOwned>(store: &Store, resource: &GroupResource) -> Vec<T> {
    let objects = store.list(resource, None);
    let read = objects.iter().filter_map(|object| match T::deserialize(&**object) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::warn!(%error, resource = %resource.resource, "ignored an unreadable object");
            None
        }
    });
    read.collect()
}
