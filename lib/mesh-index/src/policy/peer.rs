//! PeerAuthentications, as DENY policies against plain text.
//!
//! For a workload the oldest PeerAuthentication that selects it counts, else the oldest of its
//! namespace, else the oldest of the root namespace; UNSET inherits from the next wider one. Where plain
//! text is refused on all ports, the workload names one policy that all share; where ports differ, one
//! made for the PeerAuthentication that says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_api::{security::PeerAuthentication, selector::Selector};
use mesh_core::policy::{Action, Authorization, Clause, Match, PolicyScope, Rule, StringMatch};

use super::{Finding, Problem, Report, quote};

/// All PeerAuthentications, and the policies they come to.
#[derive(Clone, Debug)]
pub struct Peers {
    root: Arc<str>,
    namespaces: BTreeMap<Arc<str>, Members>,
    published: BTreeMap<Arc<str>, Authorization>,
    stale: Stale,
}

/// Which workloads may name other policies than before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Affected {
    /// None.
    Nothing,
    /// Those of one namespace.
    Namespace(Arc<str>),
    /// All.
    Mesh,
}

/// What applying one object comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The workloads to look at again.
    pub affected: Affected,
    /// What is wrong with the object.
    pub findings: Vec<Finding>,
    /// What its status says.
    pub report: Report,
}

/// A change to the policies that are published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyChange {
    /// The policy is new or has changed.
    Publish(Authorization),
    /// The policy of this key, `namespace/name`, is gone.
    Withdraw(Arc<str>),
}

/// Whether plain text is accepted. DISABLE is PERMISSIVE: ztunnel always accepts HBONE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Unset,
    Permissive,
    Strict,
}

/// The PeerAuthentications of one namespace, oldest first.
#[derive(Clone, Debug, Default)]
struct Members {
    ages: BTreeMap<Arc<str>, Age>,
    all: BTreeMap<Age, Record>,
}

/// Creation in seconds since 1970, then the name, so that the order never depends on arrival. An object
/// without a time of creation counts as older than all others.
type Age = (i64, Arc<str>);

/// One object of a namespace.
type Entry = (Age, Record);

/// What is kept of one PeerAuthentication.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    selector: Option<Selector>,
    mode: Mode,
    ports: BTreeMap<u16, Mode>,
}

/// What a PeerAuthentication comes to, with what it inherits.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Conversion {
    /// Plain text is accepted.
    Nothing,
    /// Plain text is refused.
    Static,
    /// Plain text is refused on all ports but these.
    StrictExcept(Vec<u16>),
    /// Plain text is refused on these ports.
    StrictOn(Vec<u16>),
}

/// Which published policies must be looked at again.
#[derive(Clone, Debug, Default)]
struct Stale {
    all: bool,
    namespaces: BTreeSet<Arc<str>>,
    one: BTreeSet<(Arc<str>, Arc<str>)>,
    shared: bool,
}

/// The policy that all workloads share where plain text is refused; it stands in the root namespace.
pub const STATIC_STRICT: &str = "istio_converted_static_strict";
/// What the names of policies begin with that were made for ports.
pub const CONVERTED_PREFIX: &str = "converted_peer_authentication_";

// === impl Peers ===

impl Peers {
    /// An empty set for a mesh with this root namespace.
    pub fn new(root: impl Into<Arc<str>>) -> Self {
        Self {
            root: root.into(),
            namespaces: BTreeMap::new(),
            published: BTreeMap::new(),
            stale: Stale::default(),
        }
    }

    /// Takes in an object that is new or has changed.
    pub fn apply(&mut self, object: &PeerAuthentication) -> Applied {
        let namespace: Arc<str> = object
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default()
            .into();
        let name: Arc<str> = object.metadata.name.as_deref().unwrap_or_default().into();
        let mut findings = Vec::new();
        let record = Record::of(object, *namespace == *self.root, &mut findings);
        let created = object.metadata.creation_timestamp.as_ref();
        let age = (created.map_or(i64::MIN, |time| time.0.as_second()), name);
        let affected = self.change(&namespace, &age.1.clone(), Some((age, record)));
        Applied {
            affected,
            report: Report::of_object(&findings),
            findings,
        }
    }

    /// Forgets an object; one that is not known is forgotten already.
    pub fn delete(&mut self, namespace: &str, name: &str) -> Affected {
        self.change(&namespace.into(), &name.into(), None)
    }

    /// The objects it holds, as namespace and name.
    pub fn keys(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        let namespaces = self.namespaces.iter();
        namespaces
            .flat_map(|(namespace, members)| members.ages.keys().map(move |name| (namespace, name)))
    }

