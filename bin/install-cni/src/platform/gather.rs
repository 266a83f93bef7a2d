//! Gathers what [`detect`](super::detect) looks at: files of the host, most of them in `/proc`.
//!
//! The host's own files are reached through the root of its first process, which takes the host's `/proc` and
//! the capability `SYS_PTRACE`; the agent has both to find network namespaces. Nothing is mounted for this.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use mesh_cni::conflist::{ConfigList, Format, MAX_BYTES};
use mesh_net::netns::NetNs;
use tokio::time::timeout;

use super::{
    Cilium, ConfFile, Folder, Host, KernelFeatures, NodeFacts, Presence, SeLinux, Unread, folders,
    kernel, network,
};

mod mounts;
#[cfg(test)]
mod tests;

/// What to look at.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Where the plugin goes, as this process sees it.
    pub bin_folder: PathBuf,
    /// Where the CNI configuration is, as this process sees it.
    pub conf_folder: PathBuf,
    /// The host's root as far as it is mounted: `/host`, or `/` on the host itself. The host's `/proc` is in it.
    pub host: PathBuf,
    /// Whether IPv6 is asked for.
    pub ipv6: bool,
    /// Whether the plugin is chained behind another one.
    pub chained: bool,
}

/// The sysctls that matter. They are those of the host's network namespace.
const SYSCTLS: [&str; 2] = ["net.ipv4.tcp_early_demux", "net.ipv6.conf.all.disable_ipv6"];
/// Where runtimes keep network namespaces with a name, as the host calls it, and where that is without links.
const NAMESPACE_FOLDERS: [(&str, &str); 2] = [
    ("/var/run/netns", "run/netns"),
    (folders::DOCKER_NAMESPACES, "run/docker/netns"),
];
/// Where Cilium's agent sees its ConfigMap, a file for each key.
const CILIUM_CONFIG: &str = "tmp/cilium/config-map";
/// Where the maps of programs in the kernel have names.
const BPF_MAPS: &str = "sys/fs/bpf/tc/globals";
/// Most bytes of a file that is read; modules are listed in some hundred kilobytes.
const MAX_FILE: u64 = 8 << 20;
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the host's files are.
struct Look {
    /// The host's `/proc`.
    proc: PathBuf,
    /// The host's root directory.
    root: PathBuf,
    /// The host's network namespace.
    netns: PathBuf,
}

/// Looks at the node itself. Blocks for some milliseconds, for files of `/proc`.
pub fn host(sources: &Sources) -> Host {
    let look = Look::new(&sources.host);
    let release = text(&look.proc.join("sys/kernel/osrelease"));
    let release = release
        .map(|text| text.trim().to_owned())
        .unwrap_or_default();
    let processes = look.processes();
    let agent = |name: &str| processes.get(name).copied();
    let cilium = agent("cilium-agent").map(|process| look.cilium(process));
    let (netns_folders, netns_mounted) = look.namespaces(&sources.host);
    let mut unread = Vec::new();
    unread.extend(look.unreadable());
    if cilium
        .as_ref()
        .is_some_and(|cilium| cilium.settings.is_none())
    {
        unread.push(Unread {
            what: "the settings of Cilium's agent".to_owned(),
            why: format!("it has no folder /{CILIUM_CONFIG}"),
            remedy: "See that Cilium is installed with `cni.exclusive=false`, `bpf.masquerade=false` and \
                     `socketLB.hostNamespaceOnly=true`"
                .to_owned(),
        });
    }
    Host {
        node: None,
        os_release: look.os_release(),
        kernel: look.kernel(release),
        sysctls: look.sysctls(),
        bin_folder: folder(&sources.bin_folder),
        conf_folder: folder(&sources.conf_folder),
        conf_files: conf_files(&sources.conf_folder),
        cilium,
        calico_bpf: agent("calico-node").map(|process| look.has_calico_bpf(process)),
        selinux: look.selinux(),
        netns_folders,
        netns_mounted,
        ipv6_wanted: sources.ipv6,
        chained: sources.chained,
        unread,
    }
}

/// Asks the API server about the node. `None` if it does not answer within a few seconds, or the node is not
/// there; the report is poorer then.
pub async fn node(client: &Client, name: &str) -> Option<NodeFacts> {
    let nodes: Api<Node> = Api::all(client.clone());
    match timeout(PATIENCE, nodes.get(name)).await {
        Ok(Ok(node)) => Some(NodeFacts::from(node)),
        Ok(Err(error)) => {
            let why = mesh_kube::error::Explained(&error).to_string();
            tracing::warn!(
                node = name,
                why,
                "cannot read the node, to tell its platform"
            );
            None
        }
        Err(_elapsed) => {
            tracing::warn!(
                node = name,
                "the API server does not answer what the node is"
            );
            None
        }
    }
}

