//! The installer in real folders: what it hears of, what it repairs, and what it leaves.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use mesh_cni::conflist::{ConfigList, Format};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;
use testkit_net::wait::eventually;
use tokio::{task::JoinHandle, time::timeout};

use super::*;

/// Longer than a repair that is held back.
const DEADLINE: Duration = Duration::from_secs(40);
const CALICO: &str =
    r#"{"name":"k8s-pod-network","cniVersion":"0.3.1","plugins":[{"type":"calico"}]}"#;
const BRIDGE: &str = r#"{"cniVersion":"0.3.1","name":"b","type":"bridge"}"#;

/// A node's folders.
struct Node(TempDir);

/// An agent that runs until it is dropped.
struct Agent {
    installer: Installer,
    readiness: Readiness,
    task: JoinHandle<Error>,
}

/// A folder that is mounted until this is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn bind(from: &Path, to: &Path) -> Self {
        mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .expect("root may mount");
        Self(to.to_owned())
    }

    fn tmpfs(at: &Path, size: &str) -> Self {
        mount(
            Some("none"),
            at,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(size),
        )
        .expect("root may mount");
        Self(at.to_owned())
    }

    fn make_read_only(&self) {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, &self.0, None::<&str>, flags, None::<&str>).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}

/// Everything in a folder: names, contents, permissions and which file it is.
type Everything = BTreeMap<String, (Vec<u8>, u32, u64)>;

impl Node {
    fn new() -> Self {
        let node = Self(tempfile::tempdir().unwrap());
        for folder in ["image", "bin", "net.d", "run"] {
            fs::create_dir(node.at(folder)).unwrap();
        }
        node.write("image/istio-cni", "plugin");
        node
    }

