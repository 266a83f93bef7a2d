//! Policies as users write them, and what ztunnel gets.

use std::net::IpAddr;

use mesh_core::{identity::Identity, policy::StringMatch, rbac};
use serde_json::{Value, json};

use super::*;
use crate::policy::TrustDomains;

mod reference;

fn context() -> Context {
    Context {
        root_namespace: "istio-system".into(),
        trust_domains: TrustDomains::new("cluster.local", ["old"]),
        dry_run: false,
    }
}

fn policy_in(namespace: &str, spec: Value) -> AuthorizationPolicy {
    let mut object = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": { "name": "rules", "namespace": namespace },
    });
    object["spec"] = spec;
    serde_json::from_value(object).unwrap()
}

fn translated(spec: Value) -> Translation {
    translate(&policy_in("shop", spec), &context())
}

fn rules(translation: &Translation) -> &[L4Rule] {
    &translation.authorization.as_ref().unwrap().rules
}

fn rule(matches: impl IntoIterator<Item = Match>) -> L4Rule {
    let clauses = matches.into_iter().map(|m| Clause { matches: vec![m] });
    L4Rule {
        clauses: clauses.collect(),
    }
}

fn message(translation: &Translation) -> &str {
    &translation.report.as_ref().unwrap().message
}

fn fields(translation: &Translation) -> Vec<&str> {
    let findings = translation.all_findings();
    findings.map(|finding| finding.field.as_str()).collect()
}

fn effects(translation: &Translation) -> Vec<(usize, Effect)> {
    let rules = translation.rules.iter();
    rules.map(|rule| (rule.index, rule.effect)).collect()
}

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

fn admin_source() -> Match {
    Match {
        principals: vec![
            exact("cluster.local/ns/shop/sa/admin"),
            exact("old/ns/shop/sa/admin"),
        ],
        ..Match::default()
    }
}

const ADMIN: &str = "cluster.local/ns/shop/sa/admin";

fn connection(account: Option<&str>, port: u16) -> rbac::Connection {
    let identity = |account| Identity::try_new("cluster.local", "shop", account).unwrap();
    rbac::Connection {
        source_identity: account.map(identity),
        source_ip: IpAddr::from([10, 0, 0, 9]),
        destination: ([10, 0, 0, 1], port).into(),
    }
}

fn matches(translation: &Translation, connection: &rbac::Connection) -> bool {
    let policy = translation.authorization.as_ref().unwrap();
    rbac::CompiledPolicy::compile(policy).matches(connection)
}

#[test]
fn a_policy_about_connections_is_enforced_as_written() {
    let translation = translated(json!({
        "selector": { "matchLabels": { "app": "pay" } },
        "rules": [{
            "from": [
                { "source": { "namespaces": ["shop", "front*"], "notIpBlocks": ["10.1.2.3/8"] } },
                { "source": { "serviceAccounts": ["till", "bank/clerk"] } },
            ],
            "to": [{ "operation": { "ports": ["8080"], "notPorts": ["9090"] } }],
            "when": [{ "key": "destination.ip", "values": ["2001:db8::/32"] }],
        }],
    }));
    let account = |namespace: &str, name: &str| mesh_core::policy::ServiceAccountMatch {
        namespace: namespace.into(),
        service_account: name.into(),
    };
    let from = vec![
        Match {
            namespaces: vec![exact("shop"), StringMatch::Prefix("front".into())],
            not_source_ips: vec!["10.0.0.0/8".parse().unwrap()],
            ..Match::default()
        },
        Match {
            service_accounts: vec![account("shop", "till"), account("bank", "clerk")],
            ..Match::default()
        },
    ];
    let to = vec![Match {
        destination_ports: vec![8080],
        not_destination_ports: vec![9090],
        ..Match::default()
    }];
    let when = vec![Match {
        destination_ips: vec!["2001:db8::/32".parse().unwrap()],
        ..Match::default()
    }];
    let clauses = [from, to, when].map(|matches| Clause { matches });
    let expected = Authorization {
        name: "rules".into(),
        namespace: "shop".into(),
        scope: PolicyScope::WorkloadSelector,
        action: Action::Allow,
        rules: vec![L4Rule {
            clauses: clauses.into(),
        }],
        dry_run: false,
    };
    assert_eq!(translation.authorization, Some(expected));
    let report = translation.report.unwrap();
    assert_eq!((report.accepted, report.reason), (true, "Accepted"));
}

