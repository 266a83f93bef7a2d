//! Sockets: where they are made, the options they carry, and the original destination of a
//! redirected one.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd as _},
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use crate::netns::NetNs;

/// The mark on every packet the proxy sends from a pod's namespace; the redirection rules match it
/// as `0x539/0xfff` and leave such packets alone. Contract with the CNI agent.
pub const PACKET_MARK: u32 = 1337;

/// Connections that the kernel may complete before we accept them.
///
/// The kernel lowers it to the namespace's `net.core.somaxconn`, 4096 since Linux 5.4. A backlog costs
/// memory only while it is used, whereas one that overflows drops the SYN, and the client waits a
/// second or more before it sends the next. A client that opens a thousand connections at once is
/// ordinary, and all of a pod's connections pass our listeners.
const BACKLOG: i32 = 4096;

/// Makes sockets, somewhere: on the host or inside a pod.
///
/// All sockets are non-blocking, close-on-exec and registered with the runtime of the caller, which
/// must be in the context of a tokio runtime.
pub trait SocketFactory: fmt::Debug + Send + Sync {
    /// A listener. `[::]` also accepts IPv4, and becomes `0.0.0.0` where IPv6 is switched off.
    ///
    /// What it accepts inherits its mark and TCP options, so nothing needs to be set per connection.
    fn listen_tcp(&self, address: SocketAddr) -> io::Result<TcpListener>;

    /// Where the client of a connection that such a listener accepted wanted to go: see
    /// [`original_destination`].
    fn original_destination(&self, accepted: &TcpStream) -> io::Result<SocketAddr> {
        original_destination(accepted)
    }

    /// A socket to connect from. With a `source`, the peer sees that address as the client's, though
    /// it is not ours: transparent mode, which needs `CAP_NET_ADMIN` and the policy route of
    /// [`crate::routing`] for the replies. Port 0 lets the kernel choose the port.
    fn connect_socket(&self, ipv6: bool, source: Option<SocketAddr>) -> io::Result<TcpSocket>;

    /// A UDP socket. `[::]` is treated as by [`listen_tcp`](Self::listen_tcp).
    fn bind_udp(&self, address: SocketAddr) -> io::Result<UdpSocket>;

    /// Whether `address`, whatever its port, is one of the place's own. A redirected connection need
    /// not have wanted to come here: rules also take what a neighbour sends for somebody else.
    fn owns(&self, address: SocketAddr) -> io::Result<bool>;
}

/// Sockets in the namespace of the process.
#[derive(Clone, Debug, Default)]
pub struct HostSockets {
    /// Options of TCP sockets.
    pub tcp: TcpOptions,
}

/// Sockets in the namespace of a pod.
#[derive(Clone, Debug)]
pub struct InPodSockets {
    /// The pod's namespace.
    pub netns: Arc<NetNs>,
    /// Mark of every packet sent, [`PACKET_MARK`] where rules redirect. Needs `CAP_NET_ADMIN`.
    pub mark: Option<u32>,
    /// Whether a second proxy may listen beside this one, so that an upgrade refuses no connection.
    /// Both must run under the same effective user.
    pub reuse_port: bool,
    /// Options of TCP sockets.
    pub tcp: TcpOptions,
}

/// Options of TCP sockets; small packets are always sent at once (`TCP_NODELAY`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// Probes on an idle connection.
    pub keepalive: Option<Keepalive>,
    /// Whether a connection whose data stays unacknowledged dies no later than an idle one would
    /// (`TCP_USER_TIMEOUT` set to [`Keepalive::patience`]). Without keepalive it has no effect.
    pub user_timeout: bool,
}

/// When an idle connection is probed, and when it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Time without traffic before the first probe; whole seconds.
    pub idle: Duration,
    /// Time between probes; whole seconds.
    pub interval: Duration,
    /// Unanswered probes before the connection is given up.
    pub retries: u32,
}

