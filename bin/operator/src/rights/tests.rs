use k8s_openapi::{api::core::v1::Namespace, jiff::SignedDuration};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use testkit_kube::{
    auth::token::Wanted,
    server::{ApiServer, Options},
};

use super::*;

fn yaml(objects: Vec<Object>) -> String {
    let rendered = Rendered {
        objects,
        notes: Vec::new(),
    };
    rendered.to_yaml()
}

fn rules(objects: &[Object]) -> Vec<PolicyRule> {
    let rules = objects
        .iter()
        .flat_map(|object| object.body["rules"].as_array().into_iter().flatten());
    rules
        .map(|rule| serde_json::from_value(rule.clone()).unwrap())
        .collect()
}

#[test]
fn nothing_is_granted_that_is_not_named() {
    for objects in [objects(NAME).unwrap(), istio_images(NAME).unwrap()] {
        for rule in rules(&objects) {
            let resources = rule.resources.clone().unwrap_or_default();
            let groups = rule.api_groups.clone().unwrap_or_default();
            for word in resources.iter().chain(&rule.verbs).chain(&groups) {
                let forbidden = ["*", "bind", "escalate", "impersonate"];
                assert!(!forbidden.contains(&word.as_str()), "{rule:?}");
            }
        }
    }
}

#[test]
fn the_only_secret_that_can_be_read_is_the_control_planes_root() {
    for rule in rules(&objects(NAME).unwrap()) {
        let resources = rule.resources.clone().unwrap_or_default();
        if resources
            .iter()
            .any(|resource| resource.starts_with("secrets"))
        {
            let root = Some(vec!["istio-ca-secret".to_owned()]);
            assert!(
                rule.verbs == ["create"] || rule.resource_names == root,
                "{rule:?}"
            );
        }
    }
}

#[test]
fn what_istios_images_need_is_not_granted_without_them() {
    let more = rules(&istio_images(NAME).unwrap());
    let secrets = |rule: &PolicyRule| rule.resources.iter().flatten().any(|r| r == "secrets");
    assert!(more.iter().any(secrets));
    let own = cluster().unwrap();
    let mut again = Grants::default();
    again.add(more);
    for (target, verbs) in &again.0 {
        assert!(
            verbs.iter().all(|verb| !own.allow(target, verb)),
            "{target:?}"
        );
    }
}

#[test]
fn the_checked_in_rights_are_these() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/");
    for (file, objects) in [
        ("operator/rbac.yaml", objects(NAME).unwrap()),
        ("rbac/istio-images.yaml", istio_images(NAME).unwrap()),
    ] {
        let checked_in = std::fs::read_to_string(format!("{root}{file}")).unwrap();
        assert!(
            checked_in.ends_with(&yaml(objects)),
            "{file}: run `cargo xtask gen`"
        );
    }
}

/// An API server that knows who the operator is, and a client that is no more than that.
struct Cluster {
    server: ApiServer,
    admin: Client,
}

impl Cluster {
    async fn start() -> Self {
        let server = ApiServer::start(Options::default()).await.unwrap();
        let stand_ins = mesh_api::openshift::stand_ins();
        server.install_crds(stand_ins).unwrap();
        let admin = server.admin_client().await.unwrap();
        let cluster = Self { server, admin };
        for name in [NAME, "istio-system", "istio-cni", "ztunnel"] {
            let namespace =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            let namespaces: Api<DynamicObject> =
                Api::all_with(cluster.admin.clone(), &ApiResource::erase::<Namespace>(&()));
            let namespace = serde_json::from_value(namespace).unwrap();
            namespaces
                .create(&PostParams::default(), &namespace)
                .await
                .unwrap();
        }
        cluster
            .apply_all(&cluster.admin, objects(NAME).unwrap())
            .await
            .unwrap();
        cluster
    }

    async fn operator(&self) -> Client {
        let wanted = Wanted {
            audiences: Vec::new(),
            lifetime: SignedDuration::from_hours(1),
            bound: None,
        };
        let token = self.server.token(NAME, NAME, &wanted).unwrap();
        self.server.client_with_token(&token).await.unwrap()
    }

    async fn apply_all(&self, client: &Client, objects: Vec<Object>) -> Result<(), kube::Error> {
        for object in &objects {
            let resource = crate::watches::resource(object.kind);
            let api: Api<DynamicObject> = match &object.namespace {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                None => Api::all_with(client.clone(), &resource),
            };
            let params = PatchParams::apply(MANAGER).force();
            api.patch(&object.name, &params, &Patch::Apply(&object.body))
                .await?;
        }
        Ok(())
    }
}

fn mesh(values: &Value) -> Vec<Object> {
    let all = everything(values).unwrap();
    all.into_iter()
        .flat_map(|rendered| rendered.objects)
        .collect()
}

#[tokio::test]
async fn the_operator_can_apply_all_that_it_renders_with_its_own_rights() {
    let cluster = Cluster::start().await;
    let operator = cluster.operator().await;
    let objects = mesh(&json!({}));
    for kind in [SECURITY_CONTEXT_CONSTRAINTS, NETWORK_ATTACHMENT_DEFINITION] {
        assert!(objects.iter().any(|object| object.kind == kind), "{kind:?}");
    }
    cluster.apply_all(&operator, objects).await.unwrap();
}

#[tokio::test]
async fn istios_images_take_the_further_rights() {
    let cluster = Cluster::start().await;
    let operator = cluster.operator().await;
    let istio = json!({"global": {"distribution": "istio"}});
    let refused = cluster
        .apply_all(&operator, mesh(&istio))
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("istiod-clusterrole-istio-system"),
        "{refused}"
    );
    cluster
        .apply_all(&cluster.admin, istio_images(NAME).unwrap())
        .await
        .unwrap();
    cluster.apply_all(&operator, mesh(&istio)).await.unwrap();
}