// === impl NodeFacts ===

impl From<Node> for NodeFacts {
    fn from(node: Node) -> Self {
        let status = node.status.unwrap_or_default();
        let info = status.node_info.unwrap_or_default();
        let images = status.images.into_iter().flatten();
        Self {
            name: node.metadata.name.unwrap_or_default(),
            labels: node.metadata.labels.unwrap_or_default(),
            annotations: node.metadata.annotations.unwrap_or_default(),
            provider_id: node
                .spec
                .and_then(|spec| spec.provider_id)
                .unwrap_or_default(),
            kubelet_version: info.kubelet_version,
            os_image: info.os_image,
            container_runtime: info.container_runtime_version,
            images: images
                .flat_map(|image| image.names.unwrap_or_default())
                .collect(),
        }
    }
}

// === impl Look ===

impl Look {
    fn new(host: &Path) -> Self {
        let proc = host.join("proc");
        let first = proc.join("1");
        // On the host itself there is nothing to go through.
        let is_here = host == Path::new("/");
        Self {
            root: if is_here {
                host.to_owned()
            } else {
                first.join("root")
            },
            netns: if is_here {
                proc.join("thread-self/ns/net")
            } else {
                first.join("ns/net")
            },
            proc,
        }
    }

    fn unreadable(&self) -> Option<Unread> {
        // The link itself is there for everybody; what it leads to is not.
        let error = fs::read_dir(&self.root).err()?;
        Some(Unread {
            what: format!("the host's files by {}", self.root.display()),
            why: error.to_string(),
            remedy:
                "Mount the host's /proc at /host/proc and give the agent the capability SYS_PTRACE"
                    .to_owned(),
        })
    }

