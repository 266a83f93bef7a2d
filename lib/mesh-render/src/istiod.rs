//! The control plane: one revision of it, and further names for it.

mod arguments;
mod config;
mod deployment;
mod network;
mod rights;
mod scaling;
mod service;
mod values;

use k8s_openapi::{
    api::core::v1::{LocalObjectReference, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use mesh_api::sail::{Values, values::IstioValues};
use serde_json::Value;

use self::values::Chosen;
use crate::{
    Distribution, Error, Note, Rendered, Settings,
    image::Image,
    layers,
    meta::{Installation, Texts},
    object::{self, Object},
};

/// The account by which control planes of other clusters read this one. Istio's alone uses it.
const READER_ACCOUNT: &str = "istio-reader-service-account";

/// A revision of the control plane, as an IstioRevision describes it.
#[derive(Clone, Copy, Debug)]
pub struct Revision<'a> {
    /// Its name; that of the one without a suffix is `default`.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The values that its author wrote, with `profile`.
    pub values: &'a Values,
}

/// What is known of a revision when its objects are built.
struct Plan<'a> {
    /// What its objects have in common.
    installation: Installation,
    /// Its values.
    values: IstioValues,
    /// The same as they were merged.
    merged: Values,
    /// Its image.
    image: Image,
    /// The cluster and the release.
    settings: &'a Settings,
    /// Values without effect.
    notes: Vec<Note>,
}

/// The values of the revision of an Istio: the user's, and what the Istio says beside them.
pub fn revision_values(
    profile: Option<&str>,
    user: &Values,
    revision: &str,
    namespace: &str,
) -> Values {
    let mut values = user.clone();
    values.remove("defaultRevision");
    if let Some(profile) = profile {
        values.insert("profile".to_owned(), profile.into());
    }
    let named = if revision == "default" { "" } else { revision };
    values.insert("revision".to_owned(), named.into());
    let global = values
        .entry("global")
        .or_insert_with(|| Values::new().into());
    // Anything else than an object is told when the revision is rendered.
    if let Some(global) = global.as_object_mut() {
        global.insert("istioNamespace".to_owned(), namespace.into());
    }
    values
}

/// The objects of a revision.
pub fn control_plane(revision: Revision<'_>, settings: &Settings) -> Result<Rendered, Error> {
    let mut plan = Plan::new(revision, settings)?;
    let arguments = arguments::arguments(&mut plan)?;
    let configuration = config::config_maps(&mut plan, revision.values)?;
    let scaler = scaling::autoscaler(&plan)?;
    let mut objects = plan.accounts();
    objects.extend(rights::roles(&plan));
    objects.extend(configuration);
    objects.extend(network::policy(&plan));
    objects.extend(scaling::disruption_budget(&plan));
    objects.push(service::service(&plan));
    objects.push(deployment::deployment(&plan, arguments));
    objects.extend(scaler);
    Ok(plan.rendered(objects))
}

/// The objects of the revision tag called `name` that stands for a revision.
pub fn revision_tag(
    name: &str,
    revision: Revision<'_>,
    settings: &Settings,
) -> Result<Rendered, Error> {
    let mut plan = Plan::new(revision, settings)?;
    plan.installation.component = "revisiontags";
    plan.installation.instance = format!("{name}-revisiontags");
    let mut objects = Vec::new();
    if name == "default" && !plan.is_default() {
        objects.extend(plan.reader_account());
    }
    objects.push(service::tag(&plan, name));
    // What concerns the values is told at the revision.
    plan.notes.clear();
    Ok(plan.rendered(objects))
}

// === impl Plan ===

