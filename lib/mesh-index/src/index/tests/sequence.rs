//! The rule above all others: what has been said in the end depends on what is there in the end, and not
//! on how it came to be.

use proptest::{collection::vec, prelude::*, sample::Index as Pick};

use super::*;
use crate::settings::WaypointUnready;

/// One step of a sequence.
#[derive(Clone, Debug)]
enum Step {
    Apply(Seed),
    Delete(Seed),
    /// A relist of a kind that drops some of its objects and changes others.
    Reset(Kind, Vec<Seed>),
    Configure(u8),
    Drain,
}

/// Which object of which kind, and how it looks.
#[derive(Clone, Debug)]
struct Seed {
    kind: Kind,
    namespace: &'static str,
    name: &'static str,
    looks: [u8; 6],
}

const NAMESPACES: [&str; 3] = ["shop", "bank", "istio-system"];
const NAMES: [&str; 3] = ["a", "b", "wp"];
const APPS: [&str; 3] = ["a", "b", "wp"];

// === the objects that seeds stand for ===

impl Seed {
    fn pick<T: Clone>(&self, look: usize, options: &[T]) -> T {
        options[usize::from(self.looks[look]) % options.len()].clone()
    }

    fn is_of_cluster(&self) -> bool {
        matches!(self.kind, Kind::Node | Kind::Namespace | Kind::GatewayClass)
    }

    fn key(&self) -> Key {
        match self.kind {
            Kind::Namespace => Key::new("", self.namespace),
            Kind::GatewayClass => Key::new("", "istio-waypoint"),
            _ if self.is_of_cluster() => Key::new("", self.name),
            _ => Key::new(self.namespace, self.name),
        }
    }

    fn meta(&self) -> Value {
        let key = self.key();
        let age = self.pick(5, &["01", "02", "03"]);
        json!({
            "name": &*key.name,
            "namespace": (!key.namespace.is_empty()).then_some(&*key.namespace),
            "creationTimestamp": format!("2026-01-01T00:00:{age}Z"),
            "labels": self.labels(),
            "annotations": self.pick(3, &[
                json!({}),
                json!({"mesh.lateen.io/waypoint-unready": "bypass"}),
                json!({"networking.istio.io/traffic-distribution": "PreferClose"}),
                json!({"ambient.istio.io/redirection": "enabled"}),
                json!({"ambient.istio.io/waypoint-inbound-binding": "PROXY/15088"}),
                json!({"istio.io/use-waypoint-canary-weight": "30"}),
            ]),
        })
    }

    fn labels(&self) -> Value {
        let waypoint = self.pick(
            0,
            &[
                json!({}),
                json!({"istio.io/use-waypoint": "wp"}),
                json!({"istio.io/use-waypoint": "none"}),
                json!({"istio.io/use-waypoint": "wp", "istio.io/use-waypoint-namespace": "bank"}),
                json!({"istio.io/use-waypoint": "wp", "istio.io/use-waypoint-canary": "a"}),
            ],
        );
        let other = self.pick(
            4,
            &[
                json!({}),
                json!({"mesh": "on"}),
                json!({"istio.io/waypoint-for": "all"}),
                json!({"gateway.networking.k8s.io/gateway-name": "wp"}),
                json!({"topology.istio.io/network": "east", "mesh": "on"}),
                json!({"topology.kubernetes.io/region": "r", "team": "a", "mesh": "on"}),
            ],
        );
        let app = json!({
            "app": self.pick(1, &APPS), "kubernetes.io/service-name": self.pick(1, &NAMES),
        });
        merged(merged(waypoint, other), app)
    }

