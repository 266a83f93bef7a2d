//! Logs: one line per event on standard output, written without ever holding up the caller.
//!
//! ```text
//! tracing event ── filter ── format ──▶ bounded queue ──▶ writer thread ──▶ output
//!                                        │ full: drop and count
//! ```
//!
//! An event that passes the filter is rendered on the calling thread and appended to a queue bounded
//! in bytes. When the output is slower than the events the excess is dropped and counted, and a line
//! at the place of the gap says how many: a blocked pipe costs log lines, never traffic.
//!
//! Text that came from outside cannot forge a line or a field: control characters are escaped and
//! values that could be misread are quoted.

use std::{
    io,
    str::FromStr,
    time::{Duration, SystemTime},
};

use prometheus_client::metrics::counter::Counter;
use tracing::{Level, Subscriber};
use tracing_subscriber::{Registry, filter::Targets, layer::SubscriberExt as _, reload};

mod filter;
mod format;
mod layer;
mod writer;

use self::{layer::Lines, writer::Producer};

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `<time>\t<level>\t<target>\t<message>\tkey=value key="value"`, for people.
    #[default]
    Plain,
    /// One object per line: `level`, `time`, `scope`, `message`, the event's fields and `spans`.
    Json,
}

/// What a program sets about its logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// How a line looks.
    pub format: Format,
    /// What is logged: `level` and `target=level` separated by commas, as in `RUST_LOG`; a later one
    /// wins over an earlier one, and a longer target over a shorter. Where nothing applies, `info`.
    pub filter: String,
}

/// The running log. Clones share it.
///
/// A program keeps one until its end: when the last one is dropped, what is queued is given one
/// second to be written.
#[derive(Clone, Debug)]
pub struct Handle {
    filter: reload::Handle<Targets, Registry>,
    configured: Targets,
    format: Format,
    flush: std::sync::Arc<FlushOnDrop>,
}

/// A line that another process has logged, to stand among ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it was logged there.
    pub time: SystemTime,
    /// Its level, by which the filter judges it.
    pub level: Level,
    /// Where it comes from; the filter judges it by this name too.
    pub target: &'a str,
    /// Its text.
    pub message: &'a str,
    /// Further fields.
    pub fields: &'a [(&'a str, &'a str)],
}

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directive is neither a level nor `target=level`. The input is at fault: correct it.
    #[error(
        "`{0}` is not a log directive: expected `level` or `target=level`, with a level of error, warn, info, debug, trace or off"
    )]
    Directive(String),
    /// Too many directives at once or together with those in force. Reset the filter first.
    #[error("more than {} log directives", filter::MAX_DIRECTIVES)]
    TooMany,
    /// The writer thread could not be started. The host lacks resources; the program should not go on.
    #[error("cannot start the log writer thread")]
    Thread(#[source] io::Error),
    /// The process logs already. A bug in the program: set up once, at its start.
    #[error("logging is set up already")]
    Twice,
    /// The subscriber that this handle belongs to is gone. A bug in the program.
    #[error("logging has ended")]
    Ended,
}

/// The text is not the name of a format. The input is at fault: use `plain` or `json`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a log format: expected `plain` or `json`")]
pub struct UnknownFormat(String);

#[derive(Debug)]
struct FlushOnDrop(Producer);

/// How long the end of the process may be delayed by an output that does not take its lines.
const FINAL_FLUSH: Duration = Duration::from_secs(1);

/// Sends the events of the whole process to standard output from here on.
pub fn init(config: &Config) -> Result<Handle, Error> {
    let (subscriber, handle) = build(config, io::stdout())?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_already| Error::Twice)?;
    Ok(handle)
}

/// A subscriber that logs to `output`, for a part of a program or a test. Its writer thread ends when
/// both the subscriber and the handle are gone.
pub fn build(
    config: &Config,
    output: impl io::Write + Send + 'static,
) -> Result<(impl Subscriber + Send + Sync + 'static, Handle), Error> {
    let configured = filter::parse(&config.filter)?;
    let producer = writer::start(output, layer::loss_notice(config.format), writer::LIMIT)
        .map_err(Error::Thread)?;
    let (filter, reload) = reload::Layer::new(configured.clone());
    let subscriber = Registry::default()
        .with(filter)
        .with(Lines::new(config.format, producer.clone()));
    let handle = Handle {
        filter: reload,
        configured,
        format: config.format,
        flush: std::sync::Arc::new(FlushOnDrop(producer)),
    };
    Ok((subscriber, handle))
}

// === impl Handle ===

impl Handle {
    /// The filter in force, in the form that [`Config::filter`] takes.
    pub fn current(&self) -> String {
        self.filter
            .with_current(ToString::to_string)
            .unwrap_or_default()
    }

    /// Changes the filter: `directives` win over those in force, the others stay.
    pub fn reload(&self, directives: &str) -> Result<(), Error> {
        let current = self.filter.clone_current().ok_or(Error::Ended)?;
        self.replace(filter::extend(current, directives)?)
    }

    /// Goes back to the configured filter.
    pub fn reset(&self) -> Result<(), Error> {
        self.reset_with("")
    }

    /// Goes back to the configured filter, with `directives` on top.
    pub fn reset_with(&self, directives: &str) -> Result<(), Error> {
        self.replace(filter::extend(self.configured.clone(), directives)?)
    }

    /// Writes a line of another process among ours, if the filter lets it through. What of it could mislead is
    /// escaped, and long values are cut, as with our own.
    pub fn write(&self, record: &Record<'_>) {
        let wanted = |filter: &Targets| filter.would_enable(record.target, &record.level);
        if self.filter.with_current(wanted).unwrap_or_default() {
            let mut line = String::new();
            format::foreign(&mut line, self.format, record);
            self.flush.0.push(line.as_bytes());
        }
    }

    fn replace(&self, targets: Targets) -> Result<(), Error> {
        self.filter.reload(targets).map_err(|_gone| Error::Ended)?;
        tracing::info!(filter = self.current(), "log filter changed");
        Ok(())
    }

    /// The number of lines dropped so far, to be registered as a metric.
    pub fn dropped(&self) -> Counter {
        self.flush.0.dropped()
    }

    /// Blocks until everything logged so far is written or `limit` has passed; says whether it is.
    pub fn flush(&self, limit: Duration) -> bool {
        self.flush.0.flush(limit)
    }
}

impl Drop for FlushOnDrop {
    fn drop(&mut self) {
        self.0.flush(FINAL_FLUSH);
    }
}

// === impl Format ===

impl Format {
    /// The format that a switch chooses, as most programs have one.
    pub const fn json_if(json: bool) -> Self {
        if json { Self::Json } else { Self::Plain }
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        match text {
            "plain" => Ok(Self::Plain),
            "json" => Ok(Self::Json),
            other => Err(UnknownFormat(other.chars().take(64).collect())),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