/// The step of making a socket that failed. Carried inside the [`io::Error`] that the factories return.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The kernel made no socket; usually no descriptor is left, or the family is switched off.
    #[error("create a socket")]
    Create(#[source] io::Error),
    /// An option was refused; the mark and transparent mode need `CAP_NET_ADMIN`.
    #[error("set {0} on a socket")]
    Option(&'static str, #[source] io::Error),
    /// The address is in use, or not ours.
    #[error("bind {0}")]
    Bind(SocketAddr, #[source] io::Error),
    /// The address is in use by a listener.
    #[error("listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The runtime cannot watch the socket.
    #[error("register a socket with the runtime")]
    Register(#[source] io::Error),
}

/// How sockets of one factory are made.
struct Recipe<'a> {
    netns: Option<&'a NetNs>,
    mark: Option<u32>,
    reuse_port: bool,
    tcp: TcpOptions,
}

// === impl TcpOptions ===

impl Default for TcpOptions {
    /// Keepalive as by default, no user timeout.
    fn default() -> Self {
        Self {
            keepalive: Some(Keepalive::default()),
            user_timeout: false,
        }
    }
}

impl TcpOptions {
    /// Sets the options on a socket that none of the factories made.
    pub fn apply(&self, socket: &impl AsFd) -> io::Result<()> {
        let socket = SockRef::from(socket);
        socket
            .set_tcp_nodelay(true)
            .map_err(|e| Error::Option("TCP_NODELAY", e))?;
        let Some(keepalive) = &self.keepalive else {
            return Ok(());
        };
        keepalive.apply(&*socket)?;
        if self.user_timeout {
            socket
                .set_tcp_user_timeout(Some(keepalive.patience()))
                .map_err(|e| Error::Option("TCP_USER_TIMEOUT", e))?;
        }
        Ok(())
    }
}

// === impl Keepalive ===

impl Default for Keepalive {
    /// 180 s, 180 s, 9: the values of Istio's ztunnel.
    fn default() -> Self {
        Self {
            idle: Duration::from_mins(3),
            interval: Duration::from_mins(3),
            retries: 9,
        }
    }
}

impl Keepalive {
    /// Switches the probes on.
    pub fn apply(&self, socket: &impl AsFd) -> io::Result<()> {
        let options = socket2::TcpKeepalive::new()
            .with_time(self.idle)
            .with_interval(self.interval)
            .with_retries(self.retries);
        SockRef::from(socket)
            .set_tcp_keepalive(&options)
            .map_err(|e| Error::Option("SO_KEEPALIVE", e).into())
    }

    /// The time after which a silent peer is given up.
    pub fn patience(&self) -> Duration {
        self.idle
            .saturating_add(self.interval.saturating_mul(self.retries))
    }
}

// === impl HostSockets ===

impl HostSockets {
    fn recipe(&self) -> Recipe<'_> {
        Recipe {
            netns: None,
            mark: None,
            reuse_port: false,
            tcp: self.tcp,
        }
    }
}

impl SocketFactory for HostSockets {
    fn listen_tcp(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.recipe().listen_tcp(address)
    }

    fn connect_socket(&self, ipv6: bool, source: Option<SocketAddr>) -> io::Result<TcpSocket> {
        self.recipe().connect_socket(ipv6, source)
    }

    fn bind_udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        self.recipe().bind_udp(address)
    }

    fn owns(&self, address: SocketAddr) -> io::Result<bool> {
        self.recipe().owns(address)
    }
}

// === impl InPodSockets ===

impl InPodSockets {
    /// Sockets in `netns` with the mark of the contract, and room for a second proxy beside this one.
    pub fn new(netns: Arc<NetNs>) -> Self {
        Self {
            netns,
            mark: Some(PACKET_MARK),
            reuse_port: true,
            tcp: TcpOptions::default(),
        }
    }

    fn recipe(&self) -> Recipe<'_> {
        Recipe {
            netns: Some(&self.netns),
            mark: self.mark,
            reuse_port: self.reuse_port,
            tcp: self.tcp,
        }
    }
}

