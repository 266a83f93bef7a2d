//! The programs that the lab runs as parts of the mesh.

use std::{ffi::OsString, io, path::PathBuf, process::Command};

/// A program, with what it is told besides what the lab tells all of its kind.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

// === impl Program ===

impl Program {
    /// A program that needs no arguments; a relative path is taken from here.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// The proxy built into the running program, which must be `lab` itself.
    pub fn built_in_proxy() -> io::Result<Self> {
        Ok(Self::new(std::env::current_exe()?).argument("node-proxy"))
    }

    /// The control plane built into the running program, which must be `lab` itself.
    pub fn built_in_istiod() -> io::Result<Self> {
        Ok(Self::new(std::env::current_exe()?).argument("control-plane"))
    }

    /// The CNI agent built into the running program, which must be `lab` itself.
    pub fn built_in_agent() -> io::Result<Self> {
        Ok(Self::new(std::env::current_exe()?).argument("node-agent"))
    }

    /// An istiod.
    pub fn istiod(path: impl Into<PathBuf>) -> Self {
        Self::new(path).argument("discovery")
    }

    /// With one more argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// With one more variable, or another value than the lab's.
    #[must_use]
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// It has no environment but what is added to it, and at last with [`complete`](Self::complete).
    pub(crate) fn command(&self) -> io::Result<Command> {
        let mut command = Command::new(std::path::absolute(&self.path)?);
        command.args(&self.arguments).env_clear();
        Ok(command)
    }

    /// Sets the program's own variables, which win over the lab's.
    pub(crate) fn complete(&self, command: &mut Command) {
        command.envs(self.environment.iter().map(|(k, v)| (k, v)));
    }
}
