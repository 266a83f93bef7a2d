//! Sockets in real network namespaces.
#![expect(
    clippy::unwrap_used,
    reason = "what a test needs is there or the test fails"
)]

use std::{
    fs::File,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use mesh_net::{
    netns::{self, NetNs},
    socket::{
        HostSockets, InPodSockets, Keepalive, PACKET_MARK, SocketFactory, original_destination,
    },
};
use socket2::SockRef;
use testkit_net::Namespace;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Longer than any of this takes.
const DEADLINE: Duration = Duration::from_secs(10);

fn mk_sockets(namespace: &Namespace) -> InPodSockets {
    InPodSockets::new(namespace.handle().clone())
}

fn parse(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

async fn connect(sockets: impl SocketFactory, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = sockets.connect_socket(to.is_ipv6(), None)?;
    timeout(DEADLINE, socket.connect(to)).await.unwrap()
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    timeout(DEADLINE, listener.accept()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_listener_is_reachable_in_its_namespace_and_nowhere_else() {
    let (pod, other) = (
        Namespace::new("pod").unwrap(),
        Namespace::new("other").unwrap(),
    );
    let listener = mk_sockets(&pod).listen_tcp(parse("[::]:15001")).unwrap();
    for to in [parse("127.0.0.1:15001"), parse("[::1]:15001")] {
        let (client, (server, peer)) =
            tokio::join!(connect(mk_sockets(&pod), to), accept(&listener));
        assert_eq!(
            peer.ip().to_canonical(),
            to.ip(),
            "both families are served"
        );
        drop((client.unwrap(), server));
        let error = connect(mk_sockets(&other), to).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}

#[tokio::test]
async fn where_ipv6_is_off_the_wildcard_serves_ipv4() {
    let pod = Namespace::new("v4").unwrap();
    pod.set("net.ipv6.conf.all.disable_ipv6", "1").unwrap();
    let listener = mk_sockets(&pod).listen_tcp(parse("[::]:15001")).unwrap();
    let to = parse("127.0.0.1:15001");
    let (client, (server, _)) = tokio::join!(connect(mk_sockets(&pod), to), accept(&listener));
    client.unwrap();
    assert_eq!(original_destination(&server).unwrap(), to);
    mk_sockets(&pod).bind_udp(parse("[::]:15053")).unwrap();
}

#[tokio::test]
async fn every_socket_carries_the_mark_and_the_options() {
    let pod = Namespace::new("mark").unwrap();
    let sockets = mk_sockets(&pod);
    let listener = sockets.listen_tcp(parse("[::]:15008")).unwrap();
    let client = sockets.connect_socket(false, None).unwrap();
    let udp = sockets.bind_udp(parse("127.0.0.1:0")).unwrap();
    assert_eq!(SockRef::from(&udp).mark().unwrap(), PACKET_MARK);
    let (client, (accepted, _)) =
        tokio::join!(client.connect(parse("127.0.0.1:15008")), accept(&listener));
    for (name, socket) in [
        ("connected", SockRef::from(&client.unwrap())),
        ("accepted", SockRef::from(&accepted)),
    ] {
        let keepalive = Keepalive::default();
        assert_eq!(socket.mark().unwrap(), PACKET_MARK, "{name}");
        assert!(socket.tcp_nodelay().unwrap(), "{name}");
        assert!(socket.keepalive().unwrap(), "{name}");
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            keepalive.idle,
            "{name}"
        );
        assert_eq!(
            socket.tcp_keepalive_interval().unwrap(),
            keepalive.interval,
            "{name}"
        );
        assert_eq!(
            socket.tcp_keepalive_retries().unwrap(),
            keepalive.retries,
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_firewall_in_the_pod_sees_the_mark() {
    let pod = Namespace::new("seen").unwrap();
    let rules = "\
add table inet t
add chain inet t out { type filter hook output priority 0; }
add rule inet t out tcp flags & (syn | ack) == syn meta mark & 0xfff != 0x539 reject with tcp reset
";
    pod.exec("nft", &["-f", "-"], rules).unwrap();
    let sockets = mk_sockets(&pod);
    let listener = sockets.listen_tcp(parse("[::]:15008")).unwrap();
    let to = parse("127.0.0.1:15008");
    let (client, _accepted) = tokio::join!(connect(sockets.clone(), to), accept(&listener));
    client.unwrap();
    let unmarked = InPodSockets {
        mark: None,
        ..sockets
    };
    let error = connect(unmarked, to).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn the_original_destination_of_a_redirected_connection_is_known() {
    let pod = Namespace::new("redirect").unwrap();
    pod.ip("addr add 10.9.0.2/24 dev lo").unwrap();
    pod.ip("-6 addr add fd00:9::2/64 dev lo nodad").unwrap();
    let rules = "\
add table inet t
add chain inet t out { type nat hook output priority -100; }
add rule inet t out meta mark & 0xfff != 0x539 tcp dport 80 redirect to :15001
";
    pod.exec("nft", &["-f", "-"], rules).unwrap();
    let proxy = mk_sockets(&pod);
    let application = InPodSockets {
        mark: None,
        ..proxy.clone()
    };
    let listener = proxy.listen_tcp(parse("[::]:15001")).unwrap();
    for wanted in [
        "10.9.0.2:80",
        "10.9.0.77:80",
        "[fd00:9::2]:80",
        "10.9.0.2:15001",
        "[::1]:15001",
    ] {
        let wanted = parse(wanted);
        let (client, (accepted, _)) =
            tokio::join!(connect(application.clone(), wanted), accept(&listener));
        client.unwrap();
        assert_eq!(original_destination(&accepted).unwrap(), wanted);
    }
}

#[tokio::test]
async fn a_namespace_owns_its_addresses_and_no_others() {
    let pod = Namespace::new("owns").unwrap();
    pod.ip("addr add 10.9.0.2/24 dev lo").unwrap();
    pod.ip("-6 addr add fd00:9::2/64 dev lo nodad").unwrap();
    let sockets = mk_sockets(&pod);
    let _busy = sockets.listen_tcp(parse("10.9.0.2:80")).unwrap();
    for own in ["10.9.0.2:80", "[fd00:9::2]:80", "127.0.0.1:80"] {
        assert!(sockets.owns(parse(own)).unwrap(), "{own}");
    }
    for foreign in ["10.9.1.2:80", "[fd00:9::3]:80", "192.0.2.1:0"] {
        assert!(!sockets.owns(parse(foreign)).unwrap(), "{foreign}");
    }
    assert!(!HostSockets::default().owns(parse("192.0.2.1:0")).unwrap());
}

#[tokio::test]
async fn a_second_proxy_may_listen_beside_the_first_only_with_port_reuse() {
    let pod = Namespace::new("reuse").unwrap();
    let sharing = mk_sockets(&pod);
    let alone = InPodSockets {
        reuse_port: false,
        ..sharing.clone()
    };
    let address = parse("[::]:15008");
    let _first = sharing.listen_tcp(address).unwrap();
    let _second = sharing.listen_tcp(address).unwrap();
    let error = alone.listen_tcp(address).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("[::]:15008"), "{error}");
}

#[tokio::test]
async fn host_sockets_are_made_where_the_thread_is() {
    let listener = HostSockets::default().listen_tcp(parse("[::]:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port);
    let (client, (accepted, _)) =
        tokio::join!(connect(HostSockets::default(), to), accept(&listener));
    client.unwrap();
    assert_eq!(original_destination(&accepted).unwrap(), to);
    assert_eq!(SockRef::from(&accepted).mark().unwrap(), 0);
}

#[test]
fn the_thread_is_back_home_also_after_a_panic() {
    let home = NetNs::current().unwrap().id();
    let pod = Namespace::new("panic").unwrap();
    let netns = pod.handle();
    let inside = netns.run(|| NetNs::current().unwrap().id()).unwrap();
    assert_eq!(inside, netns.id());
    assert_ne!(inside, home);
    assert_eq!(NetNs::current().unwrap().id(), home);
    let panicked = catch_unwind(AssertUnwindSafe(|| netns.run(|| panic!("inside"))));
    panicked.unwrap_err();
    assert_eq!(NetNs::current().unwrap().id(), home);
}

#[test]
fn namespaces_nest() {
    let (a, b) = (Namespace::new("a").unwrap(), Namespace::new("b").unwrap());
    let here = || NetNs::current().unwrap().id();
    let (inner, outer) = a
        .handle()
        .run(|| (b.handle().run(here).unwrap(), here()))
        .unwrap();
    assert_eq!((inner, outer), (b.handle().id(), a.handle().id()));
}

#[test]
fn two_handles_of_one_namespace_are_the_same() {
    let pod = Namespace::new("same").unwrap();
    let again = NetNs::open(pod.path()).unwrap();
    assert_eq!(again.id(), pod.handle().id());
}

#[test]
fn a_descriptor_of_something_else_is_refused() {
    let others: [OwnedFd; 4] = [
        File::open("/dev/null").unwrap().into(),
        File::open("/proc/self/ns/uts").unwrap().into(),
        UdpSocket::bind("127.0.0.1:0").unwrap().into(),
        io::pipe().unwrap().0.into(),
    ];
    for (index, fd) in others.into_iter().enumerate() {
        let result = NetNs::from_fd(fd);
        assert!(
            matches!(result, Err(netns::Error::NotANetworkNamespace)),
            "{index}: {result:?}"
        );
    }
    let error = NetNs::open("/run/netns/no-such-pod").unwrap_err();
    assert_eq!(
        error.to_string(),
        "open network namespace /run/netns/no-such-pod"
    );
}

#[tokio::test]
async fn a_socket_keeps_its_namespace_alive() {
    let pod = Namespace::new("kept").unwrap();
    let sockets = mk_sockets(&pod);
    let listener = sockets.listen_tcp(parse("[::]:15008")).unwrap();
    let netns: Arc<NetNs> = pod.handle().clone();
    pod.remove().unwrap();
    drop(netns);
    let to = parse("127.0.0.1:15008");
    let (client, _accepted) = tokio::join!(connect(sockets.clone(), to), accept(&listener));
    client.unwrap();
}
