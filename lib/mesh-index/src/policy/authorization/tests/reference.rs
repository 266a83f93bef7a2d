//! The meaning of a policy, evaluated word by word on a request, and the translation held against it.
//!
//! What a malformed or empty part was to say is unknown, so the evaluation asks an oracle: the
//! translation must be safe whatever the answer.

use std::net::IpAddr;

use ipnet::IpNet;
use mesh_api::security::{From, To};
use mesh_core::{identity::Identity, rbac};
use proptest::{option, prelude::*, sample::select};

use super::*;
use crate::policy::value;

#[derive(Clone, Debug)]
struct Request {
    connection: rbac::Connection,
    path: &'static str,
    method: &'static str,
    jwt: Option<&'static str>,
}

struct Evaluation<'a> {
    request: &'a Request,
    oracle: bool,
}

type Values = Option<Vec<String>>;

/// A list and its negative twin.
type Pair = (Values, Values);

const NAMES: [&str; 2] = ["cluster.local", "old"];

impl Evaluation<'_> {
    fn policy(&self, spec: &AuthorizationPolicySpec) -> bool {
        spec.rules.iter().any(|rule| self.rule(rule))
    }

    fn rule(&self, rule: &Rule) -> bool {
        let any = |empty: bool, found: bool| if empty { self.oracle } else { found };
        let from = rule.from.as_ref().is_none_or(|entries| {
            any(
                entries.is_empty(),
                entries
                    .iter()
                    .any(|entry| self.source(entry.source.as_ref())),
            )
        });
        let to = rule.to.as_ref().is_none_or(|entries| {
            any(
                entries.is_empty(),
                entries.iter().any(|e| self.operation(e.operation.as_ref())),
            )
        });
        let when = rule.when.as_ref().is_none_or(|all| {
            any(
                all.is_empty(),
                all.iter().all(|condition| self.condition(condition)),
            )
        });
        from && to && when
    }

    fn source(&self, source: Option<&Source>) -> bool {
        let Some(source) = source.filter(|source| **source != Source::default()) else {
            return self.oracle;
        };
        self.list(&source.principals, &source.not_principals, |v| {
            self.principal(v)
        }) && self.list(&source.namespaces, &source.not_namespaces, |v| {
            self.namespace(v)
        }) && self.list(&source.ip_blocks, &source.not_ip_blocks, |v| {
            self.source_ip(v)
        }) && self.list(
            &source.service_accounts,
            &source.not_service_accounts,
            |v| self.account(v),
        ) && self.list(
            &source.request_principals,
            &source.not_request_principals,
            |v| Some(self.request.jwt.is_some_and(|jwt| v == "*" || v == jwt)),
        )
    }

    fn operation(&self, operation: Option<&Operation>) -> bool {
        let Some(operation) = operation.filter(|o| **o != Operation::default()) else {
            return self.oracle;
        };
        self.list(&operation.ports, &operation.not_ports, |v| self.port(v))
            && self.list(&operation.paths, &operation.not_paths, |v| {
                Some(v == self.request.path)
            })
            && self.list(&operation.methods, &operation.not_methods, |v| {
                Some(v == self.request.method)
            })
    }

    fn condition(&self, condition: &Condition) -> bool {
        if condition.values.is_none() && condition.not_values.is_none() {
            return self.oracle;
        }
        self.list(
            &condition.values,
            &condition.not_values,
            |v| match condition.key.as_str() {
                "source.ip" => self.source_ip(v),
                "source.namespace" => self.namespace(v),
                "source.principal" => self.principal(v),
                "destination.ip" => ip(v, self.request.connection.destination.ip()),
                "destination.port" => self.port(v),
                "request.auth.principal" => Some(self.request.jwt == Some(v)),
                other => panic!("{other} is not generated"),
            },
        )
    }

    /// `one` says of a value whether it matches, or `None` if it is malformed.
    fn list(
        &self,
        positive: &Values,
        negative: &Values,
        one: impl Fn(&str) -> Option<bool>,
    ) -> bool {
        let any = |values: &Vec<String>| values.iter().any(|v| one(v).unwrap_or(self.oracle));
        let holds = |values: &Values, wanted: bool| match values {
            None => true,
            Some(values) if values.is_empty() => self.oracle,
            Some(values) => any(values) == wanted,
        };
        holds(positive, true) && holds(negative, false)
    }

    fn identity(&self) -> Option<&Identity> {
        self.request.connection.source_identity.as_ref()
    }

    /// An identity under one name of the mesh has it under all; `cluster.local` is one in policies.
    fn principal(&self, pattern: &str) -> Option<bool> {
        let pattern = (!pattern.contains("://")).then_some(pattern)?;
        value::text(pattern).ok()?;
        let Some(id) = self.identity() else {
            return Some(false);
        };
        let own = NAMES.contains(&id.trust_domain());
        let names = if own {
            NAMES.to_vec()
        } else {
            vec![id.trust_domain()]
        };
        let rest = format!("/ns/{}/sa/{}", id.namespace(), id.service_account());
        Some(
            names
                .iter()
                .any(|name| text(pattern, &format!("{name}{rest}"))),
        )
    }

    fn namespace(&self, pattern: &str) -> Option<bool> {
        value::text(pattern).ok()?;
        Some(
            self.identity()
                .is_some_and(|id| text(pattern, id.namespace())),
        )
    }

    fn account(&self, value: &str) -> Option<bool> {
        let (namespace, name) = value.split_once('/').unwrap_or(("shop", value));
        if name.contains('/') {
            return None;
        }
        let is = |id: &Identity| id.namespace() == namespace && id.service_account() == name;
        Some(self.identity().is_some_and(is))
    }

    fn source_ip(&self, block: &str) -> Option<bool> {
        ip(block, self.request.connection.source_ip)
    }

    fn port(&self, value: &str) -> Option<bool> {
        let digits = value.chars().all(|c| c.is_ascii_digit());
        let port: u16 = value.parse().ok().filter(|port| digits && *port != 0)?;
        Some(port == self.request.connection.destination.port())
    }
}

