//! When to stop: a signal from outside, or a request to the admin port.

use std::{fmt, io, sync::Arc};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

/// Why the process is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// SIGTERM, as the kubelet sends it.
    Terminate,
    /// SIGINT, as Ctrl-C sends it.
    Interrupt,
    /// Somebody called [`Quit::quit`], usually through `POST /quitquitquit`.
    Quit,
}

/// Asks the process to stop from within. Clones ask the same [`Signals`].
#[derive(Clone, Debug, Default)]
pub struct Quit(Arc<Notify>);

/// The process's stop signals. While this value exists they no longer kill the process.
#[derive(Debug)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    quit: Quit,
}

/// The signal handlers could not be installed. The host is at fault; retrying does not help.
#[derive(Debug, thiserror::Error)]
#[error("cannot install the handler for {signal}")]
pub struct Error {
    signal: &'static str,
    #[source]
    source: io::Error,
}

/// Installs the handlers. Must be called within a runtime that drives I/O, and early: before this call
/// the signals have their default effect.
pub fn signals() -> Result<Signals, Error> {
    let install = |kind, name| {
        signal(kind).map_err(|source| Error {
            signal: name,
            source,
        })
    };
    Ok(Signals {
        terminate: install(SignalKind::terminate(), "SIGTERM")?,
        interrupt: install(SignalKind::interrupt(), "SIGINT")?,
        quit: Quit::default(),
    })
}

// === impl Quit ===

impl Quit {
    /// Asks the process to stop. Asking again before it was heard changes nothing.
    pub fn quit(&self) {
        self.0.notify_one();
    }
}

// === impl Signals ===

impl Signals {
    /// The handle with which the process asks itself to stop.
    pub fn quitter(&self) -> Quit {
        self.quit.clone()
    }

    /// Resolves at the next request to stop. Call it again during the drain to learn of a second one,
    /// which by custom means: at once.
    pub async fn next(&mut self) -> Cause {
        tokio::select! {
            _ = self.terminate.recv() => Cause::Terminate,
            _ = self.interrupt.recv() => Cause::Interrupt,
            () = self.quit.0.notified() => Cause::Quit,
        }
    }
}

// === impl Cause ===

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::Quit => "request to quit",
        })
    }
}
