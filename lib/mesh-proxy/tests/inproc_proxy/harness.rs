//! A mesh in one process: fake discovery, real certificates, pods on loopback addresses, and the log
//! and the metrics as their readers see them.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use mesh_core::{
    address::NamespacedHostname,
    identity::Identity,
    policy::{Action, Authorization, Clause, Match, PolicyScope, Rule},
    rbac::{self, CompiledPolicy, Decision, PolicySet},
    route::{Authority, InboundError, InboundTarget, Route, RouteError, ServiceRef},
    workload::{PodInfo, TunnelProtocol, Workload},
};
use mesh_identity::{WorkloadCertificate, answer::Answer, issuer::Issuer, key::PrivateKey, tls};
use mesh_net::socket::{SocketFactory, original_destination};
use mesh_proxy::{
    config::Settings,
    connections::Connections,
    discover::{CertificateError, Certs, Discover},
    proxy::{Addresses, Proxy, Shared},
    telemetry::metrics::Metrics,
};
use mesh_runtime::{drain, log, task::Tracker};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

/// Longest time any step of a test may take; never waited for when things work.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Everything the pods of one test share.
pub(crate) struct Mesh {
    pub(crate) discovery: Arc<Discovery>,
    pub(crate) authority: Arc<Authorities>,
    pub(crate) tasks: Tracker,
    pub(crate) settings: Settings,
    metrics: Metrics,
    registry: Registry,
    log: Log,
    _subscriber: tracing::subscriber::DefaultGuard,
}

/// Discovery as the test plays it.
pub(crate) struct Discovery {
    workloads: Mutex<Vec<Arc<Workload>>>,
    routes: Mutex<HashMap<SocketAddr, Result<Route, RouteError>>>,
    services: Mutex<HashMap<NamespacedHostname, Arc<ServiceRef>>>,
    policies: Mutex<Vec<Authorization>>,
    changes: watch::Sender<u64>,
}

/// A certificate authority that signs for anybody.
pub(crate) struct Authorities {
    issuer: Issuer,
    issued: Mutex<HashMap<Identity, Arc<WorkloadCertificate>>>,
    /// Whether whoever asks waits for ever.
    pub(crate) silent: AtomicBool,
}

/// A pod whose proxy runs.
pub(crate) struct Pod {
    pub(crate) workload: Arc<Workload>,
    pub(crate) address: IpAddr,
    pub(crate) proxy: Addresses,
    pub(crate) connections: Connections,
    pub(crate) trigger: drain::Trigger,
    pub(crate) running: JoinHandle<()>,
    sockets: Arc<Sockets>,
}

/// Sockets of a pod: all on its loopback address, listeners on any port.
#[derive(Debug)]
struct Sockets {
    address: IpAddr,
    /// Where clients, by their own address, wanted to go.
    destinations: Mutex<HashMap<SocketAddr, SocketAddr>>,
}

/// Lines of the log, as they were written.
struct Log {
    lines: mpsc::UnboundedReceiver<String>,
    /// Those that no test has asked for yet.
    unread: Vec<String>,
}

struct Output(mpsc::UnboundedSender<String>);

// === impl Mesh ===

impl Mesh {
    pub(crate) fn new() -> Self {
        let (sender, lines) = mpsc::unbounded_channel();
        let config = log::Config {
            format: log::Format::Plain,
            filter: "info,access=debug".into(),
        };
        let (subscriber, _handle) = log::build(&config, Output(sender)).unwrap();
        let mut registry = Registry::default();
        Self {
            discovery: Arc::new(Discovery::new()),
            authority: Arc::new(Authorities::new()),
            tasks: Tracker::new(),
            settings: Settings {
                ipv6: false,
                ..Settings::default()
            },
            metrics: Metrics::new(&mut registry, Duration::from_secs(3600)),
            registry,
            log: Log {
                lines,
                unread: Vec::new(),
            },
            _subscriber: tracing::subscriber::set_default(subscriber),
        }
    }

    /// Runs a proxy for a new pod with the service account `name`, known to discovery.
    pub(crate) fn pod(&self, name: &str) -> Pod {
        let pod = self.unknown_pod(name, free_address());
        self.discovery.workloads.lock().push(pod.workload.clone());
        pod
    }