impl<'a> Plan<'a> {
    fn new(revision: Revision<'_>, settings: &'a Settings) -> Result<Self, Error> {
        let Chosen {
            values,
            merged,
            image,
            notes,
        } = values::choose(revision.values, settings)?;
        let named = if revision.name == "default" {
            ""
        } else {
            revision.name
        };
        let installation = Installation {
            component: "istiod",
            instance: format!("{}-istiod", revision.name),
            version: settings.release.clone(),
            revision: named.to_owned(),
            namespace: revision.namespace.to_owned(),
        };
        Ok(Self {
            installation,
            values,
            merged,
            image,
            settings,
            notes,
        })
    }

    /// Whether this is the revision without a suffix.
    fn is_default(&self) -> bool {
        self.installation.revision.is_empty()
    }

    /// The revision as the label [`mesh_api::labels::REVISION`] names it.
    fn revision(&self) -> &str {
        if self.is_default() {
            "default"
        } else {
            &self.installation.revision
        }
    }

    /// A value that only Istio's control plane reads, so that no type has it.
    fn at(&self, pointer: &str) -> Option<&Value> {
        layers::find(&self.merged, pointer)
    }

    fn is_istio(&self) -> bool {
        self.image.distribution == Distribution::Istio
    }

    /// `istiod`, with the revision behind it.
    fn name(&self) -> String {
        self.installation.suffixed("istiod")
    }

    /// What selects the pods: the labels that Istio's Services and Deployments have, since a Deployment's
    /// selector cannot be changed when it is taken over.
    fn service_selector(&self) -> Texts {
        let mut selector = Texts::from([("app".to_owned(), "istiod".to_owned())]);
        let (key, value) = if self.is_default() {
            ("istio", "pilot")
        } else {
            (mesh_api::labels::REVISION, self.revision())
        };
        selector.insert(key.to_owned(), value.to_owned());
        selector
    }

    /// Adds the labels of what belongs to one revision.
    fn label(&self, meta: &mut ObjectMeta) {
        let labels = meta.labels.get_or_insert_default();
        let revision = self.revision().to_owned();
        labels.insert(mesh_api::labels::REVISION.to_owned(), revision);
        labels.insert("operator.istio.io/component".to_owned(), "Pilot".to_owned());
    }

    /// A value without effect that depends on others.
    fn note(&mut self, path: impl Into<String>, why: &'static str) {
        self.notes.push(Note::WithoutEffect {
            path: path.into(),
            why,
        });
    }

    fn accounts(&self) -> Vec<Object> {
        let annotations = self.values.pilot.service_account_annotations.clone();
        let mut account = self.account(&self.name());
        account.metadata.annotations = Some(annotations).filter(|texts| !texts.is_empty());
        let mut accounts = vec![Object::new(object::SERVICE_ACCOUNT, &account)];
        if self.is_default() {
            accounts.extend(self.reader_account());
        }
        accounts
    }

    /// All revisions share it, so it belongs to whatever is called `default`.
    fn reader_account(&self) -> Option<Object> {
        let account = self.account(READER_ACCOUNT);
        self.is_istio()
            .then(|| Object::new(object::SERVICE_ACCOUNT, &account))
    }

    fn account(&self, name: &str) -> ServiceAccount {
        let secrets = self.values.global.image_pull_secrets.iter();
        let secrets = secrets.map(|name| LocalObjectReference { name: name.clone() });
        let secrets: Vec<_> = secrets.collect();
        ServiceAccount {
            metadata: self.installation.meta(name),
            image_pull_secrets: Some(secrets).filter(|secrets| !secrets.is_empty()),
            ..ServiceAccount::default()
        }
    }

    /// What remains of the objects if only those of the cluster or those in namespaces are wanted.
    fn rendered(self, mut objects: Vec<Object>) -> Rendered {
        match self.values.global.resource_scope.as_deref() {
            Some("cluster") => objects.retain(|object| !object.kind.namespaced),
            Some("namespace") => objects.retain(|object| object.kind.namespaced),
            _ => {}
        }
        let mut notes = self.notes;
        notes.sort();
        notes.dedup();
        Rendered { objects, notes }
    }
}
