//! A program that runs beside the test and does not outlive it.

use std::{
    io::{self, Read},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use mesh_net::netns::{self, NetNs};
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::wait::{TimedOut, eventually};

/// How much of each output is kept, in bytes; the oldest half goes when there is more.
const KEPT: usize = 4 << 20;

/// A running program. It leads a process group of its own, which is killed as a whole when this value is
/// dropped: its children do not survive either, and Ctrl-C at a terminal does not reach it before us.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    group: Pid,
    status: Option<ExitStatus>,
    stdout: Output,
    stderr: Output,
}

/// What went wrong with a program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not installed or cannot be started.
    #[error("start `{program}`; is it installed?")]
    Start {
        /// Its name.
        program: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The namespace it should run in cannot be entered.
    #[error("enter the namespace in which `{program}` should run")]
    Enter {
        /// Its name.
        program: String,
        /// The reason.
        source: netns::Error,
    },
    /// It did not do in time what was waited for.
    #[error("{0}; it has written:\n{1}")]
    TimedOut(TimedOut, String),
    /// It ended while something was waited for.
    #[error("`{program}` ended ({status}) before {what}; it has written:\n{written}")]
    Ended {
        /// Its name.
        program: String,
        /// How.
        status: ExitStatus,
        /// What was waited for.
        what: String,
        /// Both outputs.
        written: String,
    },
    /// The kernel does not tell about it. Not expected to happen.
    #[error("ask the kernel about `{program}`")]
    Wait {
        /// Its name.
        program: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// One of a program's outputs, as far as it has been written.
#[derive(Debug)]
struct Output {
    text: Arc<Mutex<Vec<u8>>>,
    /// Tells of growth; closed when the output is.
    grown: watch::Receiver<()>,
}

// === impl Process ===

impl Process {
    /// Starts a program, inside a network namespace if one is given. Its standard input is empty.
    pub fn spawn(mut command: Command, netns: Option<&NetNs>) -> Result<Self, Error> {
        let program = command.get_program().to_string_lossy().into_owned();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        // A new process is in the namespace of the thread that makes it.
        let spawned = match netns {
            Some(netns) => netns
                .run(|| command.spawn())
                .map_err(|source| Error::Enter {
                    program: program.clone(),
                    source,
                })?,
            None => command.spawn(),
        };
        let mut child = spawned.map_err(|source| Error::Start {
            program: program.clone(),
            source,
        })?;
        let stdout = Output::collect(child.stdout.take());
        let stderr = Output::collect(child.stderr.take());
        Ok(Self {
            name: program,
            group: Pid::from_raw(child.id().cast_signed()),
            child,
            status: None,
            stdout,
            stderr,
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// How it ended, or `None` if it runs.
    pub fn status(&mut self) -> Result<Option<ExitStatus>, Error> {
        if self.status.is_none() && self.has_ended()? {
            self.reap()?;
        }
        Ok(self.status)
    }

    /// Waits for its end.
    pub async fn wait(&mut self, within: Duration) -> Result<ExitStatus, Error> {
        let what = format!("the end of `{}`", self.name);
        let mut ended = Ok(None);
        let waited = eventually(what, within, || {
            ended = self.status();
            !matches!(ended, Ok(None))
        });
        if let Err(timed_out) = waited.await {
            return Err(Error::TimedOut(timed_out, self.written()));
        }
        // The loop above ends with a status or an error.
        let status = match ended? {
            Some(status) => status,
            None => self.reap()?,
        };
        // What it wrote last is still on its way. Only a process that left the group could keep the
        // pipes open now, and nothing is lost if that one is not waited for.
        let silence = async { tokio::join!(self.stdout.end(), self.stderr.end()) };
        drop(tokio::time::timeout(within, silence).await);
        Ok(status)
    }

    /// Waits until one of its outputs contains a text, and returns the line with it.
    pub async fn wait_for(&mut self, text: &str, within: Duration) -> Result<String, Error> {
        let what = format!("`{text}` in the output of `{}`", self.name);
        let (mut stdout, mut stderr) = (self.stdout.grown.clone(), self.stderr.grown.clone());
        let found = tokio::time::timeout(within, async {
            loop {
                let lines = [self.stdout(), self.stderr()];
                if let Some(line) = lines.iter().find_map(|l| line_with(l, text)) {
                    return Some(line);
                }
                // Both outputs are closed: it has ended, or will never say more.
                tokio::select! {
                    Ok(()) = stdout.changed() => {}
                    Ok(()) = stderr.changed() => {}
                    else => return None,
                }
            }
        });
        match found.await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => Err(Error::Ended {
                program: self.name.clone(),
                status: self.wait(within).await?,
                what,
                written: self.written(),
            }),
            Err(_elapsed) => Err(Error::TimedOut(TimedOut { what, within }, self.written())),
        }
    }

    /// Sends it a signal. One that has ended is not bothered.
    pub fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        if self.status()?.is_some() {
            return Ok(());
        }
        nix::sys::signal::kill(self.group, signal).map_err(|errno| self.unclear(errno))
    }

    /// Asks it to end with SIGTERM, and waits for that.
    pub async fn terminate(&mut self, within: Duration) -> Result<ExitStatus, Error> {
        self.signal(Signal::SIGTERM)?;
        self.wait(within).await
    }

    /// Whether it has ended. The process stays a zombie, so that its id, and its group's, cannot be given
    /// to someone else before [`Process::reap`] has killed the group.
    fn has_ended(&self) -> Result<bool, Error> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.group), flags) {
            Ok(WaitStatus::StillAlive) => Ok(false),
            Ok(_) => Ok(true),
            Err(errno) => Err(self.unclear(errno)),
        }
    }

    fn reap(&mut self) -> Result<ExitStatus, Error> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        // Nobody left in the group is as good.
        let _ = killpg(self.group, Signal::SIGKILL);
        let status = self.child.wait().map_err(|source| Error::Wait {
            program: self.name.clone(),
            source,
        })?;
        self.status = Some(status);
        Ok(status)
    }

    fn unclear(&self, errno: Errno) -> Error {
        Error::Wait {
            program: self.name.clone(),
            source: errno.into(),
        }
    }

    fn written(&self) -> String {
        format!("{}{}", self.stdout(), self.stderr())
    }
}

