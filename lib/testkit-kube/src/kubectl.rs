//! The real kubectl, whichever is in the PATH: what people type and what they see.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

/// kubectl with a home and a kubeconfig of its own, so that it neither reads nor leaves anything of the host.
#[derive(Debug)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    home: TempDir,
}

/// What a command said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// What was asked.
    pub command: String,
    /// Whether it went well.
    pub ok: bool,
    /// What it printed.
    pub out: String,
    /// What it complained about.
    pub err: String,
}

/// Why a command has said nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no room for kubectl's files. The host is at fault.
    #[error("make a home for kubectl")]
    Home(#[source] io::Error),
    /// The program is missing. `hack/setup.sh` installs it.
    #[error("start `{command}`: is it installed? hack/setup.sh does that")]
    Start {
        /// What was asked.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// The program was lost.
    #[error("wait for `{command}`")]
    Wait {
        /// What was asked.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// The command goes on for longer than [`PATIENCE`].
    #[error("`{0}` does not come to an end")]
    Endless(String),
    /// The program says nothing of a version that could be understood.
    #[error("read the version of kubectl")]
    Version,
}

/// How long a command may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

// === impl Kubectl ===

impl Kubectl {
    /// kubectl as the user of this kubeconfig, such as
    /// [`ApiServer::kubeconfig`](crate::server::ApiServer::kubeconfig) writes it.
    pub fn new(kubeconfig: &str) -> Result<Self, Error> {
        let home = TempDir::new().map_err(Error::Home)?;
        let path = home.path().join("kubeconfig");
        fs::write(&path, kubeconfig).map_err(Error::Home)?;
        Ok(Self {
            kubeconfig: path,
            home,
        })
    }

    /// The same with a kubeconfig that is there.
    pub fn with_kubeconfig(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let home = TempDir::new().map_err(Error::Home)?;
        Ok(Self {
            kubeconfig: path.into(),
            home,
        })
    }

    /// What a command of this text would be started as. Words are separated by spaces; those between single
    /// quotes are one. It ends when its handle is dropped.
    pub fn command(&self, text: &str) -> Command {
        let mut process = self.at_home("kubectl");
        process
            .arg("--cache-dir")
            .arg(self.cache())
            .args(words(text));
        process
    }

    /// The same for the lines of a shell, of which the first that fails is the last.
    pub fn shell(&self, lines: &str) -> Command {
        let mut process = self.at_home("sh");
        process.args(["-e", "-c", lines]);
        process
    }

    /// What kubectl says to a command, to which it is given `input` to read.
    pub async fn attempt(&self, text: &str, input: &str) -> Result<Said, Error> {
        run(self.command(text), &format!("kubectl {text}"), input).await
    }

    /// The minor version of kubectl.
    pub async fn minor(&self) -> Result<u32, Error> {
        let said = self.attempt("version --client -o json", "").await?;
        let version = serde_json::from_str::<Value>(&said.out).unwrap_or_default();
        let minor = version["clientVersion"]["minor"].as_str();
        let minor = minor.and_then(|minor| minor.trim_end_matches('+').parse().ok());
        minor.ok_or(Error::Version)
    }

    /// Makes kubectl look again at which resources there are, which it remembers for minutes.
    pub fn forget(&self) -> Result<(), Error> {
        fs::remove_dir_all(self.cache()).map_err(Error::Home)
    }

    fn at_home(&self, program: &str) -> Command {
        let mut process = Command::new(program);
        process
            .env("HOME", self.home.path())
            .env("KUBECONFIG", &self.kubeconfig)
            .env_remove("KUBECTL_EXTERNAL_DIFF")
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        process
    }

    fn cache(&self) -> PathBuf {
        Path::new(self.home.path()).join("cache")
    }
}

// === impl Said ===

impl Said {
    /// What a command printed that must go well.
    ///
    /// # Panics
    /// If it did not: the test has failed.
    #[track_caller]
    pub fn succeeds(self) -> String {
        assert!(self.ok, "{}: {}{}", self.command, self.out, self.err);
        self.out
    }

    /// The complaint of a command that must not go well.
    ///
    /// # Panics
    /// If it did: the test has failed.
    #[track_caller]
    pub fn fails(self) -> String {
        assert!(!self.ok, "{} went well: {}", self.command, self.out);
        self.err
    }
}

/// Runs a program to its end, and gives it `input` to read. `command` is what it is called in errors.
pub async fn run(mut process: Command, command: &str, input: &str) -> Result<Said, Error> {
    let name = || command.to_owned();
    process.stdin(Stdio::piped());
    let mut child = process.spawn().map_err(|source| Error::Start {
        command: name(),
        source,
    })?;
    let stdin = child.stdin.take();
    let writing = async {
        if let Some(mut stdin) = stdin {
            // A command that does not read is free to end first.
            let _read = stdin.write_all(input.as_bytes()).await;
        }
    };
    let ending = async { tokio::join!(child.wait_with_output(), writing).0 };
    let ended = timeout(PATIENCE, ending).await;
    let output = ended.map_err(|_elapsed| Error::Endless(name()))?;
    let output = output.map_err(|source| Error::Wait {
        command: name(),
        source,
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said {
        command: name(),
        ok: output.status.success(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    })
}

/// Splits at spaces that are not between single quotes.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    for (number, part) in text.split('\'').enumerate() {
        if number % 2 == 1 {
            word.push_str(part);
            continue;
        }
        for (number, piece) in part.split(' ').enumerate() {
            if number > 0 {
                words.push(std::mem::take(&mut word));
            }
            word.push_str(piece);
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_between_quotes_are_one() {
        assert_eq!(
            words("patch a  -p '{\"a b\": 1}' --x='y z'"),
            ["patch", "a", "-p", "{\"a b\": 1}", "--x=y z"]
        );
    }

    #[tokio::test]
    async fn what_is_read_and_printed_may_be_more_than_a_pipe_holds() {
        let kubectl = Kubectl::new("").unwrap();
        let input = "x".repeat(1 << 20);
        let said = run(kubectl.shell("cat"), "cat", &input).await;
        assert_eq!(said.unwrap().succeeds(), input);
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_named() {
        let missing = run(Command::new("no-such-program"), "kubectl get pods", "").await;
        let text = missing.unwrap_err().to_string();
        assert!(text.starts_with("start `kubectl get pods`"), "{text}");
    }
}
