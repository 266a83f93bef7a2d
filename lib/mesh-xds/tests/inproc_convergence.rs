//! Client machine against server machine, with nothing between them but queues that break: whatever
//! happens on the way, the client ends with what the server publishes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use mesh_core::{
    policy::{Action, Authorization, PolicyScope},
    service::Service,
    workload::Workload,
};
use mesh_proto::{
    discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    type_url::{ADDRESS, AUTHORIZATION},
};
use mesh_xds::{
    Change, client, convert,
    server::{self, Catalog, Update},
};
use proptest::{collection::vec, prelude::*, sample::select};

#[cfg(test)]
#[path = "inproc_convergence/order.rs"]
mod order;
#[cfg(test)]
#[path = "inproc_convergence/selection.rs"]
mod selection;

/// A resource by type and name.
type Key = (&'static str, Arc<str>);

#[derive(Clone, Debug)]
enum Step {
    /// One of a few resources gets one of a few contents.
    Publish(Kind, u8, u8),
    /// The same with content that no client accepts.
    Spoil(Kind, u8, u8),
    Withdraw(Kind, u8),
    /// The server reads one request, or the client one response.
    ServerReads,
    ClientReads,
    /// The stream breaks; what was under way is lost.
    Break,
    /// The server comes back with the same content and no memory. The stream breaks too.
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Workload,
    Service,
    Policy,
}

struct World {
    client: client::Machine,
    /// What the client was told to hold.
    view: BTreeMap<Key, Change>,
    server: server::Machine,
    catalog: Catalog,
    history: usize,
    /// What is published now; nothing for content that no client accepts.
    published: BTreeMap<Key, Option<Change>>,
    /// Contents that each name ever had.
    past: BTreeMap<Key, Vec<Change>>,
    requests: VecDeque<DeltaDiscoveryRequest>,
    responses: VecDeque<DeltaDiscoveryResponse>,
}

fn mk_change(kind: Kind, name: u8, value: u8) -> Change {
    match kind {
        Kind::Workload => Change::Workload(Workload {
            node: format!("node-{value}").into(),
            ..Workload::with_uid(format!("cluster1//Pod/ns/pod-{name}"))
        }),
        Kind::Service => {
            let hostname = format!("service-{name}.ns.svc.cluster.local");
            let name = format!("name-{value}");
            Change::Service(Service::named(&name, "ns", &hostname))
        }
        Kind::Policy => Change::Policy(Authorization {
            name: format!("policy-{name}").into(),
            namespace: "ns".into(),
            scope: PolicyScope::Namespace,
            action: Action::Deny,
            rules: Vec::new(),
            dry_run: value.is_multiple_of(2),
        }),
    }
}

// === impl World ===

impl World {
    fn new(request_limit: usize, history: usize) -> Self {
        let mut config = client::Config::new(client::Node::default());
        config.request_limit = request_limit;
        let mut world = Self {
            client: client::Machine::new(config),
            view: BTreeMap::new(),
            server: server::Machine::default(),
            catalog: Catalog::with_history(history),
            history,
            published: BTreeMap::new(),
            past: BTreeMap::new(),
            requests: VecDeque::new(),
            responses: VecDeque::new(),
        };
        world.reconnect();
        world
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Publish(kind, name, value) => self.publish(mk_change(kind, name, value)),
            Step::Spoil(kind, name, salt) => {
                let (type_url, name, _) = convert::change_to_proto(&mk_change(kind, name, 0));
                let content = Bytes::from(vec![0xff, salt]);
                (self.catalog).set(type_url, name.clone(), Some(content.into()));
                self.published.insert((type_url, name), None);
            }
            Step::Withdraw(kind, name) => {
                let (type_url, name, _) = convert::change_to_proto(&mk_change(kind, name, 0));
                self.catalog.set(type_url, name.clone(), None);
                self.published.remove(&(type_url, name));
            }
            Step::ServerReads => drop(self.server_reads()),
            Step::ClientReads => drop(self.client_reads()),
            Step::Break => self.reconnect(),
            Step::Restart => {
                self.catalog = Catalog::with_history(self.history);
                for ((type_url, name), change) in &self.published {
                    let resource = match change {
                        Some(change) => Update::from(change).resource,
                        None => Some(Bytes::from_static(&[0xff]).into()),
                    };
                    self.catalog.set(type_url, name.clone(), resource);
                }
                self.reconnect();
            }
        }
    }

    fn publish(&mut self, change: Change) {
        let update = Update::from(&change);
        let key = (update.type_url, update.name);
        (self.catalog).set(key.0, key.1.clone(), update.resource);
        (self.past.entry(key.clone()).or_default()).push(change.clone());
        self.published.insert(key, Some(change));
    }

    fn reconnect(&mut self) {
        self.server = server::Machine::default();
        self.responses.clear();
        self.requests = self.client.connected().into();
    }

    fn server_reads(&mut self) -> Option<()> {
        let request = self.requests.pop_front()?;
        let read = self.server.request(request);
        assert!(read.is_ok(), "{read:?}");
        self.server_responds();
        Some(())
    }

    fn server_responds(&mut self) {
        loop {
            match self.server.respond(&self.catalog) {
                Ok(Some(response)) => self.responses.push_back((&response).into()),
                Ok(None) => return,
                Err(error) => {
                    assert!(matches!(error, server::Error::Behind(_)), "{error}");
                    return self.reconnect();
                }
            }
        }
    }

    fn client_reads(&mut self) -> Option<()> {
        let response = self.responses.pop_front()?;
        let received = self.client.received(response);
        for change in received.changes {
            match change {
                Change::RemoveAddress(name) => drop(self.view.remove(&(ADDRESS, name))),
                Change::RemovePolicy(name) => drop(self.view.remove(&(AUTHORIZATION, name))),
                change => {
                    let (type_url, name, _) = convert::change_to_proto(&change);
                    self.view.insert((type_url, name), change);
                }
            }
        }
        self.requests.push_back(received.reply);
        Some(())
    }

    /// Lets everything arrive.
    fn settle(&mut self) {
        self.server_responds();
        while self
            .server_reads()
            .or_else(|| self.client_reads())
            .is_some()
        {}
    }
}

