//! A cluster of any size, as the API server would describe it.

use std::{collections::BTreeMap, net::Ipv4Addr};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerPort, Namespace, Node, NodeCondition, NodeStatus, Pod, PodCondition,
        PodIP, PodSpec, PodStatus, Service, ServicePort, ServiceSpec,
    },
    apimachinery::pkg::{
        apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference, Time},
        util::intstr::IntOrString,
    },
};

/// How large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct Size {
    /// Pods, enrolled and ready.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) pods: u32,
    /// Services; each selects its share of the pods.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) services: u32,
    /// Namespaces that share them.
    #[arg(long, default_value_t = 500)]
    pub(crate) namespaces: u32,
    /// Nodes that run the pods.
    #[arg(long, default_value_t = 2_000)]
    pub(crate) nodes: u32,
}

// === impl Size ===

impl Size {
    pub(crate) fn nodes(self) -> impl Iterator<Item = Node> {
        (0..self.nodes).map(node)
    }

    pub(crate) fn namespaces(self) -> impl Iterator<Item = Namespace> {
        (0..self.namespaces).map(|number| Namespace {
            metadata: meta(None, &namespace_name(number), &[]),
            ..Namespace::default()
        })
    }

    pub(crate) fn services(self) -> impl Iterator<Item = Service> {
        (0..self.services).map(move |number| self.service(number))
    }

    pub(crate) fn pods(self) -> impl Iterator<Item = Pod> {
        (0..self.pods).map(move |number| self.pod(number))
    }

    fn service(self, number: u32) -> Service {
        let name = format!("service-{number}");
        let namespace = namespace_name(number % self.namespaces);
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(172, 20, 0, 0).to_bits() + number);
        let port = |name: &str, port, target| ServicePort {
            name: Some(name.to_owned()),
            port,
            target_port: Some(target),
            ..ServicePort::default()
        };
        Service {
            metadata: meta(Some(&namespace), &name, &[("app", &name)]),
            spec: Some(ServiceSpec {
                cluster_ip: Some(address.to_string()),
                cluster_ips: Some(vec![address.to_string()]),
                selector: Some(map(&[("app", &name)])),
                ports: Some(vec![
                    port("http", 80, IntOrString::String("http".to_owned())),
                    port("metrics", 9090, IntOrString::Int(9090)),
                ]),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    /// A pod of this number, with what a real one carries along.
    pub(crate) fn pod(self, number: u32) -> Pod {
        let service = number % self.services;
        let app = format!("service-{service}");
        let namespace = namespace_name(service % self.namespaces);
        let name = format!("{app}-6d4cf56db6-{number:06}");
        let labels = [
            ("app", app.as_str()),
            ("app.kubernetes.io/version", "v1"),
            ("pod-template-hash", "6d4cf56db6"),
        ];
        let mut metadata = meta(Some(&namespace), &name, &labels);
        metadata.annotations = Some(map(&[("ambient.istio.io/redirection", "enabled")]));
        metadata.uid = Some(format!("00000000-0000-4000-8000-{number:012}"));
        metadata.owner_references = Some(vec![OwnerReference {
            api_version: "apps/v1".to_owned(),
            kind: "ReplicaSet".to_owned(),
            name: format!("{app}-6d4cf56db6"),
            controller: Some(true),
            ..OwnerReference::default()
        }]);
        metadata.managed_fields = Some(vec![ManagedFieldsEntry {
            manager: Some("kube-controller-manager".to_owned()),
            operation: Some("Update".to_owned()),
            ..ManagedFieldsEntry::default()
        }]);
        let address =
            Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number).to_string();
        Pod {
            metadata,
            spec: Some(PodSpec {
                node_name: Some(node_name(number % self.nodes)),
                service_account_name: Some(app),
                containers: vec![container()],
                ..PodSpec::default()
            }),
            status: Some(PodStatus {
                phase: Some("Running".to_owned()),
                pod_ip: Some(address.clone()),
                pod_ips: Some(vec![PodIP { ip: address }]),
                conditions: Some(vec![condition(true)]),
                ..PodStatus::default()
            }),
        }
    }
}

/// Marks a pod with a number that its proxies will see, and turns its readiness.
pub(crate) fn change(pod: &mut Pod, sequence: u32) {
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(
        "app.kubernetes.io/version".to_owned(),
        format!("seq-{sequence}"),
    );
    if let Some(status) = &mut pod.status {
        status.conditions = Some(vec![condition(sequence.is_multiple_of(2))]);
    }
}

fn container() -> Container {
    Container {
        name: "app".to_owned(),
        image: Some("registry.example/app:v1".to_owned()),
        ports: Some(vec![ContainerPort {
            name: Some("http".to_owned()),
            container_port: 8080,
            ..ContainerPort::default()
        }]),
        ..Container::default()
    }
}

fn condition(ready: bool) -> PodCondition {
    PodCondition {
        type_: "Ready".to_owned(),
        status: if ready { "True" } else { "False" }.to_owned(),
        ..PodCondition::default()
    }
}

fn node(number: u32) -> Node {
    let zone = format!("zone-{}", number % 3);
    let labels = [
        ("topology.kubernetes.io/region", "region-1"),
        ("topology.kubernetes.io/zone", zone.as_str()),
    ];
    Node {
        metadata: meta(None, &node_name(number), &labels),
        status: Some(NodeStatus {
            conditions: Some(vec![NodeCondition {
                type_: "Ready".to_owned(),
                status: "True".to_owned(),
                ..NodeCondition::default()
            }]),
            ..NodeStatus::default()
        }),
        ..Node::default()
    }
}

fn namespace_name(number: u32) -> String {
    format!("namespace-{number}")
}

fn node_name(number: u32) -> String {
    format!("node-{number}.region-1.example")
}

fn meta(namespace: Option<&str>, name: &str, labels: &[(&str, &str)]) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: Some(map(labels)),
        creation_timestamp: Some(Time(Timestamp::UNIX_EPOCH)),
        ..ObjectMeta::default()
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned()));
    owned.collect()
}