    /// Runs a proxy for a pod that discovery has not heard of.
    pub(crate) fn unknown_pod(&self, name: &str, address: IpAddr) -> Pod {
        let workload = Arc::new(mk_workload(name, address));
        let sockets = Arc::new(Sockets {
            address,
            destinations: Mutex::default(),
        });
        let info = PodInfo {
            name: workload.name.clone(),
            namespace: workload.namespace.clone(),
            service_account: workload.service_account.clone(),
        };
        let shared = Shared {
            discover: self.discovery.clone(),
            certs: self.authority.clone(),
            metrics: self.metrics.clone(),
            settings: Arc::new(self.settings.clone()),
            tasks: self.tasks.clone(),
        };
        let proxy = Proxy::bind(info, sockets.clone(), shared).unwrap();
        let (trigger, watch) = drain::channel();
        Pod {
            workload,
            address,
            proxy: proxy.addresses().unwrap(),
            connections: proxy.connections(),
            trigger,
            running: tokio::spawn(proxy.run(watch)),
            sockets,
        }
    }

    /// The first line that contains all of `texts` and was not asked for before.
    pub(crate) async fn line(&mut self, texts: &[&str]) -> String {
        let found = timeout(DEADLINE, self.log.find(texts)).await;
        found.unwrap_or_else(|_| panic!("no line with {texts:?} among {:#?}", self.log.unread))
    }

    /// What the access log says of the connection that ends next in `direction`, from the message on
    /// and without the time that it took.
    pub(crate) async fn access(&mut self, direction: &str) -> String {
        let direction = format!("direction=\"{direction}\"");
        let line = self
            .line(&["\taccess\t", "connection complete", &direction])
            .await;
        let (_, text) = line.split_once("\taccess\t").unwrap();
        let (head, tail) = text.split_once(" duration=\"").unwrap();
        let (_, tail) = tail.split_once("ms\"").unwrap();
        format!("{head}{tail}").replace('\t', " ")
    }

    /// The value of the one series of `name` that has all of `labels`; 0 if there is none.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let label = |(key, value): &(&str, &str)| format!("{key}=\"{value}\"");
        let wanted: Vec<String> = labels.iter().map(label).collect();
        let found: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with(&format!("{name}{{")))
            .filter(|line| wanted.iter().all(|label| line.contains(label)))
            .collect();
        match found[..] {
            [] => 0,
            [line] => line.rsplit_once(' ').unwrap().1.parse().unwrap(),
            _ => panic!("several series of {name} have {labels:?}: {found:#?}"),
        }
    }

    /// All lines that a scrape shows of `name`.
    pub(crate) fn series(&self, name: &str) -> Vec<String> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let of_name = text
            .lines()
            .filter(|line| line.starts_with(&format!("{name}{{")));
        of_name.map(str::to_owned).collect()
    }
}

// === impl Discovery ===

impl Discovery {
    fn new() -> Self {
        Self {
            workloads: Mutex::default(),
            routes: Mutex::default(),
            services: Mutex::default(),
            policies: Mutex::default(),
            changes: watch::channel(0).0,
        }
    }

    /// Replaces a workload.
    pub(crate) fn update(&self, workload: Workload) {
        let mut workloads = self.workloads.lock();
        workloads.retain(|known| known.uid != workload.uid);
        workloads.push(Arc::new(workload));
    }

    /// Forgets all workloads.
    pub(crate) fn forget(&self) {
        self.workloads.lock().clear();
    }

    pub(crate) fn add_service(&self, service: &Arc<ServiceRef>) {
        let key = NamespacedHostname {
            namespace: service.namespace.clone(),
            hostname: service.hostname.clone(),
        };
        self.services.lock().insert(key, service.clone());
    }

    pub(crate) fn route(&self, destination: SocketAddr, route: Result<Route, RouteError>) {
        self.routes.lock().insert(destination, route);
    }

    /// Replaces all policies, as one change.
    pub(crate) fn policies(&self, policies: Vec<Authorization>) {
        *self.policies.lock() = policies;
        self.changes.send_modify(|generation| *generation += 1);
    }
}

impl Discover for Discovery {
    fn workload_for<'a>(&'a self, pod: &'a PodInfo) -> BoxFuture<'a, Option<Arc<Workload>>> {
        let workloads = self.workloads.lock();
        let found = workloads
            .iter()
            .find(|w| w.name == pod.name && w.namespace == pod.namespace);
        Box::pin(std::future::ready(found.cloned()))
    }