#[test]
fn the_scope_follows_selector_and_root_namespace() {
    let scope = |namespace, spec| {
        let translation = translate(&policy_in(namespace, spec), &context());
        let selects = translation.selector.is_some();
        (translation.authorization.unwrap().scope, selects)
    };
    let selector = json!({ "selector": { "matchLabels": { "app": "pay" } } });
    let empty = json!({ "selector": {} });
    assert_eq!(scope("shop", json!({})), (PolicyScope::Namespace, false));
    assert_eq!(
        scope("istio-system", json!({})),
        (PolicyScope::Global, false)
    );
    assert_eq!(
        scope("shop", selector.clone()),
        (PolicyScope::WorkloadSelector, true)
    );
    assert_eq!(
        scope("istio-system", selector),
        (PolicyScope::WorkloadSelector, true)
    );
    assert_eq!(scope("shop", empty), (PolicyScope::Namespace, false));
}

#[test]
fn a_policy_without_rules_matches_nothing() {
    let translation = translated(json!({}));
    assert_eq!(rules(&translation), []);
    assert!(translation.report.unwrap().accepted);
    let anything = translated(json!({ "rules": [{}] }));
    assert_eq!(rules(&anything), [L4Rule::default()]);
}

#[test]
fn an_allow_rule_about_requests_allows_nothing() {
    let translation = translated(json!({ "rules": [
        { "from": [{ "source": { "principals": [ADMIN] } }] },
        { "from": [{ "source": { "requestPrincipals": ["*"] } }, { "source": { "principals": [ADMIN] } }] },
        { "to": [{ "operation": { "ports": ["80"] } }], "when": [{ "key": "request.headers[x]", "values": ["1"] }] },
    ]}));
    assert_eq!(rules(&translation), [rule([admin_source()])]);
    assert_eq!(
        effects(&translation),
        [(1, Effect::AllowsNothing), (2, Effect::AllowsNothing)]
    );
    let report = translation.report.unwrap();
    assert_eq!(
        (report.accepted, report.reason),
        (false, "UnsupportedValue")
    );
    assert_eq!(
        report.message,
        "rules[1] allows nothing: from[0].source.requestPrincipals needs a waypoint: ztunnel does not see \
         requests; rules[2] allows nothing: when[0].key needs a waypoint: ztunnel does not see requests; \
         the other 1 of 3 rules are enforced as written"
    );
}

#[test]
fn a_deny_rule_about_requests_denies_the_connections_that_carry_them() {
    let translation = translated(json!({ "action": "DENY", "rules": [
        { "from": [{ "source": { "principals": [ADMIN] } }], "to": [{ "operation": { "paths": ["/x"] } }] },
    ]}));
    assert_eq!(rules(&translation), [rule([admin_source()])]);
    assert_eq!(effects(&translation), [(0, Effect::DeniesMore)]);
    assert!(matches(&translation, &connection(Some("admin"), 80)));
    assert!(!matches(&translation, &connection(Some("till"), 80)));
    assert!(!matches(&translation, &connection(None, 80)));
}

#[test]
fn a_deny_rule_only_about_requests_denies_everything_and_says_so() {
    let translation = translated(json!({ "action": "DENY", "rules": [
        { "to": [{ "operation": { "methods": ["GET"] } }] },
    ]}));
    assert_eq!(rules(&translation), [L4Rule::default()]);
    assert!(matches(&translation, &connection(None, 80)));
    assert_eq!(
        message(&translation),
        "rules[0] denies all connections: to[0].operation.methods needs a waypoint: ztunnel does not see \
         requests"
    );
}

#[test]
fn one_entry_that_denies_everything_widens_its_whole_clause() {
    let translation = translated(json!({ "action": "DENY", "rules": [{
        "from": [{ "source": { "principals": [ADMIN] } }],
        "to": [{ "operation": { "ports": ["80"] } }, { "operation": { "hosts": ["x"] } }],
    }]}));
    assert_eq!(rules(&translation), [rule([admin_source()])]);
}

