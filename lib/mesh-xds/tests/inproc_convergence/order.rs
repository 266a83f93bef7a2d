//! Policies and the workloads that name them: no order in which they arrive takes a policy from a
//! workload that it holds for all the time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mesh_core::{
    policy::{Action, Authorization, PolicyScope},
    workload::Workload,
};
use mesh_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use mesh_xds::{
    Change, client,
    server::{self, Catalog, Update},
};
use proptest::{collection::vec, prelude::*};

const POLICIES: u8 = 4;
const WORKLOADS: u8 = 3;

#[derive(Clone, Debug)]
enum Step {
    /// Changes that are published together.
    Batch(Vec<Edit>),
    ServerReads,
    ClientReads,
    Break,
    Restart,
}

#[derive(Clone, Debug)]
enum Edit {
    /// A policy for its namespace or for those that name it; or none.
    Policy(u8, Option<PolicyScope>, bool),
    /// A workload that is selected by these policies; or none.
    Workload(u8, Option<BTreeSet<u8>>),
}

/// Policies by name with their scope, and workloads by name with the policies they name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Mesh {
    policies: BTreeMap<String, (PolicyScope, bool)>,
    workloads: BTreeMap<String, BTreeSet<String>>,
}

/// A workload and a policy that holds for it.
type Pair = (String, String);

struct World {
    policies: BTreeMap<u8, (PolicyScope, bool)>,
    workloads: BTreeMap<u8, BTreeSet<u8>>,
    mesh: Mesh,
    catalog: Catalog,
    server: server::Machine,
    client: client::Machine,
    view: Mesh,
    requests: VecDeque<DeltaDiscoveryRequest>,
    /// With the number of the batch after which each was made.
    responses: VecDeque<(usize, DeltaDiscoveryResponse)>,
    /// The mesh after each batch, the latest last.
    past: Vec<Mesh>,
    /// Since which batch each pair has held without a break.
    since: BTreeMap<Pair, usize>,
    /// The latest batch that the client was found to hold all of.
    synced: usize,
}

// === impl Mesh ===

impl Mesh {
    fn effective(&self) -> BTreeSet<Pair> {
        let holds = |(workload, policy): &(&String, &String)| {
            let scope = self.policies[*policy].0;
            scope == PolicyScope::Namespace || self.workloads[*workload].contains(*policy)
        };
        (self.workloads.keys())
            .flat_map(|workload| self.policies.keys().map(move |policy| (workload, policy)))
            .filter(holds)
            .map(|(workload, policy)| (workload.clone(), policy.clone()))
            .collect()
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Workload(workload) => {
                let names = workload.authorization_policies.iter();
                let names = names.map(ToString::to_string).collect();
                self.workloads.insert(workload.uid.to_string(), names);
            }
            Change::Policy(policy) => {
                let value = (policy.scope, policy.dry_run);
                self.policies.insert(policy.key().to_string(), value);
            }
            Change::RemoveAddress(name) => drop(self.workloads.remove(&*name)),
            Change::RemovePolicy(name) => drop(self.policies.remove(&*name)),
            Change::Service(_) => {}
        }
    }

    /// What makes `other` of this, in the order of names.
    fn changes_to(&self, other: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (uid, names) in &other.workloads {
            if self.workloads.get(uid) != Some(names) {
                changes.push(Change::Workload(Workload {
                    authorization_policies: names.iter().map(|name| name.as_str().into()).collect(),
                    ..Workload::with_uid(uid.as_str())
                }));
            }
        }
        for (key, value) in &other.policies {
            if self.policies.get(key) != Some(value) {
                changes.push(mk_policy(key, *value));
            }
        }
        let gone = self
            .workloads
            .keys()
            .filter(|uid| !other.workloads.contains_key(*uid));
        changes.extend(gone.map(|uid| Change::RemoveAddress(uid.as_str().into())));
        let gone = self
            .policies
            .keys()
            .filter(|key| !other.policies.contains_key(*key));
        changes.extend(gone.map(|key| Change::RemovePolicy(key.as_str().into())));
        changes
    }
}

fn mk_policy(key: &str, (scope, dry_run): (PolicyScope, bool)) -> Change {
    Change::Policy(Authorization {
        name: key.trim_start_matches("ns/").into(),
        namespace: "ns".into(),
        scope,
        action: Action::Deny,
        rules: Vec::new(),
        dry_run,
    })
}

// === impl World ===

impl World {
    fn new() -> Self {
        let mut world = Self {
            policies: BTreeMap::new(),
            workloads: BTreeMap::new(),
            mesh: Mesh::default(),
            catalog: Catalog::default(),
            server: server::Machine::default(),
            client: client::Machine::new(client::Config::new(client::Node::default())),
            view: Mesh::default(),
            requests: VecDeque::new(),
            responses: VecDeque::new(),
            past: vec![Mesh::default()],
            since: BTreeMap::new(),
            synced: 0,
        };
        world.connect();
        world
    }

