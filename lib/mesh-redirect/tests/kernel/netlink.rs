//! What netlink alone can do, and that it does what `nft` does.

use std::{collections::BTreeMap, net::IpAddr};

use mesh_redirect::{
    Families, Family, Options, RuleSet, Verdict, in_pod,
    netlink::{self, Batch, Cost, Members, members},
    on_host,
    options::ProbeAddresses,
};
use testkit_net::{Namespace, nfnetlink};

use crate::{
    FOREIGN_IPTABLES,
    engine::{Engine, dump, few_variants, snapshot, socket, variants},
    in_order,
};

fn host_rules() -> RuleSet {
    on_host(Families::Dual, &ProbeAddresses::default())
}

fn commit(pod: &Namespace, batch: &Batch) -> Result<(), nfnetlink::Error> {
    socket(pod).commit(&batch.to_bytes())
}

fn ruleset(pod: &Namespace) -> String {
    pod.exec("nft", &["--stateless", "list", "ruleset"], "")
        .unwrap()
}

fn held_members(pod: &Namespace) -> Members {
    let listed = socket(pod).snapshot(&members::requests()).unwrap();
    members::decode(&listed.bytes)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn nft_lists_the_same_whoever_loaded_the_rules() {
    let named = variants().into_iter();
    let all = named
        .map(|(name, options)| (name, in_pod(&options)))
        .chain([("host".to_owned(), host_rules())]);
    let [by_netlink, by_nft] = ["netlink", "nft"].map(|label| Namespace::new(label).unwrap());
    for (name, rules) in all {
        Engine::Netlink.apply(&by_netlink, &rules);
        Engine::Nft.apply(&by_nft, &rules);
        assert_eq!(ruleset(&by_netlink), ruleset(&by_nft), "{name}");
        // And what nft loaded has the very instructions.
        assert_eq!(
            Engine::Netlink.compare(&by_nft, &rules),
            Verdict::Same,
            "{name}"
        );
        assert_eq!(
            Engine::Nft.compare(&by_netlink, &rules),
            Verdict::Same,
            "{name}"
        );
    }
}

#[test]
fn one_refused_message_in_the_middle_changes_nothing_and_is_named() {
    let pod = Namespace::new("atomic").unwrap();
    Engine::Netlink.apply(&pod, &in_pod(&Options::default()));
    let before = snapshot(&pod);
    let batch = netlink::restore(&host_rules(), &Members::new());
    let mut bytes = batch.to_bytes();
    // The number of a hook that does not exist.
    let wrong = {
        let name = b"postrouting\0";
        let at = bytes.windows(name.len()).position(|w| w == name).unwrap();
        let hook = [8, 0, 1, 0, 0, 0, 0, 4];
        let found = bytes[at..].windows(hook.len()).position(|w| w == hook);
        at + found.unwrap() + hook.len() - 1
    };
    bytes[wrong] = 9;
    let refused = socket(&pod).commit(&bytes).unwrap_err();
    let nfnetlink::Error::Refused { sequence, .. } = refused else {
        panic!("{refused:?}");
    };
    let step = batch.step(sequence).unwrap();
    assert_eq!(step, "add chain inet istio-ambient-nat postrouting");
    assert_eq!(snapshot(&pod), before);
}

#[test]
fn a_trial_has_no_effect_and_finds_what_the_kernel_would_refuse() {
    let pod = Namespace::new("trial").unwrap();
    let before = snapshot(&pod);
    for rules in [in_pod(&Options::default()), host_rules()] {
        socket(&pod)
            .commit(&netlink::add(&rules).to_trial())
            .unwrap();
        assert_eq!(snapshot(&pod), before);
    }
    let batch = members::insert(address("10.0.0.1"), "");
    let refused = socket(&pod).commit(&batch.to_trial()).unwrap_err();
    assert!(refused.is_absent(), "{refused:?}");
}

#[test]
fn what_was_planned_on_older_rules_is_refused() {
    let pod = Namespace::new("stale").unwrap();
    let (listed, _) = dump(&pod);
    pod.exec("nft", &["-f", "-"], "add table inet other\n")
        .unwrap();
    let before = snapshot(&pod);
    let batch = netlink::apply(&in_pod(&Options::default()));
    let refused = commit(&pod, &batch.clone().at_generation(listed.generation)).unwrap_err();
    assert!(refused.is_stale(), "{refused:?}");
    assert_eq!(snapshot(&pod), before);
    let (listed, _) = dump(&pod);
    commit(&pod, &batch.at_generation(listed.generation)).unwrap();
}

/// A rule as nft lists it: its place, its handle, its text.
type Listed = (String, String, String);

fn listed_rules(pod: &Namespace) -> Vec<Listed> {
    let listing = pod
        .exec("nft", &["-s", "-a", "list", "ruleset"], "")
        .unwrap();
    let (mut table, mut chain, mut rules) = (String::new(), String::new(), Vec::new());
    for line in listing.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["table", family, name, ..] => table = format!("{family} {name}"),
            ["chain", name, ..] => (*name).clone_into(&mut chain),
            [text @ .., "#", "handle", handle] => {
                rules.push((
                    format!("{table} {chain}"),
                    (*handle).to_owned(),
                    text.join(" "),
                ));
            }
            _ => {}
        }
    }
    rules
}

