//! The contract's edge rules one by one, then the properties that hold for all sets.

use proptest::{prelude::*, sample};

use super::*;
use crate::policy::{ServiceAccountMatch, StringMatch};

const POD: &str = "10.0.0.2:9080";

fn mk_connection(identity: Option<&str>, source: &str, destination: &str) -> Connection {
    Connection {
        source_identity: identity.map(|text| text.parse().unwrap()),
        source_ip: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

fn mk_mtls() -> Connection {
    mk_connection(Some("spiffe://td/ns/web/sa/front"), "10.0.0.1", POD)
}

fn mk_plain() -> Connection {
    mk_connection(None, "10.0.0.1", POD)
}

fn mk_policy(name: &str, action: Action, rules: Vec<Rule>) -> Authorization {
    Authorization {
        name: name.into(),
        namespace: "ns".into(),
        scope: PolicyScope::Namespace,
        action,
        rules,
        dry_run: false,
    }
}

fn mk_rule(matches: Vec<Match>) -> Rule {
    Rule {
        clauses: vec![Clause { matches }],
    }
}

fn exact(text: &str) -> Vec<StringMatch> {
    vec![StringMatch::Exact(text.into())]
}

/// Whether a policy of one rule with this one match matches.
fn holds(m: Match, connection: &Connection) -> bool {
    let policy = mk_policy("p", Action::Allow, vec![mk_rule(vec![m])]);
    CompiledPolicy::compile(&policy).matches(connection)
}

fn set(policies: &[Authorization]) -> PolicySet {
    PolicySet::new(
        policies
            .iter()
            .map(|p| Arc::new(CompiledPolicy::compile(p))),
    )
}

fn verdict(policies: &[Authorization], connection: &Connection) -> Verdict {
    set(policies).decide(connection).verdict
}

fn on_port(port: u16) -> Vec<Rule> {
    vec![mk_rule(vec![Match {
        destination_ports: vec![port],
        ..Match::default()
    }])]
}

#[test]
fn policy_without_rules_never_matches() {
    let policy = mk_policy("p", Action::Allow, Vec::new());
    assert!(!CompiledPolicy::compile(&policy).matches(&mk_mtls()));
    assert_eq!(
        verdict(&[policy], &mk_mtls()),
        Verdict::Deny(Denial::NoAllowMatched)
    );
}

#[test]
fn rule_without_clauses_and_clause_without_matches_match() {
    let rule = mk_policy("p", Action::Deny, vec![Rule::default()]);
    let clause = mk_policy("p", Action::Deny, vec![mk_rule(Vec::new())]);
    assert!(CompiledPolicy::compile(&rule).matches(&mk_plain()));
    assert!(CompiledPolicy::compile(&clause).matches(&mk_plain()));
}

#[test]
fn match_with_only_empty_lists_matches_nothing() {
    assert!(!holds(Match::default(), &mk_mtls()));
    let beside_another = vec![mk_rule(vec![
        Match::default(),
        Match {
            destination_ports: vec![9080],
            ..Match::default()
        },
    ])];
    let policy = mk_policy("p", Action::Allow, beside_another);
    assert!(CompiledPolicy::compile(&policy).matches(&mk_mtls()));
}

#[test]
fn rules_are_alternatives_and_clauses_are_all_required() {
    let mut rules = on_port(1);
    rules.extend(on_port(9080));
    assert!(CompiledPolicy::compile(&mk_policy("p", Action::Allow, rules)).matches(&mk_mtls()));
    let clauses = [1, 9080].map(|port| Clause {
        matches: vec![Match {
            destination_ports: vec![port],
            ..Match::default()
        }],
    });
    let both = vec![Rule {
        clauses: clauses.into(),
    }];
    assert!(!CompiledPolicy::compile(&mk_policy("p", Action::Allow, both)).matches(&mk_mtls()));
}

#[test]
fn all_lists_of_a_match_must_agree() {
    let both = |port| Match {
        destination_ports: vec![port],
        namespaces: exact("web"),
        ..Match::default()
    };
    assert!(holds(both(9080), &mk_mtls()));
    assert!(!holds(both(9081), &mk_mtls()));
    assert!(!holds(both(9080), &mk_plain()));
}

#[test]
fn principals_are_compared_without_the_scheme() {
    let principal = |m: StringMatch| Match {
        principals: vec![m],
        ..Match::default()
    };
    for m in [
        StringMatch::Exact("td/ns/web/sa/front".into()),
        StringMatch::Prefix("td/ns/".into()),
        StringMatch::Suffix("/sa/front".into()),
        StringMatch::Presence,
    ] {
        assert!(holds(principal(m.clone()), &mk_mtls()), "{m:?}");
        assert!(!holds(principal(m.clone()), &mk_plain()), "{m:?}");
        let not = Match {
            not_principals: vec![m.clone()],
            ..Match::default()
        };
        assert!(!holds(not.clone(), &mk_mtls()), "{m:?}");
        assert!(holds(not, &mk_plain()), "{m:?}");
    }
    let scheme = StringMatch::Exact("spiffe://td/ns/web/sa/front".into());
    assert!(!holds(principal(scheme), &mk_mtls()));
}

#[test]
fn service_accounts_ignore_the_trust_domain() {
    let account = |namespace: &str, name: &str| ServiceAccountMatch {
        namespace: namespace.into(),
        service_account: name.into(),
    };
    let list = vec![
        account("web", "zeta"),
        account("web", "front"),
        account("a", "b"),
    ];
    assert!(holds(
        Match {
            service_accounts: list.clone(),
            ..Match::default()
        },
        &mk_mtls()
    ));
    assert!(!holds(
        Match {
            service_accounts: list.clone(),
            ..Match::default()
        },
        &mk_plain()
    ));
    assert!(!holds(
        Match {
            not_service_accounts: list,
            ..Match::default()
        },
        &mk_mtls()
    ));
    let other = vec![account("front", "web")];
    assert!(!holds(
        Match {
            service_accounts: other,
            ..Match::default()
        },
        &mk_mtls()
    ));
}

#[test]
fn mapped_addresses_and_ranges_are_their_ipv4_form() {
    let source = |net: &str| Match {
        source_ips: vec![net.parse().unwrap()],
        ..Match::default()
    };
    let mapped = mk_connection(None, "::ffff:10.0.0.1", POD);
    assert!(holds(source("10.0.0.0/8"), &mapped));
    assert!(holds(source("::ffff:10.0.0.0/104"), &mk_plain()));
    assert!(!holds(source("::/0"), &mk_plain()));
    assert!(holds(source("0.0.0.0/0"), &mk_plain()));
}

#[test]
fn strict_mtls_policy_denies_plain_text_except_on_its_port() {
    let rule = mk_rule(vec![Match {
        not_principals: vec![StringMatch::Presence],
        not_destination_ports: vec![8080],
        ..Match::default()
    }]);
    let policies = [mk_policy("strict", Action::Deny, vec![rule])];
    let denied = Verdict::Deny(Denial::Policy("ns/strict".into()));
    assert_eq!(verdict(&policies, &mk_plain()), denied);
    assert_eq!(verdict(&policies, &mk_mtls()), Verdict::Allow);
    let excepted = mk_connection(None, "10.0.0.1", "10.0.0.2:8080");
    assert_eq!(verdict(&policies, &excepted), Verdict::Allow);
}

#[test]
fn dry_run_policies_are_reported_and_change_nothing() {
    let dry = |name, action| Authorization {
        dry_run: true,
        ..mk_policy(name, action, on_port(9080))
    };
    let policies = [dry("deny", Action::Deny), dry("allow", Action::Allow)];
    let decision = set(&policies).decide(&mk_plain());
    let expected = Decision {
        verdict: Verdict::Allow,
        dry_run: vec!["ns/allow".into(), "ns/deny".into()],
    };
    assert_eq!(decision, expected);
    let elsewhere = mk_connection(None, "10.0.0.1", "10.0.0.2:1");
    assert_eq!(
        set(&policies).decide(&elsewhere).dry_run,
        Vec::<Arc<str>>::new()
    );
}

#[test]
fn unknown_policy_denies_what_no_deny_policy_already_denies() {
    let policies = [mk_policy("allow", Action::Allow, on_port(9080))];
    let unknown = set(&policies).with_unknown(["ns/z".into(), "ns/y".into()]);
    let expected = Verdict::Deny(Denial::UnknownPolicy("ns/y".into()));
    assert_eq!(unknown.decide(&mk_mtls()).verdict, expected);
    let deny = [mk_policy("deny", Action::Deny, on_port(9080))];
    let unknown = set(&deny).with_unknown(["ns/y".into()]);
    let expected = Verdict::Deny(Denial::Policy("ns/deny".into()));
    assert_eq!(unknown.decide(&mk_mtls()).verdict, expected);
}

const NETS: &[&str] = &[
    "10.0.0.0/8",
    "10.0.0.1/32",
    "192.168.0.0/16",
    "10.0.0.0/31",
    "fd00::/8",
];

fn arb_match() -> impl Strategy<Value = Match> {
    let ports = || prop::collection::vec(9079_u16..9082, 0..3);
    let nets = || {
        let net = sample::select(NETS).prop_map(|net| net.parse().unwrap());
        prop::collection::vec(net, 0..3)
    };
    (ports(), ports(), nets(), nets()).prop_map(|(yes, no, from, not_from)| Match {
        destination_ports: yes,
        not_destination_ports: no,
        source_ips: from,
        not_source_ips: not_from,
        ..Match::default()
    })
}

fn arb_policies() -> impl Strategy<Value = Vec<Authorization>> {
    let rule = prop::collection::vec(arb_match(), 0..3).prop_map(mk_rule);
    let policy = (
        prop::collection::vec(rule, 0..3),
        any::<bool>(),
        any::<bool>(),
    );
    prop::collection::vec(policy, 0..6).prop_map(|policies| {
        let numbered = policies.into_iter().enumerate();
        numbered
            .map(|(index, (rules, deny, dry_run))| {
                let action = if deny { Action::Deny } else { Action::Allow };
                Authorization {
                    dry_run,
                    ..mk_policy(&format!("p{index}"), action, rules)
                }
            })
            .collect()
    })
}

fn arb_connection() -> impl Strategy<Value = Connection> {
    let source = sample::select(&["10.0.0.1", "10.9.9.9", "192.168.1.1", "fd00::1", "1.1.1.1"][..]);
    let port = 9079_u16..9082;
    (source, port, any::<bool>()).prop_map(|(source, port, tls)| {
        let identity = tls.then_some("spiffe://td/ns/web/sa/front");
        mk_connection(identity, source, &format!("10.0.0.2:{port}"))
    })
}

/// The contract read aloud, without any of the preparation.
fn plainly_matches(policy: &Authorization, connection: &Connection) -> bool {
    let port = connection.destination.port();
    let within = |nets: &[ipnet::IpNet]| nets.iter().any(|net| net.contains(&connection.source_ip));
    let one = |m: &Match| {
        let empty = *m == Match::default();
        !empty
            && (m.destination_ports.is_empty() || m.destination_ports.contains(&port))
            && !m.not_destination_ports.contains(&port)
            && (m.source_ips.is_empty() || within(&m.source_ips))
            && !within(&m.not_source_ips)
    };
    let clause = |c: &Clause| c.matches.is_empty() || c.matches.iter().any(one);
    policy
        .rules
        .iter()
        .any(|rule| rule.clauses.iter().all(clause))
}

proptest! {
    #[test]
    fn deny_wins(policies in arb_policies(), connection in arb_connection()) {
        let denied = policies
            .iter()
            .any(|p| !p.dry_run && p.action == Action::Deny && plainly_matches(p, &connection));
        let verdict = verdict(&policies, &connection);
        prop_assert_eq!(matches!(verdict, Verdict::Deny(Denial::Policy(_))), denied);
    }

    #[test]
    fn verdict_is_the_contract_s(policies in arb_policies(), connection in arb_connection()) {
        let enforced = |action| {
            let policies = policies.iter().filter(move |p| !p.dry_run && p.action == action);
            policies.collect::<Vec<_>>()
        };
        let hit = |policies: &[&Authorization]| policies.iter().any(|p| plainly_matches(p, &connection));
        let (deny, allow) = (enforced(Action::Deny), enforced(Action::Allow));
        let expected = !hit(&deny) && (allow.is_empty() || hit(&allow));
        prop_assert_eq!(verdict(&policies, &connection).is_allow(), expected);
    }

    #[test]
    fn order_of_policies_does_not_matter(
        (policies, shuffled) in arb_policies().prop_flat_map(|p| (Just(p.clone()), Just(p).prop_shuffle())),
        connection in arb_connection(),
    ) {
        prop_assert_eq!(set(&policies).decide(&connection), set(&shuffled).decide(&connection));
    }

    #[test]
    fn ranges_agree_with_a_scan(nets in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..8), address in any::<u32>()) {
        let net = |(bits, length)| ipnet::Ipv4Net::new(std::net::Ipv4Addr::from_bits(bits), length).unwrap();
        let nets: Vec<ipnet::IpNet> = nets.into_iter().map(|n| ipnet::IpNet::V4(net(n))).collect();
        let address = IpAddr::V4(std::net::Ipv4Addr::from_bits(address));
        prop_assert_eq!(Ranges::new(&nets).contain(address), nets.iter().any(|n| n.contains(&address)));
    }
}
