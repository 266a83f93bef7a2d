//! The node's agent, and what is decided by while it is away.

use std::{
    fmt, fs, io,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use mesh_cni::{
    enrolment::{Belongs, Snapshot},
    protocol::{ENROLMENT_FILE, Refusal, SOCKET, Verb, client},
    spec::failure::chain,
};
use serde::{Serialize, de::DeserializeOwned};

/// The agent of this node.
#[derive(Clone, Debug)]
pub struct Agent {
    run_dir: PathBuf,
}

/// How long an answer is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For the answer.
    pub answer: Instant,
    /// For an agent that cannot be reached, from the first failure on; zero: it is tried once.
    pub absence: Duration,
    /// Between two attempts.
    pub pause: Duration,
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The agent says no.
    Refused(Refusal),
    /// There is no agent that understands us; the reason why.
    Unreachable(String),
    /// An agent listens that does not know this call: Istio's, which knows [`Verb::IstioAdd`] and nothing else.
    Unknown,
}

/// Why the plugin does not know who belongs in the mesh.
#[derive(Debug)]
pub struct NoSnapshot(String);

/// Most bytes of words of an agent that are passed on.
const MOST_WORDS: usize = 2048;

// === impl Agent ===

impl Agent {
    /// The one whose run directory this is.
    pub fn at(run_dir: impl Into<PathBuf>) -> Self {
        let run_dir = run_dir.into();
        Self { run_dir }
    }

    /// Asks it for something, until it answers or the time is over. All calls can be repeated.
    pub fn ask<B: Serialize, A: DeserializeOwned>(
        &self,
        verb: Verb,
        body: &B,
        deadlines: Deadlines,
    ) -> Result<A, Error> {
        // The types of the protocol have only keys that are texts.
        let body = serde_json::to_vec(body).map_err(|e| Error::Unreachable(e.to_string()))?;
        let mut give_up = None;
        loop {
            let error = match self.attempt(verb, &body, deadlines.answer) {
                Err(Error::Unreachable(reason)) => reason,
                settled => return settled,
            };
            let now = Instant::now();
            let give_up = *give_up.get_or_insert(now + deadlines.absence);
            if now + deadlines.pause >= give_up.min(deadlines.answer) {
                return Err(Error::Unreachable(error));
            }
            // Nobody tells when an agent has started.
            thread::park_timeout(deadlines.pause);
        }
    }

    fn attempt<A: DeserializeOwned>(
        &self,
        verb: Verb,
        body: &[u8],
        deadline: Instant,
    ) -> Result<A, Error> {
        let socket = self.run_dir.join(SOCKET);
        let answer = client::post(&socket, verb.path(), body, deadline).map_err(|error| {
            let why = chain(Some(&error));
            Error::Unreachable(why)
        })?;
        match answer.status {
            // Nothing reads as `null`.
            200 => {
                let body = match answer.body.trim_ascii() {
                    b"" => b"null",
                    body => body,
                };
                serde_json::from_slice(body).map_err(|error| {
                    Error::Unreachable(format!("read the agent's answer: {error}"))
                })
            }
            404 => Err(Error::Unknown),
            status => Err(Error::Refused(refusal(status, &answer.body))),
        }
    }

    /// Who belongs in the mesh, as the agent saw it last.
    pub fn snapshot(&self) -> Result<Snapshot, NoSnapshot> {
        let path = self.run_dir.join(ENROLMENT_FILE);
        let bytes = read(&path).map_err(|e| NoSnapshot(format!("{}: {e}", path.display())))?;
        Snapshot::parse(&bytes)
            .map_err(|e| NoSnapshot(format!("{}: {}", path.display(), chain(Some(&e)))))
    }

    /// Whether a pod of this namespace belongs in the mesh, as far as that is known here, and why not more.
    pub fn belongs(&self, namespace: &str) -> (Belongs, Option<NoSnapshot>) {
        match self.snapshot() {
            Ok(snapshot) => (snapshot.belongs(namespace), None),
            Err(error) => (Belongs::Perhaps, Some(error)),
        }
    }
}

impl fmt::Display for NoSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Ours says why in fields, Istio's in plain words.
fn refusal(status: u16, body: &[u8]) -> Refusal {
    serde_json::from_slice(body).unwrap_or_else(|_| {
        let said = String::from_utf8_lossy(body.get(..MOST_WORDS).unwrap_or(body));
        let message = format!("the agent answered with status {status}: {}", said.trim());
        Refusal {
            message: message.trim_end_matches(": ").to_owned(),
            again: status >= 500,
        }
    })
}

/// A file that only root can have written.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let about = file.metadata()?;
    if about.uid() != 0 || about.mode() & 0o022 != 0 {
        let fault = "others than root can write it";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, fault));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed, so that a longer file is seen to be one.
    let most = u64::try_from(Snapshot::MAX_BYTES).unwrap_or(u64::MAX);
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}