#[test]
fn every_rule_that_is_missing_doubled_or_changed_is_noticed() {
    let pod = Namespace::new("each").unwrap();
    let rules = in_pod(&Options {
        families: Families::Only(Family::V4),
        virtual_interfaces: vec!["tap0".parse().unwrap()],
        ..Options::default()
    });
    let count: usize = rules
        .chains()
        .iter()
        .map(|chain| chain.rules.len() + 1)
        .sum();
    let tamperings: [fn(&Listed) -> String; 4] = [
        |(place, handle, _)| format!("delete rule {place} handle {handle}"),
        |(place, _, text)| format!("insert rule {place} {text}"),
        |(place, handle, text)| {
            format!("replace rule {place} handle {handle} meta length 100 {text}")
        },
        |(place, handle, text)| {
            let (without_verdict, _) = text.rsplit_once("counter").unwrap();
            format!("replace rule {place} handle {handle} {without_verdict} counter drop")
        },
    ];
    for index in 0..count {
        for tampering in tamperings {
            Engine::Netlink.apply(&pod, &rules);
            let listed = listed_rules(&pod);
            assert_eq!(listed.len(), count);
            let script = tampering(&listed[index]);
            pod.exec("nft", &["-f", "-"], &script).unwrap();
            let verdict = Engine::Netlink.compare(&pod, &rules);
            assert!(
                matches!(verdict, Verdict::Differs(_)),
                "{script}: {verdict:?}"
            );
        }
    }
}

#[test]
fn everything_else_that_is_changed_or_added_is_noticed() {
    let pod = Namespace::new("else").unwrap();
    let rules = in_pod(&Options::default());
    let nat = "inet istio-ambient-nat";
    let replaced = |chain: &str| {
        format!(
            "flush chain {nat} output; delete chain {nat} output; add chain {nat} output {{ {chain} }}; \
             add rule {nat} output counter jump istio-output"
        )
    };
    for tampering in [
        format!("add table {nat} {{ flags dormant; }}"),
        format!("add chain {nat} output {{ policy drop; }}"),
        format!("delete table {nat}"),
        format!("add chain {nat} more"),
        format!("add chain {nat} more {{ type filter hook input priority 0; policy drop; }}"),
        format!("add set {nat} more {{ type ipv4_addr; }}"),
        format!("add map {nat} more {{ type ipv4_addr : verdict; }}"),
        format!("add counter {nat} more"),
        format!("add rule {nat} output accept"),
        format!("flush chain {nat} output"),
        replaced("type nat hook output priority -99; policy accept;"),
        replaced("type nat hook prerouting priority -100; policy accept;"),
        replaced(""),
        format!("flush chain {nat} output; delete chain {nat} output"),
    ] {
        Engine::Netlink.apply(&pod, &rules);
        pod.exec("nft", &["-f", "-"], &tampering).unwrap();
        let verdict = Engine::Netlink.compare(&pod, &rules);
        assert!(
            matches!(verdict, Verdict::Differs(_)),
            "{tampering}: {verdict:?}"
        );
    }
    Engine::Netlink.apply(&pod, &rules);
    assert_eq!(Engine::Netlink.compare(&pod, &rules), Verdict::Same);
}

