//! A kubectl with a home of its own, in a namespace of its own.

use std::{
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
};

use testkit_kube::{
    auth::User,
    kubectl::{self, PATIENCE, Said},
    server::{ApiServer, Options},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// Names a kubeconfig: kubectl talks to that server instead of the embedded one.
const KUBECONFIG: &str = "LATEEN_CONFORMANCE_KUBECONFIG";

/// kubectl, as the administrator.
pub(crate) struct Kubectl {
    pub(crate) embedded: Option<ApiServer>,
    pub(crate) namespace: String,
    program: kubectl::Kubectl,
    /// The minor version of kubectl.
    pub(crate) minor: u32,
}

/// A command that goes on, line by line. It ends with the test.
pub(crate) struct Following {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

// === impl Kubectl ===

impl Kubectl {
    pub(crate) async fn start() -> Self {
        let (embedded, program) = if let Some(path) = std::env::var_os(KUBECONFIG) {
            (None, kubectl::Kubectl::with_kubeconfig(path))
        } else {
            let server = ApiServer::start(Options::default()).await.unwrap();
            let kubeconfig = server.kubeconfig(&User::admin()).unwrap();
            (Some(server), kubectl::Kubectl::new(&kubeconfig))
        };
        let program = program.unwrap();
        let kubectl = Self {
            embedded,
            namespace: unique("kubectl"),
            minor: program.minor().await.unwrap(),
            program,
        };
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
        let said = kubectl::run(self.command(command), command, input).await;
        said.unwrap()
    }

    /// A command that goes on, as watches do.
    pub(crate) fn follow(&self, command: &str) -> Following {
        let mut child = self.command(command).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        Following {
            _child: child,
            lines: BufReader::new(stdout).lines(),
        }
    }

    /// Makes kubectl look again at which resources there are, which it keeps for minutes.
    pub(crate) fn forget(&self) {
        self.program.forget().unwrap();
    }

    fn command(&self, command: &str) -> Command {
        let mut process = self.program.command(command);
        if !command.contains("-A") && !command.contains("-n ") {
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

// === impl Following ===

impl Following {
    pub(crate) async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.expect("no further line").unwrap();
        line.expect("the command has ended")
    }
}
