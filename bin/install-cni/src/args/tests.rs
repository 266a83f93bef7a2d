use super::*;

const NODE: (&str, &str) = ("NODE_NAME", "node1");

fn env(variables: &[(&str, &str)]) -> Environment {
    let all = variables.iter().chain([&NODE]);
    all.map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn flags(arguments: &[&str]) -> Flags {
    let all = std::iter::once("install-cni").chain(arguments.iter().copied());
    Cli::try_parse_from(all).unwrap().flags
}

fn config(variables: &[(&str, &str)]) -> Config {
    Config::try_new(&Flags::default(), &env(variables)).unwrap()
}

fn refusal(variables: &[(&str, &str)]) -> String {
    let error = Config::try_new(&Flags::default(), &env(variables)).unwrap_err();
    mesh_runtime::error::chain(&error).to_string()
}

#[test]
fn defaults_are_istio_s() {
    let config = config(&[]);
    assert_eq!(config.paths.run_dir.to_str(), Some("/var/run/istio-cni"));
    assert_eq!(config.paths.cni_net.to_str(), Some("/host/etc/cni/net.d"));
    let ztunnel = config.paths.ztunnel.to_str();
    assert_eq!(ztunnel, Some("/var/run/ztunnel/ztunnel.sock"));
    assert_eq!(config.listen.metrics.map(|at| at.port()), Some(15014));
    assert_eq!(config.listen.probes.port(), 8000);
    let debug = config.listen.debug.unwrap();
    assert!(debug.ip().is_loopback() && debug.port() == 9876);
    assert_eq!(
        config.install,
        Install {
            mode: Mode::Chained { file: None },
            group_read: false,
            plugin_log_level: "info".to_owned(),
            status_needs_agent: false,
        }
    );
    assert_eq!(config.enrolment.selectors, Selector::defaults());
    assert!(config.safe_upgrade);
    assert_eq!(config.rules.native_nftables, None);
}

#[test]
fn a_flag_is_the_variable_of_its_name_and_wins() {
    let given = flags(&[
        "--mounted-cni-net-dir=/net",
        "--monitoring-port",
        "0",
        "--chained-cni-plugin=false",
        "--istio-owned-cni-config",
        "--log_as_json",
        "--log_output_level=all:debug,cni-plugin:warn",
        "--ctrlz_port=0",
    ]);
    let env = env(&[
        ("MOUNTED_CNI_NET_DIR", "/other"),
        ("CNI_AGENT_RUN_DIR", "/run"),
    ]);
    let config = Config::try_new(&given, &env).unwrap();
    assert_eq!(config.paths.cni_net.to_str(), Some("/net"));
    assert_eq!(config.paths.run_dir.to_str(), Some("/run"));
    assert_eq!((config.listen.metrics, config.listen.debug), (None, None));
    // There is no chain to copy.
    assert!(matches!(config.install.mode, Mode::Standalone { .. }));
    assert_eq!(config.log.format, mesh_runtime::log::Format::Json);
    assert_eq!(config.log.filter, "debug,cni-plugin=warn");
    assert_eq!(config.install.plugin_log_level, "warn");
}

#[test]
fn every_flag_of_istio_s_agent_is_taken() {
    for flag in FLAGS {
        let text = match flag.form {
            Form::Switch => format!("--{}", flag.name),
            Form::Text(_) => format!("--{}=1", flag.name),
        };
        let parsed = Cli::try_parse_from(["install-cni", &text]);
        assert!(parsed.is_ok(), "{text}");
    }
    assert!(Cli::try_parse_from(["install-cni", "--unheard-of"]).is_err());
}

#[test]
fn status_fails_only_where_the_agent_starts_all_the_same() {
    let needs = |variables: &[(&str, &str)]| config(variables).install.status_needs_agent;
    assert!(!needs(&[]));
    assert!(needs(&[("STATUS_NEEDS_AGENT", "true")]));
    let refused = refusal(&[
        ("STATUS_NEEDS_AGENT", "true"),
        ("ALLOW_SWITCH_TO_HOST_NS", "true"),
    ]);
    assert!(refused.contains("STATUS_NEEDS_AGENT=`true`"), "{refused}");
}

#[test]
fn both_names_of_the_owned_file_are_taken() {
    let owned = |variables: &[(&str, &str)]| {
        let all: Vec<_> = [("ISTIO_OWNED_CNI_CONFIG", "1")]
            .iter()
            .chain(variables)
            .copied()
            .collect();
        match config(&all).install.mode {
            Mode::Owned { file, .. } => file,
            other => format!("{other:?}"),
        }
    };
    for name in [
        "ISTIO_OWNED_CNI_CONFIG_FILENAME",
        "ISTIO_OWNED_CNI_CONF_FILENAME",
    ] {
        assert_eq!(owned(&[(name, "01-mesh.conflist")]), "01-mesh.conflist");
    }
    assert_eq!(owned(&[]), "02-istio-cni.conflist");
}

#[test]
fn wrong_values_are_errors_that_name_the_variable_and_what_it_takes() {
    for (name, value, remedy) in [
        ("CHAINED_CNI_PLUGIN", "yes", "`true` or `false`"),
        ("MONITORING_PORT", "99999", "a port from 1 to 65535"),
        ("MONITORING_PORT", "many", "a port from 1 to 65535"),
        ("CTRLZ_ADDRESS", "here", "an IP address"),
        ("CNI_CONF_NAME", "../../passwd", ".conf or .conflist"),
        ("FORCE_IPTABLES_BINARY", "ebtables", "`legacy` or `nft`"),
        ("HOST_PROBE_SNAT_IP", "10.0.0.1", "outside 169.254.0.0/16"),
        (
            "HOST_PROBE_SNAT_IP",
            "x",
            "an IPv4 address in 169.254.0.0/16",
        ),
        ("HOST_PROBE_SNAT_IPV6", "2001:db8::1", "use one of fc00::/7"),
        ("AMBIENT_ENABLEMENT_SELECTOR", "[", "a list of selectors"),
        (
            "AMBIENT_ENABLEMENT_SELECTOR",
            "- podSelector: {matchLabel: {}}",
            "podSelector",
        ),
        ("AMBIENT_ENABLED", "false", "use Istio's image"),
        ("LOG_OUTPUT_LEVEL", "loud", "`level` or `scope:level`"),
    ] {
        let told = refusal(&[(name, value)]);
        assert!(told.contains(name) && told.contains(remedy), "{told}");
    }
    let error = Config::try_new(&Flags::default(), &Environment::default()).unwrap_err();
    let told = error.to_string();
    assert_eq!(
        told,
        "NODE_NAME is not set: have the downward API set it to spec.nodeName"
    );
}

#[test]
fn what_has_no_effect_is_told_and_what_asks_for_nothing_is_not() {
    let variables = env(&[
        ("REPAIR_ENABLED", "false"),
        ("KUBE_CA_FILE", "/ca.crt"),
        ("SKIP_TLS_VERIFY", ""),
    ]);
    let told = without_effect(&flags(&["--log_target=stdout"]), &variables);
    let names: Vec<_> = told.iter().map(|(name, _why)| *name).collect();
    assert_eq!(names, ["KUBE_CA_FILE", "LOG_TARGET"]);
}