#[test]
fn a_port_stays_where_a_deny_rule_also_names_paths() {
    let translation = translated(json!({ "action": "DENY", "rules": [{
        "to": [{ "operation": { "ports": ["80"], "paths": ["/x"] } }],
    }]}));
    let expected = Match {
        destination_ports: vec![80],
        ..Match::default()
    };
    assert_eq!(rules(&translation), [rule([expected])]);
}

#[test]
fn a_malformed_value_is_named_and_never_allows() {
    let translation = translated(json!({ "rules": [
        {},
        {},
        { "to": [{ "operation": { "ports": ["80", "http"] } }] },
        { "to": [{ "operation": { "ports": ["0"] } }] },
        { "to": [{ "operation": { "notPorts": ["80", "99999"] } }] },
    ]}));
    let eighty = Match {
        destination_ports: vec![80],
        ..Match::default()
    };
    assert_eq!(
        rules(&translation),
        [L4Rule::default(), L4Rule::default(), rule([eighty])]
    );
    assert_eq!(
        effects(&translation),
        [
            (2, Effect::AllowsLess),
            (3, Effect::AllowsNothing),
            (4, Effect::AllowsNothing)
        ]
    );
    assert_eq!(
        fields(&translation),
        [
            "spec.rules[2].to[0].operation.ports[1]",
            "spec.rules[3].to[0].operation.ports[0]",
            "spec.rules[4].to[0].operation.notPorts[1]",
        ]
    );
    assert_eq!(translation.report.as_ref().unwrap().reason, "Invalid");
    assert!(message(&translation).contains("`http` is not a port: use a number from 1 to 65535"));
}

#[test]
fn a_malformed_value_of_a_deny_rule_always_denies() {
    for (field, values) in [
        ("ipBlocks", json!(["10.0.0.0/33"])),
        ("serviceAccounts", json!(["shop/till/x", "shop/admin"])),
        (
            "principals",
            json!(["spiffe://cluster.local/ns/shop/sa/admin"]),
        ),
        ("namespaces", json!(["a*b"])),
        ("namespaces", json!([""])),
        ("notNamespaces", json!(["a*b"])),
        ("namespaces", json!([])),
        ("misspelt", json!(["x"])),
    ] {
        let spec =
            json!({ "action": "DENY", "rules": [{ "from": [{ "source": { field: values } }] }] });
        let translation = translated(spec);
        assert_eq!(rules(&translation), [L4Rule::default()], "{field}");
        assert_eq!(effects(&translation), [(0, Effect::DeniesAll)]);
    }
}

#[test]
fn malformed_exceptions_of_a_deny_rule_are_no_exceptions() {
    let translation = translated(json!({ "action": "DENY", "rules": [
        { "to": [{ "operation": { "notPorts": ["80", "http"] } }] },
    ]}));
    assert!(!matches(&translation, &connection(None, 80)));
    assert!(matches(&translation, &connection(None, 81)));
}

#[test]
fn what_says_nothing_allows_nothing_and_denies_everything() {
    for rule in [
        json!({ "from": [] }),
        json!({ "from": [{}] }),
        json!({ "from": [{ "source": {} }] }),
        json!({ "from": [{ "source": { "principals": [] } }] }),
        json!({ "to": [] }),
        json!({ "to": [{ "operation": {} }] }),
        json!({ "when": [] }),
        json!({ "when": [{ "key": "source.ip" }] }),
        json!({ "when": [{}] }),
    ] {
        let allow = translated(json!({ "rules": [rule] }));
        assert_eq!(rules(&allow), [], "{rule}");
        let deny = translated(json!({ "action": "DENY", "rules": [rule] }));
        assert_eq!(rules(&deny), [L4Rule::default()], "{rule}");
        assert!(!deny.report.unwrap().accepted);
    }
}

#[test]
fn an_unknown_field_is_never_taken_for_nothing() {
    let spec = json!({ "rules": [
        { "from": [{ "source": { "principals": [ADMIN], "newAttribute": ["x"] } }] },
        { "from": [{ "source": { "principals": [ADMIN] }, "newEntry": {} }] },
        { "newClause": [] },
    ]});
    let translation = translated(spec);
    assert_eq!(rules(&translation), []);
    assert_eq!(
        fields(&translation),
        [
            "spec.rules[0].from[0].source.newAttribute",
            "spec.rules[1].from[0].newEntry",
            "spec.rules[2].newClause",
        ]
    );
}

