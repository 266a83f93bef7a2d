//! A containerd of a test's own, in a node's network namespace, and as much of CRI as starts and stops pods.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use openssl::sha::sha256;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit_net::{Namespace, Process, cni};
use tokio::net::UnixStream;
use tonic::{
    Request, Status,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

/// Longer than it takes to start.
const DEADLINE: Duration = Duration::from_secs(30);

/// The image of the container that holds a pod's namespaces.
const IMAGE: &str = "localhost/pause:1";

/// Where the processes that hold pods listen, whatever containerd is told, and the folder around it, which the machine's
/// own containerd may have, too. containerd leaves both behind.
const SHARED: [&str; 2] = ["/run/containerd/s", "/run/containerd"];

/// Runtimes of all tests that share those folders: the last one removes them.
static RUNTIMES: AtomicUsize = AtomicUsize::new(0);

/// A container runtime. All else that it has is in a folder that goes with it.
pub(crate) struct Containerd {
    channel: Channel,
    cgroup: String,
    process: Process,
    folder: TempDir,
}

/// A pod, as kubelet names it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PodMetadata {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
    #[prost(string, tag = "3")]
    pub(crate) namespace: String,
    #[prost(uint32, tag = "4")]
    pub(crate) attempt: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<PodMetadata>,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxPodConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LinuxPodConfig {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RunRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<PodConfig>,
}

/// The id of a sandbox: all of several messages.
#[derive(Clone, PartialEq, prost::Message)]
struct SandboxId {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(bool, tag = "2")]
    verbose: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusAnswer {
    #[prost(message, optional, tag = "1")]
    status: Option<SandboxStatus>,
    #[prost(map = "string, string", tag = "2")]
    info: std::collections::HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SandboxStatus {
    #[prost(message, optional, tag = "5")]
    network: Option<SandboxNetwork>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SandboxNetwork {
    #[prost(string, tag = "1")]
    ip: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

// === impl Containerd ===

impl Containerd {
    /// Starts one whose pods get this network, by these plugins and the CNI project's.
    pub(crate) async fn start(node: &Namespace, plugins: &Path, network: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir(path.join("net.d")).unwrap();
        fs::write(path.join("net.d/10-pods.conflist"), network.to_string()).unwrap();
        gather(
            &[plugins, &cni::standard_plugins().unwrap()],
            &path.join("bin"),
        );
        fs::write(path.join("config.toml"), config(path)).unwrap();
        let mut command = Command::new("containerd");
        command.arg("--config").arg(path.join("config.toml"));
        let mut process = node.spawn(command).unwrap();
        process
            .wait_for("containerd successfully booted", DEADLINE)
            .await
            .unwrap();
        fs::write(path.join("pause.tar"), image()).unwrap();
        ctl(
            path,
            &["images", "import", path.join("pause.tar").to_str().unwrap()],
        );
        let socket = path.join("containerd.sock");
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://containerd").timeout(DEADLINE);
        let name = path.file_name().unwrap().to_string_lossy().replace('.', "");
        RUNTIMES.fetch_add(1, Ordering::SeqCst);
        Self {
            channel: endpoint.connect_with_connector(connector).await.unwrap(),
            cgroup: format!("/lateen{name}"),
            process,
            folder,
        }
    }

    /// Starts a pod's sandbox and says its id.
    pub(crate) async fn run(&self, metadata: PodMetadata) -> Result<String, Status> {
        let linux = LinuxPodConfig {
            cgroup_parent: self.cgroup.clone(),
        };
        let config = PodConfig {
            metadata: Some(metadata),
            linux: Some(linux),
        };
        let request = RunRequest {
            config: Some(config),
        };
        let answer: SandboxId = self.call("RunPodSandbox", request).await?;
        Ok(answer.id)
    }

    /// Stops a sandbox: its network goes.
    pub(crate) async fn stop(&self, id: &str) -> Result<(), Status> {
        let id = id.to_owned();
        let _: Nothing = self.call("StopPodSandbox", SandboxId { id }).await?;
        Ok(())
    }

    /// Removes a sandbox.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), Status> {
        let id = id.to_owned();
        let _: Nothing = self.call("RemovePodSandbox", SandboxId { id }).await?;
        Ok(())
    }

    /// The address that the plugins gave a sandbox.
    pub(crate) async fn address(&self, id: &str) -> String {
        self.status(id).await.status.unwrap().network.unwrap().ip
    }

    /// The file that stands for a sandbox's network namespace.
    pub(crate) async fn netns(&self, id: &str) -> PathBuf {
        let info = &self.status(id).await.info["info"];
        let info: Value = serde_json::from_str(info).unwrap();
        let namespaces = info["runtimeSpec"]["linux"]["namespaces"]
            .as_array()
            .unwrap();
        let network = namespaces
            .iter()
            .find(|namespace| namespace["type"] == "network");
        network.unwrap()["path"].as_str().unwrap().into()
    }

    async fn status(&self, id: &str) -> StatusAnswer {
        let request = StatusRequest {
            id: id.to_owned(),
            verbose: true,
        };
        self.call("PodSandboxStatus", request).await.unwrap()
    }

    async fn call<Q, A>(&self, method: &str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let path: PathAndQuery = format!("/runtime.v1.RuntimeService/{method}")
            .parse()
            .unwrap();
        let mut client = Grpc::new(self.channel.clone());
        let ready = client.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let answer = client.unary(Request::new(request), path, ProstCodec::<Q, A>::default());
        Ok(answer.await?.into_inner())
    }
}

impl Drop for Containerd {
    /// What a test that failed has left: containers, mounts, cgroups.
    fn drop(&mut self) {
        let path = self.folder.path();
        let tasks = Command::new("ctr")
            .args(address(path))
            .args(["tasks", "ls", "-q"])
            .output();
        let tasks = tasks.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        for task in tasks.unwrap_or_default().lines() {
            let kill = ["tasks", "rm", "--force", task];
            drop(Command::new("ctr").args(address(path)).args(kill).output());
        }
        drop(self.process.signal(nix::sys::signal::Signal::SIGTERM));
        drop(self.process.status());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for place in places.filter(|place| Path::new(place).starts_with(path)) {
            drop(Command::new("umount").args(["--lazy", place]).output());
        }
        let name = self.cgroup.trim_start_matches('/');
        let controllers = fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten();
        let places = controllers.map(|entry| entry.path().join(name));
        for place in places.chain([Path::new("/sys/fs/cgroup").join(name)]) {
            // It is not in every controller.
            drop(fs::remove_dir(place));
        }
        if RUNTIMES.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Only what is empty can be removed like this.
            drop(SHARED.map(fs::remove_dir));
        }
    }
}

/// Links to all programs of these folders.
fn gather(folders: &[&Path], into: &Path) {
    fs::create_dir(into).unwrap();
    for entry in folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
    {
        let entry = entry.unwrap();
        symlink(entry.path(), into.join(entry.file_name())).unwrap();
    }
}

/// Nothing outside of the folder, and nothing that needs more than a kernel.
fn config(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{folder}/bin"
conf_dir = "{folder}/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "{folder}/runc"
"#
    )
}

fn address(folder: &Path) -> [String; 4] {
    let socket = folder.join("containerd.sock").display().to_string();
    [
        "--address".to_owned(),
        socket,
        "--namespace".to_owned(),
        "k8s.io".to_owned(),
    ]
}

fn ctl(folder: &Path, arguments: &[&str]) {
    let mut command = Command::new("ctr");
    let output = command
        .args(address(folder))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// An image whose only program waits for ever, as `docker save` would write it.
fn image() -> Vec<u8> {
    let layer = archive(&[("pause", 0o755, &pause())]);
    let digest = sha256(&layer).map(|byte| format!("{byte:02x}")).concat();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    archive(&[
        ("layer.tar", 0o644, &layer),
        ("config.json", 0o644, config.to_string().as_bytes()),
        ("manifest.json", 0o644, manifest.to_string().as_bytes()),
    ])
}

/// The smallest program for x86-64 that waits for ever: an ELF header, one segment, and three instructions.
fn pause() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    // mov eax, 34 (pause); syscall; jmp to the first.
    const CODE: [u8; 9] = [0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];
    let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |program: &mut Vec<u8>, value: u16| program.extend(value.to_le_bytes());
    let word = |program: &mut Vec<u8>, value: u32| program.extend(value.to_le_bytes());
    let long = |program: &mut Vec<u8>, value: u64| program.extend(value.to_le_bytes());
    // An executable for x86-64, where it begins, where the segments are described.
    half(&mut program, 2);
    half(&mut program, 62);
    word(&mut program, 1);
    for value in [BASE + HEADERS, 64, 0] {
        long(&mut program, value);
    }
    word(&mut program, 0);
    for value in [64, 56, 1, 0, 0, 0] {
        half(&mut program, value);
    }
    // One segment of the whole file, to be read and executed.
    let length = HEADERS + CODE.len() as u64;
    word(&mut program, 1);
    word(&mut program, 5);
    for value in [0, BASE, BASE, length, length, 0x1000] {
        long(&mut program, value);
    }
    program.extend(CODE);
    program
}

/// A tar archive.
fn archive(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, mode, contents) in files {
        let mut header = [0; 512];
        let mut put =
            |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", contents.len()));
        put(136, "00000000000");
        put(148, "        ");
        put(156, "0");
        put(257, "ustar");
        put(263, "00");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(header);
        archive.extend(*contents);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}
