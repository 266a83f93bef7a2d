//! Callers of all kinds over TLS, with tokens that the API server signs and reviews.

use std::{net::SocketAddr, sync::Arc};

use futures::FutureExt as _;
use istiod::{
    authn::{
        Authenticator, TokenReviews, TrustDomains,
        discovery::DiscoveryCallers,
        metrics,
        node::{NodeAccounts, Nodes, Placements},
        review::ApiServer as Reviewer,
    },
    ca::{Authority, Metrics, NodeAuthorizer, keeper::MARGIN, secret, serving},
};
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use kube::{Api, api::PostParams};
use mesh_core::identity::Identity;
use mesh_identity::{
    ca::{self, CertificateAuthority as _},
    ca_client::{Client, Config},
    control::{self, Target, roots::RootSource},
    issuer::service::{Job, Service},
    key::PrivateKey,
    provider::Versions,
    token::Source,
};
use mesh_index::placement::Placement;
use mesh_xds::server::{Authenticate as _, Readable};
use parking_lot::RwLock;
use serde_json::{Value, json};
use testkit_kube::auth::token::{Bound, BoundKind, Wanted};
use tokio::{net::TcpListener, sync::watch};
use tonic::{Extensions, metadata::MetadataMap};

use super::fixture::{Cluster, DAY, SYSTEM, openssl_believes, until};

const NAME: &str = "istiod.istio-system.svc";
const AUDIENCE: &str = "istio-ca";

/// An istiod that serves certificates, with two nodes: a proxy and a workload on each.
struct Istiod {
    cluster: Cluster,
    authority: Authority,
    _leader: watch::Sender<bool>,
    nodes: Nodes,
    authenticator: Authenticator,
    address: SocketAddr,
}

impl Istiod {
    async fn start() -> Self {
        let cluster = Cluster::start().await;
        cluster.add_namespace("shop").await;
        let placement: Arc<RwLock<Placement>> = Arc::default();
        placement.write().configure(vec!["cluster.local".into()]);
        for (namespace, account, node) in [
            (SYSTEM, "ztunnel", "n1"),
            (SYSTEM, "ztunnel", "n2"),
            ("shop", "cart", "n1"),
            ("shop", "bank", "n2"),
        ] {
            let pod = cluster.run_pod(namespace, account, node).await;
            placement.write().apply(&pod);
        }
        let (_, news) = watch::channel(0);
        let accounts = NodeAccounts::default_in(SYSTEM);
        let nodes = Nodes::new(accounts, Placements::new(placement, news));
        let (authority, leader) = cluster.replica(true).await;
        let audiences = vec![AUDIENCE.to_owned()];
        let reviewer = Reviewer::new(cluster.client.clone(), audiences.clone());
        let reviews = TokenReviews::new(Arc::new(reviewer), audiences, metrics::Metrics::default());
        let (_, domains) = watch::channel(TrustDomains::of("cluster.local"));
        let authenticator = Authenticator::new(reviews, domains);
        let authorizer =
            NodeAuthorizer::new(authenticator.clone(), nodes.clone(), authority.clone());
        let address = serve(&authority, authorizer).await;
        Self {
            cluster,
            authority,
            _leader: leader,
            nodes,
            authenticator,
            address,
        }
    }

    /// A token for the pod of an account on a node.
    fn token(&self, namespace: &str, account: &str, node: &str, audience: &str) -> String {
        let wanted = Wanted {
            audiences: vec![audience.to_owned()],
            lifetime: jiff::SignedDuration::from_hours(1),
            bound: Some(Bound {
                kind: BoundKind::Pod,
                name: format!("{account}-{node}"),
                uid: None,
            }),
        };
        self.cluster
            .server
            .token(namespace, account, &wanted)
            .unwrap()
    }

    /// What a proxy or workload with this token is.
    fn client(&self, token: String, impersonate: bool) -> Client {
        let roots = self.authority.current().get().roots().to_owned();
        self.client_believing(&roots, token, impersonate)
    }