fn text(pattern: &str, value: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(suffix), _) => value.ends_with(suffix),
        (None, Some(prefix)) => value.starts_with(prefix),
        (None, None) => value == pattern,
    }
}

fn ip(block: &str, address: IpAddr) -> Option<bool> {
    let block = block
        .strip_prefix("::ffff:10.0.0.0/120")
        .map_or(block, |_| "10.0.0.0/24");
    let net = block
        .parse::<IpNet>()
        .or_else(|_| block.parse::<IpAddr>().map(IpNet::from));
    Some(net.ok()?.contains(&address))
}

// === what is generated ===

/// Which parts of a policy are generated.
#[derive(Clone, Copy, Debug)]
struct Parts {
    requests: bool,
    malformed: bool,
}

const WELL_FORMED: Parts = Parts {
    requests: false,
    malformed: false,
};
const EVERYTHING: Parts = Parts {
    requests: true,
    malformed: true,
};

fn values(
    good: &'static [&'static str],
    bad: &'static [&'static str],
    parts: Parts,
) -> BoxedStrategy<Values> {
    let all = if parts.malformed {
        [good, bad].concat()
    } else {
        good.to_vec()
    };
    let least = usize::from(!parts.malformed);
    let list = prop::collection::vec(select(all).prop_map(str::to_owned), least..3);
    option::weighted(0.3, list).boxed()
}

fn principals(parts: Parts) -> BoxedStrategy<Values> {
    let good = &[
        "*",
        "cluster.local/ns/shop/sa/till",
        "old/ns/bank/*",
        "old*",
        "clus*",
        "foreign/ns/shop/sa/till",
        "*/ns/shop/sa/till",
        "*local/ns/bank/sa/clerk",
        "*/sa/till",
    ];
    values(good, &["a*b", "", "spiffe://old/ns/shop/sa/till"], parts)
}

