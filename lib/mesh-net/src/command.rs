//! Running another program, such as `nft`, inside a network namespace.

use std::{ffi::OsString, io, process::ExitStatus, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin},
    time::timeout,
};

use crate::netns::{self, NetNs};

/// Most bytes kept of each output of a program; what follows is read and thrown away, so that the
/// program does not block on it.
pub const OUTPUT_LIMIT: usize = 64 * 1024;

/// A program to be run once.
#[derive(Debug)]
pub struct Command<'a> {
    program: OsString,
    arguments: Vec<OsString>,
    input: Vec<u8>,
    netns: Option<&'a NetNs>,
    deadline: Duration,
    output_limit: usize,
}

/// What a program that succeeded wrote, each up to [`OUTPUT_LIMIT`]; bytes that are not UTF-8 are
/// replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error: warnings.
    pub stderr: String,
}

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program cannot be started; usually it is not installed.
    #[error("start {program}")]
    Start {
        /// The program.
        program: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The namespace cannot be entered; see [`netns::Error`].
    #[error("start {program} in a network namespace")]
    Namespace {
        /// The program.
        program: String,
        /// The reason.
        source: netns::Error,
    },
    /// Its input or output broke. The kernel is at fault.
    #[error("talk to {program}")]
    Pipe {
        /// The program.
        program: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The program ran longer than allowed and was killed. Retrying may help.
    #[error("{program} did not end within {deadline:?} and was killed")]
    TimedOut {
        /// The program.
        program: String,
        /// The time it was allowed.
        deadline: Duration,
    },
    /// The program says that it failed; its words tell what is wrong with the input.
    #[error("{program} failed ({status}): {}", stderr.trim_end())]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to standard error.
        stderr: String,
    },
}

// === impl Command ===

impl<'a> Command<'a> {
    /// A program found by `PATH`, to be run without arguments and input, for 10 s at most.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            input: Vec::new(),
            netns: None,
            deadline: Duration::from_secs(10),
            output_limit: OUTPUT_LIMIT,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Gives the program this text to read, and then the end.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Runs the program inside of `netns` instead of the namespace of this process.
    #[must_use]
    pub fn netns(mut self, netns: &'a NetNs) -> Self {
        self.netns = Some(netns);
        self
    }

    /// Kills the program after this time.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Keeps this many bytes of each output instead of [`OUTPUT_LIMIT`].
    #[must_use]
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.output_limit = bytes;
        self
    }

    /// Runs the program to its end. Dropping the future kills it.
    pub async fn run(self) -> Result<Output, Error> {
        let program = self.program.to_string_lossy().into_owned();
        let mut child = self.start(&program)?;
        let conversation = converse(&mut child, self.input, self.output_limit);
        let Ok(ended) = timeout(self.deadline, conversation).await else {
            return Err(Error::TimedOut {
                program,
                deadline: self.deadline,
            });
        };
        match ended {
            Err(source) => Err(Error::Pipe { program, source }),
            Ok((status, output)) if status.success() => Ok(output),
            Ok((status, output)) => Err(Error::Failed {
                program,
                status,
                stderr: output.stderr,
            }),
        }
    }

    fn start(&self, program: &str) -> Result<Child, Error> {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // A new process starts in the namespace of the thread that makes it.
        let spawned = match self.netns {
            None => command.spawn(),
            Some(netns) => netns
                .run(|| command.spawn())
                .map_err(|source| Error::Namespace {
                    program: program.to_owned(),
                    source,
                })?,
        };
        spawned.map_err(|source| Error::Start {
            program: program.to_owned(),
            source,
        })
    }
}

/// Writes the input and reads both outputs at once, lest the program and we wait for each other.
async fn converse(
    child: &mut Child,
    input: Vec<u8>,
    limit: usize,
) -> io::Result<(ExitStatus, Output)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (fed, stdout, stderr) =
        tokio::join!(feed(stdin, input), read(stdout, limit), read(stderr, limit));
    fed?;
    let output = Output {
        stdout: stdout?,
        stderr: stderr?,
    };
    Ok((child.wait().await?, output))
}

async fn feed(stdin: Option<ChildStdin>, input: Vec<u8>) -> io::Result<()> {
    let Some(mut stdin) = stdin else {
        return Ok(());
    };
    match stdin.write_all(&input).await {
        // It ended before it read everything; its status says whether that was right.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

async fn read(output: Option<impl AsyncRead + Unpin>, limit: usize) -> io::Result<String> {
    let Some(mut output) = output else {
        return Ok(String::new());
    };
    let mut kept = Vec::new();
    (&mut output)
        .take(limit as u64)
        .read_to_end(&mut kept)
        .await?;
    tokio::io::copy(&mut output, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&kept).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn input_reaches_the_program_and_output_comes_back() {
        let input = "a line\n".repeat(100_000);
        let output = Command::new("wc").args(["-c"]).input(input.clone());
        let output = output.run().await.unwrap();
        assert_eq!(output.stdout.trim(), input.len().to_string());
    }

    #[tokio::test]
    async fn output_is_bounded() {
        let input = vec![b'x'; 3 * OUTPUT_LIMIT];
        let output = Command::new("cat").input(input).run().await.unwrap();
        assert_eq!(output.stdout.len(), OUTPUT_LIMIT);
    }

    #[tokio::test]
    async fn failure_quotes_the_program() {
        let script = "echo line 3: no such table >&2; exit 4";
        let error = Command::new("sh").args(["-c", script]).run().await;
        let text = error.unwrap_err().to_string();
        assert_eq!(text, "sh failed (exit status: 4): line 3: no such table");
    }

    #[tokio::test]
    async fn a_program_that_ignores_its_input_is_no_failure() {
        let input = vec![b'x'; 1024 * 1024];
        Command::new("true").input(input).run().await.unwrap();
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed() {
        let command = Command::new("sleep").args(["1000"]);
        let error = command.deadline(Duration::from_millis(20)).run().await;
        assert!(matches!(error, Err(Error::TimedOut { .. })), "{error:?}");
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = Command::new("no-such-program").run().await.unwrap_err();
        assert_eq!(error.to_string(), "start no-such-program");
    }
}
