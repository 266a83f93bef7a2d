//! Reads the environment, in one place. Names and defaults are those of Istio's ztunnel, so that one
//! image can replace the other in a DaemonSet; a variable that asks for what this proxy cannot do is
//! an error, never ignored.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use mesh_runtime::environment::{self, BOOL, Environment, NUMBER, shortened};

use crate::config::{
    Config, ControlPlane, Http2, Keepalive, Listen, Log, Node, Sockets, TextSource,
};

mod mesh_config;

/// Why the environment cannot be used. The one who deploys the proxy is at fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable has a value of the wrong form.
    #[error(transparent)]
    Value(#[from] environment::Error),
    /// A variable asks for something this proxy does not do.
    #[error("{name}=`{value}` is not supported by this proxy: {remedy}")]
    Unsupported {
        /// The variable.
        name: &'static str,
        /// Its value, shortened.
        value: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// `PROXY_CONFIG` or the mesh file is not readable as YAML.
    #[error("{origin} is not valid proxy configuration")]
    ProxyConfig {
        /// The variable or file.
        origin: String,
        /// What the parser says.
        source: serde_yaml_ng::Error,
    },
    /// The mesh file is there and cannot be read.
    #[error("cannot read {}", path.display())]
    MeshFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What `ztunnel help` prints.
pub const HELP: &str = "\
Carries the traffic of this node's pods: mutual TLS, L4 policy, telemetry.

Usage:
  ztunnel [proxy]   run until SIGTERM, SIGINT or POST /quitquitquit
  ztunnel version   print the version and the OpenSSL in use
  ztunnel help      print this

It is configured by its environment, with the names and defaults of Istio's ztunnel;
docs/reference/ztunnel.md lists them. Admin is on loopback port 15000, metrics on 15020,
readiness on 15021.";

const TOKEN: &str = "./var/run/secrets/tokens/istio-token";
const ROOT: &str = "./var/run/secrets/istio/root-cert.pem";
const MESH_FILE: &str = "./etc/istio/config/mesh";

// === impl Error ===

impl Error {
    fn value(name: &str, value: &str, expected: &'static str) -> Self {
        environment::Error::new(name, value, expected).into()
    }
}

// === impl Config ===

impl Config {
    /// The configuration that the environment asks for.
    pub fn from_environment(env: &Environment) -> Result<Self, Error> {
        refuse_unsupported(env)?;
        let proxy = mesh_config::load(env.filled("PROXY_CONFIG"), MESH_FILE.as_ref())?;
        let node = node(env, &proxy.proxy_metadata)?;
        let default_address = proxy.discovery_address.unwrap_or_else(|| {
            let in_cluster = env.filled("KUBERNETES_SERVICE_HOST").is_some();
            let host = if in_cluster {
                "istiod.istio-system.svc"
            } else {
                "localhost"
            };
            format!("{host}:15012")
        });
        let ca = control_plane(env, "CA", &default_address)?.ok_or(Error::Unsupported {
            name: "CA_ADDRESS",
            value: String::new(),
            remedy: "a proxy without a certificate authority has no identity; set an address",
        })?;
        let ipv6 = env.flag("IPV6_ENABLED", true)?;
        Ok(Self {
            discovery: control_plane(env, "XDS", &default_address)?,
            ca,
            token: text_source(env.filled("AUTH_TOKEN").unwrap_or(TOKEN)),
            certificate_ttl: env.duration("SECRET_TTL", Duration::from_secs(24 * 3600))?,
            zds_socket: env
                .filled("INPOD_UDS")
                .unwrap_or("/var/run/ztunnel/ztunnel.sock")
                .into(),
            sockets: sockets(env, ipv6)?,
            http2: http2(env)?,
            termination_deadline: termination_deadline(env)?,
            worker_threads: worker_threads(env, proxy.concurrency)?,
            baggage: env.flag("ENABLE_RESPONSE_BAGGAGE", true)?,
            localhost_app_tunnel: env.flag("LOCALHOST_APP_TUNNEL", true)?,
            policy_info_logging: env.flag("AUTHZ_POLICY_INFO_LOGGING", false)?,
            tls12: env.flag("TLS12_ENABLED", false)?,
            preferred_service_namespace: env.filled("PREFERED_SERVICE_NAMESPACE").map(Into::into),
            listen: listen(proxy.proxy_admin_port, proxy.stats_port, ipv6),
            log: Log {
                filter: env.filled("RUST_LOG").unwrap_or("info").to_owned(),
                json: match env.filled("LOG_FORMAT") {
                    None | Some("plain") => false,
                    Some("json") => true,
                    Some(other) => {
                        return Err(Error::value("LOG_FORMAT", other, "`plain` or `json`"));
                    }
                },
            },
            node,
        })
    }
}

/// Settings that change what is protected or carried must not be passed over in silence.
fn refuse_unsupported(env: &Environment) -> Result<(), Error> {
    const OFF: [&str; 3] = ["", "false", "0"];
    let refused: [(&'static str, &[&str], &'static str); 7] = [
        (
            "ENABLE_PROXY",
            &["", "true"],
            "the data plane cannot be switched off; do not run it",
        ),
        (
            "PROXY_MODE",
            &["", "shared"],
            "only the shared mode is built",
        ),
        ("UNSTABLE_ENABLE_SOCKS5", &OFF, "unset it"),
        (
            "XDS_ON_DEMAND",
            &OFF,
            "unset it: all workloads are subscribed to",
        ),
        (
            "CRL_PATH",
            &[""],
            "unset it: revocation lists are not checked yet",
        ),
        (
            "COMPLIANCE_POLICY",
            &[""],
            "unset it: FIPS is taken from OpenSSL's own state",
        ),
        (
            "FAKE_CA",
            &OFF,
            "unset it: certificates always come from a certificate authority",
        ),
    ];
    for (name, accepted, remedy) in refused {
        let value = env.text(name).unwrap_or_default();
        if !accepted.contains(&value) {
            return Err(Error::Unsupported {
                name,
                value: shortened(value),
                remedy,
            });
        }
    }
    for name in ["LOCAL_XDS_PATH", "LOCAL_XDS"] {
        if let Some(value) = env.filled(name) {
            let remedy = "unset it: discovery comes from the control plane";
            return Err(Error::Unsupported {
                name,
                value: shortened(value),
                remedy,
            });
        }
    }
    Ok(())
}

fn node(env: &Environment, proxy_metadata: &BTreeMap<String, String>) -> Result<Node, Error> {
    let mut metadata = BTreeMap::new();
    let from_file = proxy_metadata.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    for (key, value) in from_file.filter_map(|(k, v)| Some((k.strip_prefix("ISTIO_META_")?, v))) {
        metadata.insert(key.to_owned(), value.into());
    }
    for (key, value) in env.prefixed("ISTIO_META_") {
        metadata.insert(key.to_owned(), value.into());
    }
    for (key, value) in env.prefixed("ISTIO_METAJSON_") {
        let parsed = serde_json::from_str(value)
            .map_err(|_wrong| Error::value(&format!("ISTIO_METAJSON_{key}"), value, "JSON"))?;
        metadata.insert(key.to_owned(), parsed);
    }
    let or = |name, default: &'static str| env.filled(name).unwrap_or(default);
    let instance_ip = or("INSTANCE_IP", "1.1.1.1");
    let derived = [
        ("NAME", env.filled("POD_NAME")),
        ("NAMESPACE", env.filled("POD_NAMESPACE")),
        ("INSTANCE_IPS", Some(instance_ip)),
        ("NODE_NAME", env.filled("NODE_NAME")),
    ];
    for (key, value) in derived.into_iter().filter_map(|(k, v)| Some((k, v?))) {
        metadata.insert(key.to_owned(), value.into());
    }
    let cluster = env
        .filled("ISTIO_META_CLUSTER_ID")
        .or_else(|| env.filled("CLUSTER_ID"));
    Ok(Node {
        name: or("NODE_NAME", "").into(),
        cluster_id: cluster.unwrap_or("Kubernetes").into(),
        cluster_domain: or("CLUSTER_DOMAIN", "cluster.local").into(),
        network: or("NETWORK", "").into(),
        instance_ip: instance_ip.into(),
        pod_name: or("POD_NAME", "").into(),
        pod_namespace: or("POD_NAMESPACE", "").into(),
        trust_domain: or("TRUST_DOMAIN", "cluster.local").into(),
        metadata,
    })
}

/// `<PREFIX>_ADDRESS` and what belongs to it; an address set to nothing switches it off.
fn control_plane(
    env: &Environment,
    prefix: &str,
    default_address: &str,
) -> Result<Option<ControlPlane>, Error> {
    let name = format!("{prefix}_ADDRESS");
    let address = env.text(&name).unwrap_or(default_address).trim();
    if address.is_empty() {
        return Ok(None);
    }
    if address.starts_with("http://") {
        return Err(Error::value(
            &name,
            address,
            "an https address: there is no plaintext control plane",
        ));
    }
    let address = match address.split_once("://") {
        Some(_) => address.to_owned(),
        None => format!("https://{address}"),
    };
    let header_prefix = format!("{prefix}_HEADER_");
    Ok(Some(ControlPlane {
        address,
        roots: text_source(env.filled(&format!("{prefix}_ROOT_CA")).unwrap_or(ROOT)),
        alternative_name: env
            .filled(&format!("ALT_{prefix}_HOSTNAME"))
            .map(Into::into),
        headers: env
            .prefixed(&header_prefix)
            .map(|(key, value)| (key.to_ascii_lowercase(), value.to_owned()))
            .collect(),
    }))
}

/// A path, an inline text, or `SYSTEM`. What exists as a file is a file; a PEM block or a token with
/// two dots is itself.
fn text_source(value: &str) -> TextSource {
    let inline =
        value.contains("-----BEGIN") || value.matches('.').count() == 2 && !value.contains('/');
    match value {
        "SYSTEM" => TextSource::System,
        _ if inline => TextSource::Literal(value.to_owned()),
        _ => TextSource::File(value.into()),
    }
}

fn sockets(env: &Environment, ipv6: bool) -> Result<Sockets, Error> {
    let seconds = |name, default| env.duration(name, Duration::from_secs(default));
    let keepalive = Keepalive {
        time: seconds("KEEPALIVE_TIME", 180)?,
        interval: seconds("KEEPALIVE_INTERVAL", 180)?,
        retries: env.parsed("KEEPALIVE_RETRIES", NUMBER)?.unwrap_or(9),
    };
    Ok(Sockets {
        packet_mark: env.parsed("PACKET_MARK", NUMBER)?.unwrap_or(1337),
        reuse_port: env.flag("INPOD_PORT_REUSE", true)?,
        original_source: env.parsed("ENABLE_ORIG_SRC", BOOL)?,
        ipv6,
        keepalive: env.flag("KEEPALIVE_ENABLED", true)?.then_some(keepalive),
        user_timeout: env.flag("USER_TIMEOUT_ENABLED", false)?,
    })
}

/// Windows and frames have the bounds of HTTP/2 (RFC 9113 §6.5.2, §6.9.1).
fn http2(env: &Environment) -> Result<Http2, Error> {
    let bounded = |name: &str, default: u32, range: std::ops::RangeInclusive<u32>| {
        let value = env.parsed(name, NUMBER)?.unwrap_or(default);
        let fits = range.contains(&value);
        fits.then_some(value)
            .ok_or_else(|| Error::value(name, &value.to_string(), NUMBER))
    };
    let window = 1..=(1 << 31) - 1;
    Ok(Http2 {
        stream_window: bounded("HTTP2_STREAM_WINDOW_SIZE", 4 << 20, window.clone())?,
        connection_window: bounded("HTTP2_CONNECTION_WINDOW_SIZE", 16 << 20, window)?,
        frame_size: bounded("HTTP2_FRAME_SIZE", 1 << 20, 1 << 14..=(1 << 24) - 1)?,
        streams_per_connection: bounded("POOL_MAX_STREAMS_PER_CONNECTION", 100, 1..=u32::MAX)?,
        unused_release: env.duration("POOL_UNUSED_RELEASE_TIMEOUT", Duration::from_secs(300))?,
    })
}

/// Explicit, or what the pod's grace period leaves: 5 s less of a long one, 1 s less of a short one.
fn termination_deadline(env: &Environment) -> Result<Duration, Error> {
    let grace: Option<u64> = env.parsed("TERMINATION_GRACE_PERIOD_SECONDS", NUMBER)?;
    let left = grace.map_or(5, |s| {
        if s > 10 {
            s - 5
        } else {
            s.saturating_sub(1).max(1)
        }
    });
    let explicit = env.duration("CONNECTION_TERMINATION_DEADLINE", Duration::from_secs(left));
    Ok(explicit?)
}

/// Explicit (a number, `n%` of the cores, 0 for all of them), or the pod's own CPU limit, or at least
/// two and otherwise a quarter of the node.
fn worker_threads(env: &Environment, concurrency: Option<usize>) -> Result<usize, Error> {
    const NAME: &str = "ZTUNNEL_WORKER_THREADS";
    const EXPECTED: &str = "a number of threads, or a share of the cores such as `25%`";
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = |percent: usize| (cores * percent).div_ceil(100).max(1);
    if let Some(value) = env.filled(NAME) {
        let percent = value.strip_suffix('%');
        let number: usize = percent
            .unwrap_or(value)
            .parse()
            .map_err(|_wrong| Error::value(NAME, value, EXPECTED))?;
        return match (percent, number) {
            (Some(_), 1..=100) => Ok(share(number)),
            (None, 0) => Ok(cores),
            (None, 1..=1024) => Ok(number),
            _ => Err(Error::value(NAME, value, EXPECTED)),
        };
    }
    if let Some(threads) = concurrency.filter(|threads| *threads > 0) {
        return Ok(threads);
    }
    let request = env.parsed::<usize>("ZTUNNEL_RESOURCE_CPU_REQUEST", NUMBER)?;
    let limit = env.parsed::<usize>("ZTUNNEL_CPU_LIMIT", NUMBER)?;
    let limit = match limit {
        None => env.parsed("ZTUNNEL_RESOURCE_CPU_LIMIT", NUMBER)?,
        known => known,
    };
    // Without a limit the downward API reports all of the node's cores; that is no limit.
    let explicit = limit.filter(|limit| (1..cores).contains(limit));
    let request = request.unwrap_or(0).min(cores);
    Ok(explicit.map_or_else(|| request.max(share(25)).max(2), |limit| limit.max(request)))
}

fn listen(admin_port: Option<u16>, stats_port: Option<u16>, ipv6: bool) -> Listen {
    let unspecified: IpAddr = if ipv6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let any = |port| SocketAddr::new(unspecified, port);
    Listen {
        admin_port: admin_port.unwrap_or(15000),
        stats: any(stats_port.unwrap_or(15020)),
        readiness: any(15021),
    }
}

#[cfg(test)]
mod tests;
