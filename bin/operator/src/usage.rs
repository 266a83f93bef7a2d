//! Who uses the mesh: which revision or tag somebody refers to, and which pods are in the mesh.
//!
//! Fed with the metadata of namespaces, pods and Gateways, in any order. A change costs what changed,
//! never a walk over the cluster, and of a pod stays its name and a shared reference to what it says:
//! most pods of a namespace say the same. A pod that says nothing is not kept at all.
//!
//! The rules are Sail's, with two repairs. Whoever watches pods leaves out those that have ended, so
//! that a failed pod does not hold a revision. And what the ambient mesh serves counts without naming a
//! revision: see [`Reference::Serving`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_api::{annotations, labels};

#[cfg(test)]
mod tests;

/// The revision and tag that serve who asks for injection without naming a revision.
pub const DEFAULT_REVISION: &str = "default";

/// Stands for [`Reference::Serving`] among names; no revision has this one.
pub const SERVING: &str = "";

/// Whether pods of a namespace ask for a sidecar of the default revision.
const INJECTION: &str = "istio-injection";
/// Whether a pod asks for a sidecar.
const INJECT: &str = "sidecar.istio.io/inject";

/// Most bytes of a name in Kubernetes.
const LONGEST_NAME: usize = 253;

/// How many pods and namespaces are named where there are many.
const NAMED: usize = 3;

/// Who uses the mesh.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    namespaces: BTreeMap<Box<str>, Namespace>,
    references: BTreeMap<Reference, usize>,
    enrolled: usize,
}

/// What somebody refers to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// A revision or tag, by its name.
    Named(Arc<str>),
    /// Whichever control plane serves the ambient mesh: that of a namespace or pod in the mesh, or of a
    /// waypoint, that names no revision.
    Serving,
}

/// What a change may have changed for those who look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Names of revisions or tags that somebody refers to now and nobody did, or the other way round;
    /// [`SERVING`] among them.
    pub names: BTreeSet<String>,
    /// Pods have entered or left the mesh.
    pub enrolment: bool,
}

/// The pods in the mesh, for a message: it names some and counts all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enrolled {
    /// How many there are.
    pub pods: usize,
    /// How many namespaces they are in.
    pub namespaces: usize,
    /// The first namespaces, with the number of pods in the mesh.
    pub most: Vec<(String, usize)>,
    /// The first pods, as `namespace/name`.
    pub some: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct Namespace {
    says: NamespaceSays,
    workloads: BTreeMap<(Source, Box<str>), Arc<Says>>,
    /// How many workloads say the same; the shared copies of what they say.
    classes: BTreeMap<Arc<Says>, usize>,
    enrolled: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct NamespaceSays {
    injection: bool,
    revision: Option<Arc<str>>,
    ambient: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Pod,
    Gateway,
}

/// All that counts of a pod or Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Says {
    /// The revision that injected it, or that made the waypoint it belongs to.
    injected_by: Option<Arc<str>>,
    revision: Option<Arc<str>>,
    inject: Option<bool>,
    /// The ambient mesh serves it by itself, whatever its namespace says: a pod that asks to be in the
    /// mesh, a waypoint, a Gateway of a revision.
    served: bool,
    enrolled: bool,
}

// === impl Usage ===

impl Usage {
    /// A namespace is there, or has changed.
    pub fn apply_namespace(&mut self, meta: &ObjectMeta) -> Touched {
        let name = meta.name.as_deref().unwrap_or_default();
        self.say(name, NamespaceSays::of(meta))
    }

    /// A namespace is gone. Its pods and Gateways are told of by themselves.
    pub fn delete_namespace(&mut self, name: &str) -> Touched {
        self.say(name, NamespaceSays::default())
    }

    /// A pod that has not ended is there, or has changed.
    pub fn apply_pod(&mut self, meta: &ObjectMeta) -> Touched {
        self.set(Source::Pod, meta, Says::of_pod(meta))
    }

    /// A pod is gone, or has ended.
    pub fn delete_pod(&mut self, namespace: &str, name: &str) -> Touched {
        self.replace(namespace, (Source::Pod, name.into()), Says::default())
    }

    /// A Gateway is there, or has changed.
    pub fn apply_gateway(&mut self, meta: &ObjectMeta) -> Touched {
        self.set(Source::Gateway, meta, Says::of_gateway(meta))
    }

    /// A Gateway is gone.
    pub fn delete_gateway(&mut self, namespace: &str, name: &str) -> Touched {
        self.replace(namespace, (Source::Gateway, name.into()), Says::default())
    }

    /// Whether somebody refers to the revision or tag of this name.
    pub fn refers_to(&self, name: &str) -> bool {
        self.references.contains_key(&Reference::Named(name.into()))
    }

