//! What a plugin is asked: its environment.

use std::ffi::OsString;

use super::{Code, Coded};

/// Longest container id: with an interface's name it is part of a file's.
const LONGEST_ID: usize = 200;

/// Longest name of an interface, from the kernel: 16 bytes, the last of them zero.
const LONGEST_INTERFACE: usize = 15;

/// Longest path, from the kernel.
const LONGEST_PATH: usize = 4096;

/// Longest `CNI_ARGS`. Runtimes send a few hundred bytes.
const LONGEST_ARGS: usize = 64 << 10;

/// Longest name of a pod, and longest UID; both from the API server.
const LONGEST_NAME: usize = 253;

/// A command with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// ADD: a sandbox gets an interface.
    Add(Sandbox),
    /// CHECK: is it as ADD left it?
    Check(Sandbox),
    /// DEL: the interface goes; the network namespace may have gone.
    Delete(Sandbox),
    /// GC: what is not listed in the configuration goes.
    Collect,
    /// STATUS: could a sandbox be added?
    Status,
    /// VERSION: which versions are spoken?
    Version,
}

/// One interface of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub interface: String,
    /// `CNI_NETNS`, an absolute path; empty only for [`Call::Delete`].
    pub netns: String,
    /// What runs in it, from `CNI_ARGS`; none if it is not a pod of Kubernetes.
    pub pod: Option<Pod>,
}

/// A pod, as the runtime names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_UID`; empty from a runtime that does not tell.
    pub uid: String,
}

/// What is wrong with the environment. The caller's fault, which is the container runtime or a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is needed for this command.
    #[error("read the environment: {name} is missing")]
    Missing {
        /// The variable.
        name: &'static str,
    },
    /// It has a value that it cannot have.
    #[error("read the environment: {name} must be {wanted}")]
    Invalid {
        /// The variable, or an argument in `CNI_ARGS`.
        name: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
}

// === impl Call ===

impl Call {
    /// Reads the environment. Without `CNI_COMMAND` it is nobody's call: none.
    pub fn from_environment(
        variable: impl Fn(&'static str) -> Option<OsString>,
    ) -> Result<Option<Self>, Error> {
        let environment = Environment(variable);
        let Some(command) = environment.optional("CNI_COMMAND")? else {
            return Ok(None);
        };
        Ok(Some(match command.as_str() {
            "ADD" => Self::Add(environment.sandbox(true)?),
            "CHECK" => Self::Check(environment.sandbox(true)?),
            "DEL" => Self::Delete(environment.sandbox(false)?),
            "GC" => Self::Collect,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            _ => {
                return Err(Error::Invalid {
                    name: "CNI_COMMAND",
                    wanted: "one of ADD, CHECK, DEL, GC, STATUS, VERSION",
                });
            }
        }))
    }

    /// As the specification writes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Check(_) => "CHECK",
            Self::Delete(_) => "DEL",
            Self::Collect => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

struct Environment<F>(F);

// === impl Environment ===

impl<F: Fn(&'static str) -> Option<OsString>> Environment<F> {
    /// The variable's value; an empty one is as good as none.
    fn optional(&self, name: &'static str) -> Result<Option<String>, Error> {
        let Some(value) = (self.0)(name).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let wanted = "UTF-8";
        let text = value.into_string().ok();
        text.map(Some).ok_or(Error::Invalid { name, wanted })
    }

    fn required(&self, name: &'static str) -> Result<String, Error> {
        self.optional(name)?.ok_or(Error::Missing { name })
    }

    fn sandbox(&self, alive: bool) -> Result<Sandbox, Error> {
        let container_id = self.required("CNI_CONTAINERID")?;
        check(
            container_id.len() <= LONGEST_ID && is_identifier(&container_id),
            "CNI_CONTAINERID",
            "at most 200 letters, digits, `_`, `.`, `-`, beginning with a letter or digit",
        )?;
        let netns = if alive {
            self.required("CNI_NETNS")?
        } else {
            self.optional("CNI_NETNS")?.unwrap_or_default()
        };
        check(
            netns.len() < LONGEST_PATH && (netns.is_empty() || netns.starts_with('/')),
            "CNI_NETNS",
            "an absolute path",
        )?;
        let interface = self.required("CNI_IFNAME")?;
        check(
            is_interface(&interface),
            "CNI_IFNAME",
            "the name of a network interface: at most 15 bytes without blanks, `/`, `:`",
        )?;
        let args = self.optional("CNI_ARGS")?.unwrap_or_default();
        Ok(Sandbox {
            container_id,
            interface,
            netns,
            pod: Pod::parse(&args)?,
        })
    }
}

// === impl Pod ===

impl Pod {
    /// Reads `CNI_ARGS`, `KEY=VALUE` pairs between semicolons; keys that we do not know are skipped.
    fn parse(args: &str) -> Result<Option<Self>, Error> {
        check(
            args.len() <= LONGEST_ARGS,
            "CNI_ARGS",
            "shorter than 64 KiB",
        )?;
        let (mut name, mut namespace, mut uid) = (String::new(), String::new(), String::new());
        for pair in args.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                let wanted = "KEY=VALUE pairs between semicolons";
                let name = "CNI_ARGS";
                return Err(Error::Invalid { name, wanted });
            };
            match key {
                "K8S_POD_NAME" => value.clone_into(&mut name),
                "K8S_POD_NAMESPACE" => value.clone_into(&mut namespace),
                "K8S_POD_UID" => value.clone_into(&mut uid),
                _ => {}
            }
        }
        if name.is_empty() || namespace.is_empty() {
            return Ok(None);
        }
        check(is_name(&name), "K8S_POD_NAME", "the name of a pod")?;
        check(
            is_name(&namespace),
            "K8S_POD_NAMESPACE",
            "the name of a namespace",
        )?;
        let is_uid = uid.is_empty() || (uid.len() <= LONGEST_NAME && is_identifier(&uid));
        check(is_uid, "K8S_POD_UID", "letters, digits, `_`, `.`, `-`")?;
        Ok(Some(Self {
            name,
            namespace,
            uid,
        }))
    }
}

// === impl Error ===

impl Coded for Error {
    fn code(&self) -> Code {
        Code::InvalidEnvironment
    }
}

fn check(valid: bool, name: &'static str, wanted: &'static str) -> Result<(), Error> {
    valid.then_some(()).ok_or(Error::Invalid { name, wanted })
}

/// What the specification allows as the id of a container and as the name of a network.
pub(super) fn is_identifier(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(inner)
}

fn is_interface(text: &str) -> bool {
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace();
    text.len() <= LONGEST_INTERFACE && !matches!(text, "." | "..") && !text.contains(forbidden)
}

/// What the API server allows as the name of a pod, or a superset of that for a namespace.
fn is_name(text: &str) -> bool {
    let inner =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= LONGEST_NAME
        && text.starts_with(ends)
        && text.ends_with(ends)
        && text.bytes().all(inner)
}

#[cfg(test)]
mod tests;