    fn object(&self) -> Object {
        // As a leader left it: what is written may stand there even if nothing is said any more.
        let status = json!({"conditions": [{
            "type": "istio.io/WaypointBound", "status": "True", "reason": "", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]});
        let written = matches!(
            self.kind,
            Kind::Service | Kind::ServiceEntry | Kind::WorkloadEntry
        );
        let mut base = json!({"metadata": self.meta()});
        if written {
            base["status"] = status;
        }
        match self.kind {
            Kind::Pod => Object::Pod(read(merged(base, self.pod()))),
            Kind::Node => Object::Node(read(merged(base, self.node()))),
            Kind::Namespace => Object::Namespace(read(base)),
            Kind::Service => Object::Service(read(merged(base, self.service()))),
            Kind::EndpointSlice => Object::EndpointSlice(read(merged(base, self.slice()))),
            Kind::ServiceEntry => Object::ServiceEntry(read(merged(base, self.entry()))),
            Kind::WorkloadEntry => Object::WorkloadEntry(read(merged(
                base,
                json!({
                    "spec": {"address": self.pick(2, &["192.0.2.1", "vm.example", ""])},
                }),
            ))),
            Kind::Gateway => Object::Gateway(read(merged(base, self.gateway()))),
            Kind::GatewayClass => Object::GatewayClass(read(merged(
                base,
                json!({
                    "spec": {"controllerName": "c"},
                }),
            ))),
            Kind::AuthorizationPolicy => Object::AuthorizationPolicy(read(merged(
                base,
                json!({"spec": {
                    "selector": self.selector(2),
                    "action": self.pick(3, &["ALLOW", "DENY", "AUDIT"]),
                }}),
            ))),
            Kind::PeerAuthentication => Object::PeerAuthentication(read(merged(
                base,
                json!({"spec": {
                    "selector": self.selector(2),
                    "mtls": {"mode": self.pick(3, &["STRICT", "PERMISSIVE", "UNSET"])},
                    "portLevelMtls": self.pick(4, &[json!({}), json!({"80": {"mode": "DISABLE"}})]),
                }}),
            ))),
        }
    }

    fn selector(&self, look: usize) -> Value {
        self.pick(
            look,
            &[
                json!(null),
                json!({"matchLabels": {"app": "a"}}),
                json!({"matchLabels": {"app": "b"}}),
            ],
        )
    }

    fn pod(&self) -> Value {
        json!({
            "spec": {
                "nodeName": self.pick(5, &NAMES),
                "containers": [{"name": "c", "ports": self.pick(2, &[
                    json!([]), json!([{"name": "http", "containerPort": 8080}]),
                ])}],
            },
            "status": {
                "phase": self.pick(2, &["Running", "Running", "Running", "Succeeded"]),
                "podIP": self.pick(3, &["10.0.0.1", "10.0.0.2", ""]),
                "conditions": [{"type": "Ready", "status": self.pick(5, &["True", "False"])}],
            },
        })
    }

    fn node(&self) -> Value {
        let status = self.pick(2, &["True", "Unknown"]);
        json!({"status": {"conditions": [{"type": "Ready", "status": status}]}})
    }

    fn service(&self) -> Value {
        json!({"spec": {
            "type": self.pick(3, &["ClusterIP", "ClusterIP", "ClusterIP", "ExternalName"]),
            "clusterIP": "10.96.0.1",
            "selector": self.pick(2, &[json!(null), json!({"app": "a"}), json!({"app": "b"})]),
            "ports": [{
                "name": "http", "port": 80, "targetPort": self.pick(5, &[json!("http"), json!(81)]),
            }],
        }})
    }

    fn slice(&self) -> Value {
        let pod = |name: &str| {
            json!({
                "addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": name},
            })
        };
        json!({
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": self.pick(5, &[90, 91])}],
            "endpoints": self.pick(2, &[
                json!([pod("a")]),
                json!([pod("a"), pod("b")]),
                json!([pod("b"), {"addresses": ["192.0.2.9"]}]),
                json!([]),
            ]),
        })
    }

    fn entry(&self) -> Value {
        json!({"spec": {
            "hosts": self.pick(2, &[
                json!(["x.example"]),
                json!(["x.example", "*.example"]),
                json!(["a.shop.svc.cluster.local"]),
            ]),
            "ports": [{"number": 443, "name": "tls"}],
            "resolution": self.pick(3, &["NONE", "STATIC", "DNS", "DYNAMIC_DNS"]),
            "exportTo": self.pick(4, &[json!([]), json!(["."]), json!(["~"])]),
            "workloadSelector": self.pick(5, &[
                json!(null), json!({"labels": {"app": "a"}}), json!({"labels": {"app": "b"}}),
            ]),
            "endpoints": self.pick(1, &[json!([]), json!([{"address": "192.0.2.5"}])]),
        }})
    }

    fn gateway(&self) -> Value {
        json!({
            "spec": {"gatewayClassName": "istio-waypoint", "listeners": [{
                "name": "mesh", "port": 15008, "protocol": "HBONE",
                "allowedRoutes": {"namespaces": {
                    "from": self.pick(2, &["Same", "All", "Selector"]),
                    "selector": {"matchLabels": {"team": "a"}},
                }},
            }]},
            "status": {"addresses": self.pick(5, &[
                json!([]), json!([{"value": "10.96.0.9"}]),
            ])},
        })
    }
}

