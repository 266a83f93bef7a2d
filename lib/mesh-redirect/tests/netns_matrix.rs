//! Who answers whom: what the rules are for, seen from the outside. Real listeners and real connections,
//! for every backend and both families.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "support/engine.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod engine;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use mesh_redirect::{
    Families, Family, Options, PolicyRoute,
    contract::{
        DNS_CAPTURE_PORT, INBOUND_HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT, PROXY_MARK,
    },
    in_pod,
};
use serde_json::{Value, json};
use testkit_net::{
    Namespace, eventually,
    namespace::{Run, connect},
    tcp::{self, Behaviour, Dial},
    udp,
};
use tokio::{net::UdpSocket, time::timeout};

use crate::engine::{Engine, snapshot};

/// The application's port.
const APP: u16 = 8080;

/// The pod's interface to its guest: the last of those that the options name.
const GUEST: &str = "fake1s0f1";

/// A host on the other side, a pod, and a guest behind the pod, each with a cable to the next.
struct Network {
    host: Namespace,
    pod: Namespace,
    guest: Namespace,
    tcp_servers: Vec<tcp::Server>,
    udp_servers: Vec<udp::Server>,
}

/// One attempt to reach something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// The host connects to the pod's port.
    HostToPod(u16),
    /// A health probe does, to the application's.
    ProbeToPod,
    /// A guest behind the pod connects to the world.
    GuestToWorld,
    /// The application connects to the world's port.
    PodToWorld(u16),
    /// The application asks the world over UDP.
    PodToWorldUdp,
    /// The application connects to where probes come from.
    PodToProbes,
    /// The application connects to itself, under this name.
    PodToItself(Itself, u16),
    /// The application asks a resolver in the pod over UDP.
    PodToItselfUdp(Itself),
    /// The proxy connects to the world.
    ProxyToWorld(u16),
    /// The proxy asks the world over UDP, from the port that a captured query of the application had.
    ProxyToWorldUdpFromUsedPort,
    /// The proxy connects to the application under its own address.
    ProxyToApp,
    /// The proxy connects to the application under the host's address.
    ProxyToAppAsClient,
    /// As before, with other bits of the mark set: those belong to others, and do not matter.
    ProxyWithMoreBitsToWorld,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Itself {
    /// 127.0.0.1 or ::1.
    Loopback,
    /// The address others know.
    OwnAddress,
    /// 127.0.0.2, which IPv6 has no counterpart of.
    OtherLoopback,
}

/// The column of a situation.
type Column = fn(&Row) -> &'static str;

/// Who answers in which situation. `-` is nobody.
struct Row {
    flow: Flow,
    none: &'static str,
    default: &'static str,
    no_dns: &'static str,
    ingress: &'static str,
    guests: &'static str,
    ingress_and_guests: &'static str,
}

