//! What the operator may do to the cluster: what it does itself, and what it grants to the components, since
//! the API server lets nobody grant what he does not have. Nothing is written down twice: the kinds are those
//! that rendering knows, and what is granted is read from rendered roles.
//!
//! There is no wildcard, no `escalate` and no `bind`. Secrets can be created, because the control plane keeps
//! its root in one, and only that one can be read.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{core::v1::ServiceAccount, rbac::v1::PolicyRule};
use mesh_api::sail::{GROUP, IstioCNISpec, Values, ZTunnelSpec, version};
use mesh_render::{
    Error, Kind, Object, Platform, PlatformKind, Rendered, Settings, cni,
    istiod::{self, Revision},
    meta::Installation,
    object::{
        CLUSTER_ROLE, KINDS, NETWORK_ATTACHMENT_DEFINITION, ROLE, SECURITY_CONTEXT_CONSTRAINTS,
        SERVICE_ACCOUNT,
    },
    rbac::{self, READ, named, rule},
    ztunnel,
};
use serde_json::{Value, json};

use crate::{
    args,
    key::Managed,
    names::{LOCK, MANAGER},
    platform,
    render::Output,
};

/// The account, namespace and roles of the operator as `manifests/` install it.
pub const NAME: &str = MANAGER;

/// Kinds of which the operator makes objects of known names only.
const NAMED: &[(Kind, &[&str])] = &[
    (
        SECURITY_CONTEXT_CONSTRAINTS,
        &[cni::CONSTRAINTS, ztunnel::CONSTRAINTS],
    ),
    (NETWORK_ATTACHMENT_DEFINITION, &[cni::ACCOUNT]),
];

/// What is allowed, in the smallest pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Grants(BTreeMap<Target, BTreeSet<String>>);

/// What verbs are allowed on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    group: String,
    resource: String,
    /// One object; all if there is none.
    name: Option<String>,
}

/// What the command line asked for, as a file of manifests.
pub fn printed(flags: &args::Rights) -> Result<Output, Error> {
    let objects = if flags.istio_images {
        istio_images(&flags.namespace)?
    } else {
        objects(&flags.namespace)?
    };
    let documents = objects.iter().map(Object::to_yaml);
    let written = "# Written by `cargo xtask gen`, which runs `operator rights`.\n";
    Ok(Output {
        yaml: [written.to_owned()].into_iter().chain(documents).collect(),
        notes: Vec::new(),
    })
}

/// The objects that give the operator its rights, in `namespace`.
pub fn objects(namespace: &str) -> Result<Vec<Object>, Error> {
    let installation = installation(namespace);
    let account = ServiceAccount {
        metadata: installation.meta(NAME),
        ..ServiceAccount::default()
    };
    let mut objects = vec![Object::new(SERVICE_ACCOUNT, &account)];
    let rules = cluster()?.into_rules();
    objects.extend(rbac::cluster_role(&installation, NAME, rules, NAME));
    objects.extend(rbac::role(&installation, NAME, own_namespace(), NAME));
    Ok(objects)
}

/// The objects that give the operator what it needs beside that to deploy Istio's own images, whose control
/// plane has more rights.
pub fn istio_images(namespace: &str) -> Result<Vec<Object>, Error> {
    let installation = installation(namespace);
    let values = json!({"global": {"distribution": "istio"}});
    let mut grants = granted(&everything(&values)?);
    grants.remove(&cluster()?);
    let name = format!("{NAME}-istio-images");
    let rules = grants.into_rules();
    Ok(rbac::cluster_role(&installation, &name, rules, NAME).into())
}

fn installation(namespace: &str) -> Installation {
    Installation {
        component: NAME,
        instance: NAME.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: String::new(),
        namespace: namespace.to_owned(),
    }
}

/// All that it may do in every namespace.
fn cluster() -> Result<Grants, Error> {
    let mut grants = Grants::default();
    grants.add(own_resources());
    grants.add(KINDS.iter().flat_map(|kind| made(*kind)));
    grants.add(seen());
    grants.add(platform::read::rights());
    let granted = granted(&everything(&json!({}))?);
    grants.merge(granted);
    grants.simplify();
    Ok(grants)
}

/// The custom resources: read, marked with a finalizer, and reported on. IstioRevisions are made too. That
/// an object may name its owner takes the right to `finalizers`.
fn own_resources() -> Vec<PolicyRule> {
    let plurals = Managed::ALL.map(|managed| managed.kind().plural);
    let parts = |part: &str| plurals.map(|plural| format!("{plural}/{part}"));
    let rule_for = |resources: [String; 5], verbs: &[&str]| {
        rule(GROUP, &resources.each_ref().map(String::as_str), verbs)
    };
    let revisions = Managed::IstioRevision.kind().plural;
    vec![
        rule(GROUP, &plurals, &["get", "list", "watch", "patch"]),
        rule(GROUP, &[revisions], &["create", "delete"]),
        rule_for(parts("status"), &["patch"]),
        rule_for(parts("finalizers"), &["update"]),
    ]
}

/// What is made of a kind: watched, applied and removed.
fn made(kind: Kind) -> Vec<PolicyRule> {
    let (group, plural) = (kind.group, kind.plural);
    match NAMED.iter().find(|(of, _)| *of == kind) {
        // A right to create cannot be bound to a name, and a watch is of all that has a label.
        Some((_, names)) => vec![
            rule(group, &[plural], &["list", "watch", "create"]),
            named(group, plural, names, &["get", "patch", "delete"]),
        ],
        None => vec![rule(
            group,
            &[plural],
            &["get", "list", "watch", "create", "patch", "delete"],
        )],
    }
}