fn namespaces(parts: Parts) -> BoxedStrategy<Values> {
    values(&["shop", "bank", "sh*", "*k", "*"], &["s*p", ""], parts)
}

fn blocks(parts: Parts) -> BoxedStrategy<Values> {
    let good = &[
        "10.0.0.9",
        "10.0.0.0/29",
        "10.0.1.7/24",
        "::ffff:10.0.0.0/120",
        "2001:db8::/64",
    ];
    values(good, &["10.0.0.0/33", "x", ""], parts)
}

fn ports(parts: Parts) -> BoxedStrategy<Values> {
    values(
        &["80", "443", "8080"],
        &["0", "http", "65536", "+80", ""],
        parts,
    )
}

/// Attributes of requests, where they are generated.
fn requests(texts: &'static [&'static str], parts: Parts) -> BoxedStrategy<Values> {
    if parts.requests {
        values(texts, &[], parts)
    } else {
        Just(None).boxed()
    }
}

fn source(parts: Parts) -> impl Strategy<Value = From> {
    let accounts = move || values(&["till", "shop/till", "bank/clerk"], &["a/b/c"], parts);
    let l4 = (
        (principals(parts), principals(parts)),
        (namespaces(parts), namespaces(parts)),
        (blocks(parts), blocks(parts)),
        (accounts(), accounts()),
        (
            requests(&["*", "iss/sub"], parts),
            requests(&["iss/sub"], parts),
        ),
    );
    let build =
        |(principals, namespaces, ip_blocks, accounts, jwt): (Pair, Pair, Pair, Pair, Pair)| {
            Source {
                principals: principals.0,
                not_principals: principals.1,
                namespaces: namespaces.0,
                not_namespaces: namespaces.1,
                ip_blocks: ip_blocks.0,
                not_ip_blocks: ip_blocks.1,
                service_accounts: accounts.0,
                not_service_accounts: accounts.1,
                request_principals: jwt.0,
                not_request_principals: jwt.1,
                ..Source::default()
            }
        };
    let stated = move |source: &Source| parts.malformed || *source != Source::default();
    l4.prop_map(build)
        .prop_filter("says something", stated)
        .prop_map(|source| From {
            source: Some(source),
            ..From::default()
        })
}

fn operation(parts: Parts) -> impl Strategy<Value = To> {
    let requests = (
        requests(&["/a", "/b"], parts),
        requests(&["/a"], parts),
        requests(&["GET"], parts),
        requests(&["GET", "PUT"], parts),
    );
    let build = |(ports, not_ports, (paths, not_paths, methods, not_methods)): (
        Values,
        Values,
        (Values, Values, Values, Values),
    )| Operation {
        ports,
        not_ports,
        paths,
        not_paths,
        methods,
        not_methods,
        ..Operation::default()
    };
    let stated = move |operation: &Operation| parts.malformed || *operation != Operation::default();
    (ports(parts), ports(parts), requests)
        .prop_map(build)
        .prop_filter("says something", stated)
        .prop_map(|operation| To {
            operation: Some(operation),
            ..To::default()
        })
}

fn condition(parts: Parts) -> impl Strategy<Value = Condition> {
    let of = |key: &'static str, values: BoxedStrategy<Values>, not: BoxedStrategy<Values>| {
        (values, not).prop_map(move |(values, not_values)| Condition {
            key: key.to_owned(),
            values,
            not_values,
            ..Condition::default()
        })
    };
    let kinds = prop_oneof![
        of("source.ip", blocks(parts), blocks(parts)),
        of("source.namespace", namespaces(parts), namespaces(parts)),
        of("source.principal", principals(parts), principals(parts)),
        of("destination.ip", blocks(parts), blocks(parts)),
        of("destination.port", ports(parts), ports(parts)),
    ];
    let jwt = of(
        "request.auth.principal",
        requests(&["iss/sub"], parts),
        requests(&["iss/sub"], parts),
    );
    let kinds = if parts.requests {
        prop_oneof![4 => kinds, 1 => jwt].boxed()
    } else {
        kinds.boxed()
    };
    kinds.prop_filter("says something", move |c| {
        parts.malformed || c.values.is_some() || c.not_values.is_some()
    })
}