    fn with(files: &[(&str, &str)]) -> Self {
        let node = Self::new();
        for (name, text) in files {
            node.write(&format!("net.d/{name}"), text);
        }
        node
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.at(name)).ok()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        self.everything(folder).into_keys().collect()
    }

    fn everything(&self, folder: &str) -> Everything {
        let entries = fs::read_dir(self.at(folder)).unwrap();
        let entry = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().unwrap();
            let found = entry.metadata().unwrap();
            let bytes = fs::read(entry.path()).unwrap_or_default();
            (name, (bytes, found.mode(), found.ino()))
        };
        entries.map(|found| entry(found.unwrap())).collect()
    }

    fn has_entry(&self, name: &str) -> bool {
        let text = self.read(&format!("net.d/{name}"));
        text.is_some_and(|text| text.contains(r#""type": "istio-cni""#))
    }

    fn config(&self, mode: Mode) -> Config {
        Config {
            folders: Folders {
                plugin: self.at("image/istio-cni"),
                bin: self.at("bin"),
                conf: self.at("net.d"),
                run: self.at("run"),
            },
            mode,
            entry: PluginConfig::default(),
            group_read: false,
            identity: "istio-cni-node-first".to_owned(),
            platform: Kind::Gke,
        }
    }

    fn chained(&self) -> Config {
        self.config(Mode::Chained { file: None })
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        eventually(what, DEADLINE, || condition(self))
            .await
            .unwrap();
    }
}

impl Agent {
    fn run(config: Config) -> Self {
        let installer = Installer::new(config, Metrics::default());
        let readiness = Readiness::new();
        let task = tokio::spawn(installer.clone().run(readiness.clone()));
        Self {
            installer,
            readiness,
            task,
        }
    }

    async fn until(&self, what: &str, condition: impl Fn(&View) -> bool) -> View {
        let mut view = self.installer.view();
        let found = timeout(DEADLINE, view.wait_for(|view| condition(view))).await;
        match found {
            Ok(view) => view.unwrap().clone(),
            Err(elapsed) => panic!(
                "{what} did not happen, {elapsed}: {:?}",
                self.installer.view().borrow()
            ),
        }
    }

    async fn installed(&self) -> View {
        self.until("the installation", |view| view.installed).await
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_is_installed_and_nothing_is_left_when_it_goes() {
    let node = Node::with(&[
        ("10-calico.conflist", CALICO),
        ("calico-kubeconfig", "secret"),
    ]);
    let before = [
        node.everything("bin"),
        node.everything("net.d"),
        node.everything("run"),
    ];
    let agent = Agent::run(node.chained());
    let view = agent.installed().await;
    assert_eq!(view.file.as_deref(), Some("10-calico.conflist"));
    assert_eq!(agent.readiness.waiting_for(), [""; 0]);
    assert!(node.has_entry("10-calico.conflist"));
    let plugin = &node.everything("bin")["istio-cni"];
    assert_eq!(
        (plugin.0.as_slice(), plugin.1 & 0o777),
        (&b"plugin"[..], 0o755)
    );
    for name in RUN_FILES {
        node.write(&format!("run/{name}"), "");
        node.write(&format!("run/{name}aBc123"), "half of i");
    }
    // The claim was one of them, and is nobody's now.
    agent.installer.clone().uninstall().await.unwrap();
    let after = [
        node.everything("bin"),
        node.everything("net.d"),
        node.everything("run"),
    ];
    assert_eq!(after, before, "the same files, byte for byte");
    node.write("net.d/10-calico.conflist", CALICO);
    agent.installer.clone().uninstall().await.unwrap();
    assert_eq!(node.names("bin"), [""; 0], "nothing comes back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_waited_for_and_the_reason_is_told() {
    let node = Node::with(&[("10-broken.conflist", "{")]);
    let agent = Agent::run(node.chained());
    let view = agent
        .until("a reason", |view| !view.reason.is_empty())
        .await;
    assert!(
        view.reason.starts_with("waiting for a CNI configuration"),
        "{}",
        view.reason
    );
    assert!(
        view.reason.contains("10-broken.conflist is none"),
        "{}",
        view.reason
    );
    assert_eq!(
        agent.readiness.waiting_for(),
        [crate::readiness::tasks::INSTALLATION]
    );
    // As installers do: made aside, and renamed.
    node.write("later", BRIDGE);
    fs::rename(node.at("later"), node.at("net.d/20-bridge.conf")).unwrap();
    let view = agent.installed().await;
    assert_eq!(view.file.as_deref(), Some("20-bridge.conflist"));
    assert_eq!(agent.readiness.waiting_for(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_change_is_repaired_at_once() {
    let node = Node::with(&[("10-calico.conflist", CALICO)]);
    let agent = Agent::run(node.chained());
    agent.installed().await;
    let plugin = || node.at("bin/istio-cni");
    let changes: [(&str, &dyn Fn()); 4] = [
        ("overwritten", &|| {
            node.write("net.d/10-calico.conflist", CALICO);
        }),
        ("the plugin removed", &|| fs::remove_file(plugin()).unwrap()),
        ("the plugin changed", &|| {
            node.write("bin/istio-cni", "an older one");
        }),
        ("the plugin's permissions", &|| {
            fs::set_permissions(plugin(), fs::Permissions::from_mode(0o600)).unwrap();
        }),
    ];
    for (repairs, (what, change)) in (1..).zip(changes) {
        change();
        agent
            .until(what, |view| view.repairs == repairs && view.installed)
            .await;
        assert!(node.has_entry("10-calico.conflist"), "{what}");
        let found = &node.everything("bin")["istio-cni"];
        assert_eq!(
            (found.0.as_slice(), found.1 & 0o777),
            (&b"plugin"[..], 0o755),
            "{what}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_file_moves_us_to_the_next_one() {
    let node = Node::with(&[("10-calico.conflist", CALICO), ("20-bridge.conf", BRIDGE)]);
    let agent = Agent::run(node.chained());
    agent.installed().await;
    fs::remove_file(node.at("net.d/10-calico.conflist")).unwrap();
    let next = |view: &View| view.file.as_deref() == Some("20-bridge.conflist");
    agent.until("the other file", next).await;
    assert_eq!(
        node.names("net.d"),
        ["20-bridge.conf.before-istio-cni", "20-bridge.conflist"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_being_written_does_not_move_us() {
    let node = Node::with(&[("10-calico.conflist", CALICO), ("20-bridge.conf", BRIDGE)]);
    let agent = Agent::run(node.chained());
    agent.installed().await;
    let untouched = node.everything("net.d")["20-bridge.conf"].clone();
    // Let it wait for the next change.
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Not valid for a moment, as with an editor or a shell.
    node.write("net.d/10-calico.conflist", "");
    tokio::time::sleep(Duration::from_millis(200)).await;
    node.write("net.d/10-calico.conflist", CALICO);
    agent.until("the repair", |view| view.repairs == 1).await;
    assert!(node.has_entry("10-calico.conflist"));
    assert_eq!(node.everything("net.d")["20-bridge.conf"], untouched);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_leave_off_is_named_and_answered_slowly() {
    let node = Node::with(&[
        (
            "05-cilium.conflist",
            &CALICO.replace("calico", "cilium-cni"),
        ),
        ("100-crio.conflist.cilium_bak", CALICO),
    ]);
    let agent = Agent::run(node.chained());
    agent.installed().await;
    let original = CALICO.replace("calico", "cilium-cni");
    for repairs in 1..=u64::from(pace::AT_ONCE) {
        node.write("net.d/05-cilium.conflist", &original);
        agent
            .until("a repair", |view| view.repairs == repairs)
            .await;
    }
    node.write("net.d/05-cilium.conflist", &original);
    let view = agent
        .until("giving way", |view| view.contended && !view.installed)
        .await;
    assert!(view.reason.starts_with("Cilium changes"), "{}", view.reason);
    assert!(
        view.reason.contains("cni.exclusive=false"),
        "{}",
        view.reason
    );
    assert_eq!(
        node.read("net.d/05-cilium.conflist").as_ref(),
        Some(&original)
    );
    assert_eq!(
        agent.readiness.waiting_for(),
        [crate::readiness::tasks::INSTALLATION]
    );
    let view = agent.until("the slow repair", |view| view.installed).await;
    assert!(
        view.contended && node.has_entry("05-cilium.conflist"),
        "{view:?}"
    );
    // Whoever has left off is answered at once again, some time later.
    tokio::time::sleep(pace::EVERY * 3).await;
    agent
        .until("peace", |view| view.installed && !view.contended)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_is_missing_is_told_and_looked_for() {
    let node = Node::with(&[("10-calico.conflist", CALICO)]);
    fs::remove_dir(node.at("bin")).unwrap();
    let agent = Agent::run(node.chained());
    let view = agent
        .until("a reason", |view| !view.reason.is_empty())
        .await;
    assert!(
        view.reason.starts_with("install the plugin: write "),
        "{}",
        view.reason
    );
    assert!(!node.has_entry("10-calico.conflist"));
    fs::create_dir(node.at("bin")).unwrap();
    agent.installed().await;
    assert!(node.has_entry("10-calico.conflist"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_replaced_is_watched_anew() {
    let node = Node::with(&[("10-calico.conflist", CALICO)]);
    let agent = Agent::run(node.chained());
    agent.installed().await;
    fs::rename(node.at("net.d"), node.at("old")).unwrap();
    agent.until("waiting", |view| !view.installed).await;
    fs::create_dir(node.at("net.d")).unwrap();
    node.write("net.d/10-calico.conflist", CALICO);
    agent.installed().await;
    assert!(node.has_entry("10-calico.conflist"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_folder_that_the_host_removed_ends_the_installer() {
    let node = Node::new();
    fs::create_dir(node.at("host")).unwrap();
    let mounted = Mounted::bind(&node.at("host"), &node.at("net.d"));
    let mut agent = Agent::run(node.chained());
    agent.until("waiting", |view| !view.reason.is_empty()).await;
    fs::remove_dir(node.at("host")).unwrap();
    let ended = timeout(DEADLINE, &mut agent.task).await;
    let error = ended.expect("it ends").unwrap();
    assert!(matches!(error, Error::Gone(_)), "{error:?}");
    drop(mounted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_folder_is_told_with_the_value_and_the_platform() {
    let node = Node::with(&[("10-calico.conflist", CALICO)]);
    let bin = node.at("bin");
    let mounted = Mounted::bind(&bin, &bin);
    mounted.make_read_only();
    let agent = Agent::run(node.chained());
    let view = agent
        .until("a reason", |view| !view.reason.is_empty())
        .await;
    let expected = format!(
        "install the plugin: {} is read-only: this node is GKE, where it is /home/kubernetes/bin: set \
         `global.platform` to `gke`, or `cni.cniBinDir`",
        bin.display()
    );
    assert_eq!(view.reason, expected);
    assert!(
        !node.has_entry("10-calico.conflist"),
        "no entry without the plugin"
    );
    drop(mounted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_folder_is_told_and_used_once_there_is_room() {
    let node = Node::new();
    let folder = Mounted::tmpfs(&node.at("net.d"), "size=8k");
    node.write("net.d/10-calico.conflist", CALICO);
    node.write("net.d/filler", &"x".repeat(4096));
    let agent = Agent::run(node.chained());
    let view = agent
        .until("a reason", |view| !view.reason.is_empty())
        .await;
    let expected = format!(
        "write the configuration: there is no room in {}",
        folder.0.display()
    );
    assert!(view.reason.starts_with(&expected), "{}", view.reason);
    assert_eq!(
        node.read("net.d/10-calico.conflist").as_deref(),
        Some(CALICO)
    );
    let names = [
        "10-calico.conflist",
        "10-calico.conflist.before-istio-cni",
        "filler",
    ];
    assert_eq!(node.names("net.d"), names, "nothing half-done");
    fs::remove_file(node.at("net.d/filler")).unwrap();
    agent.installed().await;
    assert!(node.has_entry("10-calico.conflist"));
    drop(folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_agent_takes_over_and_outlives_the_clean_up_of_the_earlier_one() {
    let node = Node::with(&[("10-calico.conflist", CALICO)]);
    let earlier = Agent::run(node.chained());
    earlier.installed().await;
    node.write("image/newer", "newer plugin");
    let mut config = node.chained();
    config.folders.plugin = node.at("image/newer");
    config.identity = "istio-cni-node-later".to_owned();
    config.entry.plugin_log_level = "debug".to_owned();
    let later = Agent::run(config);
    later.installed().await;
    let newer = Some("newer plugin".to_owned());
    assert_eq!(node.read("bin/istio-cni"), newer);
    let stands_by = |view: &View| view.reason.contains("istio-cni-node-later");
    earlier.until("the earlier one stands by", stands_by).await;
    let failures = earlier.installer.clone().uninstall().await.unwrap_err();
    assert!(matches!(&failures[..], [Error::Taken { by }] if by == "istio-cni-node-later"));
    assert_eq!(node.read("bin/istio-cni"), newer);
    assert!(node.has_entry("10-calico.conflist"));
    drop(earlier);
    node.write("net.d/10-calico.conflist", CALICO);
    later.until("a repair", |view| view.repairs == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_killed_leaves_its_claim_to_the_next_one() {
    let node = Node::with(&[("10-calico.conflist", CALICO)]);
    let earlier = Agent::run(node.chained());
    earlier.installed().await;
    let mut config = node.chained();
    config.identity = "istio-cni-node-later".to_owned();
    let later = Agent::run(config);
    later.installed().await;
    earlier
        .until("standing by", |view| view.reason.contains("later"))
        .await;
    later.task.abort();
    drop(later);
    // What wakes the one that stands by.
    node.write("net.d/10-calico.conflist", CALICO);
    node.until("the repair", |node| node.has_entry("10-calico.conflist"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_by_hand_is_refused_while_an_agent_runs_and_needs_no_image() {
    let node = Node::with(&[("10-bridge.conf", BRIDGE)]);
    let before = node.everything("net.d");
    let agent = Agent::run(node.chained());
    agent.installed().await;
    let mut config = node.chained();
    config.identity = "by hand".to_owned();
    config.folders.plugin = node.at("image/none");
    let by_hand = Installer::new(config, Metrics::default());
    let failures = by_hand.clone().uninstall().await.unwrap_err();
    assert!(
        matches!(&failures[..], [Error::Taken { .. }]),
        "{failures:?}"
    );
    drop(agent);
    node.until("the end of the agent", |node| {
        claim::owner(&node.at("run"), None) == claim::Owner::Nobody
    })
    .await;
    by_hand.uninstall().await.unwrap();
    assert_eq!(node.everything("net.d"), before);
    assert_eq!(node.names("bin"), [""; 0]);
    assert_eq!(node.names("run"), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_right_is_not_written_again() {
    let node = Node::with(&[("10-calico.conflist", CALICO)]);
    drop({
        let agent = Agent::run(node.chained());
        agent.installed().await;
        agent
    });
    let before = [node.everything("bin"), node.everything("net.d")];
    let agent = Agent::run(node.chained());
    agent.installed().await;
    assert_eq!([node.everything("bin"), node.everything("net.d")], before);
}

/// A chain of accidents: the first agent is killed after a number of steps, with what it was making
/// left behind; the second finds the folder like this.
#[tokio::test(start_paused = true)]
async fn killed_after_any_step_the_next_agent_finishes_on_disk() {
    let modes = [
        Mode::Chained { file: None },
        Mode::Owned {
            file: "02-istio-cni.conflist".to_owned(),
            primary: None,
        },
        Mode::Standalone {
            file: "YYY-istio-cni.conf".to_owned(),
        },
    ];
    for mode in modes {
        for killed_after in 0.. {
            let node = Node::with(&[("10-bridge.conf", BRIDGE), ("20-calico.conflist", CALICO)]);
            let before = node.everything("net.d");
            let config = node.config(mode.clone());
            let plan = plan::install(&act::read(&config, true).await.unwrap(), &config);
            for action in plan.actions.iter().take(killed_after) {
                act::act(&config, action).await.unwrap();
            }
            node.write("bin/istio-cni.tmp.12345", "half of the pl");
            node.write("net.d/10-bridge.conflist.tmp.istio-cni-abcdef", "{\"na");
            let agent = Agent::run(config.clone());
            agent.installed().await;
            let found = act::read(&config, true).await.unwrap();
            assert_eq!(
                plan::install(&found, &config).actions,
                [],
                "after {killed_after}"
            );
            drop(agent);
            for _ in 0..killed_after {
                let actions = plan::remove(&act::read(&config, false).await.unwrap(), &config);
                if let Some(action) = actions.first() {
                    act::act(&config, action).await.unwrap();
                }
            }
            node.until("the end of the agent", |node| {
                claim::owner(&node.at("run"), None) == claim::Owner::Nobody
            })
            .await;
            let installer = Installer::new(config, Metrics::default());
            installer.uninstall().await.unwrap();
            assert_eq!(node.everything("net.d"), before, "after {killed_after}");
            assert_eq!(node.names("bin"), [""; 0], "after {killed_after}");
            if killed_after > plan.actions.len() {
                break;
            }
        }
    }
}

/// The first plugin that a runtime would call now. A file that goes between the listing of the folder and its
/// reading makes it list again.
fn first_plugin(folder: &Path) -> Result<String, String> {
    loop {
        let entries = fs::read_dir(folder).map_err(|error| error.to_string())?;
        let paths = entries.flatten().map(|entry| entry.path());
        let paths: std::collections::BTreeSet<_> =
            paths.filter(|path| Format::of(path).is_some()).collect();
        let Some(path) = paths.first() else {
            return Err("there is no configuration".to_owned());
        };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.to_string()),
        };
        let format = Format::of(path).expect("it was listed for it");
        let list = ConfigList::parse(&bytes, format);
        let list = list.map_err(|error| format!("{}: {error}", path.display()))?;
        return Ok(list.plugins()[0].kind().to_owned());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_reads_all_the_time_always_finds_its_network() {
    let node = Node::with(&[("10-bridge.conf", BRIDGE), ("20-calico.conflist", CALICO)]);
    let (folder, done) = (node.at("net.d"), Arc::new(AtomicBool::new(false)));
    let runtime = tokio::task::spawn_blocking({
        let done = Arc::clone(&done);
        move || {
            let mut reads = 0;
            while !done.load(Relaxed) {
                assert_eq!(first_plugin(&folder).as_deref(), Ok("bridge"));
                reads += 1;
            }
            reads
        }
    });
    for name in ["", "10-bridge.conf", "owned"].repeat(10) {
        let owned = (name == "owned").then_some("");
        let forced = if owned.is_some() { "" } else { name };
        let config = node.config(Mode::new(true, forced, owned).unwrap());
        for with_image in [true, false] {
            let state = act::read(&config, with_image).await.unwrap();
            let actions = if with_image {
                plan::install(&state, &config).actions
            } else {
                plan::remove(&state, &config)
            };
            for action in actions {
                act::act(&config, &action).await.unwrap();
            }
        }
    }
    done.store(true, Relaxed);
    assert!(runtime.await.unwrap() > 0);
}

#[test]
fn metrics_have_the_names_that_istios_users_know() {
    let mut registry = prometheus_client::registry::Registry::default();
    let metrics = Metrics::new(&mut registry);
    metrics.installed(Ok(()));
    let image = state::image(Path::new("/nonexistent/istio-cni")).unwrap_err();
    metrics.installed(Err(&image.into()));
    metrics.installed(Err(&Error::Gone("/x".into())));
    metrics.show(&View {
        installed: true,
        ..View::default()
    });
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "istio_cni_installs_total{result=\"SUCCESS\"} 1",
        "istio_cni_installs_total{result=\"COPY_BINARIES_FAILURE\"} 1",
        "istio_cni_installs_total{result=\"CREATE_CNI_CONFIG_FAILURE\"} 1",
        "istio_cni_install_ready 1",
        "lateen_cni_install_repairs_total 0",
        "lateen_cni_install_contended 0",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}
