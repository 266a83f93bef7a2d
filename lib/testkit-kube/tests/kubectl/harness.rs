//! A kubectl with a home of its own, in a namespace of its own.

use std::{
    path::PathBuf,
    process::{Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tempfile::TempDir;
use testkit_kube::{
    auth::User,
    server::{ApiServer, Options},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// Names a kubeconfig: kubectl talks to that server instead of the embedded one.
const KUBECONFIG: &str = "LATEEN_CONFORMANCE_KUBECONFIG";

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// kubectl, as the administrator.
pub(crate) struct Kubectl {
    pub(crate) embedded: Option<ApiServer>,
    pub(crate) namespace: String,
    kubeconfig: PathBuf,
    home: TempDir,
    /// The minor version of kubectl.
    pub(crate) minor: u32,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    command: String,
    pub(crate) ok: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A command that goes on, line by line. It ends with the test.
pub(crate) struct Following {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

// === impl Kubectl ===

impl Kubectl {
    pub(crate) async fn start() -> Self {
        let home = TempDir::new().unwrap();
        let (embedded, kubeconfig) = if let Some(path) = std::env::var_os(KUBECONFIG) {
            (None, path.into())
        } else {
            let server = ApiServer::start(Options::default()).await.unwrap();
            let path = home.path().join("kubeconfig");
            std::fs::write(&path, server.kubeconfig(&User::admin()).unwrap()).unwrap();
            (Some(server), path)
        };
        let mut kubectl = Self {
            embedded,
            namespace: unique("kubectl"),
            kubeconfig,
            home,
            minor: 0,
        };
        let version = kubectl.say("version --client -o json").await;
        let version: serde_json::Value = serde_json::from_str(&version).unwrap();
        let minor = version["clientVersion"]["minor"].as_str().unwrap();
        kubectl.minor = minor.trim_end_matches('+').parse().unwrap();
        let created = kubectl
            .say(&format!("create namespace {}", kubectl.namespace))
            .await;
        assert_eq!(
            created,
            format!("namespace/{} created\n", kubectl.namespace)
        );
        if kubectl.embedded.is_none() {
            kubectl.wait_for_account().await;
        }
        kubectl
    }

    /// Pods need a service account, which a real server makes in a moment.
    async fn wait_for_account(&self) {
        let waiting = async { while !self.attempt("get serviceaccount default").await.ok {} };
        timeout(PATIENCE, waiting)
            .await
            .expect("no service account");
    }

    /// The output of a command that must succeed, its words separated by spaces; a word in single quotes
    /// may hold some.
    pub(crate) async fn say(&self, command: &str) -> String {
        self.try_with(command, "").await.succeeds()
    }

    /// As [`say`](Self::say), with something to read.
    pub(crate) async fn say_with(&self, command: &str, input: &str) -> String {
        self.try_with(command, input).await.succeeds()
    }

    /// What a command says that may fail.
    pub(crate) async fn attempt(&self, command: &str) -> Said {
        self.try_with(command, "").await
    }

    pub(crate) async fn try_with(&self, command: &str, input: &str) -> Said {
        let mut process = self.command(command);
        process.stdin(Stdio::piped());
        let mut child = start(&mut process);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let writing = tokio::spawn(async move {
            // A command that does not read is free to end first.
            let _read = stdin.write_all(input.as_bytes()).await;
        });
        let output = timeout(PATIENCE, child.wait_with_output()).await;
        let output = output
            .unwrap_or_else(|_| panic!("kubectl {command}: no end"))
            .unwrap();
        writing.await.unwrap();
        Said::new(command, &output)
    }

    /// A command that goes on, as watches do.
    pub(crate) fn follow(&self, command: &str) -> Following {
        let mut child = start(&mut self.command(command));
        let stdout = child.stdout.take().unwrap();
        Following {
            _child: child,
            lines: BufReader::new(stdout).lines(),
        }
    }

    /// Makes kubectl look again at which resources there are, which it keeps for minutes.
    pub(crate) fn forget(&self) {
        let cache = self.home.path().join("cache");
        std::fs::remove_dir_all(cache).unwrap();
    }

    fn command(&self, command: &str) -> Command {
        let mut process = Command::new("kubectl");
        process
            .env("HOME", self.home.path())
            .env("KUBECONFIG", &self.kubeconfig)
            .env_remove("KUBECTL_EXTERNAL_DIFF")
            .arg("--cache-dir")
            .arg(self.home.path().join("cache"))
            .args(words(command))
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if !self.namespace.is_empty() && !command.contains("-A") && !command.contains("-n ") {
            process.arg("--namespace").arg(&self.namespace);
        }
        process
    }
}

/// A real server would keep what the test made, and pods that nobody runs would stay for ever.
impl Drop for Kubectl {
    fn drop(&mut self) {
        if self.embedded.is_some() {
            return;
        }
        let pods = "delete pods --all --grace-period=0 --force --wait=false".to_owned();
        let namespace = format!("delete namespace {} --wait=false", self.namespace);
        for command in [pods, namespace] {
            let mut process = self.command(&command).into_std();
            // Whether it went well is the server's concern now.
            let _cleaned = process.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

fn start(command: &mut Command) -> Child {
    let started = command.spawn();
    started.unwrap_or_else(|e| panic!("kubectl does not start, hack/setup.sh installs it: {e}"))
}

/// Splits at spaces that are not between single quotes.
fn words(command: &str) -> Vec<String> {
    let parts = command.split('\'').enumerate();
    let mut words = vec![String::new()];
    for (number, part) in parts {
        if number % 2 == 1 {
            words.last_mut().unwrap().push_str(part);
            continue;
        }
        let mut pieces = part.split(' ');
        words.last_mut().unwrap().push_str(pieces.next().unwrap());
        words.extend(pieces.map(str::to_owned));
    }
    words.retain(|word| !word.is_empty());
    words
}

/// A name that nobody else uses.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{:08x}-{number}", fastrand::u32(..))
}

/// The words of each line, without the last of them: the age.
pub(crate) fn cells(table: &str) -> Vec<Vec<&str>> {
    let lines = table.lines().map(|line| {
        let mut words: Vec<_> = line.split_whitespace().collect();
        words.pop();
        words
    });
    lines.collect()
}

/// A Deployment that nobody rolls out.
pub(crate) fn deployment(name: &str, replicas: u32, image: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  labels: {{app: {name}}}
spec:
  replicas: {replicas}
  selector:
    matchLabels: {{app: {name}}}
  template:
    metadata:
      labels: {{app: {name}}}
    spec:
      containers:
      - name: main
        image: {image}
        ports:
        - containerPort: 80
"
    )
}

// === impl Said ===

impl Said {
    fn new(command: &str, output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            command: command.to_owned(),
            ok: output.status.success(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    #[track_caller]
    fn succeeds(self) -> String {
        assert!(
            self.ok,
            "kubectl {}: {}{}",
            self.command, self.out, self.err
        );
        self.out
    }

    /// The complaint of a command that must fail.
    #[track_caller]
    pub(crate) fn fails(self) -> String {
        assert!(!self.ok, "kubectl {} went well: {}", self.command, self.out);
        self.err
    }
}

// === impl Following ===

impl Following {
    pub(crate) async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.expect("no further line").unwrap();
        line.expect("the command has ended")
    }
}