    fn connect(&mut self) {
        self.server = server::Machine::default();
        self.requests = self.client.connected().into();
        self.responses.clear();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Batch(edits) => self.publish(edits),
            Step::ServerReads => drop(self.server_reads()),
            Step::ClientReads => drop(self.client_reads()),
            Step::Break => self.connect(),
            Step::Restart => {
                self.catalog = Catalog::default();
                let changes = Mesh::default().changes_to(&self.mesh);
                self.file(&changes);
                self.connect();
            }
        }
    }

    /// A workload names the policies that select it and are there for those that name them.
    fn publish(&mut self, edits: &[Edit]) {
        let (policies, workloads) = (&mut self.policies, &mut self.workloads);
        for edit in edits.iter().cloned() {
            match edit {
                Edit::Policy(name, Some(scope), dry_run) => {
                    policies.insert(name, (scope, dry_run));
                }
                Edit::Policy(name, None, _) => drop(policies.remove(&name)),
                Edit::Workload(name, Some(by)) => drop(workloads.insert(name, by)),
                Edit::Workload(name, None) => drop(workloads.remove(&name)),
            }
        }
        let key = |name: &u8| format!("ns/p{name}");
        let selects = |name: &&u8| {
            (policies.get(name)).is_some_and(|(scope, _)| *scope == PolicyScope::WorkloadSelector)
        };
        let names = |by: &BTreeSet<u8>| by.iter().filter(selects).map(key).collect();
        let mesh = Mesh {
            policies: policies
                .iter()
                .map(|(name, value)| (key(name), *value))
                .collect(),
            workloads: (workloads.iter())
                .map(|(name, by)| (format!("w{name}"), names(by)))
                .collect(),
        };
        let changes = self.mesh.changes_to(&mesh);
        self.file(&changes);
        let effective = mesh.effective();
        let now = self.past.len();
        self.since.retain(|pair, _| effective.contains(pair));
        for pair in effective {
            self.since.entry(pair).or_insert(now);
        }
        self.past.push(mesh.clone());
        self.mesh = mesh;
    }

    fn file(&mut self, changes: &[Change]) {
        for change in changes {
            let update = Update::from(change);
            (self.catalog).set(update.type_url, update.name, update.resource);
        }
    }

    fn server_reads(&mut self) -> Option<()> {
        let request = self.requests.pop_front()?;
        self.server.request(request).unwrap();
        self.server_responds();
        Some(())
    }

    fn server_responds(&mut self) {
        while let Some(response) = self.server.respond(&self.catalog).unwrap() {
            let response = DeltaDiscoveryResponse::from(&response);
            self.responses.push_back((self.past.len() - 1, response));
        }
    }

    fn client_reads(&mut self) -> Option<()> {
        let (batch, response) = self.responses.pop_front()?;
        let received = self.client.received(response);
        assert_eq!(received.rejected, []);
        for change in received.changes {
            self.view.apply(change);
        }
        self.requests.push_back(received.reply);
        if self.past[batch] == self.view {
            self.synced = batch;
        }
        self.check();
        Some(())
    }

    fn check(&self) {
        for (workload, names) in &self.view.workloads {
            for policy in names {
                let known = self.view.policies.contains_key(policy);
                assert!(
                    known,
                    "{workload} names {policy}, which the client does not know"
                );
            }
        }
        let effective = self.view.effective();
        for (pair, since) in &self.since {
            let here = self.view.workloads.contains_key(&pair.0);
            let all_the_time = *since <= self.synced;
            assert!(
                !here || !all_the_time || effective.contains(pair),
                "{pair:?} has held since {since}, and does not in {:?}",
                self.view
            );
        }
    }

    fn settle(&mut self) {
        self.server_responds();
        while (self.server_reads())
            .or_else(|| self.client_reads())
            .is_some()
        {}
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    let scope = prop_oneof![
        Just(PolicyScope::Namespace),
        Just(PolicyScope::WorkloadSelector)
    ];
    let by = prop::collection::btree_set(0..POLICIES, 0..=POLICIES as usize);
    prop_oneof![
        3 => (0..POLICIES, prop::option::weighted(0.8, scope), any::<bool>())
            .prop_map(|(name, scope, dry_run)| Edit::Policy(name, scope, dry_run)),
        1 => (0..WORKLOADS, prop::option::weighted(0.9, by))
            .prop_map(|(name, by)| Edit::Workload(name, by)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => vec(edit(), 1..4).prop_map(Step::Batch),
        6 => Just(Step::ServerReads),
        6 => Just(Step::ClientReads),
        1 => Just(Step::Break),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_policy_that_holds_all_the_time_holds_at_the_client_all_the_time(
        steps in vec(step(), 0..120),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.settle();
        prop_assert_eq!(&world.view, &world.mesh);
    }
}