impl Drop for Process {
    #[expect(
        clippy::print_stderr,
        reason = "a destructor has no other way to report"
    )]
    fn drop(&mut self) {
        if let Err(error) = self.reap() {
            eprintln!("cannot kill process {}: {error}", self.id());
        }
    }
}

// === impl Output ===

impl Output {
    /// Reads to the end on a thread of its own, lest the program blocks on a full pipe.
    fn collect(pipe: Option<impl Read + Send + 'static>) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let (tell, grown) = watch::channel(());
        if let Some(pipe) = pipe {
            let text = Arc::clone(&text);
            thread::spawn(move || read(pipe, &text, &tell));
        }
        Self { text, grown }
    }

    /// Waits until nothing more can come.
    async fn end(&self) {
        let mut grown = self.grown.clone();
        while grown.changed().await.is_ok() {}
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock()).into_owned()
    }
}

fn read(mut pipe: impl Read, text: &Mutex<Vec<u8>>, tell: &watch::Sender<()>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = pipe.read(&mut buffer) {
        let mut text = text.lock();
        text.extend_from_slice(&buffer[..length]);
        if text.len() > KEPT {
            text.drain(..KEPT / 2);
        }
        drop(text);
        tell.send_replace(());
    }
}

fn line_with(output: &str, text: &str) -> Option<String> {
    output
        .lines()
        .find(|line| line.contains(text))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn(command, None).unwrap()
    }

    #[tokio::test]
    async fn output_is_waited_for() {
        let mut process = shell("echo listening on 80; echo and more >&2; exec sleep 1000");
        let line = process.wait_for("listening", SOON).await.unwrap();
        assert_eq!(line, "listening on 80");
        process.wait_for("and more", SOON).await.unwrap();
        assert_eq!(process.stderr(), "and more\n");
    }

    #[tokio::test]
    async fn early_end_is_told_with_what_was_written() {
        let mut process = shell("echo no such file >&2; exit 3");
        let error = process
            .wait_for("ready", SOON)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("exit status: 3") && error.contains("no such file"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn children_do_not_survive() {
        let mut process = shell("sleep 1000 & echo child $!; wait");
        let line = process.wait_for("child", SOON).await.unwrap();
        let child: i32 = line.trim_start_matches("child ").parse().unwrap();
        drop(process);
        let alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat"));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        eventually("the end of the child", SOON, || !alive())
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn termination_gives_the_status() {
        let mut process =
            shell("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done");
        process.wait_for("ready", SOON).await.unwrap();
        let status = process.terminate(SOON).await.unwrap();
        assert_eq!(status.code(), Some(7));
        assert_eq!(process.stdout(), "ready\nbye\n");
        process.signal(Signal::SIGTERM).unwrap();
    }

    #[tokio::test]
    async fn missing_program_is_named() {
        let error = Process::spawn(Command::new("no-such-program"), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "start `no-such-program`; is it installed?"
        );
    }
}