#[test]
fn what_iptables_left_goes_in_the_transaction_that_takes_its_place() {
    for foreign in [false, true] {
        let [fresh, pod] = ["fresh", "left"].map(|label| Namespace::new(label).unwrap());
        for namespace in [&fresh, &pod] {
            if foreign {
                for tool in ["iptables-nft-restore", "ip6tables-nft-restore"] {
                    namespace
                        .exec(tool, &["--noflush"], FOREIGN_IPTABLES)
                        .unwrap();
                }
            }
        }
        for (name, options) in few_variants() {
            let rules = in_pod(&options);
            Engine::Netlink.apply(&fresh, &rules);
            Engine::IptablesNft.apply(&pod, &rules);
            if foreign && options.families.contains(Family::V4) {
                // A jump that we did not make keeps no chain.
                let jump = ["-t", "nat", "-I", "MINE", "-p", "tcp", "-j", "ISTIO_PRERT"];
                pod.exec("iptables-nft", &jump, "").unwrap();
            }
            let (listed, left) = dump(&pod);
            assert!(
                matches!(left.compare(&rules), Verdict::Differs(_)),
                "{name}"
            );
            let mut batch = netlink::apply(&rules);
            left.remove_leftovers(&mut batch);
            commit(&pod, &batch.at_generation(listed.generation)).unwrap();
            assert_eq!(dump(&pod).1.compare(&rules), Verdict::Same, "{name}");
            assert_eq!(
                in_order(&snapshot(&pod)),
                in_order(&snapshot(&fresh)),
                "{name}"
            );
            Engine::Netlink.remove(&pod);
        }
    }
}

#[test]
fn members_have_the_comments_that_nft_shows() {
    let node = Namespace::new("members").unwrap();
    Engine::Netlink.apply(&node, &host_rules());
    let long = "u".repeat(members::COMMENT_LIMIT);
    let wanted: Members = [("10.0.0.1", "uid-1"), ("10.0.0.2", ""), ("fd00::1", &long)]
        .map(|(ip, uid)| (address(ip), uid.to_owned()))
        .into();
    for (ip, uid) in &wanted {
        commit(&node, &members::insert(*ip, uid)).unwrap();
    }
    assert_eq!(held_members(&node), wanted);
    let listing = ruleset(&node);
    for shown in [
        "10.0.0.1 comment \"uid-1\"",
        "10.0.0.2",
        &format!("fd00::1 comment \"{long}\""),
    ] {
        assert!(listing.contains(shown), "{shown} is not in {listing}");
    }
    assert_eq!(Engine::Netlink.compare(&node, &host_rules()), Verdict::Same);
    assert_eq!(Engine::Nft.compare(&node, &host_rules()), Verdict::Same);
}

#[test]
fn members_that_nft_added_are_read() {
    let node = Namespace::new("added").unwrap();
    Engine::Nft.apply(&node, &host_rules());
    let add =
        "add element inet istio-ambient-nat istio-inpod-probes-v4 { 10.0.0.9 comment \"by-nft\" }";
    node.exec("nft", &["-f", "-"], add).unwrap();
    let expected = BTreeMap::from([(address("10.0.0.9"), "by-nft".to_owned())]);
    assert_eq!(held_members(&node), expected);
}

#[test]
fn a_member_gets_the_comment_of_the_last_who_inserted_it() {
    let node = Namespace::new("last").unwrap();
    Engine::Netlink.apply(&node, &host_rules());
    for ip in ["10.0.0.1", "fd00::1"] {
        let ip = address(ip);
        for uid in ["a", "b", "b", "c"] {
            commit(&node, &members::insert(ip, uid)).unwrap();
            assert_eq!(held_members(&node).get(&ip).map(String::as_str), Some(uid));
        }
        commit(&node, &members::remove(ip)).unwrap();
        assert_eq!(held_members(&node).get(&ip), None);
        let refused = commit(&node, &members::remove(ip)).unwrap_err();
        assert!(refused.is_absent(), "{refused:?}");
    }
}

#[test]
fn members_stay_when_everything_around_them_is_made_anew() {
    let node = Namespace::new("stay").unwrap();
    let wanted: Members = (0..=u8::MAX)
        .flat_map(|n| {
            let v6: IpAddr = [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)].into();
            [
                (IpAddr::from([10, 0, 0, n]), format!("v4-{n}")),
                (v6, format!("v6-{n}")),
            ]
        })
        .collect();
    commit(&node, &netlink::restore(&host_rules(), &wanted)).unwrap();
    node.exec(
        "nft",
        &["-f", "-"],
        "flush chain inet istio-ambient-nat postrouting",
    )
    .unwrap();
    let (listed, held) = dump(&node);
    assert!(matches!(held.compare(&host_rules()), Verdict::Differs(_)));
    let batch = netlink::restore(&host_rules(), &held_members(&node));
    commit(&node, &batch.at_generation(listed.generation)).unwrap();
    assert_eq!(held_members(&node), wanted);
    assert_eq!(Engine::Netlink.compare(&node, &host_rules()), Verdict::Same);
}