#[test]
fn more_than_the_limits_is_refused_and_fails_closed() {
    let many_values: Vec<_> = (0..5000).map(|i| format!("ns{i}")).collect();
    let many_rules = vec![json!({ "to": [{ "operation": { "ports": ["80"] } }] }); 513];
    let values = json!([{ "from": [{ "source": { "namespaces": many_values } }] }]);
    let allow = translated(json!({ "rules": values }));
    assert_eq!(rules(&allow), []);
    assert!(message(&allow).contains("has 5000 entries, 4096 at most"));
    let deny = translated(json!({ "action": "DENY", "rules": values }));
    assert_eq!(rules(&deny), [L4Rule::default()]);
    assert_eq!(
        rules(&translated(json!({ "rules": many_rules }))).len(),
        512
    );
    let deny = translated(json!({ "action": "DENY", "rules": many_rules }));
    assert_eq!(rules(&deny), [L4Rule::default()]);
    assert!(message(&deny).starts_with("spec.rules has 513 entries, 512 at most"));
}

#[test]
fn audit_and_custom_are_not_sent() {
    for action in ["AUDIT", "CUSTOM", "SOMETHING"] {
        let translation = translated(json!({ "action": action, "rules": [{}] }));
        assert_eq!(translation.authorization, None);
        let report = translation.report.unwrap();
        assert_eq!(
            (report.accepted, report.reason),
            (false, "UnsupportedValue")
        );
        assert!(
            report
                .message
                .starts_with("nothing of this policy is enforced by ztunnel")
        );
    }
}

#[test]
fn a_policy_with_targets_is_the_waypoints_alone() {
    let target = json!({ "group": "", "kind": "Service", "name": "pay" });
    for spec in [
        json!({ "targetRefs": [target] }),
        json!({ "targetRef": target }),
    ] {
        assert_eq!(translated(spec), Translation::nothing());
    }
}

#[test]
fn a_dry_run_is_sent_only_where_that_is_switched_on() {
    let dry_run = |value: &str, on| {
        let mut policy = policy_in("shop", json!({ "action": "DENY", "rules": [{}] }));
        policy.metadata.annotations = Some([("istio.io/dry-run".into(), value.into())].into());
        let context = Context {
            dry_run: on,
            ..context()
        };
        let translation = translate(&policy, &context);
        let accepted = translation.report.unwrap().accepted;
        (
            translation.authorization.map(|policy| policy.dry_run),
            accepted,
        )
    };
    assert_eq!(dry_run("true", true), (Some(true), true));
    assert_eq!(dry_run("true", false), (None, false));
    assert_eq!(dry_run("false", false), (Some(false), true));
    assert_eq!(dry_run("yes", true), (Some(false), false));
}

#[test]
fn a_wildcard_label_selects_nothing_and_is_told() {
    let labels = json!({ "matchLabels": { "app": "*" } });
    let translation = translated(json!({ "selector": labels, "rules": [{}] }));
    assert_eq!(fields(&translation), ["spec.selector.matchLabels"]);
    let labels = [("app".to_owned(), "pay".to_owned())].into();
    assert!(!translation.selector.unwrap().matches(&labels));
}

#[test]
fn the_message_is_bounded_and_says_what_it_leaves_out() {
    let rule = json!({ "to": [{ "operation": { "paths": ["/x"] } }] });
    let translation = translated(json!({ "rules": vec![rule; 300] }));
    let message = message(&translation);
    assert!(message.len() < 2048, "{}", message.len());
    assert!(message.contains("; and 2"), "{message}");
    let ports: Vec<_> = (0..100).map(|i| format!("x{i}")).collect();
    let translation =
        translated(json!({ "rules": [{ "to": [{ "operation": { "ports": ports } }] }] }));
    let report = translation.report.unwrap();
    assert!(
        report.message.ends_with(", and 97 more"),
        "{}",
        report.message
    );
}
