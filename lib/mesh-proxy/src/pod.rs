//! What the proxies of one pod share.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use futures::future::BoxFuture;
use mesh_core::{
    identity::Identity,
    rbac::{self, Decision, Denial, Verdict},
    workload::{PodInfo, Workload},
};
use mesh_identity::WorkloadCertificate;
use mesh_net::socket::SocketFactory;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    admission::Admission,
    connections::{Connections, Subject},
    discover::CertificateError,
    error::Error,
    hbone::pool::Pool,
    proxy::Shared,
};

/// One pod: who it is, where its sockets are made, and what is open in it.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) info: PodInfo,
    pub(crate) sockets: Arc<dyn SocketFactory>,
    pub(crate) shared: Shared,
    pub(crate) connections: Connections,
    pub(crate) handshakes: Admission,
    pub(crate) pool: Pool,
}

// === impl Pod ===

impl Pod {
    /// The pod's own workload, as discovery knows it now.
    pub(crate) async fn workload(&self) -> Result<Arc<Workload>, Error> {
        let found = self.shared.discover.workload_for(&self.info).await;
        found.ok_or_else(|| Error::UnknownWorkload(self.info.clone()))
    }

    /// The pod's certificate, waiting for it no longer than for a connection.
    pub(crate) async fn certificate(
        &self,
        identity: &Identity,
    ) -> Result<Arc<WorkloadCertificate>, Error> {
        let limit = self.shared.settings.connect_timeout;
        let certificate = timeout(limit, self.shared.certs.certificate(identity)).await;
        let late = |_elapsed| CertificateError {
            identity: identity.clone(),
            source: format!("no answer within {limit:?}").into(),
        };
        certificate
            .unwrap_or_else(|elapsed| Err(late(elapsed)))
            .map_err(Error::Certificate)
    }

    /// Whether a connection may reach the pod; says which dry-run policies match it.
    pub(crate) async fn authorize(&self, subject: &Subject) -> Result<(), Error> {
        let mut decision = self.decide(subject);
        if lacks_policy(&decision) {
            decision = self.decide_later(subject).await;
        }
        for policy in &decision.dry_run {
            self.log_dry_run(policy, &subject.connection);
        }
        match decision.verdict {
            Verdict::Allow => Ok(()),
            Verdict::Deny(denial) => Err(Error::Denied(denial)),
        }
    }

    fn decide(&self, subject: &Subject) -> Decision {
        let Subject { local, connection } = subject;
        self.shared.discover.authorize(local, connection)
    }

    /// The decision when all policies that the workload names are known, or when patience ends.
    /// Boxed: it is rare, and connections need not have room for it.
    fn decide_later<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Decision> {
        // Before the first look, so that no change falls between the two.
        let mut changes = self.shared.discover.policy_changes();
        let known = async move {
            while lacks_policy(&self.decide(subject)) && changes.changed().await.is_ok() {}
        };
        let patience = self.shared.settings.policy_patience;
        Box::pin(async move {
            // What is known at the end of patience decides.
            let _ = timeout(patience, known).await;
            self.decide(subject)
        })
    }

    /// Refuses what was sent to the pod's interface but meant for somebody else: the redirection rules
    /// take every packet that comes in. Without this a neighbour could use the pod as a relay, or reach
    /// what listens on its loopback alone.
    pub(crate) fn check_own(&self, local: &Workload, target: SocketAddr) -> Result<(), Error> {
        let address = target.ip();
        // Nearly always; the kernel is asked only about addresses that discovery does not name.
        if local.addresses.contains(&address) {
            return Ok(());
        }
        let owned = may_arrive_for(address) && self.sockets.owns(target).unwrap_or(false);
        owned.then_some(()).ok_or(Error::NotOwn(target))
    }

    /// Connects to `target`.
    pub(crate) async fn connect(&self, target: SocketAddr) -> Result<TcpStream, Error> {
        self.connect_from(None, target).await
    }

    /// Connects to `target`, which sees the connection come from `client` where that is possible.
    pub(crate) async fn connect_as(
        &self,
        client: IpAddr,
        target: SocketAddr,
    ) -> Result<TcpStream, Error> {
        let source = self.shared.settings.original_source && can_appear(client, target.ip());
        self.connect_from(source.then_some(client), target).await
    }

    async fn connect_from(
        &self,
        source: Option<IpAddr>,
        target: SocketAddr,
    ) -> Result<TcpStream, Error> {
        let source = source.map(|address| SocketAddr::new(address, 0));
        let limit = self.shared.settings.connect_timeout;
        let connecting = async {
            self.sockets
                .connect_socket(target.is_ipv6(), source)?
                .connect(target)
                .await
        };
        match timeout(limit, connecting).await {
            Ok(connected) => connected.map_err(|error| Error::Connect(target, error)),
            Err(_elapsed) => Err(Error::ConnectTimeout(target, limit)),
        }
    }

    fn log_dry_run(&self, policy: &str, connection: &rbac::Connection) {
        let (source, destination) = (connection.source_ip, connection.destination);
        if self.shared.settings.policy_info_logging {
            tracing::info!(policy, %source, %destination, "dry-run policy matches");
        } else {
            tracing::debug!(policy, %source, %destination, "dry-run policy matches");
        }
    }
}

/// Whether a decision may become another one as soon as discovery describes a policy.
fn lacks_policy(decision: &Decision) -> bool {
    matches!(decision.verdict, Verdict::Deny(Denial::UnknownPolicy(_)))
}

/// Does `work`, unless `stop` resolves first. Not for the life of a connection: watching a drain takes
/// a lock whenever the task is woken.
pub(crate) async fn unless<S, T>(
    stop: impl Future<Output = S>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        _ = stop => Err(Error::Drained),
        done = work => done,
    }
}

/// Whether a connection from outside can be meant for `address`.
fn may_arrive_for(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || broadcast)
}

/// Whether a connection to `target` can come from the address `client`.
///
/// Not from the target's own address, nor over another family; and the loopback interface carries
/// nothing that comes from outside.
fn can_appear(client: IpAddr, target: IpAddr) -> bool {
    client != target
        && client.is_ipv4() == target.is_ipv4()
        && (client.is_loopback() || !target.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_is_meant_for_loopback_or_for_many() {
        let may = |address: &str| may_arrive_for(address.parse().unwrap());
        assert!(may("10.0.0.1") && may("fd00::1") && may("fe80::1"));
        for address in ["127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1"] {
            assert!(!may(address), "{address}");
        }
        assert!(!may("255.255.255.255"));
    }

    #[test]
    fn a_client_appears_only_where_its_address_can() {
        let can = |client: &str, target: &str| {
            can_appear(client.parse().unwrap(), target.parse().unwrap())
        };
        assert!(can("10.0.0.1", "10.0.0.2"));
        assert!(can("fd00::1", "fd00::2"));
        assert!(can("127.0.0.1", "127.0.0.2"));
        assert!(!can("10.0.0.1", "10.0.0.1"));
        assert!(!can("10.0.0.1", "fd00::2"));
        assert!(!can("10.0.0.1", "127.0.0.1"));
        assert!(!can("fd00::1", "::1"));
    }
}