    fn route(&self, _: &Workload, destination: SocketAddr) -> Result<Route, RouteError> {
        let known = self.routes.lock().get(&destination).cloned();
        known.unwrap_or(Ok(Route::Passthrough {
            target: destination,
            service: None,
        }))
    }

    fn workload_at(&self, _: &str, ip: IpAddr) -> Option<Arc<Workload>> {
        let workloads = self.workloads.lock();
        workloads
            .iter()
            .find(|workload| workload.addresses.contains(&ip))
            .cloned()
    }

    fn service(&self, key: &NamespacedHostname) -> Option<Arc<ServiceRef>> {
        self.services.lock().get(key).cloned()
    }

    fn inbound_target(
        &self,
        local: &Workload,
        authority: &Authority,
        accepted: SocketAddr,
    ) -> Result<InboundTarget, InboundError> {
        let asked = match authority {
            Authority::Address(asked) if asked.ip() == accepted.ip() => *asked,
            Authority::Address(asked) => {
                return Err(InboundError::IpMismatch {
                    asked: *asked,
                    actual: accepted.ip(),
                });
            }
            Authority::Hostname(host, _) => {
                return Err(InboundError::UnknownHost { host: host.clone() });
            }
        };
        if asked.port() == 15001 {
            return Err(InboundError::SelfCall { port: asked.port() });
        }
        let port = local.application_tunnel.and_then(|tunnel| tunnel.port);
        Ok(InboundTarget {
            upstream: SocketAddr::new(asked.ip(), port.unwrap_or_else(|| asked.port())),
            policy_destination: asked,
            tunnel: local.application_tunnel,
            service: None,
        })
    }

    fn authorize(&self, local: &Workload, connection: &rbac::Connection) -> Decision {
        let policies = self.policies.lock();
        let compiled = policies
            .iter()
            .map(|policy| Arc::new(CompiledPolicy::compile(policy)));
        let known = |key: &Arc<str>| policies.iter().any(|policy| policy.key() == *key);
        let named = local.authorization_policies.iter();
        let unknown = named.filter(|key| !known(key)).cloned();
        PolicySet::new(compiled)
            .with_unknown(unknown)
            .decide(connection)
    }

    fn policy_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

// === impl Authorities ===

impl Authorities {
    fn new() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self {
            issuer: Issuer::self_signed("cluster.local", day).unwrap(),
            issued: Mutex::default(),
            silent: AtomicBool::new(false),
        }
    }

    pub(crate) fn issue(&self, identity: &Identity) -> Arc<WorkloadCertificate> {
        let mut issued = self.issued.lock();
        issued
            .entry(identity.clone())
            .or_insert_with(|| self.make(identity))
            .clone()
    }

    fn make(&self, identity: &Identity) -> Arc<WorkloadCertificate> {
        let key = PrivateKey::generate().unwrap();
        let request = key.certificate_request(identity).unwrap();
        let answer = self
            .issuer
            .sign(&request, identity, Duration::from_secs(3600))
            .unwrap();
        let answer = Answer::parse(&answer).unwrap();
        let settings = tls::Settings::default();
        Arc::new(WorkloadCertificate::try_new(identity.clone(), &key, answer, &settings).unwrap())
    }
}

impl Certs for Authorities {
    fn certificate<'a>(
        &'a self,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<Arc<WorkloadCertificate>, CertificateError>> {
        if self.silent.load(Ordering::Relaxed) {
            return Box::pin(std::future::pending());
        }
        Box::pin(std::future::ready(Ok(self.issue(identity))))
    }
}

// === impl Pod ===

impl Pod {
    pub(crate) fn identity(&self) -> Identity {
        self.workload.identity().unwrap()
    }

