//! What the plugin has to say besides its answer: to the agent, which writes it where its own log goes, or else
//! to standard error.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mesh_cni::{
    protocol::{LOG_SOCKET, client},
    spec::Sandbox,
};
use serde_json::{Map, Value};

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For who looks for a fault.
    Debug,
    /// What is usual.
    Info,
    /// What somebody should look at.
    Warn,
    /// The call has failed.
    Error,
}

/// Lines of one call, kept until its end.
#[derive(Debug)]
pub struct Log {
    least: Option<Level>,
    labels: Map<String, Value>,
    lines: Vec<(Level, String)>,
}

// === impl Level ===

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// The least level that is logged, of the names that Istio's configuration has. None: nothing.
    fn parse(name: &str) -> Option<Self> {
        match name {
            "debug" => Some(Self::Debug),
            "warn" => Some(Self::Warn),
            "error" | "fatal" => Some(Self::Error),
            "none" => None,
            _ => Some(Self::Info),
        }
    }
}

// === impl Log ===

impl Log {
    /// One that keeps what matters as much as this, a level's name.
    pub fn new(least: &str, command: &'static str) -> Self {
        let labels = [("command".to_owned(), Value::from(command))];
        Self {
            least: Level::parse(least),
            labels: labels.into_iter().collect(),
            lines: Vec::new(),
        }
    }

    /// Names the sandbox in every line from here on.
    pub fn of(&mut self, sandbox: &Sandbox) {
        let mut label = |name: &str, value: &str| {
            self.labels.insert(name.to_owned(), value.into());
        };
        label("containerID", &sandbox.container_id);
        label("interface", &sandbox.interface);
        if let Some(pod) = &sandbox.pod {
            label("pod", &format!("{}/{}", pod.namespace, pod.name));
            label("uid", &pod.uid);
        }
    }

    /// Keeps a line.
    pub fn line(&mut self, level: Level, message: &str) {
        if self.least.is_none_or(|least| level < least) {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut line = self.labels.clone();
        line.insert("level".to_owned(), level.name().into());
        line.insert("time".to_owned(), timestamp(now.unwrap_or_default()).into());
        line.insert("msg".to_owned(), message.into());
        self.lines.push((level, Value::Object(line).to_string()));
    }

    /// Hands all lines to the agent, or writes those that somebody should look at to standard error if it does
    /// not take them.
    pub fn flush(&mut self, run_dir: &Path, patience: Duration) {
        let lines = std::mem::take(&mut self.lines);
        if lines.is_empty() {
            return;
        }
        let texts = lines.iter().map(|(_, line)| line.as_str());
        let body = texts.collect::<Value>().to_string();
        let socket = run_dir.join(LOG_SOCKET);
        let answer = client::post(&socket, "/log", body.as_bytes(), Instant::now() + patience);
        if answer.is_ok_and(|answer| answer.status == 200) {
            return;
        }
        for (_, line) in lines.iter().filter(|(level, _)| *level >= Level::Warn) {
            // There is nobody left to tell.
            let _closed = writeln!(io::stderr(), "{line}");
        }
    }
}

/// A point in time since 1970, as RFC 3339 writes it.
fn timestamp(since: Duration) -> String {
    let seconds = since.as_secs();
    let (year, month, day) = date(seconds / 86400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    // Writing to a text does not fail.
    let _ok = write!(text, ".{:06}Z", since.subsec_micros());
    text
}

/// The date of a day since 1970, by eras of 400 years that begin on a first of March, so that the leap day is
/// the last of a year.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_are_written_as_rfc_3339_says() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(timestamp(Duration::from_secs(seconds)), text);
        }
        assert!(timestamp(Duration::from_nanos(1_500)).ends_with("00.000001Z"));
    }

    #[test]
    fn only_what_matters_enough_is_kept() {
        for (least, kept) in [
            ("debug", 4),
            ("info", 3),
            ("odd", 3),
            ("warn", 2),
            ("error", 1),
            ("none", 0),
        ] {
            let mut log = Log::new(least, "ADD");
            for level in [Level::Debug, Level::Info, Level::Warn, Level::Error] {
                log.line(level, "x");
            }
            assert_eq!(log.lines.len(), kept, "{least}");
        }
    }
}