    fn os_release(&self) -> BTreeMap<String, String> {
        let paths = ["etc/os-release", "usr/lib/os-release"];
        let found = paths.iter().find_map(|path| text(&self.root.join(path)));
        let found = found.unwrap_or_default();
        let pairs = found.lines().filter_map(|line| line.split_once('='));
        pairs
            .map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()))
            .collect()
    }

    fn kernel(&self, release: String) -> KernelFeatures {
        let folder = self.root.join("lib/modules").join(&release);
        let loaded = text(&self.proc.join("modules")).unwrap_or_default();
        let loaded: BTreeSet<_> = loaded.lines().filter_map(|l| l.split(' ').next()).collect();
        let builtin = text(&folder.join("modules.builtin")).map(|text| listed(&text));
        let loadable = text(&folder.join("modules.dep")).map(|text| listed(&text));
        let has = |list: &Option<BTreeSet<String>>, module: &str| {
            list.as_ref().is_some_and(|list| list.contains(module))
        };
        let presence = |module: &str| {
            let is_built_in = || self.root.join("sys/module").join(module).is_dir();
            if loaded.contains(module) || has(&builtin, module) || is_built_in() {
                Presence::Present
            } else if has(&loadable, module) {
                Presence::Loadable
            } else if builtin.is_some() && loadable.is_some() {
                Presence::Absent
            } else {
                Presence::Unknown
            }
        };
        KernelFeatures {
            modules: kernel::modules()
                .map(|module| (module, presence(module)))
                .collect(),
            release,
        }
    }

    /// Those of the network are of the namespace of the one who asks, so the host's has to be entered.
    fn sysctls(&self) -> BTreeMap<String, String> {
        let read = || {
            let values = SYSCTLS.iter().filter_map(|name| {
                let path = Path::new("/proc/sys").join(name.replace('.', "/"));
                Some(((*name).to_owned(), text(&path)?.trim().to_owned()))
            });
            values.collect()
        };
        match NetNs::open(&self.netns).and_then(|netns| netns.run(read)) {
            Ok(values) => values,
            Err(error) => {
                tracing::debug!(error = %error, "cannot read the host's sysctls");
                BTreeMap::new()
            }
        }
    }

    /// A process for each name that some process has.
    fn processes(&self) -> BTreeMap<String, u32> {
        let entries = fs::read_dir(&self.proc).into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let named = ids.filter_map(|id: u32| {
            let name = text(&self.proc.join(id.to_string()).join("comm"))?;
            Some((name.trim().to_owned(), id))
        });
        named.collect()
    }

    fn cilium(&self, process: u32) -> Cilium {
        let folder = self
            .proc
            .join(process.to_string())
            .join("root")
            .join(CILIUM_CONFIG);
        if !folder.is_dir() {
            return Cilium { settings: None };
        }
        let settings = network::CILIUM_SETTINGS.iter().filter_map(|key| {
            let value = text(&folder.join(key))?;
            Some(((*key).to_owned(), value.trim().to_owned()))
        });
        Cilium {
            settings: Some(settings.collect()),
        }
    }

    /// By the agent's environment, or by the maps that its data plane has in the kernel.
    fn has_calico_bpf(&self, process: u32) -> bool {
        let environment = text(&self.proc.join(process.to_string()).join("environ"));
        let environment = environment.unwrap_or_default();
        let mut variables = environment.split('\0');
        let is_set =
            variables.any(|variable| variable.eq_ignore_ascii_case("FELIX_BPFENABLED=true"));
        let maps = fs::read_dir(self.root.join(BPF_MAPS)).into_iter().flatten();
        let mut maps = maps
            .flatten()
            .filter_map(|map| map.file_name().into_string().ok());
        is_set || maps.any(|map| map.starts_with("cali_v4_nat") || map.starts_with("cali_v6_nat"))
    }

    fn selinux(&self) -> SeLinux {
        let enforcing = text(&self.root.join("sys/fs/selinux/enforce"));
        let context = text(Path::new("/proc/self/attr/current")).unwrap_or_default();
        SeLinux {
            enforcing: enforcing.is_some_and(|value| value.trim() == "1"),
            domain: context.split(':').nth(2).map(str::to_owned),
        }
    }

    /// The folders in which the host has namespaces, and those that this process sees.
    fn namespaces(&self, host: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
        let holds_any = |path: &str| {
            let entries = fs::read_dir(self.root.join(path));
            entries.is_ok_and(|mut entries| entries.next().is_some())
        };
        let used = NAMESPACE_FOLDERS.iter().filter(|(_, path)| holds_any(path));
        let seen = NAMESPACE_FOLDERS.iter().filter(|(name, _)| {
            let path = name.trim_start_matches('/');
            host.join(path).is_dir()
        });
        let names = |(name, _): &(&str, &str)| (*name).to_owned();
        (used.map(names).collect(), seen.map(names).collect())
    }
}

/// A folder of the host that is mounted here.
fn folder(path: &Path) -> Folder {
    let flags = nix::sys::statvfs::statvfs(path).map(|found| found.flags());
    let has = |flag| flags.is_ok_and(|flags| flags.contains(flag));
    Folder {
        path: path.display().to_string(),
        on_host: mounts::on_host(path),
        exists: path.is_dir(),
        read_only: has(nix::sys::statvfs::FsFlags::ST_RDONLY),
        no_exec: has(nix::sys::statvfs::FsFlags::ST_NOEXEC),
    }
}

/// What is in the folder of configurations, and which plugins the valid ones call.
fn conf_files(folder: &Path) -> Vec<ConfFile> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let names: BTreeSet<_> = names.collect();
    let file = |name: String| {
        let path = folder.join(&name);
        let list = Format::of(&path)
            .and_then(|format| ConfigList::parse(&bytes(&path, MAX_BYTES as u64)?, format).ok());
        let plugins = list.iter().flat_map(ConfigList::plugins);
        ConfFile {
            plugins: plugins.map(|plugin| plugin.kind().to_owned()).collect(),
            name,
        }
    };
    names.into_iter().map(file).collect()
}

/// The modules in a list of the kernel's: `kernel/net/netfilter/nft_ct.ko.xz: …`.
fn listed(text: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let path = line.split(':').next()?;
        let file = path.rsplit('/').next()?;
        Some(file.split_once(".ko")?.0.replace('-', "_"))
    };
    text.lines().filter_map(name).collect()
}

fn text(path: &Path) -> Option<String> {
    String::from_utf8(bytes(path, MAX_FILE)?).ok()
}

/// The beginning of a file. Files of `/proc` have no size, and what is not there tells nothing.
fn bytes(path: &Path, most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).ok()?;
    io::Read::read_to_end(&mut io::Read::take(file, most), &mut bytes).ok()?;
    Some(bytes)
}
