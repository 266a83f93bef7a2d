use std::io::Write;

use super::*;

mod rendered;

fn config(pairs: &[(&str, &str)]) -> Result<Config, Error> {
    Config::from_environment(&pairs.iter().copied().collect())
}

fn refusal(name: &str, value: &str) -> String {
    config(&[(name, value)]).unwrap_err().to_string()
}

#[test]
fn an_empty_environment_gives_upstreams_defaults() {
    let config = config(&[]).unwrap();
    assert_eq!(config.ca.address, "https://localhost:15012");
    assert_eq!(
        config.discovery.unwrap().roots,
        TextSource::File(ROOT.into())
    );
    assert_eq!(config.token, TextSource::File(TOKEN.into()));
    assert_eq!(config.certificate_ttl, Duration::from_secs(86400));
    assert_eq!(
        config.zds_socket,
        PathBuf::from("/var/run/ztunnel/ztunnel.sock")
    );
    assert_eq!(
        config.sockets,
        Sockets {
            packet_mark: 1337,
            reuse_port: true,
            original_source: None,
            ipv6: true,
            keepalive: Some(Keepalive {
                time: Duration::from_secs(180),
                interval: Duration::from_secs(180),
                retries: 9
            }),
            user_timeout: false,
        }
    );
    assert_eq!(
        config.http2,
        Http2 {
            stream_window: 4_194_304,
            connection_window: 16_777_216,
            frame_size: 1_048_576,
            streams_per_connection: 100,
            unused_release: Duration::from_secs(300),
        }
    );
    assert_eq!(config.termination_deadline, Duration::from_secs(5));
    assert_eq!(config.listen.admin_port, 15000);
    assert_eq!(config.listen.stats, "[::]:15020".parse().unwrap());
    assert_eq!(config.listen.readiness, "[::]:15021".parse().unwrap());
    assert_eq!(&*config.node.cluster_id, "Kubernetes");
}

#[test]
fn in_a_cluster_the_control_plane_is_istiod() {
    let config = config(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]).unwrap();
    assert_eq!(config.ca.address, "https://istiod.istio-system.svc:15012");
}

#[test]
fn an_empty_discovery_address_switches_it_off_and_an_empty_ca_is_refused() {
    assert_eq!(config(&[("XDS_ADDRESS", "")]).unwrap().discovery, None);
    assert!(refusal("CA_ADDRESS", "").contains("CA_ADDRESS"));
}

#[test]
fn the_control_plane_is_never_plaintext() {
    let text = refusal("XDS_ADDRESS", "http://istiod:15010");
    assert!(
        text.contains("XDS_ADDRESS") && text.contains("https"),
        "{text}"
    );
}

#[test]
fn a_bad_value_names_the_variable_and_what_is_expected() {
    for (name, value) in [
        ("IPV6_ENABLED", "yes"),
        ("PACKET_MARK", "-1"),
        ("SECRET_TTL", "24"),
        ("HTTP2_FRAME_SIZE", "1"),
        ("HTTP2_STREAM_WINDOW_SIZE", "4294967295"),
        ("ZTUNNEL_WORKER_THREADS", "101%"),
        ("LOG_FORMAT", "xml"),
        ("ISTIO_METAJSON_X", "{"),
    ] {
        let text = refusal(name, value);
        assert!(
            text.contains(name) && text.contains(value) && text.contains("expected"),
            "{text}"
        );
    }
}

#[test]
fn what_cannot_be_honoured_is_refused_with_a_remedy() {
    for (name, value) in [
        ("PROXY_MODE", "dedicated"),
        ("CRL_PATH", "/crl.pem"),
        ("COMPLIANCE_POLICY", "pqc"),
        ("XDS_ON_DEMAND", "true"),
        ("LOCAL_XDS_PATH", "x.yaml"),
        ("FAKE_CA", "true"),
    ] {
        let text = refusal(name, value);
        assert!(
            text.contains(name) && text.contains("not supported"),
            "{text}"
        );
    }
}

#[test]
fn the_deadline_follows_the_grace_period() {
    for (grace, expected) in [("30", 25), ("10", 9), ("1", 1), ("0", 1)] {
        let config = config(&[("TERMINATION_GRACE_PERIOD_SECONDS", grace)]).unwrap();
        assert_eq!(config.termination_deadline, Duration::from_secs(expected));
    }
}

