//! What a plugin says instead of a result.

use std::error::Error;

use serde_json::json;

use super::Version;

/// The error codes of the specification, and ours from 100 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The configuration is of a version that the plugin does not speak, or that has no such command.
    IncompatibleVersion,
    /// A variable of the environment is missing or invalid; the message names it.
    InvalidEnvironment,
    /// Something could not be read or written.
    InputOutput,
    /// What was read is not what it should be.
    Decoding,
    /// The configuration does not make sense.
    InvalidConfig,
    /// Nothing is wrong with the request; the runtime should repeat it.
    TryAgain,
    /// STATUS: pods cannot be added now.
    NotAvailable,
    /// Ours: the agent will not do it, and the same request would be refused again.
    Refused,
    /// Ours: a defect of the plugin.
    Defect,
}

/// An error object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind it is.
    pub code: Code,
    /// One sentence; it becomes part of the pod's events.
    pub message: String,
    /// The reasons below, if any.
    pub details: String,
}

/// An error that has a code in the specification.
pub trait Coded: Error {
    /// Which one.
    fn code(&self) -> Code;
}

// === impl Code ===

impl Code {
    /// Its number.
    pub fn number(self) -> u16 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::InvalidEnvironment => 4,
            Self::InputOutput => 5,
            Self::Decoding => 6,
            Self::InvalidConfig => 7,
            Self::TryAgain => 11,
            Self::NotAvailable => 50,
            Self::Refused => 100,
            Self::Defect => 999,
        }
    }
}

// === impl Failure ===

impl Failure {
    /// One without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: String::new(),
        }
    }

    /// The error object, in the version that the runtime speaks.
    pub fn to_json(&self, version: Version) -> String {
        let mut object = json!({
            "cniVersion": version.as_str(),
            "code": self.code.number(),
            "msg": self.message,
        });
        if !self.details.is_empty() {
            object["details"] = self.details.as_str().into();
        }
        object.to_string()
    }
}

impl<E: Coded> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            code: error.code(),
            message: error.to_string(),
            details: chain(error.source()),
        }
    }
}

/// An error's reasons, outermost first.
pub fn chain(mut source: Option<&(dyn Error + 'static)>) -> String {
    let mut text = String::new();
    while let Some(error) = source {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
