//! The watches: one for each kind of object, each feeding the store.

use std::{future::Future, pin::Pin, time::Duration};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject},
    core::PartialObjectMeta,
};
use mesh_api::{
    gateway::Gateway,
    sail::{Istio, IstioCNI, IstioRevision, IstioRevisionTag, ZTunnel},
};
use mesh_kube::watch::{self, Index, Options, State};
use mesh_render::{Kind, object::KINDS};
use serde::de::DeserializeOwned;
use tokio::{sync::watch as news, time::timeout};

use crate::{
    component_pod::{self, ComponentPod},
    feed::{self, Components, Objects, Resources, Users},
    names::{MANAGED_BY, MANAGER},
    platform::{self, read::Reader},
    store::Store,
    world::Custom,
};

/// A watch that runs for ever.
pub(crate) type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The watches of the program, to be spawned, and how they do.
pub(crate) struct Watches {
    client: Client,
    metrics: watch::Metrics,
    store: Store,
    states: Vec<(String, news::Receiver<State>)>,
    running: Vec<Running>,
}

/// How the watches do.
#[derive(Clone, Debug)]
pub(crate) struct States(Vec<(String, news::Receiver<State>)>);

/// Pods that have come to their end do not use the mesh.
const ALIVE: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// Objects of a page where there are many: memory for objects on their way.
const PAGE: u32 = 250;

/// Objects of a page of those that are ours. Anybody can give our label to objects of a megabyte each.
const FEW: u32 = 20;

// === impl Watches ===

impl Watches {
    pub(crate) fn new(client: Client, metrics: watch::Metrics, store: Store) -> Self {
        Self {
            client,
            metrics,
            store,
            states: Vec::new(),
            running: Vec::new(),
        }
    }

    /// Watches all that reconcilers may ask about.
    pub(crate) fn everything(&mut self) {
        self.resources::<Istio>();
        self.resources::<IstioRevision>();
        self.resources::<IstioRevisionTag>();
        self.resources::<IstioCNI>();
        self.resources::<ZTunnel>();
        for kind in KINDS {
            self.objects(*kind);
        }
        self.users();
        let components = Components {
            store: self.store.clone(),
        };
        let options = Options {
            labels: Some(component_pod::SELECTOR.to_owned()),
            page: PAGE,
            ..Options::default()
        };
        self.add::<ComponentPod>("component pods", options, components);
    }

    /// Finds out what kind of cluster this is. `namespace` is the operator's own.
    pub(crate) fn platform(&mut self, namespace: &str) {
        let (state, receiver) = news::channel(State::default());
        let reader = Reader::new(self.client.clone(), namespace);
        let (found, known) = news::channel(None);
        let detection = platform::run::run(reader, self.metrics.clone(), found);
        let told = feed::platform(known, state, self.store.clone());
        self.states.push(("the platform".to_owned(), receiver));
        self.running.push(Box::pin(async move {
            tokio::select! {
                never = detection => match never {},
                () = told => {}
            }
        }));
    }

    fn resources<K: Custom>(&mut self) {
        let index = Resources::<K>::new(self.store.clone());
        self.add::<K>(K::MANAGED.kind().plural, Options::default(), index);
    }

    fn users(&mut self) {
        let users = Users {
            store: self.store.clone(),
        };
        let many = Options {
            page: PAGE,
            ..Options::default()
        };
        let alive = Options {
            fields: Some(ALIVE.to_owned()),
            ..many.clone()
        };
        self.add::<PartialObjectMeta<Namespace>>("namespaces", many.clone(), users.clone());
        self.add::<PartialObjectMeta<Pod>>("pods", alive, users.clone());
        self.add::<PartialObjectMeta<Gateway>>("gateways", many, users);
    }

    fn add<K>(&mut self, name: &str, options: Options, index: impl Index<K> + Sync + 'static)
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Send + 'static,
    {
        let (state, receiver) = news::channel(State::default());
        let api = Api::<K>::all(self.client.clone());
        let watch = watch::run(api, options, self.metrics.clone(), state, index);
        self.states.push((name.to_owned(), receiver));
        self.running
            .push(Box::pin(async move { match watch.await {} }));
    }

    /// Objects that carry the operator's label.
    fn objects(&mut self, kind: Kind) {
        let (state, receiver) = news::channel(State::default());
        let (client, metrics) = (self.client.clone(), self.metrics.clone());
        let index = Objects {
            store: self.store.clone(),
            kind,
        };
        let options = Options {
            labels: Some(format!("{MANAGED_BY}={MANAGER}")),
            page: FEW,
            ..Options::default()
        };
        self.states.push((kind.plural.to_owned(), receiver));
        self.running.push(Box::pin(async move {
            let resource = resource(kind);
            let api = Api::<DynamicObject>::all_with(client, &resource);
            let watch = watch::run_dynamic((api, &resource), options, metrics, state, index);
            match watch.await {}
        }));
    }

    /// The watches themselves, and what shows how they do.
    pub(crate) fn into_parts(self) -> (Vec<Running>, States) {
        (self.running, States(self.states))
    }
}

/// The names of a kind, as the client takes them.
pub(crate) fn resource(kind: Kind) -> ApiResource {
    ApiResource {
        group: kind.group.to_owned(),
        version: kind.version.to_owned(),
        api_version: kind.api_version(),
        kind: kind.kind.to_owned(),
        plural: kind.plural.to_owned(),
    }
}

// === impl States ===

impl States {
    /// Waits until everything has been seen as a whole. Says whether that has happened.
    pub(crate) async fn synced(&mut self) -> bool {
        let states: Vec<_> = self.0.iter_mut().map(|(_, state)| state).collect();
        watch::all_synced(states).await
    }

    /// Waits for the same, for so long at most.
    pub(crate) async fn synced_within(&mut self, limit: Duration) -> bool {
        timeout(limit, self.synced()).await.unwrap_or(false)
    }

    /// Why something has not been seen yet.
    pub(crate) fn trouble(&self) -> Option<String> {
        let unseen = self.0.iter().filter(|(_, state)| !state.borrow().synced);
        let unseen: Vec<_> = unseen
            .map(|(name, state)| match &state.borrow().trouble {
                Some(trouble) => trouble.to_string(),
                None => format!("waiting for the list of {name}"),
            })
            .collect();
        (!unseen.is_empty()).then(|| unseen.join("; "))
    }
}
