//! Clients that ask for names: whatever happens on the way, such a client ends with what its names stand
//! for and bring.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use mesh_proto::{
    discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Status},
    type_url::ADDRESS,
};
use mesh_xds::server::{Catalog, Client, Error, Group, Machine, Precedence, Readable, Resource};
use proptest::{collection::vec, prelude::*, sample::subsequence};

const NODE: &str = "n0";

#[derive(Clone, Debug)]
enum Step {
    /// A workload with these addresses, services and node gets a content.
    Workload(u8, Vec<u8>, Vec<u8>, u8, u8),
    /// A service with these addresses gets a content.
    Service(u8, Vec<u8>, u8),
    Withdraw(String),
    Ask(String),
    Drop(String),
    Widen,
    Narrow,
    ServerReads,
    /// Accepting or refusing it; a resource is taken either way.
    ClientReads(bool),
    Break,
    Restart,
}

struct World {
    catalog: Catalog,
    history: usize,
    published: BTreeMap<Arc<str>, Resource>,
    /// Who has an alias, oldest first.
    claims: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    machine: Machine,
    requests: VecDeque<DeltaDiscoveryRequest>,
    responses: VecDeque<DeltaDiscoveryResponse>,
    everything: bool,
    asked: BTreeSet<Arc<str>>,
    /// Version and content by name.
    view: BTreeMap<Arc<str>, (String, Bytes)>,
}

impl World {
    fn new(history: usize) -> Self {
        let mut world = Self {
            catalog: Catalog::with_history(history),
            history,
            published: BTreeMap::new(),
            claims: BTreeMap::new(),
            machine: Machine::default(),
            requests: VecDeque::new(),
            responses: VecDeque::new(),
            everything: false,
            asked: BTreeSet::new(),
            view: BTreeMap::new(),
        };
        world.connect();
        world
    }

    /// As a ztunnel does: it begins with nothing and says what it has and waits for.
    fn connect(&mut self) {
        self.machine = Machine::new(&Client {
            node: Some(NODE.into()),
            may_read: Readable::Only(&[ADDRESS]),
            ..Client::default()
        });
        self.requests.clear();
        self.responses.clear();
        self.everything = false;
        self.asked.extend(self.view.keys().cloned());
        let version = |name: &Arc<str>| self.view.get(name).map(|(version, _)| version.clone());
        let held =
            (self.asked.iter()).map(|name| (name.to_string(), version(name).unwrap_or_default()));
        self.requests.push_back(DeltaDiscoveryRequest {
            type_url: ADDRESS.into(),
            resource_names_subscribe: vec!["*".into()],
            resource_names_unsubscribe: vec!["*".into()],
            initial_resource_versions: held.collect(),
            ..DeltaDiscoveryRequest::default()
        });
    }

    fn ask(&mut self, subscribe: &[&str], unsubscribe: &[&str]) {
        let texts = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        self.requests.push_back(DeltaDiscoveryRequest {
            type_url: ADDRESS.into(),
            resource_names_subscribe: texts(subscribe),
            resource_names_unsubscribe: texts(unsubscribe),
            ..DeltaDiscoveryRequest::default()
        });
    }

    fn publish(&mut self, name: String, resource: Resource) {
        let name: Arc<str> = name.into();
        let before = self.published.insert(name.clone(), resource.clone());
        let before = before.map(|resource| resource.aliases).unwrap_or_default();
        for alias in before
            .iter()
            .filter(|alias| !resource.aliases.contains(alias))
        {
            self.disclaim(alias, &name);
        }
        for alias in resource
            .aliases
            .iter()
            .filter(|alias| !before.contains(alias))
        {
            (self.claims.entry(alias.clone()).or_default()).push(name.clone());
        }
        self.catalog.set(ADDRESS, name, Some(resource));
    }

    fn withdraw(&mut self, name: &str) {
        if let Some(resource) = self.published.remove(name) {
            for alias in &resource.aliases {
                self.disclaim(alias, name);
            }
        }
        self.catalog.set(ADDRESS, name.into(), None);
    }

