use super::*;

fn flags(words: &[&str]) -> Flags {
    let words = ["istiod", "discovery"].iter().chain(words);
    match Cli::try_parse_from(words).unwrap().command {
        Command::Discovery(flags) => *flags,
        Command::Version => unreachable!("asked for discovery"),
    }
}

fn config(words: &[&str], env: &[(&str, &str)]) -> Result<Config, Error> {
    Config::try_new(&flags(words), &env.iter().copied().collect())
}

fn refusal(words: &[&str], env: &[(&str, &str)]) -> String {
    config(words, env).unwrap_err().to_string()
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = config(&[], &[]).unwrap();
    assert_eq!(config.listen.secure.port(), 15012);
    assert_eq!(config.listen.http.port(), 8080);
    assert_eq!(config.listen.monitoring.port(), 15014);
    assert_eq!(&*config.pod.namespace, "istio-system");
    assert_eq!(&*config.cluster_id, "Kubernetes");
    assert_eq!(&*config.domain, "cluster.local");
    assert_eq!(config.callers.token_audiences, ["istio-ca"]);
    assert_eq!(
        config.callers.trusted_node_accounts,
        ["istio-system/ztunnel"]
    );
    assert_eq!(config.authority.workload_ttl, DAY);
    assert_eq!(config.authority.max_workload_ttl, 90 * DAY);
    assert_eq!(config.authority.root_ttl, 3650 * DAY);
    assert_eq!(config.streams.max_age, Duration::from_secs(1800));
    assert!(config.features.status);
    assert!(!config.features.bypass_unready_waypoints);
}

#[test]
fn the_flags_of_istios_deployment_are_taken() {
    let words = [
        "--monitoringAddr=:15099",
        "--log_output_level=default:info,ca:debug",
        "--domain",
        "corp.example",
        "--keepaliveMaxServerConnectionAge",
        "10m",
        "--log_as_json",
        "--httpsAddr=:15017",
    ];
    let env = [("POD_NAMESPACE", "mesh"), ("REVISION", "canary")];
    let config = config(&words, &env).unwrap();
    assert_eq!(config.listen.monitoring.port(), 15099);
    assert_eq!(&*config.domain, "corp.example");
    assert_eq!(config.streams.max_age, Duration::from_secs(600));
    assert_eq!(
        config.log.filter,
        "info,mesh_identity=debug,istiod::ca=debug"
    );
    assert_eq!(config.log.format, log::Format::Json);
    assert_eq!(config.revision, "canary");
    assert_eq!(config.callers.trusted_node_accounts, ["mesh/ztunnel"]);
}

#[test]
fn what_would_weaken_the_mesh_is_refused_by_name() {
    for (name, value) in [
        ("PILOT_ENABLE_AMBIENT", "false"),
        ("PILOT_ENABLE_XDS_IDENTITY_CHECK", "false"),
        ("EXTERNAL_CA", "ISTIOD_RA_KUBERNETES_API"),
        ("USE_CACERTS_FOR_SELF_SIGNED_CA", "true"),
        ("AMBIENT_ENABLE_MULTI_NETWORK", "true"),
        ("PILOT_AUTO_ALLOW_WAYPOINT_POLICY", "true"),
        ("PILOT_CERT_PROVIDER", "kubernetes"),
    ] {
        let text = refusal(&[], &[(name, value)]);
        assert!(
            text.contains(name) && text.contains("not supported"),
            "{text}"
        );
    }
    let text = refusal(&["--grpcAddr=:15010"], &[]);
    assert!(text.contains("no plaintext discovery port"), "{text}");
}

#[test]
fn a_wrong_value_names_its_variable_or_flag() {
    for (words, env, name) in [
        (
            vec![],
            vec![("CA_TRUSTED_NODE_ACCOUNTS", "ztunnel")],
            "CA_TRUSTED_NODE_ACCOUNTS",
        ),
        (
            vec![],
            vec![("DEFAULT_WORKLOAD_CERT_TTL", "100000h")],
            "DEFAULT_WORKLOAD_CERT_TTL",
        ),
        (
            vec![],
            vec![("CITADEL_SELF_SIGNED_CA_RSA_KEY_SIZE", "1024")],
            "RSA_KEY_SIZE",
        ),
        (
            vec![],
            vec![("WAYPOINT_UNREADY", "ignore")],
            "WAYPOINT_UNREADY",
        ),
        (vec!["--httpAddr=8080"], vec![], "--httpAddr"),
        (vec!["--domain=UPPER"], vec![], "--domain"),
        (
            vec!["--log_output_level=loud"],
            vec![],
            "--log_output_level",
        ),
        (
            vec!["--keepaliveMaxServerConnectionAge=0s"],
            vec![],
            "ConnectionAge",
        ),
    ] {
        let text = refusal(&words, &env);
        assert!(text.contains(name), "{text}");
    }
}