    /// The key, `namespace/name`, of the policy that a workload must name for its PeerAuthentications.
    /// `label` finds the value of one of the workload's labels.
    pub fn policy_of<'a>(
        &self,
        namespace: &str,
        label: impl Fn(&str) -> Option<&'a str>,
    ) -> Option<Arc<str>> {
        let Some((name, record)) = self.selecting(namespace, label) else {
            return self.is_strict(namespace).then(|| self.static_key());
        };
        match self.conversion(namespace, record) {
            Conversion::Nothing => None,
            Conversion::Static => Some(self.static_key()),
            Conversion::StrictExcept(_) | Conversion::StrictOn(_) => {
                Some(format!("{namespace}/{CONVERTED_PREFIX}{name}").into())
            }
        }
    }

    /// What differs in the published policies since this was last called.
    pub fn drain(&mut self) -> Vec<PolicyChange> {
        let stale = std::mem::take(&mut self.stale);
        let mut changes = Vec::new();
        if stale.shared || stale.all {
            let any = self
                .namespaces
                .values()
                .any(|members| !members.all.is_empty());
            let wanted = any.then(|| static_strict(&self.root));
            changes.extend(self.publish(self.static_key(), wanted));
        }
        for (namespace, name) in self.stale_objects(stale) {
            let wanted = self.converted(&namespace, &name);
            let key = format!("{namespace}/{CONVERTED_PREFIX}{name}");
            changes.extend(self.publish(key.into(), wanted));
        }
        changes
    }

    /// Whether plain text is refused where no PeerAuthentication selects the workload.
    fn is_strict(&self, namespace: &str) -> bool {
        self.inherited(namespace) == Mode::Strict
    }

    /// What holds in a namespace; never [`Mode::Unset`].
    fn inherited(&self, namespace: &str) -> Mode {
        let wide = |namespace| {
            let members: &Members = self.namespaces.get(namespace)?;
            members.wide()
        };
        let mode = wide(namespace).unwrap_or_default();
        mode.or(wide(&*self.root).unwrap_or_default())
            .or(Mode::Permissive)
    }

    /// The oldest that selects the workload. In the root namespace none does.
    fn selecting<'a>(
        &self,
        namespace: &str,
        label: impl Fn(&str) -> Option<&'a str>,
    ) -> Option<(&Arc<str>, &Record)> {
        if *namespace == *self.root {
            return None;
        }
        let members = self.namespaces.get(namespace)?;
        let selects = |record: &Record| {
            record
                .selector
                .as_ref()
                .is_some_and(|s| s.matches_with(&label))
        };
        members
            .all
            .iter()
            .find(|(_, record)| selects(record))
            .map(|((_, name), record)| (name, record))
    }

    fn conversion(&self, namespace: &str, record: &Record) -> Conversion {
        record.conversion(self.inherited(namespace))
    }

    /// The policy made for one object, if it needs one of its own.
    fn converted(&self, namespace: &Arc<str>, name: &Arc<str>) -> Option<Authorization> {
        let members = self.namespaces.get(namespace)?;
        let record = members.all.get(members.ages.get(name)?)?;
        if *namespace == self.root || record.selector.is_none() {
            return None;
        }
        let plain_text = plain_text();
        let matched = match self.conversion(namespace, record) {
            Conversion::Nothing | Conversion::Static => return None,
            Conversion::StrictExcept(ports) => Match {
                not_destination_ports: ports,
                ..plain_text
            },
            Conversion::StrictOn(ports) => Match {
                destination_ports: ports,
                ..plain_text
            },
        };
        let name = format!("{CONVERTED_PREFIX}{name}");
        Some(deny(namespace, &name, matched))
    }

    fn static_key(&self) -> Arc<str> {
        format!("{}/{STATIC_STRICT}", self.root).into()
    }

    fn publish(&mut self, key: Arc<str>, wanted: Option<Authorization>) -> Option<PolicyChange> {
        let Some(policy) = wanted else {
            return self
                .published
                .remove(&key)
                .map(|_| PolicyChange::Withdraw(key));
        };
        if self.published.get(&key) == Some(&policy) {
            return None;
        }
        self.published.insert(key, policy.clone());
        Some(PolicyChange::Publish(policy))
    }

    /// Replaces one record and finds out who is concerned.
    fn change(&mut self, namespace: &Arc<str>, name: &Arc<str>, new: Option<Entry>) -> Affected {
        let before = self.inherited(namespace);
        let members = self.namespaces.entry(namespace.clone()).or_default();
        let old = members.remove(name);
        let changed = old != new;
        let selects = |(_, record): &Entry| record.selector.is_some();
        let selects = old.iter().chain(&new).any(selects);
        if let Some((age, record)) = new {
            members.insert(age, record);
        }
        if members.all.is_empty() {
            self.namespaces.remove(namespace);
        }
        if !changed {
            return Affected::Nothing;
        }
        self.stale.shared = true;
        self.stale.one.insert((namespace.clone(), name.clone()));
        let in_root = *namespace == self.root;
        if before == self.inherited(namespace) {
            return if selects && !in_root {
                Affected::Namespace(namespace.clone())
            } else {
                Affected::Nothing
            };
        }
        if in_root {
            self.stale.all = true;
            return Affected::Mesh;
        }
        self.stale.namespaces.insert(namespace.clone());
        Affected::Namespace(namespace.clone())
    }

    fn stale_objects(&self, stale: Stale) -> BTreeSet<(Arc<str>, Arc<str>)> {
        let mut objects = stale.one;
        let concerned = |namespace: &Arc<str>| stale.all || stale.namespaces.contains(namespace);
        let known = self.keys().filter(|(namespace, _)| concerned(namespace));
        objects.extend(known.map(|(namespace, name)| (namespace.clone(), name.clone())));
        objects
    }
}