#[test]
fn a_set_of_another_kind_is_noticed() {
    let node = Namespace::new("kind").unwrap();
    let rules: RuleSet = on_host(Families::Only(Family::V4), &ProbeAddresses::default());
    Engine::Netlink.apply(&node, &rules);
    for set in [
        "type ipv4_addr; flags timeout;",
        "type ipv4_addr; flags interval;",
    ] {
        let nat = "inet istio-ambient-nat";
        let name = "istio-inpod-probes-v4";
        let script = format!(
            "flush chain {nat} istio-postrouting; delete set {nat} {name}; add set {nat} {name} {{ {set} }}; \
             add rule {nat} istio-postrouting meta l4proto tcp meta skuid >= 0 ip daddr @{name} \
             counter snat ip to 169.254.7.127"
        );
        Engine::Netlink.apply(&node, &rules);
        node.exec("nft", &["-f", "-"], &script).unwrap();
        let verdict = Engine::Netlink.compare(&node, &rules);
        assert!(matches!(verdict, Verdict::Differs(_)), "{set}: {verdict:?}");
    }
}

/// Rules of no use, as many as this, in a chain that is there.
fn many_rules(pod: &Namespace, chain: &str, count: usize) {
    let rule = format!("add rule {chain} ip saddr 192.0.2.1 tcp dport 80 counter accept\n");
    pod.exec("nft", &["-f", "-"], &rule.repeat(count)).unwrap();
}

#[test]
fn what_a_pod_s_owner_puts_into_other_tables_is_not_read() {
    let pod = Namespace::new("owner").unwrap();
    let rules = in_pod(&Options::default());
    Engine::Netlink.apply(&pod, &rules);
    let (_, alone) = dump(&pod);
    let chains: Vec<_> = (0..5000)
        .map(|n| format!("add chain inet own c{n}\nadd set inet own s{n} {{ type ipv4_addr; }}\n"))
        .collect();
    let tables: Vec<_> = (0..500).map(|n| format!("add table ip own{n}\n")).collect();
    let script = format!("add table inet own\n{}{}", chains.concat(), tables.concat());
    pod.exec("nft", &["-f", "-"], &script).unwrap();
    many_rules(&pod, "inet own c0", 50_000);
    pod.exec(
        "nft",
        &["-f", "-"],
        "add table ip nat; add chain ip nat own",
    )
    .unwrap();
    many_rules(&pod, "ip nat own", 1000);
    let (_, crowded) = dump(&pod);
    assert_eq!(crowded.compare(&rules), Verdict::Same);
    // Beside the table of iptables, which may have held something of ours.
    let more = crowded.cost().read - alone.cost().read;
    assert!(more < 100, "{more}");
    assert!(alone.cost().read < 64 * 1024, "{:?}", alone.cost());
}

#[test]
fn more_rules_in_our_tables_than_we_write_are_not_all_read_and_are_replaced() {
    let [fresh, pod] = ["fresh", "full"].map(|label| Namespace::new(label).unwrap());
    let rules = in_pod(&Options::default());
    for namespace in [&fresh, &pod] {
        Engine::Netlink.apply(namespace, &rules);
    }
    many_rules(&pod, "inet istio-ambient-nat istio-prerouting", 20_000);
    let (listed, full) = dump(&pod);
    let Cost { read, kept } = full.cost();
    assert!(
        !listed.whole && kept < 512 * 1024 && read < 512 * 1024,
        "{read} {kept}"
    );
    let verdict = full.compare(&rules);
    assert!(matches!(verdict, Verdict::Differs(_)), "{verdict:?}");
    let batch = netlink::apply(&rules).at_generation(listed.generation);
    commit(&pod, &batch).unwrap();
    assert_eq!(snapshot(&pod), snapshot(&fresh));
}

#[test]
fn what_iptables_left_among_too_many_rules_is_emptied() {
    let pod = Namespace::new("among").unwrap();
    let rules = in_pod(&Options::default());
    Engine::IptablesNft.apply(&pod, &rules);
    pod.exec("nft", &["-f", "-"], "add chain ip nat own")
        .unwrap();
    many_rules(&pod, "ip nat own", 50_000);
    let (listed, left) = dump(&pod);
    let Cost { read, kept } = left.cost();
    assert!(!listed.whole && kept < 512 * 1024, "{kept}");
    assert!(read < 5 * 1024 * 1024, "{read}");
    let mut batch = netlink::apply(&rules);
    left.remove_leftovers(&mut batch);
    commit(&pod, &batch.at_generation(listed.generation)).unwrap();
    let saved = pod.exec("iptables-nft-save", &["-t", "nat"], "").unwrap();
    assert!(!saved.contains("-A ISTIO_"), "rules of ours are left");
}
