//! What can be set, and the constants of the contract that cannot.

use std::time::Duration;

use mesh_core::route::HBONE_PORT;

use crate::hbone;

/// Port on which the connections that leave the pod are captured.
pub const OUTBOUND_PORT: u16 = 15001;

/// Port on which the connections that reach the pod without a tunnel are captured.
pub const INBOUND_PORT: u16 = 15006;

/// The proxy's own ports in a pod: never a target, or a connection would run in circles.
pub const OWN_PORTS: [u16; 3] = [OUTBOUND_PORT, INBOUND_PORT, HBONE_PORT];

/// How the proxies of a process behave. Defaults are those of the contract where it has them.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches of the contract"
)]
pub struct Settings {
    /// Whether to listen on IPv6 (and on IPv4 through it). `IPV6_ENABLED`.
    pub ipv6: bool,
    /// Whether the application sees the client's address on what the proxy delivers to it. Needs
    /// transparent sockets. `ENABLE_ORIG_SRC`.
    pub original_source: bool,
    /// Whether to say in the answer to CONNECT what the destination is, and to believe what peers
    /// from other networks say. `ENABLE_RESPONSE_BAGGAGE`.
    pub baggage: bool,
    /// Whether matches of dry-run policies are logged at info instead of debug.
    /// `AUTHZ_POLICY_INFO_LOGGING`.
    pub policy_info_logging: bool,
    /// Longest time to wait for a plain TCP connection, and for a certificate.
    pub connect_timeout: Duration,
    /// Longest time that a connection waits for a policy which the pod's workload names and discovery
    /// has not described; it is denied then.
    pub policy_patience: Duration,
    /// Most TLS handshakes that strangers may have in flight with one pod; past that the oldest is
    /// given up for the newest.
    pub max_handshakes: usize,
    /// How tunnels behave.
    pub hbone: hbone::settings::Settings,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            ipv6: true,
            original_source: true,
            baggage: true,
            policy_info_logging: false,
            connect_timeout: Duration::from_secs(10),
            // Workloads and policies are two subscriptions, and what one says of the other is seldom
            // more than some milliseconds behind.
            policy_patience: Duration::from_secs(1),
            // A handshake takes some milliseconds; a pod that gets a thousand at once is either under
            // attack or restarting behind a large fleet, and the pool makes one do for many
            // connections. 1024 × ~40 KiB of TLS state is 40 MiB at worst.
            max_handshakes: 1024,
            hbone: hbone::settings::Settings::default(),
        }
    }
}