impl SocketFactory for InPodSockets {
    fn listen_tcp(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.recipe().listen_tcp(address)
    }

    fn connect_socket(&self, ipv6: bool, source: Option<SocketAddr>) -> io::Result<TcpSocket> {
        self.recipe().connect_socket(ipv6, source)
    }

    fn bind_udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        self.recipe().bind_udp(address)
    }

    fn owns(&self, address: SocketAddr) -> io::Result<bool> {
        self.recipe().owns(address)
    }
}

// === impl Recipe ===

impl Recipe<'_> {
    fn listen_tcp(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let socket = self.bind_any(address, Type::STREAM)?;
        socket
            .listen(BACKLOG)
            .map_err(|e| Error::Listen(address, e))?;
        Ok(TcpListener::from_std(socket.into()).map_err(Error::Register)?)
    }

    fn connect_socket(&self, ipv6: bool, source: Option<SocketAddr>) -> io::Result<TcpSocket> {
        let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = self.create(domain, Type::STREAM)?;
        self.tcp.apply(&socket)?;
        if let Some(source) = source {
            set_transparent(&socket, ipv6)?;
            if source.port() == 0 {
                // The port is chosen at connect, when the kernel knows the destination: else all
                // connections of one client address would share one range of ports.
                set_bind_address_no_port(&socket)?;
            }
            socket
                .bind(&source.into())
                .map_err(|e| Error::Bind(source, e))?;
        }
        Ok(TcpSocket::from_std_stream(socket.into()))
    }

    fn bind_udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.bind_any(address, Type::DGRAM)?;
        Ok(UdpSocket::from_std(socket.into()).map_err(Error::Register)?)
    }

    /// Asks the kernel, which binds a socket that is not transparent to local addresses alone. To
    /// multicast and broadcast ones too, but no TCP connection ends there.
    fn owns(&self, mut address: SocketAddr) -> io::Result<bool> {
        address.set_port(0);
        let socket = self.create(Domain::for_address(address), Type::STREAM)?;
        match socket.bind(&address.into()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(false),
            Err(error) => Err(Error::Bind(address, error).into()),
        }
    }

    /// Binds, or binds the IPv4 wildcard where the IPv6 one was asked for and IPv6 is off.
    fn bind_any(&self, address: SocketAddr, kind: Type) -> io::Result<Socket> {
        let wildcard = address.is_ipv6() && address.ip().is_unspecified();
        match self.bind(address, kind) {
            Err(error) if wildcard && is_ipv6_off(&error) => {
                tracing::debug!(%address, "IPv6 is switched off here; listening on IPv4 alone");
                let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
                self.bind(v4, kind)
            }
            result => result,
        }
    }

    fn bind(&self, address: SocketAddr, kind: Type) -> io::Result<Socket> {
        let socket = self.create(Domain::for_address(address), kind)?;
        if address.is_ipv6() {
            // Set both ways, because the namespace's `net.ipv6.bindv6only` would decide otherwise.
            let only = !address.ip().is_unspecified();
            socket
                .set_only_v6(only)
                .map_err(|e| Error::Option("IPV6_V6ONLY", e))?;
        }
        if kind == Type::STREAM {
            self.tcp.apply(&socket)?;
            // A restarted proxy must not wait until the connections of the former one are forgotten.
            socket
                .set_reuse_address(true)
                .map_err(|e| Error::Option("SO_REUSEADDR", e))?;
        }
        if self.reuse_port {
            socket
                .set_reuse_port(true)
                .map_err(|e| Error::Option("SO_REUSEPORT", e))?;
        }
        socket
            .bind(&address.into())
            .map_err(|e| Error::Bind(address, e))?;
        Ok(socket)
    }

    fn create(&self, domain: Domain, kind: Type) -> io::Result<Socket> {
        let create = || Socket::new(domain, kind.nonblocking(), None);
        let socket = match self.netns {
            Some(netns) => netns.run(create)?,
            None => create(),
        }
        .map_err(Error::Create)?;
        if let Some(mark) = self.mark {
            set_mark(&socket, mark)?;
        }
        Ok(socket)
    }
}

