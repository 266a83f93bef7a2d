//! The CA client against the issuer's service, over TLS on loopback: what travels, who is believed,
//! and what a rotated root does.

#![expect(
    clippy::unwrap_used,
    reason = "a failed expectation of a test is a panic"
)]

use std::{
    error::Error as _,
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use mesh_core::identity::Identity;
use mesh_identity::{
    CertManager,
    answer::Answer,
    ca::{self, CertificateAuthority},
    ca_client::{self, Client, Config},
    control::{self, ServerCertificate, Target, roots::RootSource},
    facts::Facts,
    issuer::{
        Current, Issuer,
        service::{Caller, Denied, Event, Job, Observe, Service},
    },
    key::PrivateKey,
    manager,
    provider::Versions,
    svid, tls, token,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tonic::transport::Server;

/// How long anything may take that takes no time.
const DEADLINE: Duration = Duration::from_secs(20);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the service has seen of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    authorization: Option<String>,
    cluster: Option<String>,
    extra: Option<String>,
    impersonated: Option<Identity>,
    loopback: bool,
}

/// A control plane on loopback; it ends with the test's runtime.
struct ControlPlane {
    address: SocketAddr,
    issuer: Arc<Issuer>,
    seen: Arc<Mutex<Vec<Seen>>>,
    server: JoinHandle<()>,
}

fn mk_id() -> Identity {
    Identity::try_new("cluster.local", "shop", "details").unwrap()
}

impl ControlPlane {
    /// Known as `names`, and signs for whoever impersonates somebody with the token `good`.
    async fn start(names: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(listener, names)
    }

    fn start_on(listener: TcpListener, names: &[&str]) -> Self {
        let address = listener.local_addr().unwrap();
        let issuer = Arc::new(Issuer::self_signed("cluster.local", 10 * DAY).unwrap());
        let own: ServerCertificate = issuer.server_certificate(names, DAY).unwrap();
        let config = control::server_config(&own, Versions::Tls13).unwrap();
        let seen = Arc::default();
        let service = Service::new(Arc::clone(&issuer), mk_authorizer(Arc::clone(&seen)));
        let incoming = control::incoming(listener, config);
        let server = Server::builder()
            .add_service(service.into_server())
            .serve_with_incoming(incoming)
            .map(|ended| ended.unwrap());
        Self {
            address,
            issuer,
            seen,
            server: tokio::spawn(server),
        }
    }

    fn config(&self) -> Config {
        let roots = RootSource::Inline(self.issuer.roots().into());
        let address = format!("https://localhost:{}", self.address.port());
        Config::new(
            Target::new(address, roots),
            token::Source::Literal("good".into()),
        )
    }
}

fn mk_authorizer(
    seen: Arc<Mutex<Vec<Seen>>>,
) -> impl for<'a> Fn(Caller<'a>) -> BoxFuture<'a, Result<Identity, Denied>> {
    move |caller| {
        let header = |name| {
            let value = caller.metadata.get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let this = Seen {
            authorization: header("authorization"),
            cluster: header("clusterid"),
            extra: header("x-extra"),
            impersonated: caller.impersonated.cloned(),
            loopback: caller.address.is_some_and(|a| a.ip().is_loopback()),
        };
        seen.lock().push(this.clone());
        let verdict = match (this.authorization.as_deref(), this.impersonated) {
            (Some("Bearer good"), Some(identity)) => Ok(identity),
            (Some("Bearer good"), None) => Err(Denied::Forbidden("asks for itself".into())),
            _ => Err(Denied::Unauthenticated("secret details".into())),
        };
        std::future::ready(verdict).boxed()
    }
}

async fn ask(client: &Client) -> Result<Vec<String>, ca::Error> {
    let id = mk_id();
    let key = PrivateKey::generate().unwrap();
    let request = key.certificate_request(&id).unwrap();
    client.sign(&id, &request).await
}

