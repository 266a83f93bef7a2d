//! What a plugin reads from its standard input.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::{Call, Code, Coded, Version, call::is_identifier};
use crate::config::PluginConfig;

/// Most bytes of standard input: GC lists each of a node's sandboxes with some hundred bytes.
pub const MAX_BYTES: usize = 4 << 20;

/// The network, our entry in its configuration, and what the runtime adds to it for a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// The version that the runtime speaks with us.
    pub version: Version,
    /// The network's name.
    pub network: String,
    /// Our entry.
    pub plugin: PluginConfig,
    /// What the plugins before ours did; none if ours is the first.
    pub previous: Option<Value>,
    /// For GC: all that is left of this network.
    pub valid: Vec<ValidAttachment>,
}

/// An interface of a sandbox that is in use.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ValidAttachment {
    /// The sandbox.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The interface in it.
    pub ifname: String,
}

/// Why a configuration cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is longer than [`MAX_BYTES`]. The runtime's fault.
    #[error("read the network configuration: it has more than {MAX_BYTES} bytes")]
    TooLong,
    /// It is not JSON, or a field has the wrong type. The fault of who wrote the file, or of the runtime.
    #[error("read the network configuration")]
    Malformed(#[source] serde_json::Error),
    /// We do not speak it. The file must name another version.
    #[error(
        "read the network configuration: it is of CNI version `{found}`; istio-cni speaks 0.1.0 to {}",
        Version::LATEST
    )]
    UnknownVersion {
        /// What it says.
        found: String,
    },
    /// The command came with a later version of CNI. The runtime's fault.
    #[error("the configuration's CNI version {version} has no {command}")]
    NoSuchCommand {
        /// The configuration's.
        version: Version,
        /// What was asked.
        command: &'static str,
    },
    /// A network has a name, of letters, digits, `_`, `.`, `-`. Whoever wrote the file must give it one.
    #[error("read the network configuration: `{found}` is no name of a network")]
    Name {
        /// What it says.
        found: String,
    },
    /// CHECK needs it after other plugins. The runtime's fault.
    #[error("read the network configuration: CHECK needs prevResult")]
    NoPrevious,
}

/// What surrounds our entry.
#[derive(Deserialize)]
struct Surroundings {
    #[serde(default)]
    name: String,
    #[serde(rename = "prevResult", default)]
    previous: Option<Value>,
    #[serde(
        rename = "cni.dev/valid-attachments",
        default,
        deserialize_with = "list"
    )]
    valid: Vec<ValidAttachment>,
}

// === impl NetworkConfig ===

impl NetworkConfig {
    /// Reads standard input, and holds the call to the configuration's version.
    pub fn parse(bytes: &[u8], call: &Call) -> Result<Self, Error> {
        let fields = object(bytes)?;
        let version = version_in(&fields)?;
        if version < since(call) {
            let command = call.name();
            return Err(Error::NoSuchCommand { version, command });
        }
        let value = Value::Object(fields);
        let around = Surroundings::deserialize(&value).map_err(Error::Malformed)?;
        if !is_identifier(&around.name) {
            return Err(Error::Name { found: around.name });
        }
        if matches!(call, Call::Check(_)) && around.previous.is_none() {
            return Err(Error::NoPrevious);
        }
        Ok(Self {
            version,
            network: around.name,
            plugin: PluginConfig::deserialize(&value).map_err(Error::Malformed)?,
            previous: around.previous,
            valid: around.valid,
        })
    }
}

/// The version that the runtime speaks, if that much can be read: what an answer to it should be in.
pub fn version_of(bytes: &[u8]) -> Result<Version, Error> {
    version_in(&object(bytes)?)
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::TooLong);
    }
    serde_json::from_slice(bytes).map_err(Error::Malformed)
}

fn version_in(fields: &Map<String, Value>) -> Result<Version, Error> {
    let text = match fields.get("cniVersion") {
        None | Some(Value::Null) => return Ok(Version::V0_1_0),
        Some(value) => value.as_str().unwrap_or("not a text"),
    };
    match text {
        "" => Ok(Version::V0_1_0),
        text => Version::parse(text).ok_or_else(|| Error::UnknownVersion {
            found: text.chars().take(32).collect(),
        }),
    }
}

/// The first version that has a command.
fn since(call: &Call) -> Version {
    match call {
        Call::Add(_) | Call::Delete(_) | Call::Version => Version::V0_1_0,
        Call::Check(_) => Version::V0_4_0,
        Call::Collect | Call::Status => Version::V1_1_0,
    }
}

/// Go writes a list without items as `null`.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ValidAttachment>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

// === impl Error ===

impl Coded for Error {
    fn code(&self) -> Code {
        match self {
            Self::TooLong | Self::Malformed(_) => Code::Decoding,
            Self::UnknownVersion { .. } | Self::NoSuchCommand { .. } => Code::IncompatibleVersion,
            Self::Name { .. } | Self::NoPrevious => Code::InvalidConfig,
        }
    }
}

#[cfg(test)]
mod tests;