    fn client_believing(&self, roots: &str, token: String, impersonate: bool) -> Client {
        let address = format!("https://localhost:{}", self.address.port());
        let mut target = Target::new(address, RootSource::Inline(roots.into()));
        target.alternative_names = vec![NAME.into()];
        Client::try_new(Config {
            impersonate,
            ..Config::new(target, Source::Literal(token.into()))
        })
        .unwrap()
    }

    fn proxy(&self, node: &str) -> Client {
        self.client(self.token(SYSTEM, "ztunnel", node, AUDIENCE), true)
    }
}

/// Serves as the program does.
async fn serve(authority: &Authority, authorizer: NodeAuthorizer) -> SocketAddr {
    let settings = serving::Settings {
        names: serving::dns_names(SYSTEM, "", &[]),
        ttl: DAY,
        versions: Versions::Tls13,
    };
    let (tls, renewal) = serving::serve(settings, authority.changes()).unwrap();
    drop(tokio::spawn(renewal.run()));
    let elsewhere = |job: Job| drop(tokio::task::spawn_blocking(job));
    let service = Service::new(authority.current(), authorizer)
        .signing_on(elsewhere, 2)
        .observed_by(Arc::new(Metrics::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = control::grpc_server()
        .add_service(service.into_server())
        .serve_with_incoming(control::incoming(listener, tls));
    drop(tokio::spawn(server.map(|ended| ended.unwrap())));
    address
}

impl Cluster {
    async fn run_pod(&self, namespace: &str, account: &str, node: &str) -> Pod {
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), namespace);
        let params = PostParams::default();
        let mut new = ServiceAccount::default();
        new.metadata.name = Some(account.into());
        if accounts.get_opt(account).await.unwrap().is_none() {
            accounts.create(&params, &new).await.unwrap();
        }
        let pod = json!({
            "metadata": {"name": format!("{account}-{node}")},
            "spec": {
                "serviceAccountName": account,
                "nodeName": node,
                "containers": [{"name": "main", "image": "example.com/main"}],
            },
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
        pods.create(&params, &pod).await.unwrap()
    }
}

fn mk_identity(namespace: &str, account: &str) -> Identity {
    Identity::try_new("cluster.local", namespace, account).unwrap()
}

async fn ask(client: &Client, identity: &Identity) -> Result<Vec<String>, ca::Error> {
    let key = PrivateKey::generate().unwrap();
    let request = key.certificate_request(identity).unwrap();
    client.sign(identity, &request).await
}

/// Asks, and expects to be refused in these words.
async fn refused(client: &Client, identity: &Identity, words: &str) {
    let error = ask(client, identity).await.unwrap_err();
    let told = mesh_kube::error::Explained(&error).to_string();
    assert!(told.contains(words), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_gets_certificates_for_its_own_node_alone() {
    let istiod = Istiod::start().await;
    let proxy = istiod.proxy("n1");
    let cart = mk_identity("shop", "cart");
    let chain = ask(&proxy, &cart).await.unwrap();
    assert!(openssl_believes(
        &chain[..1],
        istiod.authority.current().get().roots()
    ));
    assert_eq!(
        chain.last().unwrap(),
        istiod.authority.current().get().roots()
    );
    let words = "PermissionDenied: the identity is not granted";
    refused(&proxy, &mk_identity("shop", "bank"), words).await;
    refused(&proxy, &mk_identity("shop", "nobody"), words).await;
    let foreign = Identity::try_new("other.example", "shop", "cart").unwrap();
    refused(&proxy, &foreign, words).await;
    ask(&istiod.proxy("n2"), &mk_identity("shop", "bank"))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_gets_its_own_certificate_and_no_other() {
    let istiod = Istiod::start().await;
    let token = istiod.token("shop", "cart", "n1", AUDIENCE);
    let cart = mk_identity("shop", "cart");
    ask(&istiod.client(token.clone(), false), &cart)
        .await
        .unwrap();
    // It is no node's proxy, not even for itself.
    let words = "PermissionDenied";
    refused(&istiod.client(token, true), &cart, words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_others_or_of_nobody_is_refused_without_a_reason() {
    let istiod = Istiod::start().await;
    let cart = mk_identity("shop", "cart");
    let words = "Unauthenticated: request authenticate failure";
    let elsewhere = istiod.token(SYSTEM, "ztunnel", "n1", "somebody-else");
    refused(&istiod.client(elsewhere, true), &cart, words).await;
    let good = istiod.token(SYSTEM, "ztunnel", "n1", AUDIENCE);
    let forged = format!("{}AAAA", good.rsplit_once('.').unwrap().0);
    refused(&istiod.client(forged, true), &cart, words).await;
    refused(&istiod.client("garbage".into(), true), &cart, words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn known_proxies_get_certificates_while_the_api_server_is_away() {
    let istiod = Istiod::start().await;
    let cart = mk_identity("shop", "cart");
    let (known, stranger) = (istiod.proxy("n1"), istiod.proxy("n2"));
    ask(&known, &cart).await.unwrap();
    istiod.cluster.server.stop().await;
    ask(&known, &cart).await.unwrap();
    refused(&stranger, &mk_identity("shop", "bank"), "Unavailable").await;
    istiod.cluster.server.start_again().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_replaces_the_serving_certificate_too() {
    let istiod = Istiod::start().await;
    let cart = mk_identity("shop", "cart");
    istiod.cluster.request_rotation().await;
    let mut changes = istiod.authority.changes();
    let count = |issuer: &Arc<mesh_identity::issuer::Issuer>| super::fixture::roots(issuer);
    until("both are trusted", &mut changes, |issuer| {
        count(issuer) == 2
    })
    .await;
    istiod.cluster.pass(DAY + MARGIN);
    let new_root_signs = |secret: &Value| secret["data"].get("next-key.pem").is_none();
    let cluster = &istiod.cluster;
    cluster
        .until::<Secret>(SYSTEM, secret::NAME, new_root_signs)
        .await;
    istiod.cluster.pass(DAY + MARGIN);
    until("the old one is gone", &mut changes, |issuer| {
        count(issuer) == 1
    })
    .await;

    // Who knows the new root alone believes the server, as soon as it serves with it.
    let new = istiod.authority.current().get().roots().to_owned();
    let token = istiod.token(SYSTEM, "ztunnel", "n1", AUDIENCE);
    let try_it = || {
        let client = istiod.client_believing(&new, token.clone(), true);
        let cart = cart.clone();
        async move { ask(&client, &cart).await }
    };
    super::fixture::eventually("it serves with the new root", try_it, Result::is_ok)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_knows_the_node_of_a_proxy_and_shows_others_nothing() {
    let istiod = Istiod::start().await;
    let callers = DiscoveryCallers::new(
        istiod.authenticator.clone(),
        istiod.nodes.clone(),
        metrics::Metrics::default(),
    );
    let authenticate = async |token: &str| {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", format!("Bearer {token}").parse().unwrap());
        callers.authenticate(&metadata, &Extensions::new()).await
    };
    let proxy = authenticate(&istiod.token(SYSTEM, "ztunnel", "n2", AUDIENCE))
        .await
        .unwrap();
    assert_eq!(proxy.node.as_deref(), Some("n2"));
    assert_eq!(proxy.may_read, Readable::Everything);
    assert_eq!(
        &*proxy.identity,
        "spiffe://cluster.local/ns/istio-system/sa/ztunnel"
    );

    let workload = authenticate(&istiod.token("shop", "cart", "n1", AUDIENCE))
        .await
        .unwrap();
    assert_eq!(workload.node, None);
    assert!(!workload.may_read.includes(mesh_proto::type_url::ADDRESS));
    let stranger = authenticate("garbage").await.unwrap_err();
    assert_eq!(stranger.code(), tonic::Code::Unauthenticated);
}