/// The error with its causes in one line.
fn told(error: &ca::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn a_certificate_is_obtained_with_everything_the_contract_asks_for() {
    let plane = ControlPlane::start(&["localhost"]).await;
    let client = Client::try_new(Config {
        cluster_id: "east".into(),
        headers: vec![("X-Extra".into(), "more".into())],
        ..plane.config()
    })
    .unwrap();
    let answer = ask(&client).await.unwrap();
    let answer = Answer::parse(&answer).unwrap();
    assert_eq!(svid::identity(&answer.leaf), Ok(mk_id()));
    let seen = Seen {
        authorization: Some("Bearer good".into()),
        cluster: Some("east".into()),
        extra: Some("more".into()),
        impersonated: Some(mk_id()),
        loopback: true,
    };
    assert_eq!(*plane.seen.lock(), [seen]);
}

#[tokio::test]
async fn managed_workloads_meet_over_certificates_of_the_control_plane() {
    let plane = ControlPlane::start(&["localhost"]).await;
    let client = Client::try_new(plane.config()).unwrap();
    let (certificates, worker) = CertManager::new(Arc::new(client), manager::Settings::default());
    let worker = tokio::spawn(worker.run());
    let (one, two) = (
        mk_id(),
        Identity::try_new("cluster.local", "shop", "reviews").unwrap(),
    );
    let (near, far) = tokio::io::duplex(1 << 16);
    let (caller, callee) = tokio::join!(
        certificates.certificate(&one),
        certificates.certificate(&two)
    );
    let (caller, callee) = (caller.unwrap(), callee.unwrap());
    let expected = [two.clone()];
    let (connected, accepted) = tokio::join!(caller.connect(near, &expected), callee.accept(far));
    assert_eq!(connected.unwrap().1, two);
    assert_eq!(accepted.unwrap().1, one);
    drop(certificates);
    worker.await.unwrap();
}

#[tokio::test]
async fn a_denial_tells_its_kind_and_not_its_reason() {
    let plane = ControlPlane::start(&["localhost"]).await;
    let bad_token = Client::try_new(Config {
        token: token::Source::Literal("bad".into()),
        ..plane.config()
    });
    let error = ask(&bad_token.unwrap()).await.unwrap_err();
    let text = told(&error);
    assert!(matches!(error, ca::Error::Refused { .. }));
    assert!(text.contains("Unauthenticated"), "{text}");
    assert!(!text.contains("secret"), "{text}");

    let for_itself = Client::try_new(Config {
        impersonate: false,
        ..plane.config()
    });
    let error = ask(&for_itself.unwrap()).await.unwrap_err();
    assert!(told(&error).contains("PermissionDenied"), "{error}");
    assert_eq!(plane.seen.lock()[1].impersonated, None);
}

#[tokio::test]
async fn a_bad_request_is_refused_with_its_reason() {
    let plane = ControlPlane::start(&["localhost"]).await;
    let client = Client::try_new(plane.config()).unwrap();
    let error = client.sign(&mk_id(), "garbage").await.unwrap_err();
    let text = told(&error);
    assert!(
        text.contains("InvalidArgument: the certificate request cannot be read"),
        "{text}"
    );

    let client = Client::try_new(Config {
        ttl: 365 * DAY,
        ..plane.config()
    });
    let text = told(&ask(&client.unwrap()).await.unwrap_err());
    assert!(text.contains("InvalidArgument: a lifetime of"), "{text}");
}

#[tokio::test]
async fn a_replaced_token_file_is_used_by_the_next_request() {
    let plane = ControlPlane::start(&["localhost"]).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let client = Client::try_new(Config {
        token: token::Source::File(path.clone()),
        ..plane.config()
    })
    .unwrap();
    let error = ask(&client).await.unwrap_err();
    assert!(
        told(&error).contains("there is no token"),
        "{}",
        told(&error)
    );
    for token in ["bad", "good"] {
        fs::write(&path, token).unwrap();
        assert_eq!(ask(&client).await.is_ok(), token == "good");
    }
}

#[tokio::test]
async fn only_the_named_server_with_the_right_root_is_believed() {
    let plane = ControlPlane::start(&["istiod.istio-system.svc"]).await;
    let unnamed = Client::try_new(plane.config()).unwrap();
    let error = ask(&unnamed).await.unwrap_err();
    assert!(matches!(error, ca::Error::Unreachable { .. }), "{error:?}");
    assert!(
        told(&error).contains("certificate not valid for name"),
        "{}",
        told(&error)
    );

    let mut named = plane.config();
    named.target.alternative_names = vec!["istiod.istio-system.svc".into()];
    ask(&Client::try_new(named.clone()).unwrap()).await.unwrap();

    let other = Issuer::self_signed("cluster.local", DAY).unwrap();
    named.target.roots = RootSource::Inline(other.roots().into());
    let error = ask(&Client::try_new(named).unwrap()).await.unwrap_err();
    assert!(
        told(&error).contains("invalid peer certificate"),
        "{}",
        told(&error)
    );
    assert_eq!(
        plane.seen.lock().len(),
        1,
        "the token went to the right server alone"
    );
}

#[tokio::test]
async fn a_rotated_root_leads_to_a_new_connection() {
    let old = ControlPlane::start(&["localhost"]).await;
    let new = ControlPlane::start(&["localhost"]).await;
    // One address, behind which the control plane is replaced.
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = front.local_addr().unwrap().port();
    let behind = Arc::new(Mutex::new(old.address));
    drop(tokio::spawn(forward(front, Arc::clone(&behind))));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root-cert.pem");
    fs::write(&path, old.issuer.roots()).unwrap();
    let mut config = old.config();
    config.target = Target::new(
        format!("https://localhost:{port}"),
        RootSource::File(path.clone()),
    );
    let client = Client::try_new(config).unwrap();
    ask(&client).await.unwrap();

    // The old connection is alive and well; only the file says that it is over.
    *behind.lock() = new.address;
    ask(&client).await.unwrap();
    assert_eq!((old.seen.lock().len(), new.seen.lock().len()), (2, 0));
    fs::write(&path, new.issuer.roots()).unwrap();
    ask(&client).await.unwrap();
    assert_eq!((old.seen.lock().len(), new.seen.lock().len()), (2, 1));

    fs::remove_file(&path).unwrap();
    let error = ask(&client).await.unwrap_err();
    assert!(
        told(&error).contains("root-cert.pem cannot be read"),
        "{}",
        told(&error)
    );
}

async fn forward(front: TcpListener, behind: Arc<Mutex<SocketAddr>>) {
    while let Ok((mut near, _)) = front.accept().await {
        let address = *behind.lock();
        drop(tokio::spawn(async move {
            let mut far = TcpStream::connect(address).await.unwrap();
            copy_bidirectional(&mut near, &mut far).await.ok();
        }));
    }
}

#[tokio::test]
async fn a_connection_that_fell_silent_is_not_used_again() {
    let plane = ControlPlane::start(&["localhost"]).await;
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = front.local_addr().unwrap().port();
    // A firewall that forgets the connections it knows when it is told to.
    let forget = Arc::new(tokio::sync::Notify::new());
    let (behind, forgets) = (plane.address, forget.clone());
    let firewall = tokio::spawn(async move {
        let mut forgotten = Vec::new();
        loop {
            let (mut near, _) = front.accept().await.unwrap();
            let mut far = TcpStream::connect(behind).await.unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                () = forgets.notified() => forgotten.push((near, far)),
            }
        }
    });
    let mut config = plane.config();
    config.target.address = format!("https://localhost:{port}");
    let client = Client::try_new(config).unwrap();
    ask(&client).await.unwrap();
    forget.notify_one();
    let silence = Duration::from_millis(200);
    let given_up = tokio::time::timeout(silence, ask(&client)).await;
    assert!(given_up.is_err());
    let served = tokio::time::timeout(DEADLINE, ask(&client)).await;
    served.expect("over a new connection").unwrap();
    firewall.abort();
}

