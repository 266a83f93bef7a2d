//! A container runtime as CNI plugins know one.
//!
//! [`Runtime`] calls the plugins of a [`Network`] one after the other, as libcni does in containerd and CRI-O:
//! each gets the network's name and version, its own entry and what the one before said; deletion goes the
//! other way round, with the result that was kept. The plugins are real programs and run in the network
//! namespace of a node.

use std::{
    collections::BTreeMap,
    env, io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use mesh_net::netns::NetNs;
use serde_json::{Map, Value, json};

/// Where distributions put the plugins of the CNI project.
const STANDARD: [&str; 3] = ["/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"];

/// A list of plugins, as in a file of `/etc/cni/net.d`.
#[derive(Clone, Debug)]
pub struct Network {
    name: String,
    version: String,
    plugins: Vec<Map<String, Value>>,
}

/// One interface of one pod.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The runtime's id of the pod's sandbox.
    pub container_id: String,
    /// The interface in the pod.
    pub interface: String,
    /// The pod's network namespace.
    pub netns: PathBuf,
    /// `CNI_ARGS`, as pairs.
    pub args: Vec<(&'static str, String)>,
    /// What plugins that ask for a capability get, such as `portMappings`.
    pub capabilities: Map<String, Value>,
}

/// Calls plugins, and keeps the results.
#[derive(Debug)]
pub struct Runtime {
    folders: Vec<PathBuf>,
    results: BTreeMap<(String, String, String), Value>,
    spent: Vec<Duration>,
}

/// What did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No folder has the plugins of the CNI project. Install Debian's or Fedora's `containernetworking-plugins`.
    #[error("find the CNI plugins in {STANDARD:?}; is containernetworking-plugins installed?")]
    NoPlugins,
    /// A list of plugins that is none. The test's fault.
    #[error("read a CNI configuration list: {0}")]
    List(&'static str),
    /// A plugin's program is in none of the folders, or cannot be started.
    #[error("start CNI plugin `{plugin}`")]
    Start {
        /// Its type.
        plugin: String,
        /// The reason.
        source: io::Error,
    },
    /// The node's namespace cannot be entered.
    #[error("enter the node")]
    Enter(#[source] mesh_net::netns::Error),
    /// A plugin answered with an error object.
    #[error("CNI plugin `{plugin}` failed ({command}): {message}; {details}")]
    Failed {
        /// Its type.
        plugin: String,
        /// The command.
        command: &'static str,
        /// The specification's code.
        code: u64,
        /// Its words.
        message: String,
        /// More of them.
        details: String,
    },
    /// A plugin answered with something that the specification does not know.
    #[error("CNI plugin `{plugin}` answered ({command}): {said}")]
    Answer {
        /// Its type.
        plugin: String,
        /// The command.
        command: &'static str,
        /// Both outputs.
        said: String,
    },
    /// Our plugin cannot be built; its compiler's words are in the message.
    #[error("build istio-cni: {0}")]
    Build(String),
}

// === impl Network ===

impl Network {
    /// Reads what a `.conflist` holds.
    pub fn new(list: &Value) -> Result<Self, Error> {
        let text = |name: &str| list.get(name).and_then(Value::as_str).map(str::to_owned);
        let plugins = list.get("plugins").and_then(Value::as_array);
        let plugins = plugins.ok_or(Error::List("it has no plugins"))?;
        let fields = |plugin: &Value| plugin.as_object().cloned();
        Ok(Self {
            name: text("name").ok_or(Error::List("it has no name"))?,
            version: text("cniVersion").ok_or(Error::List("it has no version"))?,
            plugins: plugins
                .iter()
                .map(|plugin| fields(plugin).ok_or(Error::List("a plugin is no object")))
                .collect::<Result<_, _>>()?,
        })
    }

    /// A bridge with addresses of a subnet and mapped ports: what the CNI project's own plugins make. State is
    /// kept in `data`. With `last`, that plugin's entry comes after them.
    pub fn bridge(subnet: &str, data: &Path, last: Option<Value>) -> Result<Self, Error> {
        let mut plugins = vec![
            json!({
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false,
                "ipam": {
                    "type": "host-local", "dataDir": data,
                    "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}],
                },
            }),
            json!({"type": "portmap", "capabilities": {"portMappings": true}}),
        ];
        plugins.extend(last);
        Self::new(&json!({"name": "pods", "cniVersion": "1.0.0", "plugins": plugins}))
    }

    /// What a `.conflist` of it holds.
    pub fn list(&self) -> Value {
        json!({"name": self.name, "cniVersion": self.version, "plugins": self.plugins})
    }

    /// What one of its plugins reads.
    fn config(&self, plugin: &Map<String, Value>, sandbox: Option<&Sandbox>) -> Map<String, Value> {
        let mut config = plugin.clone();
        config.insert("name".to_owned(), self.name.clone().into());
        config.insert("cniVersion".to_owned(), self.version.clone().into());
        let wanted = config.remove("capabilities");
        if let (Some(Value::Object(wanted)), Some(sandbox)) = (wanted, sandbox) {
            let mut given = sandbox.capabilities.clone();
            given.retain(|name, _| wanted.get(name) == Some(&Value::Bool(true)));
            if !given.is_empty() {
                config.insert("runtimeConfig".to_owned(), given.into());
            }
        }
        config
    }
}

// === impl Sandbox ===

impl Sandbox {
    /// `eth0` of a pod of Kubernetes.
    pub fn pod(container_id: &str, netns: &Path, namespace: &str, name: &str, uid: &str) -> Self {
        Self {
            container_id: container_id.to_owned(),
            interface: "eth0".to_owned(),
            netns: netns.to_owned(),
            args: vec![
                ("IgnoreUnknown", "1".to_owned()),
                ("K8S_POD_NAMESPACE", namespace.to_owned()),
                ("K8S_POD_NAME", name.to_owned()),
                ("K8S_POD_INFRA_CONTAINER_ID", container_id.to_owned()),
                ("K8S_POD_UID", uid.to_owned()),
            ],
            capabilities: Map::new(),
        }
    }

    fn key(&self, network: &Network) -> (String, String, String) {
        let (container, interface) = (self.container_id.clone(), self.interface.clone());
        (network.name.clone(), container, interface)
    }
}

// === impl Runtime ===

impl Runtime {
    /// One that finds plugins in these folders, and the CNI project's where the distribution has put them.
    pub fn new(folders: impl IntoIterator<Item = PathBuf>) -> Result<Self, Error> {
        let mut folders: Vec<_> = folders.into_iter().collect();
        folders.push(standard_plugins()?);
        Ok(Self {
            folders,
            results: BTreeMap::new(),
            spent: Vec::new(),
        })
    }

    /// ADD: each plugin in turn. After a failure the caller calls [`Runtime::delete`], as runtimes do.
    pub fn add(
        &mut self,
        node: &impl AsRef<NetNs>,
        network: &Network,
        sandbox: &Sandbox,
    ) -> Result<Value, Error> {
        let mut result = Value::Null;
        self.spent.clear();
        for plugin in &network.plugins {
            let begun = Instant::now();
            let mut config = network.config(plugin, Some(sandbox));
            if !result.is_null() {
                config.insert("prevResult".to_owned(), result);
            }
            let said = self.call(node, "ADD", config, Some(sandbox))?;
            result = said;
            self.spent.push(begun.elapsed());
        }
        self.results.insert(sandbox.key(network), result.clone());
        Ok(result)
    }

    /// What each plugin took of the last ADD.
    pub fn spent(&self) -> &[Duration] {
        &self.spent
    }

    /// CHECK: each plugin in turn, with the result that was kept.
    pub fn check(
        &self,
        node: &impl AsRef<NetNs>,
        network: &Network,
        sandbox: &Sandbox,
    ) -> Result<(), Error> {
        for plugin in &network.plugins {
            let config = self.with_result(network, plugin, sandbox);
            self.call(node, "CHECK", config, Some(sandbox))?;
        }
        Ok(())
    }

    /// DEL: each plugin, the last one first.
    pub fn delete(
        &mut self,
        node: &impl AsRef<NetNs>,
        network: &Network,
        sandbox: &Sandbox,
    ) -> Result<(), Error> {
        for plugin in network.plugins.iter().rev() {
            let config = self.with_result(network, plugin, sandbox);
            self.call(node, "DEL", config, Some(sandbox))?;
        }
        self.results.remove(&sandbox.key(network));
        Ok(())
    }

    /// GC: each plugin is told what is left of the network, which is what was added and not deleted.
    pub fn collect(&self, node: &impl AsRef<NetNs>, network: &Network) -> Result<(), Error> {
        let of_network = self.results.keys().filter(|key| key.0 == network.name);
        let valid: Vec<_> = of_network
            .map(|(_, container, interface)| json!({"containerID": container, "ifname": interface}))
            .collect();
        for plugin in &network.plugins {
            let mut config = network.config(plugin, None);
            config.insert("cni.dev/valid-attachments".to_owned(), valid.clone().into());
            self.call(node, "GC", config, None)?;
        }
        Ok(())
    }

    /// STATUS: each plugin in turn.
    pub fn status(&self, node: &impl AsRef<NetNs>, network: &Network) -> Result<(), Error> {
        for plugin in &network.plugins {
            self.call(node, "STATUS", network.config(plugin, None), None)?;
        }
        Ok(())
    }

    /// Forgets what was added, as a runtime does that lost its state.
    pub fn forget(&mut self, network: &Network, sandbox: &Sandbox) {
        self.results.remove(&sandbox.key(network));
    }

    fn with_result(
        &self,
        network: &Network,
        plugin: &Map<String, Value>,
        sandbox: &Sandbox,
    ) -> Map<String, Value> {
        let mut config = network.config(plugin, Some(sandbox));
        if let Some(result) = self.results.get(&sandbox.key(network)) {
            config.insert("prevResult".to_owned(), result.clone());
        }
        config
    }

    /// Runs one plugin to its end.
    fn call(
        &self,
        node: &impl AsRef<NetNs>,
        command: &'static str,
        config: Map<String, Value>,
        sandbox: Option<&Sandbox>,
    ) -> Result<Value, Error> {
        let plugin = config
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let plugin = plugin.to_owned();
        let start = |source| Error::Start {
            plugin: plugin.clone(),
            source,
        };
        let program = self.folders.iter().map(|folder| folder.join(&plugin));
        let program = program
            .into_iter()
            .find(|program| program.exists())
            .ok_or_else(|| start(io::ErrorKind::NotFound.into()))?;
        let path = env::join_paths(&self.folders).unwrap_or_default();
        let mut process = Command::new(program);
        process.env("CNI_COMMAND", command).env("CNI_PATH", path);
        if let Some(sandbox) = sandbox {
            let args = sandbox
                .args
                .iter()
                .map(|(key, value)| format!("{key}={value}"));
            process
                .env("CNI_CONTAINERID", &sandbox.container_id)
                .env("CNI_IFNAME", &sandbox.interface)
                .env("CNI_NETNS", &sandbox.netns)
                .env("CNI_ARGS", args.collect::<Vec<_>>().join(";"));
        }
        let input = Value::Object(config).to_string();
        let output = node
            .as_ref()
            .run(|| feed(&mut process, input.as_bytes()))
            .map_err(Error::Enter)?
            .map_err(start)?;
        read(plugin, command, &output)
    }
}

fn feed(process: &mut Command, input: &[u8]) -> io::Result<Output> {
    let piped = process.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may end without reading everything; its answer tells.
        drop(io::Write::write_all(&mut stdin, input));
    }
    child.wait_with_output()
}

fn read(plugin: String, command: &'static str, output: &Output) -> Result<Value, Error> {
    let said: Option<Value> = match output.stdout.trim_ascii() {
        b"" => Some(Value::Null),
        text => serde_json::from_slice(text).ok(),
    };
    match said {
        Some(said) if output.status.success() => Ok(said),
        Some(Value::Object(error)) if error.contains_key("code") => {
            let text = |name| error.get(name).and_then(Value::as_str).unwrap_or_default();
            Err(Error::Failed {
                plugin,
                command,
                code: error
                    .get("code")
                    .and_then(Value::as_u64)
                    .unwrap_or_default(),
                message: text("msg").to_owned(),
                details: text("details").to_owned(),
            })
        }
        _ => Err(Error::Answer {
            plugin,
            command,
            said: [&output.stdout, &output.stderr]
                .map(|bytes| String::from_utf8_lossy(bytes))
                .concat(),
        }),
    }
}

/// Where the distribution has put the plugins of the CNI project.
pub fn standard_plugins() -> Result<PathBuf, Error> {
    let mut folders = STANDARD.map(PathBuf::from).into_iter();
    let found = folders.find(|folder| folder.join("bridge").exists());
    found.ok_or(Error::NoPlugins)
}

/// Our plugin's program, built beside the test that asks for it.
pub fn built_plugin() -> Result<&'static Path, Error> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| error.to_string()));
    built
        .as_deref()
        .map_err(|error| Error::Build(error.clone()))
}

/// `target/<profile>/deps/<test>` is where this runs.
fn build() -> io::Result<PathBuf> {
    let test = env::current_exe()?;
    let folder = test
        .ancestors()
        .find(|path| path.file_name().is_some_and(|name| name == "deps"))
        .and_then(Path::parent)
        .ok_or_else(|| io::Error::other("this is not a test that cargo has built"))?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--package", "istio-cni"])
        .args(["--profile", profile])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .env("CARGO_TARGET_DIR", folder.parent().unwrap_or(folder))
        .output()?;
    if output.status.success() {
        Ok(folder.join("istio-cni"))
    } else {
        Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    }
}
