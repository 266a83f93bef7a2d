//! Mesh configurations, good and bad.

use super::*;

fn read(text: &str) -> Parsed {
    parse(text).unwrap()
}

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn a_configuration_of_an_ambient_mesh_is_read_without_warnings() {
    let parsed = read(
        r#"
        accessLogFile: /dev/stdout
        caCertificates:
        - pem: "-----BEGIN CERTIFICATE-----"
          trustDomains: [other.example]
        defaultConfig:
          discoveryAddress: istiod.mesh.svc:15012
          proxyMetadata: { ISTIO_META_ENABLE_HBONE: "true" }
        defaultProviders: { metrics: [prometheus] }
        discoverySelectors:
        - matchLabels: { mesh: "on" }
        - matchExpressions: [{ key: env, operator: In, values: [a, b] }]
        enablePrometheusMerge: true
        extensionProviders: [{ name: otel }]
        rootNamespace: mesh
        serviceEntryVisibility:
          defaultVisibility: NAMESPACE
          policies:
          - visibility: PUBLIC
            matchingRules: [{ namespaceSelector: { matchLabels: { shared: "yes" } } }]
        serviceScopeConfigs:
        - scope: GLOBAL
          servicesSelector: { matchLabels: { istio.io/global: "true" } }
        trustDomain: prod.example
        trustDomainAliases: [cluster.local]
        "#,
    );
    let labels = |key: &str, value: &str| LabelSelector {
        match_labels: Some([(key.to_owned(), value.to_owned())].into()),
        match_expressions: None,
    };
    let expected = MeshConfig {
        trust_domain: "prod.example".into(),
        trust_domain_aliases: vec!["cluster.local".into()],
        root_namespace: "mesh".into(),
        discovery_selectors: vec![
            labels("mesh", "on"),
            LabelSelector {
                match_labels: None,
                match_expressions: Some(vec![
                    serde_yaml_ng::from_str("{ key: env, operator: In, values: [a, b] }").unwrap(),
                ]),
            },
        ],
        discovery_address: Some("istiod.mesh.svc:15012".into()),
        ca_certificates: vec![CaCertificate {
            pem: "-----BEGIN CERTIFICATE-----".into(),
            trust_domains: vec!["other.example".into()],
        }],
        service_scopes: vec![ServiceScope {
            services: Some(labels("istio.io/global", "true")),
            namespaces: None,
            global: true,
        }],
        service_entry_visibility: ServiceEntryVisibility {
            default: Visibility::Namespace,
            policies: vec![VisibilityPolicy {
                visibility: Visibility::Public,
                namespaces: vec![labels("shared", "yes")],
            }],
        },
    };
    assert_eq!(parsed.config, expected);
    assert_eq!(parsed.warnings, []);
}

#[test]
fn nothing_written_means_the_defaults() {
    for text in [
        "",
        "{}",
        "trustDomain: \"\"\nrootNamespace:\ndefaultConfig:\n",
    ] {
        assert_eq!(read(text), Parsed::default(), "{text}");
    }
    let config = MeshConfig::default();
    assert_eq!(config.trust_domain, "cluster.local");
    assert_eq!(config.root_namespace, "istio-system");
}

#[test]
fn an_unknown_field_is_a_warning() {
    let parsed = read("trustDomian: x\ndefaultConfig: { discoveryAdress: x, concurrency: 2 }");
    let texts: Vec<_> = parsed.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "defaultConfig.discoveryAdress is not a field of the mesh configuration and has no effect",
            "trustDomian is not a field of the mesh configuration and has no effect",
        ]
    );
}

#[test]
fn a_root_that_is_to_be_fetched_is_not_trusted_and_told() {
    let parsed = read("caCertificates: [{ pem: A }, { spiffeBundleUrl: https://x }]");
    assert_eq!(parsed.config.ca_certificates.len(), 1);
    assert_eq!(
        parsed.warnings,
        [Warning::Bundle("caCertificates[1]".into())]
    );
}

#[test]
fn names_may_be_written_with_underscores() {
    assert_eq!(read("trust_domain: prod").config.trust_domain, "prod");
    assert_eq!(
        refusal("trust_domain: a\ntrustDomain: b"),
        "trustDomain: stands here twice, under two spellings"
    );
}

#[test]
fn a_bad_value_is_refused_with_its_path() {
    for (text, expected) in [
        (
            "trustDomain: a/b",
            "trustDomain: `a/b` is not a trust domain",
        ),
        ("trustDomain: 7", "trustDomain: expected a text"),
        (
            "trustDomainAliases: [a, \"\"]",
            "trustDomainAliases[1]: `` is not a trust domain",
        ),
        (
            "trustDomainAliases: a",
            "trustDomainAliases: expected a list",
        ),
        (
            "rootNamespace: Root",
            "rootNamespace: `Root` is not the name of a namespace",
        ),
        ("defaultConfig: []", "defaultConfig: expected an object"),
        (
            "defaultConfig: { discoveryAddress: istiod }",
            "defaultConfig.discoveryAddress: `istiod` is not",
        ),
        ("[]", "the mesh configuration: expected an object"),
        (
            "discoverySelectors: [{ matchLabels: { a: 1 } }]",
            "discoverySelectors[0].matchLabels.a: expected a text",
        ),
        (
            "discoverySelectors: [{}, { matchExpressions: [{ key: a, operator: Is }] }]",
            "discoverySelectors[1]: `Is` is no operator of a label selector",
        ),
        (
            "serviceScopeConfigs: [{ scope: WORLD }]",
            "serviceScopeConfigs[0].scope: `WORLD` is none of LOCAL",
        ),
        (
            "serviceEntryVisibility: { policies: [{ matchingRules: [{}] }] }",
            "serviceEntryVisibility.policies[0].matchingRules[0]: expected an object with `namespaceSelector`",
        ),
    ] {
        assert!(
            refusal(text).starts_with(expected),
            "{text}: {}",
            refusal(text)
        );
    }
}

#[test]
fn what_is_no_yaml_or_too_large_is_refused() {
    assert!(matches!(parse("a: ["), Err(Error::Yaml(_))));
    assert!(matches!(parse("a: 1\na: 2"), Err(Error::Yaml(_))));
    assert!(matches!(
        parse(&" ".repeat(1 << 21)),
        Err(Error::TooLarge(_))
    ));
    let aliases = format!("trustDomainAliases: [{}]", vec!["a"; 2000].join(","));
    assert_eq!(
        refusal(&aliases),
        "trustDomainAliases: has 2000 entries, 1024 at most"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-zA-Z:{}\\[\\]&*!|> \n\"'-]{0,60}") {
        drop(parse(&text));
    }
}