fn spec(parts: Parts) -> impl Strategy<Value = AuthorizationPolicySpec> {
    let least = usize::from(!parts.malformed);
    let rule = (
        option::of(prop::collection::vec(source(parts), least..3)),
        option::of(prop::collection::vec(operation(parts), least..3)),
        option::of(prop::collection::vec(condition(parts), least..3)),
    );
    let rule = rule.prop_map(|(from, to, when)| Rule {
        from,
        to,
        when,
        ..Rule::default()
    });
    (any::<bool>(), prop::collection::vec(rule, 0..4)).prop_map(|(deny, rules)| {
        let action = if deny { "DENY" } else { "ALLOW" };
        AuthorizationPolicySpec {
            action: Some(action.to_owned()),
            rules,
            ..AuthorizationPolicySpec::default()
        }
    })
}

fn request() -> impl Strategy<Value = Request> {
    let domain = select(vec!["cluster.local", "old", "foreign"]);
    let account = select(vec![("shop", "till"), ("shop", "admin"), ("bank", "clerk")]);
    let identity =
        (domain, account).prop_map(|(td, (ns, sa))| Identity::try_new(td, ns, sa).unwrap());
    let address = || {
        let addresses = ["10.0.0.1", "10.0.0.9", "10.0.1.1", "2001:db8::1"];
        select(addresses.to_vec()).prop_map(|a| a.parse::<IpAddr>().unwrap())
    };
    let port = select(vec![80, 443, 8080, 9090]);
    let connection = (option::of(identity), address(), address(), port);
    let connection =
        connection.prop_map(|(source_identity, source_ip, ip, port)| rbac::Connection {
            source_identity,
            source_ip,
            destination: (ip, port).into(),
        });
    let request = (
        select(vec!["/a", "/b", "/c"]),
        select(vec!["GET", "PUT"]),
        select(vec![None, Some("iss/sub")]),
    );
    (connection, request).prop_map(|(connection, (path, method, jwt))| Request {
        connection,
        path,
        method,
        jwt,
    })
}

/// What the translation says, and what the policy says with either answer of the oracle.
fn verdicts(spec: &AuthorizationPolicySpec, request: &Request) -> (bool, [bool; 2]) {
    let policy = AuthorizationPolicy {
        metadata: policy_in("shop", json!({})).metadata,
        spec: spec.clone(),
        status: None,
    };
    let translation = translate(&policy, &context());
    let written = [true, false].map(|oracle| Evaluation { request, oracle }.policy(spec));
    (matches(&translation, &request.connection), written)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_policy_about_connections_means_what_is_written(spec in spec(WELL_FORMED), request in request()) {
        let (translated, written) = verdicts(&spec, &request);
        prop_assert_eq!([translated; 2], written);
    }

    #[test]
    fn no_translation_lets_through_what_the_policy_would_not(spec in spec(EVERYTHING), request in request()) {
        let (translated, written) = verdicts(&spec, &request);
        if spec.action.as_deref() == Some("DENY") {
            prop_assert!(translated || written == [false, false]);
        } else {
            prop_assert!(!translated || written == [true, true]);
        }
    }

    #[test]
    fn every_difference_is_told(spec in spec(EVERYTHING), request in request()) {
        let policy = AuthorizationPolicy { spec: spec.clone(), ..policy_in("shop", json!({})) };
        let translation = translate(&policy, &context());
        let (translated, written) = verdicts(&spec, &request);
        if written != [translated; 2] {
            prop_assert!(!translation.report.unwrap().accepted);
        }
    }
}
