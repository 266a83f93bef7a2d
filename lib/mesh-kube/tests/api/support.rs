//! A server, a kind of its own, and an index that can be waited for.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::ConfigMap,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, CustomResource, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, PostParams},
    core::ObjectMeta,
};
use mesh_kube::{
    Backoff,
    watch::{self, Event, Index, Metrics, Options, State},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use testkit_kube::server::ApiServer;
use tokio::{task::JoinHandle, time::timeout};

/// A kind whose schema takes anything, as schemas of old CRDs do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "test.example",
    version = "v1",
    kind = "Widget",
    namespaced,
    status = "WidgetStatus",
    schema = "disabled"
)]
pub(super) struct WidgetSpec {
    pub(super) size: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WidgetStatus {
    #[serde(default)]
    pub(super) conditions: Vec<mesh_kube::condition::Condition>,
}

/// A ConfigMap of which nothing but the metadata may arrive.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct MetadataAlone {
    metadata: ObjectMeta,
    #[serde(default, rename = "apiVersion")]
    _version: Option<String>,
    #[serde(default, rename = "kind")]
    _kind: Option<String>,
}

/// What an index holds, by `namespace/name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) objects: BTreeSet<String>,
    pub(super) invalid: BTreeMap<String, String>,
}

/// A watch and the index that it feeds.
pub(super) struct Watched {
    model: tokio::sync::watch::Receiver<Model>,
    pub(super) state: tokio::sync::watch::Receiver<State>,
    task: JoinHandle<std::convert::Infallible>,
}

struct Feed(tokio::sync::watch::Sender<Model>);

const DEADLINE: Duration = Duration::from_secs(30);

pub(super) async fn start() -> (ApiServer, Client) {
    let server = ApiServer::start(testkit_kube::server::Options::default()).await;
    let server = server.expect("the API server starts");
    let client = server.admin_client().await.expect("a client");
    (server, client)
}

pub(super) fn widget_crd() -> CustomResourceDefinition {
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let condition = json!({
        "type": "object",
        "required": ["type", "status"],
        "properties": {
            "type": {"type": "string"}, "status": {"type": "string"},
            "reason": {"type": "string"}, "message": {"type": "string"},
            "observedGeneration": {"type": "integer", "format": "int64"},
            "lastTransitionTime": {"type": "string", "format": "date-time"},
        },
    });
    let conditions = json!({
        "type": "array", "items": condition,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
    });
    let status = json!({"type": "object", "properties": {"conditions": conditions}});
    let version = json!({
        "name": "v1", "served": true, "storage": true,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": anything, "status": status},
        }},
    });
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.test.example"},
        "spec": {
            "group": "test.example", "scope": "Namespaced", "versions": [version],
            "names": {
                "kind": "Widget", "listKind": "WidgetList",
                "plural": "widgets", "singular": "widget",
            },
        },
    });
    serde_json::from_value(crd).expect("a CRD")
}

/// Creates a widget with any spec at all.
pub(super) async fn create_widget(client: &Client, name: &str, spec: Value) {
    let resource = ApiResource::erase::<Widget>(&());
    let widget = DynamicObject::new(name, &resource).data(json!({"spec": spec}));
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), "default", &resource);
    let created = api.create(&PostParams::default(), &widget).await;
    created.expect("a widget of any spec is taken");
}

pub(super) fn config_map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

pub(super) async fn create_config_map(client: &Client, name: &str) -> ConfigMap {
    let api = Api::namespaced(client.clone(), "default");
    let created = api.create(&PostParams::default(), &config_map(name)).await;
    created.expect("a ConfigMap is taken")
}

/// Waits that fit a test.
pub(super) fn options() -> Options {
    Options {
        page: 50,
        absent: Duration::from_millis(50),
        backoff: Backoff::new(Duration::from_millis(10), Duration::from_millis(200)),
        ..Options::default()
    }
}

pub(super) fn watch_all<K>(client: Client, options: Options) -> Watched
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
{
    let (feed, model) = tokio::sync::watch::channel(Model::default());
    let (sender, state) = tokio::sync::watch::channel(State::default());
    let run = watch::run(
        Api::<K>::all(client),
        options,
        Metrics::default(),
        sender,
        Feed(feed),
    );
    let task = tokio::spawn(run);
    Watched { model, state, task }
}

/// Watches a kind that is known by its names alone.
pub(super) fn watch_named(client: Client, resource: &ApiResource) -> Watched {
    let (feed, model) = tokio::sync::watch::channel(Model::default());
    let (sender, state) = tokio::sync::watch::channel(State::default());
    let (resource, metrics) = (resource.clone(), Metrics::default());
    let task = tokio::spawn(async move {
        let api = Api::<DynamicObject>::all_with(client, &resource);
        let index = Feed(feed);
        watch::run_dynamic((api, &resource), options(), metrics, sender, index).await
    });
    Watched { model, state, task }
}

// === impl MetadataAlone ===

impl Resource for MetadataAlone {
    type DynamicType = ();
    type Scope = <ConfigMap as Resource>::Scope;

    fn metadata_api() -> bool {
        true
    }

    fn kind((): &()) -> Cow<'_, str> {
        ConfigMap::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        ConfigMap::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        ConfigMap::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        ConfigMap::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

// === impl Feed ===

impl<K: Resource> Index<K> for Feed {
    fn update(&mut self, events: Vec<Event<K>>) {
        self.0.send_modify(|model| {
            for event in events {
                model.take(&event);
            }
        });
    }
}

// === impl Model ===

impl Model {
    fn take<K: Resource>(&mut self, event: &Event<K>) {
        match event {
            Event::Apply(object) => {
                let namespace = object.namespace().unwrap_or_default();
                let key = format!("{namespace}/{}", object.name_any());
                self.invalid.remove(&key);
                self.objects.insert(key);
            }
            Event::Delete(key) => {
                let key = key.to_string();
                let known = self.invalid.remove(&key).is_some() | self.objects.remove(&key);
                assert!(known, "{key} is deleted and was never there");
            }
            Event::Invalid(invalid) => {
                let reason = invalid.reason.clone();
                self.invalid.insert(invalid.key.to_string(), reason);
            }
        }
    }
}

// === impl Watched ===

impl Watched {
    /// Waits until the index holds exactly these objects of the default namespace, beside those that
    /// every namespace has.
    pub(super) async fn holds(&mut self, names: &[&str]) {
        let expected: BTreeSet<_> = names.iter().map(|name| format!("default/{name}")).collect();
        let is_ours =
            |key: &&String| key.starts_with("default/") && !key.ends_with("/kube-root-ca.crt");
        self.until(|model| model.objects.iter().filter(is_ours).eq(&expected))
            .await;
    }

    pub(super) async fn until(&mut self, holds: impl FnMut(&Model) -> bool) -> Model {
        let found = match timeout(DEADLINE, self.model.wait_for(holds)).await {
            Ok(found) => Some(found.expect("the watch runs").clone()),
            Err(_) => None,
        };
        found.unwrap_or_else(|| panic!("{:?}, {:?}", self.model.borrow(), self.state.borrow()))
    }

    pub(super) async fn state(&mut self, holds: impl FnMut(&State) -> bool) -> State {
        let found = match timeout(DEADLINE, self.state.wait_for(holds)).await {
            Ok(found) => Some(found.expect("the watch runs").clone()),
            Err(_) => None,
        };
        found.unwrap_or_else(|| panic!("{:?}, {:?}", self.model.borrow(), self.state.borrow()))
    }

    pub(super) fn model(&self) -> Model {
        self.model.borrow().clone()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}