#[tokio::test]
async fn a_client_survives_the_restart_of_the_control_plane() {
    let plane = ControlPlane::start(&["localhost"]).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root-cert.pem");
    fs::write(&path, plane.issuer.roots()).unwrap();
    let mut config = plane.config();
    config.target.roots = RootSource::File(path.clone());
    let client = Client::try_new(config).unwrap();
    ask(&client).await.unwrap();

    plane.server.abort();
    plane.server.await.unwrap_err();
    let listener = TcpListener::bind(plane.address).await.unwrap();
    let again = ControlPlane::start_on(listener, &["localhost"]);
    fs::write(&path, again.issuer.roots()).unwrap();
    ask(&client).await.unwrap();
}

#[tokio::test]
async fn a_stalled_or_senseless_peer_does_not_keep_others_from_the_control_plane() {
    let plane = ControlPlane::start(&["localhost"]).await;
    let _stalled = TcpStream::connect(plane.address).await.unwrap();
    let mut senseless = TcpStream::connect(plane.address).await.unwrap();
    senseless
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let client = Client::try_new(plane.config()).unwrap();
    let served = tokio::time::timeout(tls::HANDSHAKE_TIMEOUT / 2, ask(&client));
    served
        .await
        .expect("the stalled one must not be waited for")
        .unwrap();
    let mut answer = Vec::new();
    // An alert and the end, or a reset: but the end.
    senseless.read_to_end(&mut answer).await.ok();
}