fn step() -> impl Strategy<Value = Step> {
    let kind = || select(vec![Kind::Workload, Kind::Service, Kind::Policy]);
    prop_oneof![
        6 => (kind(), 0..6_u8, 0..4_u8).prop_map(|(k, n, v)| Step::Publish(k, n, v)),
        2 => (kind(), 0..6_u8, 0..4_u8).prop_map(|(k, n, v)| Step::Spoil(k, n, v)),
        3 => (kind(), 0..6_u8).prop_map(|(k, n)| Step::Withdraw(k, n)),
        8 => Just(Step::ServerReads),
        8 => Just(Step::ClientReads),
        1 => Just(Step::Break),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn client_and_server_converge_whatever_breaks_between_them(
        steps in vec(step(), 0..120),
        request_limit in select(vec![0, 300, 500, 4 * 1024 * 1024]),
        history in select(vec![0, 1, 3, 1000]),
    ) {
        let mut world = World::new(request_limit, history);
        for step in &steps {
            world.step(step);
        }
        world.settle();

        // What is withdrawn is gone; what is published and good is there; of what is published and
        // bad, nothing or an earlier good content is there.
        let names: BTreeSet<&Key> = world.view.keys().chain(world.published.keys()).collect();
        for key in names {
            let held = world.view.get(key);
            match world.published.get(key) {
                None => prop_assert_eq!(held, None),
                Some(Some(change)) => prop_assert_eq!(held, Some(change)),
                Some(None) => {
                    let past = world.past.get(key);
                    let known = |held: &Change| past.is_some_and(|past| past.contains(held));
                    prop_assert!(held.is_none_or(known), "{:?} holds {:?}", key, held);
                }
            }
        }
        prop_assert!(world.client.is_synced());
    }
}
