//! Finding pods' namespaces by their processes, for pods that the runtime did not tell us of: those that
//! ran before the plugin was installed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mesh_net::netns::NetNsId;
use tokio::{sync::Mutex, task::spawn_blocking, time::Instant};

use super::{Error, Host, Located, cgroup, owns};

/// Looks through the node's processes; cheap to clone. However many pods are searched for, one look at a
/// time serves all of them.
#[derive(Clone, Debug)]
pub(crate) struct Scanner {
    host: Host,
    last: Arc<Mutex<Option<Look>>>,
}

/// What one look has shown.
#[derive(Clone, Debug)]
struct Look {
    began: Instant,
    pods: Arc<Processes>,
}

/// The processes of pods, by the pod's UID, the oldest first: one for each namespace.
pub(crate) type Processes = BTreeMap<String, Vec<Process>>;

/// A process of a pod, in a namespace other than the node's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    /// In clock ticks after the node's boot.
    started: u64,
    pid: u32,
    netns: NetNsId,
}

/// Time between the beginnings of two looks: one takes milliseconds for every thousand processes.
const INTERVAL: Duration = Duration::from_secs(1);

/// The field of `/proc/<pid>/stat` that says when the process started, counted after the name, which may
/// hold anything. See proc(5).
const START_TIME: usize = 22 - 3;

// === impl Scanner ===

impl Scanner {
    pub(crate) fn new(host: Host) -> Self {
        Self {
            host,
            last: Arc::default(),
        }
    }

    /// The namespace of the pod: that of its oldest process in a namespace with one of these addresses.
    pub(crate) async fn find(
        &self,
        uids: Vec<String>,
        addresses: BTreeSet<IpAddr>,
    ) -> Result<Option<Located>, Error> {
        let pods = self.look(Instant::now()).await?;
        let host = self.host.clone();
        let chosen = spawn_blocking(move || choose(&host, &pods, &uids, &addresses)).await;
        chosen.unwrap_or(Ok(None))
    }

    /// What a look shows that began after `asked`.
    async fn look(&self, asked: Instant) -> Result<Arc<Processes>, Error> {
        let mut last = self.last.lock().await;
        if let Some(look) = &*last {
            if look.began >= asked {
                return Ok(look.pods.clone());
            }
            tokio::time::sleep_until(look.began + INTERVAL).await;
        }
        let (began, host) = (Instant::now(), self.host.clone());
        let pods = spawn_blocking(move || processes(&host)).await;
        let pods = Arc::new(pods.unwrap_or_else(|_panicked| Ok(Processes::new()))?);
        *last = Some(Look {
            began,
            pods: pods.clone(),
        });
        Ok(pods)
    }
}

/// All processes of pods.
fn processes(host: &Host) -> Result<Processes, Error> {
    let own = host.own()?;
    // Without it the node is taken for one that is no pod itself.
    let node = fs::read_to_string(host.proc().join("1/cgroup")).unwrap_or_default();
    let mut found = Processes::new();
    let Ok(entries) = fs::read_dir(host.proc()) else {
        return Ok(found);
    };
    for entry in entries.flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        // Processes come and go meanwhile.
        let Some((pod, process)) = pid.and_then(|pid| process(&entry.path(), pid, (own, &node)))
        else {
            continue;
        };
        found.entry(pod).or_default().push(process);
    }
    for processes in found.values_mut() {
        processes.sort();
        let mut seen = BTreeSet::new();
        processes.retain(|process| seen.insert(process.netns));
    }
    Ok(found)
}

/// A process of a pod, on a node with this namespace and these control groups.
fn process(directory: &Path, pid: u32, (own, node): (NetNsId, &str)) -> Option<(String, Process)> {
    let metadata = fs::metadata(directory.join("ns/net")).ok()?;
    let netns = NetNsId {
        dev: metadata.dev(),
        ino: metadata.ino(),
    };
    if netns == own {
        return None;
    }
    let text = fs::read_to_string(directory.join("cgroup")).ok()?;
    let membership = match cgroup::membership(&text, node) {
        Ok(membership) => membership?,
        Err(error) => {
            tracing::warn!(pid, %error, "cannot tell whose process this is");
            return None;
        }
    };
    let started = started(&fs::read_to_string(directory.join("stat")).ok()?)?;
    let process = Process {
        started,
        pid,
        netns,
    };
    Some((membership.pod, process))
}

/// When a process started, by its `stat`.
fn started(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields
        .split_ascii_whitespace()
        .nth(START_TIME)?
        .parse()
        .ok()
}

fn choose(
    host: &Host,
    pods: &Processes,
    uids: &[String],
    addresses: &BTreeSet<IpAddr>,
) -> Result<Option<Located>, Error> {
    let mut candidates: Vec<_> = uids
        .iter()
        .filter_map(|uid| pods.get(uid))
        .flatten()
        .collect();
    candidates.sort();
    for process in candidates {
        let located = match host.open(&Host::of_process(process.pid)) {
            Ok(located) if located.netns.id() == process.netns => located,
            // It ended, and another may have its number.
            Ok(_) | Err(Error::Open { .. } | Error::HostNetwork(_)) => continue,
            Err(error) => return Err(error),
        };
        if owns(&located.netns, addresses)? {
            return Ok(Some(located));
        }
        tracing::debug!(
            pid = process.pid,
            "a process of the pod is in a namespace without its address"
        );
    }
    Ok(None)
}

/// The boot that this is: what was noted down in another does not hold any more.
pub(crate) fn boot_id(proc: &Path) -> Result<String, io::Error> {
    let path: PathBuf = proc.join("sys/kernel/random/boot_id");
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

#[cfg(test)]
mod tests;