    /// Whether somebody is served by the ambient mesh who names no revision.
    pub fn needs_serving(&self) -> bool {
        self.references.contains_key(&Reference::Serving)
    }

    /// How many pods are in the mesh.
    pub fn enrolled_pods(&self) -> usize {
        self.enrolled
    }

    /// The pods in the mesh, for a message. Walks over the namespaces.
    pub fn enrolled(&self) -> Enrolled {
        let with = self.namespaces.iter();
        let with = with.filter(|(_, namespace)| namespace.enrolled > 0);
        let mut enrolled = Enrolled {
            pods: self.enrolled,
            ..Enrolled::default()
        };
        for (name, namespace) in with {
            enrolled.namespaces += 1;
            if enrolled.most.len() < NAMED {
                enrolled.most.push((name.to_string(), namespace.enrolled));
            }
            let missing = NAMED - enrolled.some.len();
            let pods = namespace.enrolled_pods().take(missing);
            enrolled
                .some
                .extend(pods.map(|pod| format!("{name}/{pod}")));
        }
        enrolled
    }

    fn say(&mut self, name: &str, says: NamespaceSays) -> Touched {
        if !self.namespaces.contains_key(name) && says == NamespaceSays::default() {
            return Touched::default();
        }
        let namespace = self.namespaces.entry(name.into()).or_default();
        if namespace.says == says {
            return Touched::default();
        }
        let old = std::mem::replace(&mut namespace.says, says);
        let mut delta = Delta::default();
        delta.add(old.references(), -1);
        delta.add(namespace.says.references(), 1);
        for (class, count) in &namespace.classes {
            let count = count.cast_signed();
            delta.add([class.reference(&old)], -count);
            delta.add([class.reference(&namespace.says)], count);
        }
        if namespace.is_empty() {
            self.namespaces.remove(name);
        }
        Touched {
            names: delta.apply(&mut self.references),
            enrolment: false,
        }
    }

    fn set(&mut self, source: Source, meta: &ObjectMeta, says: Says) -> Touched {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = meta.name.as_deref().unwrap_or_default();
        self.replace(namespace, (source, name.into()), says)
    }

    fn replace(&mut self, name: &str, key: (Source, Box<str>), says: Says) -> Touched {
        if !self.namespaces.contains_key(name) && says == Says::default() {
            return Touched::default();
        }
        let namespace = self.namespaces.entry(name.into()).or_default();
        let (old, new) = namespace.replace(key, says);
        let mut delta = Delta::default();
        delta.add([old.reference(&namespace.says)], -1);
        delta.add([new.reference(&namespace.says)], 1);
        namespace.enrolled =
            namespace.enrolled + usize::from(new.enrolled) - usize::from(old.enrolled);
        if namespace.is_empty() {
            self.namespaces.remove(name);
        }
        self.enrolled = self.enrolled + usize::from(new.enrolled) - usize::from(old.enrolled);
        Touched {
            names: delta.apply(&mut self.references),
            enrolment: old.enrolled != new.enrolled,
        }
    }
}

/// Changes of counts, of which only the sum matters.
#[derive(Default)]
struct Delta(BTreeMap<Reference, isize>);

impl Delta {
    fn add(&mut self, references: impl IntoIterator<Item = Option<Reference>>, count: isize) {
        for reference in references.into_iter().flatten() {
            *self.0.entry(reference).or_default() += count;
        }
    }

    /// The names whose count has become zero or ceased to be.
    fn apply(self, counts: &mut BTreeMap<Reference, usize>) -> BTreeSet<String> {
        let mut crossed = BTreeSet::new();
        for (reference, delta) in self.0 {
            let old = counts.get(&reference).copied().unwrap_or_default();
            let new = old.saturating_add_signed(delta);
            if (old == 0) != (new == 0) {
                crossed.insert(reference.name().to_owned());
            }
            if new == 0 {
                counts.remove(&reference);
            } else {
                counts.insert(reference, new);
            }
        }
        crossed
    }
}

// === impl Reference ===

impl Reference {
    fn name(&self) -> &str {
        match self {
            Self::Named(name) => name,
            Self::Serving => SERVING,
        }
    }
}

// === impl Namespace ===

impl Namespace {
    fn is_empty(&self) -> bool {
        self.workloads.is_empty() && self.says == NamespaceSays::default()
    }

    fn enrolled_pods(&self) -> impl Iterator<Item = &str> {
        let enrolled = self.workloads.iter().filter(|(_, says)| says.enrolled);
        enrolled.map(|((_, name), _)| &**name)
    }

