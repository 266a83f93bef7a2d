//! What is spoken on a port, as its owner states it.

use k8s_openapi::api::core::v1::ServicePort;
use mesh_core::service::AppProtocol;

/// Ports on which the server speaks first, so that nobody should try to find out: SMTP, DNS, MySQL,
/// MongoDB.
const SERVER_SPEAKS_FIRST: [i32; 4] = [25, 53, 3306, 27017];

/// That of a Service's port: `appProtocol`, else the port's name up to a hyphen.
pub(super) fn of_service_port(port: &ServicePort) -> Option<AppProtocol> {
    let stated = match port.app_protocol.as_deref() {
        // Names that Kubernetes itself defines.
        Some("kubernetes.io/h2c") => return Some(AppProtocol::Http2),
        Some("kubernetes.io/ws") => return Some(AppProtocol::Http11),
        Some("kubernetes.io/wss") => return Some(AppProtocol::Tls),
        Some(stated) => stated,
        None => port.name.as_deref().unwrap_or_default(),
    };
    let silent = || SERVER_SPEAKS_FIRST.contains(&port.port);
    parse(stated).or_else(|| silent().then_some(AppProtocol::Tcp))
}

/// A protocol's name, in any case, alone or as the part of a port's name before a hyphen.
pub(super) fn parse(stated: &str) -> Option<AppProtocol> {
    /// gRPC for browsers, which is not gRPC: HTTP of a version that the name does not tell.
    const GRPC_WEB: &str = "grpc-web";
    let starts_with = |prefix: &str| {
        let start = stated.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    if starts_with(GRPC_WEB) {
        return None;
    }
    let name = stated.split('-').next().unwrap_or_default();
    let protocol = match &*name.to_ascii_lowercase() {
        "http" => AppProtocol::Http11,
        "http2" => AppProtocol::Http2,
        "grpc" => AppProtocol::Grpc,
        "tls" | "https" => AppProtocol::Tls,
        "tcp" | "mongo" | "mysql" | "redis" => AppProtocol::Tcp,
        _ => return None,
    };
    Some(protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(number: i32, name: Option<&str>, stated: Option<&str>) -> Option<AppProtocol> {
        of_service_port(&ServicePort {
            port: number,
            name: name.map(Into::into),
            app_protocol: stated.map(Into::into),
            ..ServicePort::default()
        })
    }

    #[test]
    fn the_stated_protocol_counts_before_the_name() {
        use AppProtocol::{Grpc, Http2, Http11, Tcp, Tls};

        for (name, stated, expected) in [
            (None, None, None),
            (Some("http"), None, Some(Http11)),
            (Some("HTTP-admin"), None, Some(Http11)),
            (Some("http2-x"), None, Some(Http2)),
            (Some("grpc"), None, Some(Grpc)),
            (Some("grpc-web-x"), None, None),
            (Some("GRPC-Web"), None, None),
            (Some("https"), None, Some(Tls)),
            (Some("tls-db"), None, Some(Tls)),
            (Some("redis"), None, Some(Tcp)),
            (Some("httpx"), None, None),
            (Some("web"), None, None),
            (Some("http"), Some("tcp"), Some(Tcp)),
            (Some("http"), Some("example.com/own"), None),
            (None, Some("kubernetes.io/h2c"), Some(Http2)),
            (None, Some("kubernetes.io/ws"), Some(Http11)),
            (None, Some("kubernetes.io/wss"), Some(Tls)),
        ] {
            assert_eq!(spoken(8080, name, stated), expected, "{name:?} {stated:?}");
        }
    }

    #[test]
    fn nobody_guesses_at_a_port_whose_server_speaks_first() {
        assert_eq!(spoken(3306, Some("db"), None), Some(AppProtocol::Tcp));
        assert_eq!(spoken(3306, Some("tls"), None), Some(AppProtocol::Tls));
    }
}
