//! The configuration in the terms of each crate.

use mesh_identity::{
    control::{Target, roots::RootSource},
    provider::Versions,
    token,
};
use mesh_net::socket::{self, TcpOptions};
use mesh_proxy::hbone::settings::{PoolLimits, Settings as Hbone};
use mesh_xds::client;

use crate::config::{Config, ControlPlane, TextSource};

/// The node id has four parts: kind, address, name and domain. Contract of the discovery service.
pub(crate) fn xds_node(config: &Config) -> client::Node {
    let node = &config.node;
    let (pod, namespace) = (&node.pod_name, &node.pod_namespace);
    client::Node {
        id: format!(
            "ztunnel~{}~{pod}.{namespace}~{namespace}.svc.{}",
            node.instance_ip, node.cluster_domain
        ),
        metadata: node.metadata.clone().into_iter().collect(),
    }
}

pub(crate) fn state(config: &Config) -> mesh_state::store::Config {
    let node = &config.node;
    mesh_state::store::Config {
        network: node.network.clone(),
        node: Some(node.name.clone()).filter(|name| !name.is_empty()),
        cluster: Some(node.cluster_id.clone()),
        preferred_service_namespace: config.preferred_service_namespace.clone(),
    }
}

pub(crate) fn engine(config: &Config, original_source: bool) -> mesh_proxy::config::Settings {
    let defaults = Hbone::default();
    let http2 = &config.http2;
    mesh_proxy::config::Settings {
        ipv6: config.sockets.ipv6,
        original_source,
        baggage: config.baggage,
        policy_info_logging: config.policy_info_logging,
        hbone: Hbone {
            stream_window: http2.stream_window,
            connection_window: http2.connection_window,
            frame_size: http2.frame_size,
            pool: PoolLimits {
                streams_per_connection: usize::try_from(http2.streams_per_connection)
                    .unwrap_or(usize::MAX),
                idle_timeout: http2.unused_release,
                ..defaults.pool.clone()
            },
            ..defaults
        },
        ..mesh_proxy::config::Settings::default()
    }
}

pub(crate) fn tcp(config: &Config) -> TcpOptions {
    let keepalive = config.sockets.keepalive.map(|keepalive| socket::Keepalive {
        idle: keepalive.time,
        interval: keepalive.interval,
        retries: keepalive.retries,
    });
    TcpOptions {
        keepalive,
        user_timeout: config.sockets.user_timeout,
    }
}

pub(crate) fn target(config: &Config, control_plane: &ControlPlane) -> Target {
    let roots = match &control_plane.roots {
        TextSource::File(path) => RootSource::File(path.clone()),
        TextSource::Literal(pem) => RootSource::Inline(pem.as_str().into()),
        TextSource::System => RootSource::System,
    };
    let mut target = Target::new(control_plane.address.clone(), roots);
    target
        .alternative_names
        .extend(control_plane.alternative_name.clone());
    target.versions = versions(config);
    target
}

pub(crate) fn versions(config: &Config) -> Versions {
    if config.tls12 {
        Versions::Tls12AndTls13
    } else {
        Versions::Tls13
    }
}

pub(crate) fn token(source: &TextSource) -> token::Source {
    match source {
        TextSource::File(path) => token::Source::File(path.clone()),
        TextSource::Literal(token) => token::Source::Literal(token.as_str().into()),
        TextSource::System => token::Source::None,
    }
}

pub(crate) fn headers(control_plane: &ControlPlane) -> Vec<(String, String)> {
    control_plane.headers.clone().into_iter().collect()
}