    /// What the workload said, and what it says now.
    fn replace(&mut self, key: (Source, Box<str>), says: Says) -> (Arc<Says>, Arc<Says>) {
        let silent = says == Says::default();
        let new = match self.classes.get_key_value(&says) {
            Some((known, _)) => known.clone(),
            None => Arc::new(says),
        };
        let old = if silent {
            self.workloads.remove(&key)
        } else {
            *self.classes.entry(new.clone()).or_default() += 1;
            self.workloads.insert(key, new.clone())
        };
        if let Some(old) = &old
            && let Some(count) = self.classes.get_mut(old)
        {
            *count -= 1;
            if *count == 0 {
                self.classes.remove(old);
            }
        }
        (old.unwrap_or_default(), new)
    }
}

// === impl NamespaceSays ===

impl NamespaceSays {
    fn of(meta: &ObjectMeta) -> Self {
        Self {
            injection: label(meta, INJECTION) == Some("enabled"),
            revision: name(label(meta, labels::REVISION)),
            ambient: is_ambient(meta),
        }
    }

    /// Injection by the default revision comes before a revision that is named, as in Istio's webhooks;
    /// the ambient mesh has no part in that.
    fn references(&self) -> [Option<Reference>; 2] {
        let injection = self
            .injection
            .then(|| Reference::Named(DEFAULT_REVISION.into()));
        let named = self.revision.is_some() && !self.injection;
        let other = (named || self.ambient).then(|| self.served_by());
        [injection, other]
    }

    /// The control plane of what the ambient mesh serves in this namespace.
    fn served_by(&self) -> Reference {
        match &self.revision {
            Some(revision) => Reference::Named(revision.clone()),
            None => Reference::Serving,
        }
    }
}

// === impl Says ===

impl Says {
    fn of_pod(meta: &ObjectMeta) -> Self {
        let injected_by = annotation(meta, labels::REVISION);
        let enrolled = annotation(meta, annotations::REDIRECTION);
        Self {
            injected_by: name(injected_by),
            revision: name(label(meta, labels::REVISION)),
            inject: match label(meta, INJECT) {
                Some("true") => Some(true),
                Some("false") => Some(false),
                _ => None,
            },
            served: is_ambient(meta),
            enrolled: enrolled == Some(annotations::REDIRECTION_ENABLED),
        }
        .relevant()
    }

    fn of_gateway(meta: &ObjectMeta) -> Self {
        let revision = name(label(meta, labels::REVISION));
        Self {
            served: revision.is_some() || label(meta, labels::WAYPOINT_FOR).is_some(),
            revision,
            ..Self::default()
        }
    }

    /// A pod that declines a sidecar says nothing by that, nor by the revision it would have had.
    fn relevant(mut self) -> Self {
        if self.inject == Some(false) {
            self.inject = None;
            self.revision = self.revision.filter(|_| self.served);
        }
        self
    }

    fn reference(&self, namespace: &NamespaceSays) -> Option<Reference> {
        let named = |name: &Arc<str>| Reference::Named(name.clone());
        if let Some(revision) = &self.injected_by {
            return Some(named(revision));
        }
        let own = self.revision.as_ref().map(named);
        if self.served {
            return Some(own.unwrap_or_else(|| namespace.served_by()));
        }
        let first = namespace.references().into_iter().flatten().next();
        let inject = self.inject == Some(true);
        let own = own.or_else(|| inject.then(|| Reference::Named(DEFAULT_REVISION.into())));
        own.filter(|_| first.is_none())
    }
}

// === impl Enrolled ===

impl fmt::Display for Enrolled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pods = if self.pods == 1 { "pod is" } else { "pods are" };
        write!(f, "{} {pods} in the mesh, in namespace", self.pods)?;
        f.write_str(if self.namespaces == 1 { " " } else { "s " })?;
        for (at, (name, count)) in self.most.iter().enumerate() {
            write!(f, "{}{name} ({count})", if at == 0 { "" } else { ", " })?;
        }
        if self.namespaces > self.most.len() {
            write!(f, " and {} more", self.namespaces - self.most.len())?;
        }
        write!(f, ", such as {}", self.some.join(", "))
    }
}

fn is_ambient(meta: &ObjectMeta) -> bool {
    label(meta, labels::DATAPLANE_MODE) == Some(labels::dataplane_mode::AMBIENT)
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Nothing has a name that is longer than names can be. An annotation can be 256 KiB, and whoever may create
/// pods can write many.
fn name(text: Option<&str>) -> Option<Arc<str>> {
    let text = text.filter(|text| (1..=LONGEST_NAME).contains(&text.len()));
    text.map(Arc::from)
}