// === impl Error ===

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Create(e)
            | Error::Option(_, e)
            | Error::Bind(_, e)
            | Error::Listen(_, e)
            | Error::Register(e) => e.kind(),
        };
        Self::new(kind, error)
    }
}

/// Where the client of an accepted connection wanted to go before the rules redirected it here.
///
/// A connection that nobody redirected wanted to come here. IPv4 addresses come as IPv4, also on a
/// socket that serves both families.
pub fn original_destination(socket: &impl AsFd) -> io::Result<SocketAddr> {
    let socket = SockRef::from(socket);
    let address = socket
        .original_dst_v4()
        .or_else(|_not_redirected| socket.original_dst_v6())
        .or_else(|_not_redirected| socket.local_addr())?;
    let address = address
        .as_socket()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not an IP socket"))?;
    Ok(canonical(address))
}

/// The same address, with an IPv4 address inside of IPv6 (`::ffff:10.0.0.1`) as IPv4.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
            SocketAddr::new(v6.ip().to_canonical(), v6.port())
        }
        // The flow label is no part of a destination; the scope is, for a link-local one.
        SocketAddr::V6(v6) => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
        v4 @ SocketAddr::V4(_) => v4,
    }
}

/// Marks every packet the socket sends. Needs `CAP_NET_ADMIN`.
pub fn set_mark(socket: &impl AsFd, mark: u32) -> io::Result<()> {
    SockRef::from(socket)
        .set_mark(mark)
        .map_err(|e| Error::Option("SO_MARK", e).into())
}

/// Lets the socket be bound to an address that is not ours. Needs `CAP_NET_ADMIN`.
pub fn set_transparent(socket: &impl AsFd, ipv6: bool) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if ipv6 {
        socket
            .set_ip_transparent_v6(true)
            .map_err(|e| Error::Option("IPV6_TRANSPARENT", e))?;
        socket
            .set_freebind_v6(true)
            .map_err(|e| Error::Option("IPV6_FREEBIND", e))?;
    } else {
        socket
            .set_ip_transparent_v4(true)
            .map_err(|e| Error::Option("IP_TRANSPARENT", e))?;
        socket
            .set_freebind_v4(true)
            .map_err(|e| Error::Option("IP_FREEBIND", e))?;
    }
    Ok(())
}

/// Leaves the choice of the port to `connect`. Works for both families.
fn set_bind_address_no_port(socket: &Socket) -> Result<(), Error> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or_default();
    // SAFETY: the descriptor is open while `socket` is borrowed; the kernel reads `length` bytes from
    // `on`, which is as long and outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            length,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(Error::Option(
            "IP_BIND_ADDRESS_NO_PORT",
            io::Error::last_os_error(),
        )),
    }
}

/// Whether an error says that the process or the host has no file descriptor left.
///
/// Such an error passes by itself when connections end: whoever accepts should wait a moment and go
/// on. Raising the limit ([`crate::limits`]) is the remedy.
pub fn is_descriptor_shortage(error: &io::Error) -> bool {
    matches!(os_error(error), Some(libc::EMFILE | libc::ENFILE))
}

/// IPv6 is not in the kernel, or switched off for the namespace.
fn is_ipv6_off(error: &io::Error) -> bool {
    matches!(
        os_error(error),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

/// The kernel's error number, also from below the context that the factories add.
fn os_error(error: &io::Error) -> Option<i32> {
    if let Some(code) = error.raw_os_error() {
        return Some(code);
    }
    let mut cause = error
        .get_ref()
        .and_then(|inner| std::error::Error::source(inner));
    while let Some(error) = cause {
        if let Some(code) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            return Some(code);
        }
        cause = error.source();
    }
    None
}