    /// A listener of the application in the pod.
    pub(crate) async fn listen(&self) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((self.address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An application that answers what it reads, and says who its clients are.
    pub(crate) async fn echo(&self) -> (SocketAddr, mpsc::UnboundedReceiver<SocketAddr>) {
        let (listener, address) = self.listen().await;
        let (sender, clients) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, client)) = listener.accept().await {
                let _ = sender.send(client);
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    drop(tokio::io::copy(&mut read, &mut write).await);
                    drop(write.shutdown().await);
                });
            }
        });
        (address, clients)
    }

    /// Connects as the application in the pod does, through its proxy.
    pub(crate) async fn dial(&self, destination: SocketAddr) -> TcpStream {
        self.redirected(self.proxy.outbound, self.address, destination)
            .await
    }

    /// Connects to the pod without a tunnel, from the address `client`.
    pub(crate) async fn dial_plain(&self, client: IpAddr, destination: SocketAddr) -> TcpStream {
        self.redirected(self.proxy.inbound, client, destination)
            .await
    }

    async fn redirected(
        &self,
        proxy: SocketAddr,
        client: IpAddr,
        destination: SocketAddr,
    ) -> TcpStream {
        let socket = mk_socket(client).unwrap();
        let local = socket.local_addr().unwrap();
        self.sockets.destinations.lock().insert(local, destination);
        socket.connect(proxy).await.unwrap()
    }

    /// The route to `target`, an address of this pod, as discovery would give it.
    pub(crate) fn tunnel_route(
        &self,
        target: SocketAddr,
        service: Option<Arc<ServiceRef>>,
    ) -> Route {
        Route::Hbone {
            workload: self.workload.clone(),
            waypoint: false,
            gateway: self.proxy.hbone,
            authority: target,
            expected: [self.identity()].into(),
            service,
        }
    }
}

// === impl Sockets ===

impl SocketFactory for Sockets {
    fn listen_tcp(&self, _: SocketAddr) -> io::Result<TcpListener> {
        mk_socket(self.address)?.listen(1024)
    }

    fn original_destination(&self, accepted: &TcpStream) -> io::Result<SocketAddr> {
        let client = accepted.peer_addr()?;
        match self.destinations.lock().get(&client) {
            Some(destination) => Ok(*destination),
            None => original_destination(accepted),
        }
    }

    fn connect_socket(&self, _: bool, source: Option<SocketAddr>) -> io::Result<TcpSocket> {
        mk_socket(source.map_or(self.address, |source| source.ip()))
    }

    fn bind_udp(&self, _: SocketAddr) -> io::Result<UdpSocket> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn owns(&self, address: SocketAddr) -> io::Result<bool> {
        Ok(address.ip() == self.address)
    }
}

// === impl Log ===

impl Log {
    async fn find(&mut self, texts: &[&str]) -> String {
        let wanted = |line: &String| texts.iter().all(|text| line.contains(text));
        loop {
            if let Some(index) = self.unread.iter().position(wanted) {
                return self.unread.remove(index);
            }
            let line = self.lines.recv().await;
            self.unread
                .push(line.expect("the subscriber outlives the test"));
        }
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for line in String::from_utf8_lossy(bytes).lines() {
            // Nobody reads any more when the test is over.
            drop(self.0.send(line.to_owned()));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn mk_socket(address: IpAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind(SocketAddr::new(address, 0))?;
    Ok(socket)
}

fn mk_workload(name: &str, address: IpAddr) -> Workload {
    Workload {
        name: format!("{name}-pod").into(),
        namespace: "default".into(),
        service_account: name.into(),
        addresses: vec![address],
        protocol: TunnelProtocol::Hbone,
        canonical_name: name.into(),
        canonical_revision: "v1".into(),
        workload_name: format!("{name}-deployment").into(),
        ..Workload::with_uid(format!("Kubernetes//Pod/default/{name}-pod"))
    }
}

/// A loopback address that no other pod of this process has; one of another process only by an unlikely
/// accident.
pub(crate) fn free_address() -> IpAddr {
    /// From 127.1.0.0 on, so that nobody has it who has 127.0.0.1.
    const FIRST: u32 = 0x7f01_0000;
    const COUNT: u32 = 0x00fd_0000;
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(fastrand::u32(..)));
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::from(FIRST + number % COUNT).into()
}

/// A policy whose one match is `matches`.
pub(crate) fn mk_policy(name: &str, action: Action, matches: Match) -> Authorization {
    Authorization {
        name: name.into(),
        namespace: "default".into(),
        scope: PolicyScope::Namespace,
        action,
        rules: vec![Rule {
            clauses: vec![Clause {
                matches: vec![matches],
            }],
        }],
        dry_run: false,
    }
}

/// Sends `text` and reads it back.
pub(crate) async fn exchange(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    let mut answer = vec![0; text.len()];
    timeout(DEADLINE, stream.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer, text);
}

/// Reads until the peer closes or resets the connection; what came before that.
pub(crate) async fn read_out(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    match timeout(DEADLINE, stream.read_to_end(&mut read))
        .await
        .expect("the peer closes")
    {
        Ok(_) => read,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => read,
        Err(error) => panic!("{error}"),
    }
}
