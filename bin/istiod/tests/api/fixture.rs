//! An API server with istiod's namespace, and what the tests ask of it.

use std::{
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use istiod::ca::{
    Authority, Keeper, Metrics, Settings,
    keeper::{Clock, Error},
    secret,
};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use mesh_identity::issuer::{Issuer, RootKind};
use parking_lot::Mutex;
use serde_json::{Value, json};
use testkit_kube::{
    server::{ApiServer, Options},
    wait,
};
use tokio::{sync::watch, time::timeout};

/// How long anything may take that takes no time.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);
pub(crate) const SYSTEM: &str = "istio-system";

/// The server, and a clock for roots.
pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    pub(crate) client: Client,
    now: Arc<Mutex<SystemTime>>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let server = ApiServer::start(Options::default()).await.unwrap();
        let client = server.admin_client().await.unwrap();
        let cluster = Self {
            server,
            client,
            now: Arc::new(Mutex::new(SystemTime::now())),
        };
        cluster.add_namespace(SYSTEM).await;
        cluster
    }

    pub(crate) async fn add_namespace(&self, name: &str) {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.into());
        let api = Api::<Namespace>::all(self.client.clone());
        api.create(&PostParams::default(), &namespace)
            .await
            .unwrap();
    }

    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), SYSTEM)
    }

    /// Waits until an object is as wanted.
    pub(crate) async fn until<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Arc<Value> {
        let store = self.server.store();
        let wanted = |object: Option<&Value>| object.is_some_and(&wanted);
        let waited = store.until::<K>(namespace, name, DEADLINE, wanted).await;
        waited.unwrap_or_else(|late| panic!("{late}")).unwrap()
    }

    /// Changes the Secret of the root, as a user would.
    pub(crate) async fn patch_secret(&self, patch: Value) {
        let (secrets, params) = (self.secrets(), PatchParams::default());
        let patch = Patch::Merge(patch);
        secrets.patch(secret::NAME, &params, &patch).await.unwrap();
    }

    /// Asks for another root.
    pub(crate) async fn request_rotation(&self) {
        let patch = json!({"metadata": {"annotations": {secret::ROTATE: "now"}}});
        self.patch_secret(patch).await;
    }

    pub(crate) fn settings(&self) -> Settings {
        let now = Arc::clone(&self.now);
        Settings {
            files: "/nowhere/at/all".into(),
            namespace: SYSTEM.into(),
            organization: "cluster.local".into(),
            kind: RootKind::EcP256,
            root_ttl: 100 * DAY,
            check_interval: Duration::from_secs(1),
            jitter: false,
            grace_percent: 20,
            default_ttl: DAY,
            max_ttl: 90 * DAY,
            clock: Clock::new(move || *now.lock()),
        }
    }

    pub(crate) fn pass(&self, time: Duration) {
        *self.now.lock() += time;
    }

    /// Another replica, with a connection of its own.
    pub(crate) async fn open(&self) -> Result<(Authority, Keeper), Error> {
        let client = self.server.admin_client().await.unwrap();
        let watches = mesh_kube::watch::Metrics::default();
        Authority::open(self.settings(), client, Metrics::default(), watches).await
    }

    /// A replica that runs until the test ends.
    pub(crate) async fn replica(&self, leads: bool) -> (Authority, watch::Sender<bool>) {
        let (authority, keeper) = self.open().await.unwrap();
        let (leader, leading) = watch::channel(leads);
        drop(tokio::spawn(keeper.run(leading)));
        (authority, leader)
    }
}

/// Waits for a condition, which is looked at whenever `changes` has news.
pub(crate) async fn until<T>(
    what: &str,
    changes: &mut watch::Receiver<T>,
    condition: impl Fn(&T) -> bool,
) {
    let waited = timeout(DEADLINE, changes.wait_for(condition)).await;
    assert!(
        waited.is_ok_and(|seen| seen.is_ok()),
        "it does not come to this: {what}"
    );
}

/// Waits until asking gives what is wanted.
pub(crate) async fn eventually<T>(
    what: &str,
    ask: impl AsyncFn() -> T,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let waited = wait::eventually(what, DEADLINE, ask, wanted).await;
    waited.unwrap_or_else(|late| panic!("{late}"))
}

/// How many roots an issuer gives along.
pub(crate) fn roots(issuer: &Issuer) -> usize {
    issuer.roots().matches("BEGIN CERTIFICATE").count()
}

/// Whether the openssl command believes a certificate chain (leaf first) by these roots.
pub(crate) fn openssl_believes(chain: &[String], roots: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    put("leaf.pem", &chain[0]);
    put("chain.pem", &chain[1..].concat());
    put("roots.pem", roots);
    let mut arguments = vec!["verify", "-x509_strict", "-CAfile", "roots.pem"];
    if chain.len() > 1 {
        arguments.extend(["-untrusted", "chain.pem"]);
    }
    arguments.push("leaf.pem");
    openssl(folder.path(), &arguments)
}

fn openssl(folder: &Path, arguments: &[&str]) -> bool {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("this test needs the openssl command");
    output.status.success()
}