/// Who uses the mesh, who may read the metrics, and Events.
fn seen() -> Vec<PolicyRule> {
    vec![
        rule("", &["namespaces", "pods"], READ),
        rule("gateway.networking.k8s.io", &["gateways"], READ),
        rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
        rule(
            "authorization.k8s.io",
            &["subjectaccessreviews"],
            &["create"],
        ),
        rule("", &["events"], &["create", "patch"]),
    ]
}

/// The lock of the replica that leads.
fn own_namespace() -> Vec<PolicyRule> {
    const LEASES: &str = "coordination.k8s.io";
    vec![
        rule(LEASES, &["leases"], &["create"]),
        named(LEASES, "leases", &[LOCK], &["get", "update"]),
    ]
}

/// Everything that can be rendered with these values: revisions and node components on every platform that
/// makes a difference, with all that widens their rights.
fn everything(values: &Value) -> Result<Vec<Rendered>, Error> {
    let mut all = Vec::new();
    for kind in [PlatformKind::Kubernetes, PlatformKind::OpenShift] {
        let platform = Platform {
            kind,
            ..Platform::default()
        };
        let release = version::resolve(version::default_version());
        let Ok(release) = release else { continue };
        let settings = Settings::released(release, platform);
        let values = values.as_object().cloned().unwrap_or_default();
        for name in ["default", "any"] {
            let revision = Revision {
                name,
                namespace: "istio-system",
                values: &values,
            };
            all.push(istiod::control_plane(revision, &settings)?);
        }
        all.push(cni::render(&widest_agent(&values), &settings)?);
        let proxy = ZTunnelSpec {
            namespace: "ztunnel".to_owned(),
            values: values.clone(),
            ..ZTunnelSpec::default()
        };
        all.push(ztunnel::render(&proxy, None, &settings)?);
    }
    Ok(all)
}

/// An agent that repairs pods in every way there is.
fn widest_agent(values: &Values) -> IstioCNISpec {
    let mut values = values.clone();
    let repair = json!({"repair": {"deletePods": true, "labelPods": true}});
    values.insert("cni".to_owned(), repair);
    IstioCNISpec {
        namespace: "istio-cni".to_owned(),
        values,
        ..IstioCNISpec::default()
    }
}

/// What the roles among the objects allow. A name that only one revision's objects have stands for all, since
/// other revisions have others.
fn granted(all: &[Rendered]) -> Grants {
    let mut grants = Grants::default();
    for object in all.iter().flat_map(|rendered| &rendered.objects) {
        if ![ROLE, CLUSTER_ROLE].contains(&object.kind) {
            continue;
        }
        let rules = object.body["rules"].as_array().into_iter().flatten();
        let rules =
            rules.filter_map(|rule| serde_json::from_value::<PolicyRule>(rule.clone()).ok());
        let of_revision = object.name.contains("-any");
        grants.add(rules.map(|mut rule| {
            let names = rule.resource_names.iter().flatten();
            if of_revision && names.into_iter().any(|name| name.ends_with("-any")) {
                rule.resource_names = None;
            }
            rule
        }));
    }
    grants
}

// === impl Grants ===

impl Grants {
    fn add(&mut self, rules: impl IntoIterator<Item = PolicyRule>) {
        for rule in rules {
            let resources = rule.resources.unwrap_or_default();
            let names = match rule.resource_names {
                Some(names) if !names.is_empty() => names.into_iter().map(Some).collect(),
                _ => vec![None],
            };
            for group in rule.api_groups.unwrap_or_default() {
                for resource in &resources {
                    for name in &names {
                        let target = Target {
                            group: group.clone(),
                            resource: resource.clone(),
                            name: name.clone(),
                        };
                        self.0.entry(target).or_default().extend(rule.verbs.clone());
                    }
                }
            }
        }
    }

    fn merge(&mut self, other: Self) {
        for (target, verbs) in other.0 {
            self.0.entry(target).or_default().extend(verbs);
        }
    }

    /// Takes away what is allowed by `other` already.
    fn remove(&mut self, other: &Self) {
        for (target, verbs) in &mut self.0 {
            verbs.retain(|verb| !other.allow(target, verb));
        }
        self.simplify();
    }

    /// Takes away what is allowed for one name and for all.
    fn simplify(&mut self) {
        let all = self.0.clone();
        for (target, verbs) in &mut self.0 {
            if target.name.is_some() {
                let of_all = all.get(&target.of_all());
                verbs.retain(|verb| !of_all.is_some_and(|verbs| verbs.contains(verb)));
            }
        }
        self.0.retain(|_, verbs| !verbs.is_empty());
    }

    fn allow(&self, target: &Target, verb: &str) -> bool {
        let has = |target| self.0.get(target).is_some_and(|verbs| verbs.contains(verb));
        has(target) || has(&target.of_all())
    }

    /// As few rules as say the same: resources of one group with the same verbs and names in one.
    fn into_rules(self) -> Vec<PolicyRule> {
        let mut named: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for (target, verbs) in self.0 {
            let names = named
                .entry((target.group, target.resource, verbs))
                .or_default();
            // No name and some names do not meet here: then the verbs differ, or the names went before.
            names.extend(target.name);
        }
        let mut rules: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for ((group, resource, verbs), names) in named {
            rules
                .entry((group, names, verbs))
                .or_default()
                .push(resource);
        }
        let rules = rules.into_iter();
        rules
            .map(|((group, names, verbs), resources)| PolicyRule {
                api_groups: Some(vec![group]),
                resources: Some(resources),
                resource_names: Some(names.into_iter().collect())
                    .filter(|names: &Vec<_>| !names.is_empty()),
                verbs: verbs.into_iter().collect(),
                ..PolicyRule::default()
            })
            .collect()
    }
}

// === impl Target ===

impl Target {
    fn of_all(&self) -> Self {
        Self {
            name: None,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests;