#[test]
fn worker_threads_are_explicit_or_the_limit_or_two() {
    let threads = |pairs: &[(&str, &str)]| config(pairs).unwrap().worker_threads;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    assert_eq!(threads(&[("ZTUNNEL_WORKER_THREADS", "3")]), 3);
    assert_eq!(threads(&[("ZTUNNEL_WORKER_THREADS", "0")]), cores);
    assert_eq!(threads(&[("ZTUNNEL_WORKER_THREADS", "100%")]), cores);
    assert_eq!(threads(&[("PROXY_CONFIG", "concurrency: 5")]), 5);
    assert!(threads(&[]) >= 2);
}

#[test]
fn metadata_comes_from_the_environment_and_from_proxy_config() {
    let config = config(&[
        (
            "PROXY_CONFIG",
            "proxyMetadata: {ISTIO_META_A: file, ISTIO_META_B: file}",
        ),
        ("ISTIO_META_B", "env"),
        ("ISTIO_METAJSON_C", "{\"d\": 1}"),
        ("POD_NAME", "ztunnel-x"),
        ("NODE_NAME", "node1"),
    ])
    .unwrap();
    let metadata = config.node.metadata;
    assert_eq!(metadata["A"], "file");
    assert_eq!(metadata["B"], "env");
    assert_eq!(metadata["C"]["d"], 1);
    assert_eq!(metadata["NAME"], "ztunnel-x");
    assert_eq!(metadata["NODE_NAME"], "node1");
}

#[test]
fn proxy_config_wins_over_the_mesh_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(
        file,
        "defaultConfig:\n  discoveryAddress: mesh:1\n  statsPort: 9"
    )
    .unwrap();
    let load = |variable| mesh_config::load(variable, file.path()).unwrap();
    assert_eq!(load(None).discovery_address.as_deref(), Some("mesh:1"));
    let over = load(Some("discoveryAddress: own:2"));
    assert_eq!(over.discovery_address.as_deref(), Some("own:2"));
    assert_eq!(over.stats_port, Some(9));
}

#[test]
fn broken_yaml_names_its_origin() {
    assert!(refusal("PROXY_CONFIG", "a: [").contains("PROXY_CONFIG"));
}

#[test]
fn extra_headers_are_taken_by_prefix() {
    let config = config(&[("XDS_HEADER_X-A", "1"), ("CA_HEADER_X-B", "2")]).unwrap();
    assert_eq!(config.discovery.unwrap().headers["x-a"], "1");
    assert_eq!(config.ca.headers["x-b"], "2");
}

#[test]
fn roots_are_a_path_a_pem_or_the_systems() {
    assert_eq!(text_source("SYSTEM"), TextSource::System);
    assert_eq!(text_source("/a/b.pem"), TextSource::File("/a/b.pem".into()));
    assert_eq!(
        text_source("./a/b.c.pem"),
        TextSource::File("./a/b.c.pem".into())
    );
    let pem = "-----BEGIN CERTIFICATE-----\nx";
    assert_eq!(text_source(pem), TextSource::Literal(pem.into()));
    assert_eq!(
        text_source("aa.bb.cc"),
        TextSource::Literal("aa.bb.cc".into())
    );
}

/// The quoted words of a text that look like variables.
fn variables(text: &str, quote: char) -> std::collections::BTreeSet<&str> {
    let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let words = text
        .split(quote)
        .map(|word| word.split('=').next().unwrap_or(word));
    let words = words.map(|word| word.trim_end_matches('*'));
    words
        .filter(|word| word.len() > 3 && word.chars().all(upper))
        .collect()
}

#[test]
fn the_reference_page_names_every_variable_that_is_read() {
    let page = include_str!("../../../../docs/reference/ztunnel.md");
    let mut read = variables(include_str!("../args.rs"), '"');
    // Keys of the metadata, and values.
    for other in ["NAME", "NAMESPACE", "INSTANCE_IPS", "SYSTEM", "JSON"] {
        read.remove(other);
    }
    // Composed names.
    read.extend(["XDS_ADDRESS", "CA_ADDRESS", "XDS_ROOT_CA", "CA_ROOT_CA"]);
    read.extend([
        "ALT_XDS_HOSTNAME",
        "ALT_CA_HOSTNAME",
        "XDS_HEADER_",
        "CA_HEADER_",
    ]);
    let documented = variables(page, '`');
    assert_eq!(
        read.difference(&documented).collect::<Vec<_>>(),
        Vec::<&&str>::new()
    );
}
