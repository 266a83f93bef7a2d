//! What puts rules into the kernel, each as a test has to call it.

use std::fmt;

use mesh_redirect::{
    Backend, Families, Family, Options, RuleSet, Verdict,
    backend::{Command, Listed, Program},
    iptables,
    netlink::{self, Dump},
};
use testkit_net::{
    Namespace, filters,
    nfnetlink::{Socket, Survey},
};

/// A backend with the variant of its programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Netlink,
    Nft,
    IptablesNft,
    IptablesLegacy,
}

impl Engine {
    pub(crate) const ALL: [Self; 4] = [
        Self::Netlink,
        Self::Nft,
        Self::IptablesNft,
        Self::IptablesLegacy,
    ];

    /// Those that agents use. What `nft` loads is the same as what netlink loads, which a test holds; so it
    /// can be left out where every combination takes its time.
    pub(crate) const IN_USE: [Self; 3] = [Self::Netlink, Self::IptablesNft, Self::IptablesLegacy];

    pub(crate) fn apply(self, pod: &Namespace, rules: &RuleSet) {
        if self == Self::Netlink {
            let batch = netlink::apply(rules);
            return socket(pod).commit(&batch.to_bytes()).unwrap();
        }
        let commands = self.backend().apply(rules, &self.list(pod)).unwrap();
        self.run(pod, &commands);
    }

    pub(crate) fn remove(self, pod: &Namespace) {
        if self == Self::Netlink {
            let batch = netlink::remove();
            return socket(pod).commit(&batch.to_bytes()).unwrap();
        }
        let commands = self.backend().remove(&self.list(pod)).unwrap();
        self.run(pod, &commands);
        self.sweep(pod);
    }

    /// Removes what iptables itself keeps of tables that are empty.
    pub(crate) fn sweep(self, pod: &Namespace) {
        if self == Self::IptablesNft {
            let listing = pod.exec("nft", &["--json", "list", "ruleset"], "").unwrap();
            let script = iptables::remove_empty_tables(&listing).unwrap();
            pod.exec("nft", &["-f", "-"], &script).unwrap();
        }
    }

    pub(crate) fn compare(self, pod: &Namespace, rules: &RuleSet) -> Verdict {
        if self == Self::Netlink {
            return dump(pod).1.compare(rules);
        }
        self.backend().compare(rules, &self.list(pod)).unwrap()
    }

    /// Has the kernel check the input without applying it.
    pub(crate) fn check(self, pod: &Namespace, rules: &RuleSet) {
        if self == Self::Netlink {
            let batch = netlink::apply(rules);
            return socket(pod).commit(&batch.to_trial()).unwrap();
        }
        for command in self.backend().apply(rules, &self.list(pod)).unwrap() {
            let check = if self == Self::Nft {
                "--check"
            } else {
                "--test"
            };
            let arguments = [&[check], command.program.arguments()].concat();
            pod.exec(&self.program(command.program), &arguments, &command.input)
                .unwrap();
        }
    }

    fn backend(self) -> Backend {
        match self {
            Self::Netlink | Self::Nft => Backend::Nftables,
            Self::IptablesNft | Self::IptablesLegacy => Backend::Iptables,
        }
    }

    fn list(self, pod: &Namespace) -> Vec<Listed> {
        let run = |program: &Program| Listed {
            program: *program,
            output: pod
                .exec(&self.program(*program), program.arguments(), "")
                .unwrap(),
        };
        self.backend().listing().iter().map(run).collect()
    }

    fn run(self, pod: &Namespace, commands: &[Command]) {
        for Command { program, input } in commands {
            pod.exec(&self.program(*program), program.arguments(), input)
                .unwrap();
        }
    }

    fn program(self, program: Program) -> String {
        match self {
            Self::Netlink | Self::Nft => program.name().to_owned(),
            Self::IptablesNft => program.name().replace("tables-", "tables-nft-"),
            Self::IptablesLegacy => program.name().replace("tables-", "tables-legacy-"),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Netlink => "netlink",
            Self::Nft => "nft",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
        })
    }
}

/// A conversation about a pod's rules.
pub(crate) fn socket(pod: &Namespace) -> Socket {
    Socket::open(pod.handle()).unwrap()
}

/// What the kernel lists of a pod.
pub(crate) fn dump(pod: &Namespace) -> (Survey<()>, Dump) {
    let mut requests = netlink::requests();
    let first = survey(pod, &requests);
    let further = first.1.further_requests();
    if further.is_empty() {
        return first;
    }
    requests.extend(further);
    survey(pod, &requests)
}

fn survey(pod: &Namespace, requests: &[Vec<u8>]) -> (Survey<()>, Dump) {
    let told = socket(pod).survey(requests, Dump::of_pod, Dump::add);
    let Survey {
        generation,
        of,
        whole,
    } = told.unwrap();
    let told = Survey {
        generation,
        of: (),
        whole,
    };
    (told, of)
}

pub(crate) fn snapshot(pod: &Namespace) -> String {
    filters::snapshot(pod).unwrap()
}

/// Some that differ in everything.
pub(crate) fn few_variants() -> Vec<(String, Options)> {
    let chosen = [
        "dual-guests",
        "dual-no-dns-ingress",
        "ipv4",
        "ipv6-no-dns-guests",
    ];
    let mut variants = variants();
    variants.retain(|(name, _)| chosen.contains(&&**name));
    variants
}

/// Every combination of what a pod can be configured for, named.
pub(crate) fn variants() -> Vec<(String, Options)> {
    let mut variants = Vec::new();
    let families = [
        ("dual", Families::Dual),
        ("ipv4", Families::Only(Family::V4)),
        ("ipv6", Families::Only(Family::V6)),
    ];
    for (family, families) in families {
        for bits in 0..8 {
            let (no_dns, ingress, guests) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
            let interfaces = ["fake1s0f0", "fake1s0f1"].map(|name| name.parse().unwrap());
            let words = [(no_dns, "no-dns"), (ingress, "ingress"), (guests, "guests")];
            let words = words
                .into_iter()
                .filter(|(on, _)| *on)
                .map(|(_, word)| word);
            let name: Vec<_> = [family].into_iter().chain(words).collect();
            variants.push((
                name.join("-"),
                Options {
                    families,
                    dns_capture: !no_dns,
                    ingress_mode: ingress,
                    virtual_interfaces: if guests {
                        interfaces.to_vec()
                    } else {
                        Vec::new()
                    },
                    ..Options::default()
                },
            ));
        }
    }
    variants
}
