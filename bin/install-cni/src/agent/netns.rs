//! The network namespaces of pods: opening them, and finding those that nobody told us of.
//!
//! A namespace is a pod's because the runtime said so, or because a process of the pod is in it and so is
//! one of the pod's addresses. What else a namespace holds, such as our own rules, proves nothing.

use std::{
    collections::BTreeSet,
    fs, io,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use mesh_net::netns::{self, NetNs, NetNsId};
use nix::{errno::Errno, ifaddrs::getifaddrs, sys::socket::SockaddrStorage};

pub mod cgroup;
pub(crate) mod process;
pub(crate) mod sandbox;

/// The node, as its namespaces are looked up.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    root: PathBuf,
    proc: PathBuf,
}

/// A pod's namespace and what leads to it.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    /// The namespace, held open: its number is nobody else's while we hold it.
    pub(crate) netns: Arc<NetNs>,
    /// The file that it was opened by, as the node names it.
    pub(crate) path: PathBuf,
}

/// Why a namespace is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The runtime named something that cannot be a namespace's path. It is at fault.
    #[error(
        "open network namespace {0:?}: not an absolute path without `..` of at most {MAX_PATH} bytes"
    )]
    Path(String),
    /// The namespace is gone, or the node's directories are not mounted as they should be.
    #[error("open the network namespace {} of the node", path.display())]
    Open {
        /// As the node names it.
        path: PathBuf,
        /// Why not.
        source: netns::Error,
    },
    /// Rules in the node's own network would cut the node off. The runtime named the wrong namespace, or the
    /// pod has the node's network.
    #[error("use network namespace {}: it is the node's own", .0.display())]
    HostNetwork(PathBuf),
    /// The addresses of a namespace cannot be read: no right to enter it, or the kernel is out of memory.
    #[error("read the addresses in network namespace {}", id.ino)]
    Addresses {
        /// Which.
        id: NetNsId,
        /// Why not.
        source: io::Error,
    },
}

/// The kernel's limit of a path.
const MAX_PATH: usize = 4096;

/// Two names of one directory on nearly every node; only one may be mounted.
const RUN: [&str; 2] = ["/var/run/", "/run/"];

// === impl Host ===

impl Host {
    /// A node whose root directory and `/proc` are here.
    pub(crate) fn new(root: PathBuf, proc: PathBuf) -> Self {
        Self { root, proc }
    }

    /// The node's `/proc`.
    pub(crate) fn proc(&self) -> &Path {
        &self.proc
    }

    /// Opens the namespace that the node knows by this path; never the node's own.
    pub(crate) fn open(&self, path: &str) -> Result<Located, Error> {
        let mut first = None;
        for candidate in self.candidates(path)? {
            match NetNs::open(&candidate) {
                Ok(netns) => return self.foreign(netns, path.into()),
                Err(source) => {
                    let path = path.into();
                    first.get_or_insert(Error::Open { path, source });
                }
            }
        }
        Err(first.unwrap_or_else(|| Error::Path(shortened(path))))
    }

    /// Which namespace the node knows by this path now; none if it knows none.
    pub(crate) fn identify(&self, path: &str) -> Option<NetNsId> {
        let candidates = self.candidates(path).ok()?;
        let found = candidates.iter().find_map(|path| fs::metadata(path).ok())?;
        Some(NetNsId {
            dev: found.dev(),
            ino: found.ino(),
        })
    }

    /// The file of this process's namespace, as the node names it.
    pub(crate) fn of_process(pid: u32) -> String {
        format!("/proc/{pid}/ns/net")
    }

    /// The number of the node's own namespace.
    pub(crate) fn own(&self) -> Result<NetNsId, Error> {
        let path = self.proc.join("1/ns/net");
        let opened = NetNs::open(&path).map_err(|source| Error::Open { path, source })?;
        Ok(opened.id())
    }

    fn foreign(&self, netns: NetNs, path: PathBuf) -> Result<Located, Error> {
        if netns.id() == self.own()? {
            return Err(Error::HostNetwork(path));
        }
        let netns = Arc::new(netns);
        Ok(Located { netns, path })
    }

    /// Where this process sees a path of the node.
    fn candidates(&self, path: &str) -> Result<Vec<PathBuf>, Error> {
        let plain = |component| matches!(component, Component::RootDir | Component::Normal(_));
        let absolute = path.starts_with('/') && Path::new(path).components().all(plain);
        if !absolute || path.len() > MAX_PATH || path.contains('\0') {
            return Err(Error::Path(shortened(path)));
        }
        if let Some(rest) = path.strip_prefix("/proc/") {
            return Ok(vec![self.proc.join(rest)]);
        }
        let below = |path: &str| self.root.join(path.trim_start_matches('/'));
        let mut candidates = vec![below(path)];
        let [one, other] = RUN;
        for (from, to) in [(one, other), (other, one)] {
            if let Some(rest) = path.strip_prefix(from) {
                candidates.push(below(&format!("{to}{rest}")));
                break;
            }
        }
        Ok(candidates)
    }
}

/// What comes from outside, not longer than a log line bears.
fn shortened(text: &str) -> String {
    text.chars().take(128).collect()
}

/// Whether one of these addresses is an address of an interface in the namespace.
///
/// Blocks for as long as the kernel takes to list them.
pub(crate) fn owns(netns: &NetNs, addresses: &BTreeSet<IpAddr>) -> Result<bool, Error> {
    let id = netns.id();
    let failed = |source| Error::Addresses { id, source };
    let held = |address: &SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        let any = v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())));
        any.is_some_and(|address| addresses.contains(&address))
    };
    // Who is root in a pod may give it any number of addresses: they are not collected.
    let found = netns.run(|| {
        let mut listed = getifaddrs()?;
        Ok(listed.any(|interface| interface.address.as_ref().is_some_and(held)))
    });
    let found = found.map_err(|error| failed(error.into()))?;
    found.map_err(|errno: Errno| failed(errno.into()))
}

#[cfg(test)]
mod tests;