// === impl Members ===

impl Members {
    fn insert(&mut self, age: Age, record: Record) {
        self.ages.insert(age.1.clone(), age.clone());
        self.all.insert(age, record);
    }

    fn remove(&mut self, name: &str) -> Option<Entry> {
        self.all.remove_entry(&self.ages.remove(name)?)
    }

    /// The mode of the oldest that selects nothing in particular.
    fn wide(&self) -> Option<Mode> {
        let mut records = self.all.values();
        records
            .find(|record| record.selector.is_none())
            .map(|record| record.mode)
    }
}

// === impl Record ===

impl Record {
    fn of(object: &PeerAuthentication, in_root: bool, findings: &mut Vec<Finding>) -> Self {
        let spec = &object.spec;
        for name in spec.other.keys() {
            let field = format!("spec.{}", quote(name));
            findings.push(Finding::new(field, Problem::UnknownField));
        }
        let labels = spec
            .selector
            .as_ref()
            .map(|selector| &selector.match_labels);
        let selector = labels
            .filter(|labels| !labels.is_empty())
            .map(Selector::of_labels);
        if in_root && selector.is_some() {
            findings.push(Finding::new("spec", Problem::SelectorInRoot));
        }
        let mode = spec.mtls.as_ref().and_then(|mtls| mtls.mode.as_deref());
        let mut record = Self {
            selector,
            mode: Mode::parse(mode, "spec.mtls.mode", findings),
            ports: BTreeMap::new(),
        };
        for (key, mtls) in &spec.port_level_mtls {
            let field = format!("spec.portLevelMtls[{}]", quote(key));
            let mode = Mode::parse(mtls.mode.as_deref(), &format!("{field}.mode"), findings);
            match super::value::port(key) {
                Ok(port) if record.selector.is_some() => {
                    record.ports.insert(port, mode);
                }
                Ok(_) => record.strict_if(mode),
                Err(_) => {
                    findings.push(Finding::new(field, Problem::PortKey(quote(key))));
                    record.strict_if(mode);
                }
            }
        }
        if record.selector.is_none() && !spec.port_level_mtls.is_empty() {
            findings.push(Finding::new(
                "spec.portLevelMtls",
                Problem::PortsWithoutSelector,
            ));
        }
        record
    }

    /// A port that is STRICT and cannot be told from the others makes them all STRICT.
    fn strict_if(&mut self, mode: Mode) {
        if mode == Mode::Strict {
            self.mode = Mode::Strict;
        }
    }

    fn conversion(&self, inherited: Mode) -> Conversion {
        let top = self.mode.or(inherited);
        let differing = self.ports.iter().filter(|(_, mode)| mode.or(top) != top);
        let ports: Vec<u16> = differing.map(|(port, _)| *port).collect();
        match (top, ports.is_empty()) {
            (Mode::Strict, true) => Conversion::Static,
            (Mode::Strict, false) => Conversion::StrictExcept(ports),
            (Mode::Unset | Mode::Permissive, true) => Conversion::Nothing,
            (Mode::Unset | Mode::Permissive, false) => Conversion::StrictOn(ports),
        }
    }
}

// === impl Mode ===

impl Mode {
    fn parse(mode: Option<&str>, field: &str, findings: &mut Vec<Finding>) -> Self {
        match mode {
            None | Some("" | "UNSET") => Self::Unset,
            Some("DISABLE" | "PERMISSIVE") => Self::Permissive,
            Some("STRICT") => Self::Strict,
            Some(other) => {
                findings.push(Finding::new(field, Problem::Mode(quote(other))));
                Self::Strict
            }
        }
    }

    fn or(self, inherited: Self) -> Self {
        match self {
            Self::Unset => inherited,
            Self::Permissive | Self::Strict => self,
        }
    }
}

// === impl PolicyChange ===

impl From<PolicyChange> for mesh_core::change::Change {
    fn from(change: PolicyChange) -> Self {
        match change {
            PolicyChange::Publish(policy) => Self::Policy(policy),
            PolicyChange::Withdraw(key) => Self::RemovePolicy(key),
        }
    }
}

fn static_strict(root: &Arc<str>) -> Authorization {
    deny(root, STATIC_STRICT, plain_text())
}

/// What a peer without an identity matches.
fn plain_text() -> Match {
    Match {
        not_principals: vec![StringMatch::Presence],
        ..Match::default()
    }
}

fn deny(namespace: &Arc<str>, name: &str, matched: Match) -> Authorization {
    Authorization {
        name: name.into(),
        namespace: namespace.clone(),
        scope: PolicyScope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![Rule {
            clauses: vec![Clause {
                matches: vec![matched],
            }],
        }],
        dry_run: false,
    }
}

#[cfg(test)]
mod tests;
