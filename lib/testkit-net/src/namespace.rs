//! A network namespace that exists as long as its value.

use std::{
    fmt, fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU16, Ordering},
    },
};

use mesh_net::netns::{self, NetNs};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};

use crate::process::{self, Process};

/// Where `ip netns` keeps namespaces that have a name.
pub(crate) const DIRECTORY: &str = "/run/netns";

/// A network of its own, visible as `ip netns` under [`Namespace::name`], with loopback up.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: Arc<NetNs>,
    removed: bool,
}

/// What could not be done to or in a namespace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Namespaces need root. Run as root, or in a user namespace: `unshare --user --map-root-user`.
    #[error("create a network namespace: this needs root")]
    NotRoot,
    /// The program is not installed or cannot be started.
    #[error("start `{program}`; is it installed?")]
    Start {
        /// Its name.
        program: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The program reported a failure; its words are in the message.
    #[error("{command}, in {namespace}: {stderr}")]
    Failed {
        /// The program with its arguments.
        command: String,
        /// Where it ran.
        namespace: String,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// The namespace cannot be entered.
    #[error("enter namespace {namespace}")]
    Enter {
        /// Its name.
        namespace: String,
        /// The reason.
        source: netns::Error,
    },
    /// A kernel setting cannot be written.
    #[error("set {key} in {namespace}")]
    Setting {
        /// The setting, in the notation of `sysctl`.
        key: String,
        /// Where.
        namespace: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

// === impl Namespace ===

impl Namespace {
    /// A namespace for this label alone; see [`Run`] for those that belong together.
    pub fn new(label: &str) -> Result<Self, Error> {
        Run::new().namespace(label)
    }

    fn create(name: String) -> Result<Self, Error> {
        if !geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        run(
            Command::new("ip").args(["netns", "add", &name]),
            "",
            "the host",
        )?;
        let opened = NetNs::open(Path::new(DIRECTORY).join(&name));
        let handle = opened.map_err(|source| Error::Enter {
            namespace: name.clone(),
            source,
        })?;
        let created = Self {
            name,
            handle: Arc::new(handle),
            removed: false,
        };
        created.ip("link set lo up")?;
        Ok(created)
    }

    /// Its name, `lateen-<run>-<label>`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// The namespace itself, to make sockets in.
    pub fn handle(&self) -> &Arc<NetNs> {
        &self.handle
    }

    /// Runs a short closure with the calling thread in this namespace.
    pub fn enter<T>(&self, inside: impl FnOnce() -> T) -> Result<T, Error> {
        self.handle.run(inside).map_err(|source| Error::Enter {
            namespace: self.name.clone(),
            source,
        })
    }

    /// Runs `ip` with these words, which must not contain blanks: `ip("addr add 10.0.0.1/24 dev eth0")`.
    pub fn ip(&self, words: &str) -> Result<String, Error> {
        let arguments: Vec<_> = words.split_whitespace().collect();
        self.exec("ip", &arguments, "")
    }

    /// Runs many `ip` commands, one per line, in one process.
    pub fn ip_batch(&self, lines: &str) -> Result<(), Error> {
        self.exec("ip", &["-batch", "-"], lines).map(drop)
    }

    /// Runs a program to its end and returns its standard output. It must be one that ends by itself.
    pub fn exec(&self, program: &str, arguments: &[&str], input: &str) -> Result<String, Error> {
        self.enter(|| run(Command::new(program).args(arguments), input, &self.name))?
    }

    /// Starts a program that keeps running; it is killed when the returned value is dropped.
    pub fn spawn(&self, command: Command) -> Result<Process, process::Error> {
        Process::spawn(command, Some(&self.handle))
    }

    /// Sets a kernel setting of this namespace, such as `net.ipv4.ip_forward`.
    pub fn set(&self, key: &str, value: &str) -> Result<(), Error> {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        self.enter(|| fs::write(path, value))?
            .map_err(|source| Error::Setting {
                key: key.to_owned(),
                namespace: self.name.clone(),
                source,
            })
    }

    /// Removes it now, to learn whether that works. Processes still inside are killed.
    pub fn remove(mut self) -> Result<(), Error> {
        self.clean_up()
    }

    fn clean_up(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.removed, true) {
            return Ok(());
        }
        delete(&self.name)
    }
}

impl AsRef<NetNs> for Namespace {
    fn as_ref(&self) -> &NetNs {
        &self.handle
    }
}

impl Drop for Namespace {
    #[expect(
        clippy::print_stderr,
        reason = "a destructor has no other way to report"
    )]
    fn drop(&mut self) {
        if let Err(error) = self.clean_up() {
            eprintln!("cannot remove namespace {}: {error}", self.name);
        }
    }
}

/// Kills what runs in a namespace, and deletes it.
pub(crate) fn delete(name: &str) -> Result<(), Error> {
    let pids = run(
        Command::new("ip").args(["netns", "pids", name]),
        "",
        "the host",
    )?;
    for pid in pids.lines().filter_map(|line| line.trim().parse().ok()) {
        // Gone already is as good.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    run(
        Command::new("ip").args(["netns", "delete", name]),
        "",
        "the host",
    )
    .map(drop)
}

/// Names that belong together and to nobody else: `lateen-<process id>.<number>-<label>`.
#[derive(Clone, Debug)]
pub struct Run(Arc<str>);

impl Run {
    /// A fresh one.
    pub fn new() -> Self {
        /// Counted, as some hundred random ones would hold the same twice before long; from anywhere, as a process
        /// of this number may have been killed and have left some.
        static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| fastrand::u16(..).into());
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(format!("{}{process}.{number:04x}", crate::leftover::PREFIX).into())
    }

    /// A namespace of this run. Labels are unique within a run.
    pub fn namespace(&self, label: &str) -> Result<Namespace, Error> {
        Namespace::create(format!("{self}-{label}"))
    }
}

impl Default for Run {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Connects two namespaces by a cable with an interface at each end; both ends are up.
///
/// They get no link-local addresses: the kernel would add those some time later, and what a test finds
/// must not depend on when it looks.
pub fn connect(a: (&Namespace, &str), b: (&Namespace, &str)) -> Result<(), Error> {
    let ((one, left), (other, right)) = (a, b);
    let there = other.name();
    one.ip(&format!(
        "link add {left} type veth peer name {right} netns {there}"
    ))?;
    for (end, name) in [a, b] {
        end.ip_batch(&format!(
            "link set {name} addrgenmode none\nlink set {name} up\n"
        ))?;
    }
    Ok(())
}

pub(crate) fn run(command: &mut Command, input: &str, place: &str) -> Result<String, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let start = |source| Error::Start {
        program: program.clone(),
        source,
    };
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(start)?;
    if let Some(mut stdin) = child.stdin.take() {
        // The program may end without reading everything; its exit status tells.
        drop(stdin.write_all(input.as_bytes()));
    }
    let output = child.wait_with_output().map_err(start)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
    Err(Error::Failed {
        command: format!("{program} {}", arguments.join(" ")),
        namespace: place.to_owned(),
        stderr: String::from_utf8_lossy(&output.stderr)
            .trim_end()
            .to_owned(),
    })
}

#[cfg(test)]
mod tests;