const fn row(flow: Flow, answers: [&'static str; 6]) -> Row {
    let [none, default, no_dns, ingress, guests, ingress_and_guests] = answers;
    Row {
        flow,
        none,
        default,
        no_dns,
        ingress,
        guests,
        ingress_and_guests,
    }
}

use Flow::{
    GuestToWorld, HostToPod, PodToItself, PodToItselfUdp, PodToProbes, PodToWorld, PodToWorldUdp,
    ProbeToPod, ProxyToApp, ProxyToAppAsClient, ProxyToWorld, ProxyToWorldUdpFromUsedPort,
    ProxyWithMoreBitsToWorld,
};
use Itself::{Loopback, OtherLoopback, OwnAddress};

#[rustfmt::skip]
const MATRIX: &[Row] = &[
    //                                       no rules  default  no DNS   ingress  guests   ingress and guests
    row(HostToPod(APP),                     ["app",   "15006", "15006", "app",   "15006",  "app"]),
    row(HostToPod(15001),                   ["15001", "15006", "15006", "15001", "15006",  "15001"]),
    row(HostToPod(INBOUND_HBONE_PORT),      ["15008", "15008", "15008", "15008", "15008",  "15008"]),
    row(HostToPod(53),                      ["dns",   "15006", "15006", "dns",   "15006",  "dns"]),
    row(ProbeToPod,                         ["app",   "app",   "app",   "app",   "app",    "app"]),
    row(GuestToWorld,                       ["world", "15006", "15006", "world", "15001",  "15001"]),
    row(PodToWorld(80),                     ["world", "15001", "15001", "15001", "15001",  "15001"]),
    row(PodToWorld(15008),                  ["world", "15001", "15001", "15001", "15001",  "15001"]),
    row(PodToWorld(53),                     ["world", "15053", "15001", "15053", "15053",  "15053"]),
    row(PodToWorldUdp,                      ["world", "15053", "world", "15053", "15053",  "15053"]),
    row(PodToProbes,                        ["world", "world", "world", "world", "world",  "world"]),
    row(PodToItself(Loopback, APP),         ["app",   "app",   "app",   "app",   "app",    "app"]),
    row(PodToItself(Loopback, 53),          ["dns",   "dns",   "dns",   "dns",   "dns",    "dns"]),
    row(PodToItself(OtherLoopback, APP),    ["app",   "app",   "app",   "app",   "app",    "app"]),
    row(PodToItself(OwnAddress, APP),       ["app",   "app",   "app",   "app",   "app",    "app"]),
    row(PodToItself(OwnAddress, 53),        ["dns",   "15053", "dns",   "15053", "15053",  "15053"]),
    row(PodToItselfUdp(Loopback),           ["dns",   "dns",   "dns",   "dns",   "dns",    "dns"]),
    row(PodToItselfUdp(OwnAddress),         ["dns",   "dns",   "dns",   "dns",   "dns",    "dns"]),
    row(ProxyToWorld(80),                   ["world", "world", "world", "world", "world",  "world"]),
    row(ProxyToWorld(53),                   ["world", "world", "world", "world", "world",  "world"]),
    row(ProxyWithMoreBitsToWorld,           ["world", "world", "world", "world", "world",  "world"]),
    row(ProxyToWorldUdpFromUsedPort,        ["world", "world", "world", "world", "world",  "world"]),
    row(ProxyToApp,                         ["app",   "app",   "app",   "app",   "app",    "app"]),
    row(ProxyToAppAsClient,                 ["-",     "app",   "app",   "app",   "app",    "app"]),
];

impl Row {
    /// The answer where DNS is not captured, if this is the one where it is.
    fn without_dns(&self, answer: &'static str) -> &'static str {
        if answer == "15053" {
            self.no_dns
        } else {
            answer
        }
    }
}

/// The situations other than "no rules". Names with an underscore, and `default` and `ingress`, are those of
/// the cases in Istio's tests, which capture IPv4 alone; see [`variants`].
fn situations() -> [(&'static str, Options, Column); 9] {
    let options = |dns_capture, ingress_mode, guests: bool| {
        let interfaces = ["fake1s0f0", "fake1s0f1"].map(|name| name.parse().unwrap());
        Options {
            dns_capture,
            ingress_mode,
            virtual_interfaces: interfaces.into_iter().filter(|_| guests).collect(),
            ..Options::default()
        }
    };
    [
        ("default", options(true, false, false), |row| row.default),
        ("ingress", options(false, true, false), |row| {
            row.without_dns(row.ingress)
        }),
        ("virtual_interfaces", options(false, false, true), |row| {
            row.without_dns(row.guests)
        }),
        (
            "ingress_and_virtual_interfaces",
            options(false, true, true),
            |row| row.without_dns(row.ingress_and_guests),
        ),
        (
            "dns_pod_enabled_and_off_globally",
            options(true, false, false),
            |row| row.default,
        ),
        (
            "dns_pod_disabled_and_on_globally",
            options(false, false, false),
            |row| row.no_dns,
        ),
        ("ingress with DNS", options(true, true, false), |row| {
            row.ingress
        }),
        ("guests with DNS", options(true, false, true), |row| {
            row.guests
        }),
        (
            "ingress and guests with DNS",
            options(true, true, true),
            |row| row.ingress_and_guests,
        ),
    ]
}

/// Each situation with IPv4 alone, and with IPv6 too, whose name ends in `_ipv6`.
fn variants() -> Vec<(String, Options, Column)> {
    let families = [(Families::Only(Family::V4), ""), (Families::Dual, "_ipv6")];
    let each = situations().into_iter().flat_map(|situation| {
        families.map(|(families, suffix)| {
            let (name, options, expected) = situation.clone();
            let options = Options {
                families,
                ..options
            };
            (format!("{name}{suffix}"), options, expected)
        })
    });
    each.collect()
}

/// The agent's tests hold that it makes these options of its settings and a pod's annotations. The two
/// cases that are missing, `hostprobe` and `hostprobe_ipv6`, are about the node: the agent's tests of the
/// probe set hold them.
#[test]
fn the_cases_of_istios_tests_are_among_the_variants() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("cases.json")).unwrap();
    assert_eq!(cases.len(), 6);
    let variants = variants();
    for (case, suffix) in cases.iter().flat_map(|case| [(case, ""), (case, "_ipv6")]) {
        let name = format!("{}{suffix}", case["name"].as_str().unwrap());
        let found = variants.iter().find(|(variant, ..)| *variant == name);
        let (_, options, _) = found.unwrap_or_else(|| panic!("{name} is not tried"));
        let interfaces = options.virtual_interfaces.iter().map(ToString::to_string);
        let interfaces: Vec<_> = interfaces.collect();
        let tried = json!({
            "dnsCapture": options.dns_capture,
            "ingressMode": options.ingress_mode,
            "virtualInterfaces": interfaces,
        });
        assert_eq!(tried, case["options"], "{name}");
        let both = options.families == Families::Dual;
        assert_eq!(both, suffix == "_ipv6", "{name}");
    }
}

#[tokio::test]
async fn netlink_rules_send_each_flow_where_it_belongs() {
    every_flow_goes_where_it_belongs(Engine::Netlink).await;
}

#[tokio::test]
async fn iptables_nft_rules_send_each_flow_where_it_belongs() {
    every_flow_goes_where_it_belongs(Engine::IptablesNft).await;
}

#[tokio::test]
async fn iptables_legacy_rules_send_each_flow_where_it_belongs() {
    every_flow_goes_where_it_belongs(Engine::IptablesLegacy).await;
}

#[tokio::test]
async fn family_that_is_not_captured_is_left_alone() {
    // IPv6 is left alone in all situations; see below.
    for engine in Engine::IN_USE {
        let network = Network::new();
        let options = Options {
            families: Families::Only(Family::V6),
            ..Options::default()
        };
        network.enrol(engine, &options);
        network
            .check(&format!("{engine}, captured"), Family::V6, |row| {
                row.default
            })
            .await;
        network
            .check(&format!("{engine}, other family"), Family::V4, |row| {
                row.none
            })
            .await;
    }
}

async fn every_flow_goes_where_it_belongs(engine: Engine) {
    let network = Network::new();
    for family in Family::ALL {
        network.check("before", family, |row| row.none).await;
    }
    if engine == Engine::IptablesLegacy {
        // Its tables are listed from their first use, and for good.
        network.enrol(engine, &Options::default());
        network.withdraw(engine);
    }
    let before = snapshot(&network.pod);
    for (situation, options, expected) in variants() {
        network.enrol(engine, &options);
        for family in Family::ALL {
            let captured = options.families.contains(family);
            let expected = if captured {
                expected
            } else {
                |row: &Row| row.none
            };
            network
                .check(&format!("{engine}, {situation}"), family, expected)
                .await;
        }
        network.withdraw(engine);
        assert_eq!(snapshot(&network.pod), before, "{engine}, {situation}");
        for family in Family::ALL {
            network
                .check(&format!("{engine}, after {situation}"), family, |row| {
                    row.none
                })
                .await;
        }
    }
}

// === impl Network ===

impl Network {
    fn new() -> Self {
        let run = Run::new();
        let [host, pod, guest] = ["host", "pod", "guest"].map(|name| run.namespace(name).unwrap());
        connect((&host, "pod"), (&pod, "eth0")).unwrap();
        connect((&pod, GUEST), (&guest, "eth0")).unwrap();
        host.ip_batch(
            "addr add 10.9.0.1/24 dev pod\naddr add fd09::1/64 dev pod nodad\n\
             addr add 192.0.2.1/32 dev lo\naddr add 2001:db8::1/128 dev lo nodad\n\
             addr add 169.254.7.127/32 dev lo\n\
             addr add fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128 dev lo nodad\n\
             route add 10.8.0.0/24 via 10.9.0.2\nroute add fd08::/64 via fd09::2\n",
        )
        .unwrap();
        pod.ip_batch(&format!(
            "addr add 10.9.0.2/24 dev eth0\naddr add fd09::2/64 dev eth0 nodad\n\
             addr add 10.8.0.1/24 dev {GUEST}\naddr add fd08::1/64 dev {GUEST} nodad\n\
             route add default via 10.9.0.1\nroute add default via fd09::1\n",
        ))
        .unwrap();
        guest
            .ip_batch(
                "addr add 10.8.0.2/24 dev eth0\naddr add fd08::2/64 dev eth0 nodad\n\
                 route add default via 10.8.0.1\nroute add default via fd08::1\n",
            )
            .unwrap();
        pod.set("net.ipv4.ip_forward", "1").unwrap();
        pod.set("net.ipv6.conf.all.forwarding", "1").unwrap();
        let mut network = Self {
            host,
            pod,
            guest,
            tcp_servers: Vec::new(),
            udp_servers: Vec::new(),
        };
        network.listen();
        network
    }

    fn listen(&mut self) {
        for any in ["0.0.0.0", "::"] {
            let any: IpAddr = any.parse().unwrap();
            let tcp = |namespace: &Namespace, port: u16, words: &str| {
                let words = Behaviour::Say(words.to_owned());
                tcp::Server::start(namespace, SocketAddr::new(any, port), words).unwrap()
            };
            self.tcp_servers.extend([
                tcp(&self.pod, APP, "app"),
                tcp(&self.pod, 53, "dns"),
                tcp(&self.pod, OUTBOUND_PORT, "15001"),
                tcp(&self.pod, INBOUND_PLAINTEXT_PORT, "15006"),
                tcp(&self.pod, INBOUND_HBONE_PORT, "15008"),
                tcp(&self.pod, DNS_CAPTURE_PORT, "15053"),
                tcp(&self.host, 53, "world"),
                tcp(&self.host, 80, "world"),
                tcp(&self.host, 15008, "world"),
            ]);
        }
        for own in ["127.0.0.1", "::1", "10.9.0.2", "fd09::2"] {
            let address = SocketAddr::new(own.parse().unwrap(), 53);
            self.udp_servers
                .push(udp::Server::start(&self.pod, address, "dns").unwrap());
        }
        for world in ["192.0.2.1", "2001:db8::1"] {
            let address = SocketAddr::new(world.parse().unwrap(), 53);
            self.udp_servers
                .push(udp::Server::start(&self.host, address, "world").unwrap());
        }
        // Redirected queries arrive at loopback, and the answer has to leave from there: an UDP socket on
        // the unspecified address would answer from the pod's own.
        for any in ["127.0.0.1", "::1"] {
            let address = SocketAddr::new(any.parse().unwrap(), DNS_CAPTURE_PORT);
            self.udp_servers
                .push(udp::Server::start(&self.pod, address, "15053").unwrap());
        }
    }

    fn enrol(&self, engine: Engine, options: &Options) {
        engine.apply(&self.pod, &in_pod(options));
        for route in PolicyRoute::for_families(options.families) {
            self.route(route, "add");
        }
    }

    fn withdraw(&self, engine: Engine) {
        engine.remove(&self.pod);
        for family in Family::ALL {
            self.route(PolicyRoute::of(family), "del");
        }
    }

    fn route(&self, route: PolicyRoute, verb: &str) {
        let PolicyRoute {
            family,
            mark,
            preference,
            table,
        } = route;
        let option = if family == Family::V4 { "-4" } else { "-6" };
        let destination = route.destination();
        for words in [
            format!("{option} rule {verb} fwmark {mark} pref {preference} lookup {table}"),
            format!("{option} route {verb} local {destination}/0 dev lo table {table}"),
        ] {
            // What is removed may be of a family that was not captured.
            let done = self.pod.ip(&words);
            assert!(done.is_ok() || verb == "del", "{done:?}");
        }
    }

    async fn check(&self, situation: &str, family: Family, expected: Column) {
        let mut wrong = Vec::new();
        for row in MATRIX {
            if row.flow == PodToItself(OtherLoopback, APP) && family == Family::V6 {
                continue;
            }
            let answer = self.attempt(row.flow, family, expected(row)).await;
            if answer != expected(row) {
                wrong.push(format!("{:?}: {answer}, not {}", row.flow, expected(row)));
            }
        }
        assert!(
            wrong.is_empty(),
            "{situation}, {family:?}:\n{}",
            wrong.join("\n")
        );
    }

    async fn attempt(&self, flow: Flow, family: Family, expected: &str) -> String {
        // That nobody answers cannot be waited for; a connection that works takes a millisecond.
        let patience = if expected == "-" { 150 } else { 5000 };
        match timeout(Duration::from_millis(patience), self.ask(flow, family)).await {
            Ok(Ok(words)) => words,
            Ok(Err(_)) | Err(_) => "-".to_owned(),
        }
    }

    async fn ask(&self, flow: Flow, family: Family) -> std::io::Result<String> {
        let at = |v4: &str, v6: &str, port| {
            let text = if family == Family::V4 { v4 } else { v6 };
            SocketAddr::new(text.parse().unwrap(), port)
        };
        let pod = |port| at("10.9.0.2", "fd09::2", port);
        let world = |port| at("192.0.2.1", "2001:db8::1", port);
        let client = at("10.9.0.1", "fd09::1", 0);
        let probe = at(
            "169.254.7.127",
            "fd16:9254:7127:1337:ffff:ffff:ffff:ffff",
            0,
        );
        let mark = PROXY_MARK.value;
        let itself = |itself, port| match itself {
            Loopback => SocketAddr::new(family.loopback(), port),
            OwnAddress => pod(port),
            OtherLoopback => at("127.0.0.2", "::1", port),
        };
        match flow {
            HostToPod(port) => Dial::to(pod(port)).ask(&self.host).await,
            ProbeToPod => Dial::to(pod(APP)).from(probe).ask(&self.host).await,
            GuestToWorld => Dial::to(world(80)).ask(&self.guest).await,
            PodToWorld(port) => Dial::to(world(port)).ask(&self.pod).await,
            PodToProbes => {
                Dial::to(SocketAddr::new(probe.ip(), 80))
                    .ask(&self.pod)
                    .await
            }
            PodToWorldUdp => udp::ask(&self.udp(pod(0), None), world(53)).await,
            PodToItself(name, port) => Dial::to(itself(name, port)).ask(&self.pod).await,
            PodToItselfUdp(name) => udp::ask(&self.udp(pod(0), None), itself(name, 53)).await,
            ProxyToWorld(port) => Dial::to(world(port)).marked(mark).ask(&self.pod).await,
            ProxyToWorldUdpFromUsedPort => {
                let used = self.udp(pod(0), None);
                udp::ask(&used, world(53)).await?;
                let port = used.local_addr()?.port();
                drop(used);
                udp::ask(&self.udp_again(pod(port), mark).await, world(53)).await
            }
            ProxyToApp => Dial::to(pod(APP)).marked(mark).ask(&self.pod).await,
            ProxyToAppAsClient => {
                Dial::to(pod(APP))
                    .marked(mark)
                    .impersonating(client)
                    .ask(&self.pod)
                    .await
            }
            ProxyWithMoreBitsToWorld => {
                Dial::to(world(80))
                    .marked(mark | 0xab_c000)
                    .ask(&self.pod)
                    .await
            }
        }
    }

    /// A program that another test is starting holds copies of all descriptors for a moment: the port is
    /// free when that one's are closed.
    async fn udp_again(&self, address: SocketAddr, mark: u32) -> UdpSocket {
        let mut socket = None;
        let bound = eventually("a free port", Duration::from_secs(5), || {
            socket = udp::bind(&self.pod, address, Some(mark)).ok();
            socket.is_some()
        });
        bound.await.unwrap();
        socket.unwrap()
    }

    fn udp(&self, address: SocketAddr, mark: Option<u32>) -> UdpSocket {
        udp::bind(&self.pod, address, mark).unwrap()
    }
}
