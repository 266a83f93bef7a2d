//! The first and the last steps of a process, which are the same in every program: its log, its threads, what it
//! tells of itself, its signals, and the answer to whoever started it.

use std::{io, process::ExitCode};

use prometheus_client::registry::Registry;
use tokio::runtime::{self, Runtime};

use crate::{
    error::chain,
    log,
    shutdown::{self, Signals},
    stats::{self, Build},
};

/// Why a program cannot start. The host or whoever configured the program is at fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter is not valid, or logging is set up already.
    #[error("set up logging")]
    Log(#[from] log::Error),
    /// The host has no threads or descriptors left for a runtime.
    #[error("start the worker threads")]
    Runtime(#[source] io::Error),
    /// Signals cannot be received.
    #[error("receive signals")]
    Signals(#[from] shutdown::Error),
}

/// What a program begins with.
#[derive(Debug)]
pub struct Start {
    /// What every program tells of itself, and room for what else it tells.
    pub registry: Registry,
    /// When it has to stop. They no longer kill the process.
    pub signals: Signals,
    /// The running log.
    pub log: log::Handle,
}

/// Sends the events of the whole process to standard output from here on, see [`log::init`].
pub fn log(config: &log::Config) -> Result<log::Handle, Error> {
    Ok(log::init(config)?)
}

/// A runtime whose threads have this name: so many of them, or one for each processor.
pub fn runtime(name: &str, threads: Option<usize>) -> Result<Runtime, Error> {
    let mut builder = runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    builder
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(Error::Runtime)
}

/// Runs a program to its end. What still runs then does not hold up the end of the process, and the last lines
/// of the log are written.
pub fn run<E: From<Error>>(
    runtime: Runtime,
    build: &Build,
    log: log::Handle,
    program: impl AsyncFnOnce(Start) -> Result<(), E>,
) -> Result<(), E> {
    let mut registry = Registry::default();
    stats::register(&mut registry, build, &log);
    stats::register_runtime(&mut registry, runtime.handle());
    let outcome = runtime.block_on(async {
        let start = Start {
            registry,
            signals: shutdown::signals().map_err(Error::Signals)?,
            log: log.clone(),
        };
        program(start).await
    });
    runtime.shutdown_background();
    drop(log);
    outcome
}

/// What the main function of a program returns: a failure is told on standard error, with its reasons.
#[expect(clippy::print_stderr, reason = "the command line's answer")]
pub fn exit_code(program: &str, outcome: Result<(), Box<dyn std::error::Error>>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{program}: {}", chain(&*failure));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc,
        time::{Duration, Instant},
    };

    use super::*;

    const NAME: &str = "weaver";

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(60);

    fn run_quietly(
        program: impl AsyncFnOnce(Start) -> Result<(), Box<dyn std::error::Error>>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let (_subscriber, log) = log::build(&log::Config::default(), io::sink())?;
        let build = Build {
            component: NAME.to_owned(),
            tag: "1".to_owned(),
        };
        run(runtime(NAME, Some(1))?, &build, log, program)
    }

    #[test]
    fn a_program_tells_of_its_build_and_is_stopped_by_its_quitter() {
        let outcome = run_quietly(async |mut start| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &start.registry)?;
            assert!(text.contains("component=\"weaver\""), "{text}");
            start.signals.quitter().quit();
            assert_eq!(start.signals.next().await, shutdown::Cause::Quit);
            Ok(())
        });
        assert!(outcome.is_ok(), "{outcome:?}");
    }

    #[test]
    fn work_that_never_ends_does_not_hold_up_the_end() {
        let (begun, (_never, end)) = (Instant::now(), mpsc::channel::<()>());
        let outcome = run_quietly(async |_start| {
            drop(tokio::task::spawn_blocking(move || end.recv_timeout(LONG)));
            Err("done".into())
        });
        assert_eq!(outcome.unwrap_err().to_string(), "done");
        assert!(begun.elapsed() < LONG);
    }

    #[test]
    fn only_a_success_is_a_success() {
        assert_eq!(exit_code(NAME, Ok(())), ExitCode::SUCCESS);
        assert_eq!(exit_code(NAME, Err("torn".into())), ExitCode::FAILURE);
    }
}
