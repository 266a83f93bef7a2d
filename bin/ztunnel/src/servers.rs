//! The program's own ports: admin, metrics, readiness.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use mesh_net::socket::{HostSockets, SocketFactory};
use mesh_runtime::{
    admin,
    http::{self, Limits, Router},
    life::Tasks,
    listen, log,
    readiness::Readiness,
    shutdown, stats,
    task::Tracker,
};
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;

use crate::{config::Config, dump::Sources};

/// What the ports show.
pub(crate) struct Servers<'a> {
    pub(crate) config: &'a Config,
    pub(crate) readiness: Readiness,
    pub(crate) registry: Arc<Registry>,
    pub(crate) log: log::Handle,
    pub(crate) quit: shutdown::Quit,
    pub(crate) sources: Sources,
    /// Readiness answers from the workers, so that it is missed when they hang.
    pub(crate) workers: Handle,
    pub(crate) worker_tasks: Tracker,
    pub(crate) tasks: Tasks,
}

// === impl Servers ===

impl Servers<'_> {
    /// Binds all ports, then serves them as tasks.
    pub(crate) fn start(self) -> Result<(), listen::Error> {
        let listen = &self.config.listen;
        let sources = self.sources.clone();
        let dump = move || sources.collect();
        let admin = admin::routes("ztunnel", self.log.clone(), self.quit.clone(), dump);
        let admin = Arc::new(admin);
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, listen.admin_port));
        self.serve("admin", loopback, &admin)?;
        if self.config.sockets.ipv6 {
            let loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, listen.admin_port));
            if let Err(error) = self.serve("admin", loopback, &admin) {
                // A namespace may have IPv6 without a loopback address of it.
                tracing::info!(
                    error = &error as &dyn std::error::Error,
                    "admin is on IPv4 alone"
                );
            }
        }
        let stats = Arc::new(stats::routes(self.registry.clone()));
        self.serve("metrics", listen.stats, &stats)?;
        let readiness = Arc::new(self.readiness.routes());
        let _workers = self.workers.enter();
        self.serve("readiness", listen.readiness, &readiness)
    }

    fn serve(
        &self,
        purpose: &'static str,
        address: SocketAddr,
        router: &Arc<Router>,
    ) -> Result<(), listen::Error> {
        let listener = HostSockets::default().listen_tcp(address);
        let listener = listener.map_err(|source| listen::Error {
            purpose,
            address,
            source,
        })?;
        let (router, drain) = (router.clone(), self.tasks.drain.clone());
        // The listener is registered with the runtime we are in; its task belongs there too.
        let on_workers = Handle::current().id() == self.workers.id();
        let tasks = if on_workers {
            &self.worker_tasks
        } else {
            &self.tasks.background
        };
        let serving = http::serve(listener, router, Limits::default(), tasks.clone(), drain);
        drop(tasks.spawn(purpose, serving));
        Ok(())
    }
}
