//! `install-cni uninstall`: removes from a node what an agent has left that will not come back.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use mesh_net::netns::{NetNs, NetNsId};
use mesh_runtime::{error::chain, process};

use crate::{
    config::Config,
    ending::is_taken,
    installer::{self, Installer},
    parts::{Probes as _, Rules},
    platform::Kind,
    program::{self, find_kernel, start_runtime, to_install},
};

/// Why something is left. Run it again once that is repaired: what is gone is not missed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no log or no thread.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// There is nothing to work with.
    #[error(transparent)]
    Start(#[from] program::Error),
    /// An agent runs on this node. Delete its DaemonSet first.
    #[error("an agent runs on this node: delete the DaemonSet istio-cni-node first")]
    Taken(#[source] installer::Error),
    /// Some of it could not be removed; the log says what.
    #[error("{0} things could not be removed")]
    Left(usize),
}

/// Removes the plugin's configuration, the plugin, files, sockets, the rules in every network namespace and the
/// set of probed addresses.
pub fn run(config: &Config) -> Result<(), Error> {
    let log = process::log(&config.log)?;
    let runtime = start_runtime()?;
    let outcome = runtime.block_on(remove(config));
    drop(log);
    outcome
}

async fn remove(config: &Config) -> Result<(), Error> {
    let installer = Installer::new(
        to_install(config, Kind::default()),
        installer::Metrics::default(),
    );
    let mut left = 0;
    if let Err(errors) = installer.uninstall().await {
        for error in errors {
            if is_taken(&error) {
                return Err(Error::Taken(error));
            }
            tracing::error!(error = %chain(&error), "the plugin is not removed entirely");
            left += 1;
        }
    }
    let kernel = find_kernel(config).await?;
    for (path, netns) in namespaces(&config.paths.host, config.paths.host_network.as_deref()) {
        if let Err(error) = Rules::remove(&kernel, &netns).await {
            tracing::error!(netns = path, error = %chain(&error), "rules are left");
            left += 1;
        }
    }
    if let Err(error) = kernel.clear().await {
        tracing::error!(error = %chain(&error), "the set of probed addresses is left");
        left += 1;
    }
    if left > 0 {
        return Err(Error::Left(left));
    }
    tracing::info!("nothing of the mesh is left on this node");
    Ok(())
}

/// Every network namespace of the node but its own: those of processes, and those with a name.
fn namespaces(host: &Path, own: Option<&Path>) -> Vec<(String, Arc<NetNs>)> {
    let open = |path: &Path| NetNs::open(path).ok();
    let mut not: Vec<NetNsId> = NetNs::current().iter().map(NetNs::id).collect();
    not.extend(own.and_then(open).map(|netns| netns.id()));
    not.extend(open(&host.join("proc/1/ns/net")).map(|netns| netns.id()));
    let mut found = BTreeMap::new();
    let list = |folder: &str| {
        fs::read_dir(host.join(folder))
            .into_iter()
            .flatten()
            .flatten()
    };
    let of_processes = list("proc").map(|entry| entry.path().join("ns/net"));
    let folders = [
        "run/netns",
        "var/run/netns",
        "run/docker/netns",
        "var/run/docker/netns",
    ];
    let named = folders.into_iter().flat_map(list).map(|entry| entry.path());
    for path in of_processes.chain(named) {
        // What ends meanwhile takes its rules with it.
        if let Some(netns) = open(&path).filter(|netns| !not.contains(&netns.id())) {
            let id = (netns.id().dev, netns.id().ino);
            found
                .entry(id)
                .or_insert_with(|| (path.display().to_string(), Arc::new(netns)));
        }
    }
    found.into_values().collect()
}
