//! An agent that answers as it is told, and a runtime that calls the plugin.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use istio_cni::{Patience, Plugin};
use serde_json::{Value, json};
use tempfile::TempDir;

/// One answer.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// This status and body.
    Says(u16, Value),
    /// The connection breaks, as when the agent is killed.
    Dies,
    /// Nothing, for as long as the plugin waits.
    Silent,
    /// These bytes.
    Raw(&'static [u8]),
}

/// A server on a Unix socket that gives these answers in turn, and the last one again and again.
pub(crate) struct Server {
    socket: PathBuf,
    requests: mpsc::Receiver<(String, Value)>,
    serving: Option<JoinHandle<()>>,
}

/// A run directory.
pub(crate) struct Node {
    pub(crate) run_dir: TempDir,
}

// === impl Server ===

impl Server {
    pub(crate) fn start(socket: PathBuf, replies: Vec<Reply>) -> Self {
        let listener = UnixListener::bind(&socket).unwrap();
        let (tell, requests) = mpsc::channel();
        let serving = thread::spawn(move || {
            let mut replies = replies.into_iter();
            let mut reply = Reply::Dies;
            for stream in listener.incoming() {
                reply = replies.next().unwrap_or(reply);
                let mut stream = stream.unwrap();
                let Some(request) = request(&mut stream) else {
                    return;
                };
                // Before the answer: who has that may ask at once what was asked.
                drop(tell.send(request));
                answer(stream, &reply);
            }
        });
        Self {
            socket,
            requests,
            serving: Some(serving),
        }
    }

    /// What it has been asked so far: path and body.
    pub(crate) fn asked(&self) -> Vec<(String, Value)> {
        self.requests.try_iter().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A connection without a request ends it.
        drop(UnixStream::connect(&self.socket));
        if let Some(serving) = self.serving.take() {
            drop(serving.join());
        }
    }
}

fn answer(mut stream: UnixStream, reply: &Reply) {
    let written = match reply {
        Reply::Says(status, body) => {
            let body = if body.is_null() {
                String::new()
            } else {
                body.to_string()
            };
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{body}"
            )
        }
        Reply::Dies => Ok(()),
        Reply::Silent => stream.read(&mut [0]).map(drop),
        Reply::Raw(bytes) => stream.write_all(bytes),
    };
    // A plugin that went away early is what some tests are about.
    drop(written);
}

/// Reads a request; none if the connection ends before.
fn request(stream: &mut UnixStream) -> Option<(String, Value)> {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let length = stream.read(&mut buffer).ok().filter(|length| *length > 0)?;
        bytes.extend_from_slice(&buffer[..length]);
        let text = str::from_utf8(&bytes).ok()?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let wanted = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        if body.len() == wanted?.parse::<usize>().ok()? {
            let path = head.split(' ').nth(1)?.to_owned();
            return Some((path, serde_json::from_str(body).ok()?));
        }
    }
}

// === impl Node ===

impl Node {
    pub(crate) fn new() -> Self {
        let run_dir = tempfile::tempdir().unwrap();
        Self { run_dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.run_dir.path()
    }

    pub(crate) fn agent(&self, replies: impl Into<Vec<Reply>>) -> Server {
        Server::start(self.path().join("pluginevent.sock"), replies.into())
    }

    /// Leaves what the agent saw last.
    pub(crate) fn snapshot(&self, selectors: &Value, namespaces: &Value) {
        let snapshot = json!({
            "version": 1, "selectors": selectors, "namespaces": namespaces,
            "excludedNamespaces": ["kube-system"],
        });
        std::fs::write(self.path().join("enrolment.json"), snapshot.to_string()).unwrap();
    }

    /// Our entry, as the runtime hands it over.
    pub(crate) fn config(&self, version: &str, more: Value) -> Value {
        let mut config = json!({
            "cniVersion": version, "name": "net", "type": "istio-cni", "pod_namespace": "mesh",
            "cni_agent_run_dir": self.path(), "exclude_namespaces": ["kube-system"],
            "plugin_log_level": "none", "ambient_enabled": true,
        });
        let Value::Object(more) = more else {
            unreachable!("fields are an object");
        };
        config.as_object_mut().unwrap().extend(more);
        config
    }
}

/// Impatient, so that no test waits.
pub(crate) fn patience() -> Patience {
    Patience {
        call: Duration::from_secs(10),
        absence: Duration::from_millis(50),
        pause: Duration::from_millis(1),
        brief: Duration::from_secs(10),
        log: Duration::from_secs(10),
        total: Duration::from_secs(60),
    }
}

pub(crate) const POD: [(&str, &str); 4] = [
    ("CNI_CONTAINERID", "0a1b"),
    ("CNI_NETNS", "/var/run/netns/none"),
    ("CNI_IFNAME", "eth0"),
    (
        "CNI_ARGS",
        "K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop;K8S_POD_UID=6f-1;K8S_POD_INFRA_CONTAINER_ID=0a1b",
    ),
];

/// What comes of a call: the exit status, and what standard output holds.
pub(crate) fn call(
    patience: Patience,
    command: &'static str,
    variables: &[(&'static str, &'static str)],
    config: &Value,
) -> (u8, Value) {
    let mut all: BTreeMap<_, _> = variables.iter().copied().collect();
    all.insert("CNI_COMMAND", command);
    let mut plugin = Plugin {
        patience,
        version: Arc::new(OnceLock::new()),
        started: Instant::now(),
    };
    let stdin = if config.is_null() {
        String::new()
    } else {
        config.to_string()
    };
    let answer = plugin.answer(
        |name| all.get(name).map(OsString::from),
        &mut stdin.as_bytes(),
    );
    let said = if answer.text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&answer.text).unwrap()
    };
    (answer.status, said)
}

/// A call for the pod `shop/web` that is known to be one.
pub(crate) fn pod(command: &'static str, config: &Value) -> (u8, Value) {
    call(patience(), command, &POD, config)
}