#[tokio::test]
async fn nobody_at_the_address_is_unreachable() {
    let plane = ControlPlane::start(&["localhost"]).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let mut config = plane.config();
    config.target.address = format!("https://localhost:{port}");
    let error = ask(&Client::try_new(config).unwrap()).await.unwrap_err();
    assert!(matches!(error, ca::Error::Unreachable { .. }));
    // Without the causes in Rust's own form.
    assert!(!told(&error).contains("Connect {"), "{}", told(&error));
    assert!(
        told(&error).contains(&format!("localhost:{port} cannot be reached")),
        "{}",
        told(&error)
    );
}

#[test]
fn a_senseless_configuration_is_refused_at_once() {
    let roots = RootSource::System;
    for address in [
        "http://a:1",
        "https://a",
        "a:1",
        "",
        "https://",
        "https://a b:1",
    ] {
        let target = Target::new(address, roots.clone());
        let refused = Client::try_new(Config::new(target, token::Source::None));
        assert!(
            matches!(refused, Err(ca_client::Error::Target(_))),
            "{address}"
        );
    }
    let mut config = Config::new(
        Target::new("https://[::1]:15012", roots),
        token::Source::None,
    );
    assert!(Client::try_new(config.clone()).is_ok());
    config.headers = vec![("not a header".into(), "x".into())];
    assert!(matches!(
        Client::try_new(config),
        Err(ca_client::Error::Header(_))
    ));
}

/// Hears what becomes of requests.
#[derive(Default)]
struct Ear(Mutex<Vec<&'static str>>);

impl Observe for Ear {
    fn observe(&self, event: Event<'_>) {
        self.0.lock().push(match event {
            Event::Received => "received",
            Event::Signed => "signed",
            Event::Malformed => "malformed",
            Event::Denied(_) => "denied",
            Event::Refused(_) => "refused",
        });
    }
}

#[tokio::test]
async fn signing_elsewhere_by_an_issuer_that_is_replaced_is_heard_of() {
    let (old, new) = (mk_issuer(), mk_issuer());
    let current = Current::new(Arc::clone(&old));
    let (ear, jobs) = (Arc::new(Ear::default()), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&jobs);
    let elsewhere = move |job: Job| {
        counted.fetch_add(1, Ordering::SeqCst);
        drop(std::thread::spawn(job));
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let own = old.server_certificate(&["localhost"], DAY).unwrap();
    let tls = control::server_config(&own, Versions::Tls13).unwrap();
    let service = Service::new(current.clone(), mk_authorizer(Arc::default()))
        .signing_on(elsewhere, 1)
        .with_default_ttl(DAY / 2)
        .observed_by(Arc::clone(&ear) as Arc<dyn Observe>);
    let server = control::grpc_server()
        .add_service(service.into_server())
        .serve_with_incoming(control::incoming(listener, tls));
    drop(tokio::spawn(server));

    let config = |token: &str, ttl| Config {
        ttl,
        ..Config::new(
            Target::new(
                format!("https://localhost:{}", address.port()),
                RootSource::Inline(old.roots().into()),
            ),
            token::Source::Literal(token.into()),
        )
    };
    let client = Client::try_new(config("good", Duration::ZERO)).unwrap();
    let answer = ask(&client).await.unwrap();
    assert_eq!(answer.last().unwrap(), old.roots());
    let leaf = Facts::of(&Answer::parse(&answer).unwrap().leaf).unwrap();
    let life = leaf.not_after.duration_since(leaf.not_before).unwrap();
    assert_eq!(
        life,
        DAY / 2 + Duration::from_secs(120),
        "the default life, backdated"
    );
    current.replace(Arc::clone(&new));
    assert_eq!(ask(&client).await.unwrap().last().unwrap(), new.roots());
    assert_eq!(jobs.load(Ordering::SeqCst), 2);

    client.sign(&mk_id(), "garbage").await.unwrap_err();
    let stranger = Client::try_new(config("bad", DAY)).unwrap();
    ask(&stranger).await.unwrap_err();
    let expected = ["signed", "signed", "refused", "denied"];
    let expected: Vec<_> = expected
        .iter()
        .flat_map(|event| ["received", event])
        .collect();
    assert_eq!(*ear.0.lock(), expected);
}

fn mk_issuer() -> Arc<Issuer> {
    Arc::new(Issuer::self_signed("cluster.local", 10 * DAY).unwrap())
}
