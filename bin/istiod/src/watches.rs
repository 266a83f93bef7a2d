//! The watches: one for each kind of object, each feeding the world.

use std::{future::Future, pin::Pin};

use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, Resource};
use mesh_api::{
    gateway::{Gateway, GatewayClass},
    networking::{ServiceEntry, WorkloadEntry},
    security::{AuthorizationPolicy, PeerAuthentication},
};
use mesh_index::{Kind, Object};
use mesh_kube::watch::{self, Options, State};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch as news;

use crate::{stored::Stored, world::World};

/// A watch that runs for ever.
pub(crate) type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The watches of a program, to be spawned, and how they do.
pub(crate) struct Watches {
    client: Client,
    metrics: watch::Metrics,
    states: Vec<(&'static str, news::Receiver<State>)>,
    running: Vec<(&'static str, Running)>,
}

/// How one watch does, as `/debug/watchz` shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Status {
    kind: &'static str,
    synced: bool,
    absent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

/// Shows how the watches do.
#[derive(Clone, Debug)]
pub(crate) struct States(Vec<(&'static str, news::Receiver<State>)>);

// === impl Watches ===

impl Watches {
    pub(crate) fn new(client: Client, metrics: watch::Metrics) -> Self {
        Self {
            client,
            metrics,
            states: Vec::new(),
            running: Vec::new(),
        }
    }

    /// Watches all that discovery is made of.
    pub(crate) fn discovery(&mut self, world: &World) {
        self.all::<Namespace>(world, Kind::Namespace);
        self.all::<Node>(world, Kind::Node);
        self.all::<GatewayClass>(world, Kind::GatewayClass);
        self.all::<Gateway>(world, Kind::Gateway);
        self.all::<Service>(world, Kind::Service);
        self.all::<ServiceEntry>(world, Kind::ServiceEntry);
        self.all::<WorkloadEntry>(world, Kind::WorkloadEntry);
        self.all::<Stored<AuthorizationPolicy>>(world, Kind::AuthorizationPolicy);
        self.all::<Stored<PeerAuthentication>>(world, Kind::PeerAuthentication);
        self.all::<EndpointSlice>(world, Kind::EndpointSlice);
        self.all::<Pod>(world, Kind::Pod);
    }

    fn all<K>(&mut self, world: &World, kind: Kind)
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Into<Object> + Send + 'static,
    {
        let api = Api::<K>::all(self.client.clone());
        self.add(kind.name(), api, Options::default(), world.feed(kind));
    }

    /// Watches the one ConfigMap of this name.
    pub(crate) fn config_map(
        &mut self,
        namespace: &str,
        name: &str,
        index: impl watch::Index<ConfigMap> + Sync + 'static,
    ) {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        self.add("ConfigMap", api, named(name), index);
    }

    /// Watches one more collection.
    pub(crate) fn add<K>(
        &mut self,
        name: &'static str,
        api: Api<K>,
        options: Options,
        index: impl watch::Index<K> + Sync + 'static,
    ) where
        K: Resource<DynamicType = ()> + DeserializeOwned + Send + 'static,
    {
        let (state, receiver) = news::channel(State::default());
        let watch = watch::run(api, options, self.metrics.clone(), state, index);
        let watch = Box::pin(async move { match watch.await {} });
        self.states.push((name, receiver));
        self.running.push((name, watch));
    }

    /// The watches themselves, and what shows how they do.
    pub(crate) fn into_parts(self) -> (Vec<(&'static str, Running)>, States) {
        (self.running, States(self.states))
    }
}

/// Only the object of this name: a right that is bound to a name allows no more.
fn named(name: &str) -> Options {
    Options {
        fields: Some(format!("metadata.name={name}")),
        ..Options::default()
    }
}

// === impl States ===

impl States {
    /// Waits until every collection has been seen as a whole. Says whether that has happened.
    pub(crate) async fn synced(&mut self) -> bool {
        let states: Vec<_> = self.0.iter_mut().map(|(_, state)| state).collect();
        watch::all_synced(states).await
    }

    /// How each of them does.
    pub(crate) fn show(&self) -> Vec<Status> {
        let status = |(kind, state): &(&'static str, news::Receiver<State>)| {
            let state = state.borrow();
            Status {
                kind,
                synced: state.synced,
                absent: state.absent,
                trouble: state.trouble.as_deref().map(str::to_owned),
            }
        };
        self.0.iter().map(status).collect()
    }
}