    fn disclaim(&mut self, alias: &Arc<str>, name: &str) {
        (self.claims.entry(alias.clone()).or_default()).retain(|other| **other != *name);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Workload(name, addresses, services, node, value) => {
                let of = |service: &u8| Group::Of(format!("s{service}").into());
                let node = Group::Node(format!("n{node}").into());
                let resource = Resource {
                    aliases: addresses.iter().copied().map(alias).collect(),
                    groups: services.iter().map(of).chain([node]).collect(),
                    precedence: Precedence::Workload,
                    ..content("w", &(addresses, services, value))
                };
                self.publish(format!("w{name}"), resource);
            }
            Step::Service(name, addresses, value) => {
                let resource = Resource {
                    aliases: addresses.iter().copied().map(alias).collect(),
                    precedence: Precedence::Service,
                    ..content("s", &(addresses, value))
                };
                self.publish(format!("s{name}"), resource);
            }
            Step::Withdraw(name) => self.withdraw(name),
            Step::Ask(name) => {
                self.asked.insert(name.as_str().into());
                self.ask(&[name], &[]);
            }
            Step::Drop(name) => {
                if self.asked.remove(name.as_str()) && !self.everything {
                    self.view.remove(name.as_str());
                }
                self.ask(&[], &[name]);
            }
            Step::Widen => {
                self.everything = true;
                self.ask(&["*"], &[]);
            }
            Step::Narrow => {
                self.everything = false;
                self.ask(&[], &["*"]);
            }
            Step::ServerReads => drop(self.server_reads()),
            Step::ClientReads(accept) => drop(self.client_reads(*accept)),
            Step::Break => self.connect(),
            Step::Restart => self.restart(),
        }
    }

    fn restart(&mut self) {
        self.catalog = Catalog::with_history(self.history);
        self.claims.clear();
        for (name, resource) in std::mem::take(&mut self.published) {
            self.publish(name.to_string(), resource);
        }
        self.connect();
    }

    fn server_reads(&mut self) -> Option<()> {
        let request = self.requests.pop_front()?;
        let heard = self.machine.request(request);
        assert!(heard.is_ok(), "{heard:?}");
        self.server_responds();
        Some(())
    }

    fn server_responds(&mut self) {
        loop {
            match self.machine.respond(&self.catalog) {
                Ok(Some(response)) => self.responses.push_back((&response).into()),
                Ok(None) => return,
                Err(error) => {
                    assert_eq!(error, Error::Behind(ADDRESS.into()));
                    return self.connect();
                }
            }
        }
    }

    fn client_reads(&mut self, accept: bool) -> Option<()> {
        let response = self.responses.pop_front()?;
        for name in response.removed_resources {
            self.view.remove(name.as_str());
        }
        for resource in response.resources {
            let content = resource.resource.unwrap_or_default().value;
            (self.view).insert(resource.name.into(), (resource.version, content));
        }
        self.requests.push_back(DeltaDiscoveryRequest {
            type_url: ADDRESS.into(),
            response_nonce: response.nonce,
            error_detail: (!accept).then(Status::default),
            ..DeltaDiscoveryRequest::default()
        });
        Some(())
    }

    fn settle(&mut self) {
        self.server_responds();
        while (self.server_reads())
            .or_else(|| self.client_reads(true))
            .is_some()
        {}
    }

    fn find(&self, name: &str) -> Option<&Arc<str>> {
        if let Some((name, _)) = self.published.get_key_value(name) {
            return Some(name);
        }
        let claims = self.claims.get(name)?;
        let of = |precedence| {
            let is = |name: &&Arc<str>| self.published[*name].precedence == precedence;
            claims.iter().rev().find(is)
        };
        of(Precedence::Workload).or_else(|| of(Precedence::Service))
    }

    /// What the client should hold, found by looking at everything.
    fn expected(&self) -> BTreeMap<Arc<str>, Bytes> {
        let targets: BTreeSet<&str> = (self.asked.iter())
            .map(|name| self.find(name).unwrap_or(name).as_ref())
            .collect();
        let wanted = |name: &str, resource: &Resource| {
            self.everything
                || targets.contains(name)
                || resource.groups.iter().any(|group| match group {
                    Group::Of(service) => targets.contains(service.as_ref()),
                    Group::Node(node) => **node == *NODE,
                })
        };
        let resources = (self.published.iter())
            .filter(|(name, resource)| wanted(name, resource))
            .map(|(name, resource)| (name.clone(), resource.content.clone()));
        let aliases = (self.asked.iter())
            .filter(|_| !self.everything)
            .filter_map(|name| {
                Some((
                    name.clone(),
                    self.published[self.find(name)?].content.clone(),
                ))
            });
        resources.chain(aliases).collect()
    }
}

fn alias(address: u8) -> Arc<str> {
    format!("/{address}").into()
}

fn content(kind: &str, value: &dyn std::fmt::Debug) -> Resource {
    Bytes::from(format!("{kind}{value:?}")).into()
}

fn name() -> impl Strategy<Value = String> {
    (prop_oneof![Just("w"), Just("s"), Just("/")], 0..4_u8)
        .prop_map(|(kind, i)| format!("{kind}{i}"))
}

fn step() -> impl Strategy<Value = Step> {
    let some = |of: u8, most| subsequence((0..of).collect::<Vec<_>>(), 0..=most);
    prop_oneof![
        6 => (0..4_u8, some(4, 2), some(3, 2), 0..2_u8, 0..3_u8)
            .prop_map(|(n, a, s, node, v)| Step::Workload(n, a, s, node, v)),
        3 => (0..3_u8, some(4, 2), 0..3_u8).prop_map(|(n, a, v)| Step::Service(n, a, v)),
        3 => name().prop_map(Step::Withdraw),
        5 => name().prop_map(Step::Ask),
        2 => name().prop_map(Step::Drop),
        1 => Just(Step::Widen),
        1 => Just(Step::Narrow),
        8 => Just(Step::ServerReads),
        8 => prop::bool::weighted(0.9).prop_map(Step::ClientReads),
        1 => Just(Step::Break),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_client_that_asks_for_names_ends_with_what_they_stand_for_and_bring(
        steps in vec(step(), 0..120),
        history in prop::sample::select(vec![0, 2, 1000]),
    ) {
        let mut world = World::new(history);
        for step in &steps {
            world.step(step);
        }
        world.settle();
        let view = world.view.iter().map(|(name, (_, content))| (name.clone(), content.clone()));
        prop_assert_eq!(view.collect::<BTreeMap<_, _>>(), world.expected());
    }
}
