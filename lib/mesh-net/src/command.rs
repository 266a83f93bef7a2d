//! Running another program, such as `nft`, inside a network namespace.

use std::{
    ffi::OsString,
    fmt, io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
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
    environment: Vec<(OsString, OsString)>,
    input: Vec<u8>,
    netns: Option<&'a NetNs>,
    deadline: Duration,
    output_limit: usize,
    sieve: Option<Sieve>,
}

/// Says which lines of its output are kept.
struct Sieve(Box<dyn FnMut(&str) -> bool + Send>);

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
            environment: Vec::new(),
            input: Vec::new(),
            netns: None,
            deadline: Duration::from_secs(10),
            output_limit: OUTPUT_LIMIT,
            sieve: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the program's environment, which is otherwise ours with `LC_ALL=C`.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
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

    /// Keeps only these lines of the standard output, however much there is of the others. The limit is
    /// for what is kept.
    #[must_use]
    pub fn lines(mut self, keep: impl FnMut(&str) -> bool + Send + 'static) -> Self {
        self.sieve = Some(Sieve(Box::new(keep)));
        self
    }

    /// Runs the program to its end. Dropping the future kills it.
    pub async fn run(self) -> Result<Output, Error> {
        let program = self.program.to_string_lossy().into_owned();
        let mut child = self.start(&program)?;
        let kept = (self.output_limit, self.sieve);
        let conversation = converse(&mut child, self.input, kept);
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
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
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
    (limit, sieve): (usize, Option<Sieve>),
) -> io::Result<(ExitStatus, Output)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let stdout = async {
        match sieve {
            None => read(stdout, limit).await,
            Some(sieve) => read_lines(stdout, limit, sieve).await,
        }
    };
    let (fed, stdout, stderr) = tokio::join!(feed(stdin, input), stdout, read(stderr, limit));
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

async fn read_lines(
    output: Option<impl AsyncRead + Unpin>,
    limit: usize,
    Sieve(mut keep): Sieve,
) -> io::Result<String> {
    let (mut kept, mut line) = (String::new(), Vec::new());
    let Some(output) = output else {
        return Ok(kept);
    };
    let mut output = BufReader::new(output);
    loop {
        line.clear();
        // A longer line is several.
        let mut one = (&mut output).take(OUTPUT_LIMIT as u64);
        if one.read_until(b'\n', &mut line).await? == 0 {
            return Ok(kept);
        }
        let text = String::from_utf8_lossy(&line);
        if keep(&text) && kept.len() + text.len() <= limit {
            kept.push_str(&text);
        }
    }
}

impl fmt::Debug for Sieve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sieve")
    }
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
    async fn a_variable_reaches_the_program_with_a_language_that_can_be_read() {
        let command = Command::new("sh").args(["-c", "echo $OWN $LC_ALL"]);
        let output = command.env("OWN", "value").run().await.unwrap();
        assert_eq!(output.stdout, "value C\n");
    }

    #[tokio::test]
    async fn output_is_bounded() {
        let input = vec![b'x'; 3 * OUTPUT_LIMIT];
        let output = Command::new("cat").input(input).run().await.unwrap();
        assert_eq!(output.stdout.len(), OUTPUT_LIMIT);
    }

    #[tokio::test]
    async fn of_much_output_only_the_wanted_lines_are_kept() {
        let input = format!("{}wanted\nlast", "unwanted\n".repeat(100_000));
        let command = Command::new("cat").input(input);
        let output = command.lines(|line| !line.starts_with("un")).run().await;
        assert_eq!(output.unwrap().stdout, "wanted\nlast");
        let command = Command::new("cat").input("12345\n67890\n").output_limit(6);
        let output = command.lines(|_| true).run().await.unwrap();
        assert_eq!(output.stdout, "12345\n");
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