fn settings(look: u8) -> Settings {
    let on = serde_json::from_value(json!({"matchLabels": {"mesh": "on"}})).unwrap();
    let mut settings = Settings::default();
    match look % 5 {
        0 => {}
        1 => settings.discovery_selectors = vec![on],
        2 => settings.waypoint_unready = WaypointUnready::Bypass,
        3 => settings.root_namespace = "bank".into(),
        _ => settings.domain = "other".into(),
    }
    settings
}

// === sequences ===

fn seed() -> impl Strategy<Value = Seed> {
    (0..Kind::ALL.len(), 0..3_usize, 0..3_usize, any::<[u8; 6]>()).prop_map(
        |(kind, namespace, name, looks)| Seed {
            kind: Kind::ALL[kind],
            namespace: NAMESPACES[namespace],
            name: NAMES[name],
            looks,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let kind = (0..Kind::ALL.len()).prop_map(|at| Kind::ALL[at]);
    prop_oneof![
        12 => seed().prop_map(Step::Apply),
        3 => seed().prop_map(Step::Delete),
        1 => (kind, vec(seed(), 0..4)).prop_map(|(kind, seeds)| Step::Reset(kind, seeds)),
        1 => any::<u8>().prop_map(Step::Configure),
        4 => Just(Step::Drain),
    ]
}

/// The objects that are there, by kind and key.
type There = BTreeMap<(Kind, Key), Object>;

fn run(mesh: &mut Mesh, there: &mut There, step: Step) {
    match step {
        Step::Apply(seed) => {
            there.insert((seed.kind, seed.key()), seed.object());
            mesh.index.apply(seed.object());
        }
        Step::Delete(seed) => {
            forget(mesh, there, |id| *id == (seed.kind, seed.key()));
            mesh.index.delete(seed.kind, &seed.key());
        }
        Step::Reset(kind, seeds) => {
            let seeds = seeds.into_iter().map(|seed| Seed { kind, ..seed });
            let kept: There = seeds
                .map(|seed| ((kind, seed.key()), seed.object()))
                .collect();
            forget(mesh, there, |id| id.0 == kind && !kept.contains_key(id));
            there.extend(kept.clone());
            mesh.index.reset(kind, kept.into_values().collect());
        }
        Step::Configure(look) => mesh.index.configure(settings(look)),
        Step::Drain => {
            mesh.hear();
        }
    }
}

/// Objects go, and their statuses with them.
fn forget(mesh: &mut Mesh, there: &mut There, gone: impl Fn(&(Kind, Key)) -> bool) {
    there.retain(|id, _| !gone(id));
    let statuses = &mut mesh.statuses;
    statuses.retain(|(kind, key, _), _| !gone(&(*kind, key.clone())));
}

/// The conditions in force, for objects that can be used and are in namespaces that are looked at.
fn conditions(mesh: &Mesh) -> BTreeMap<(Kind, Key), Vec<Condition>> {
    let statuses = mesh.statuses.iter().filter(|((kind, key, _), status)| {
        let seen = mesh.index.cluster.seen(&key.namespace).is_some();
        let usable = mesh.index.cluster.keys(*kind).contains(key);
        seen && usable && !status.conditions.is_empty()
    });
    statuses
        .map(|((kind, key, _), status)| ((*kind, key.clone()), status.conditions.clone()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_end_does_not_depend_on_the_way(
        steps in vec(step(), 1..60), order in vec(any::<Pick>(), 80),
    ) {
        let mut there = There::new();
        let mut mesh = Mesh::of([]);
        for step in steps {
            run(&mut mesh, &mut there, step);
        }
        mesh.hear();

        let mut objects: Vec<_> = there.values().cloned().collect();
        let mut shuffled = Vec::new();
        for pick in order {
            if !objects.is_empty() {
                shuffled.push(objects.remove(pick.index(objects.len())));
            }
        }
        shuffled.extend(objects);
        let fresh = Mesh::with(mesh.index.settings().clone(), shuffled);

        prop_assert_eq!(&mesh.workloads, &fresh.workloads);
        prop_assert_eq!(&mesh.services, &fresh.services);
        prop_assert_eq!(&mesh.policies, &fresh.policies);
        prop_assert_eq!(conditions(&mesh), conditions(&fresh));
    }
}
