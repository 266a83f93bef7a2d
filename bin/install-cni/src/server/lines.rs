//! The plugin's log lines. The plugin lives for some milliseconds and its standard error is the runtime's, so
//! it sends its lines here when it ends: a JSON array of strings, each a line in JSON.

use std::{future::ready, time::SystemTime};

use http::StatusCode;
use jiff::Timestamp;
use mesh_runtime::{
    http::{Request, Response, Router, router::response, text},
    log::{self, Record},
};
use serde_json::{Map, Value};
use tracing::Level;

use crate::metrics::{Line as Outcome, Metrics};

/// Where its lines seem to come from: the scope that Istio's users know.
pub const TARGET: &str = "cni-plugin";

/// Lines of one request. The plugin sends its lines once, for one call.
pub const MOST_LINES: usize = 512;
/// Labels of one line.
pub const MOST_LABELS: usize = 32;

/// Takes lines.
pub trait Sink: Send + Sync + 'static {
    /// Writes a line, if its level is wanted.
    fn write(&self, record: &Record<'_>);
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When the plugin wrote it.
    pub time: SystemTime,
    /// Its level.
    pub level: Level,
    /// Its text.
    pub message: String,
    /// What else is in it, at most [`MOST_LABELS`].
    pub labels: Vec<(String, String)>,
}

/// The body is no array of strings. Whoever speaks in the plugin's place is at fault.
#[derive(Debug, thiserror::Error)]
#[error("read log lines: expected a JSON array of strings")]
pub struct Malformed(#[from] serde_json::Error);

/// The routes of the log socket.
pub fn routes(sink: impl Sink, metrics: Metrics) -> Router {
    Router::new().post("/log", "lines of the plugin's log", move |request| {
        ready(take(&sink, &metrics, &request))
    })
}

fn take(sink: &impl Sink, metrics: &Metrics, request: &Request) -> Response {
    let lines = match parse(request.body(), SystemTime::now()) {
        Ok(lines) => lines,
        Err(malformed) => {
            metrics.lines(Outcome::Refused, 1);
            let told = mesh_runtime::error::chain(&malformed);
            return text(StatusCode::BAD_REQUEST, format!("{told}\n"));
        }
    };
    let excess = lines.len().saturating_sub(MOST_LINES);
    for line in lines.iter().take(MOST_LINES) {
        let fields = line.labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        let fields: Vec<_> = fields.collect();
        sink.write(&Record {
            time: line.time,
            level: line.level,
            target: TARGET,
            message: &line.message,
            fields: &fields,
        });
    }
    if excess > 0 {
        tracing::warn!(
            lines = excess,
            "the plugin sent too many lines: the last are left out"
        );
    }
    metrics.lines(Outcome::Refused, excess);
    metrics.lines(Outcome::Taken, lines.len() - excess);
    response(StatusCode::OK, "text/plain; charset=utf-8", "")
}

/// The lines of a body. What is no line in JSON is a line with that text. `now` is when those were written that
/// do not say.
pub fn parse(body: &[u8], now: SystemTime) -> Result<Vec<Line>, Malformed> {
    let lines: Vec<String> = serde_json::from_slice(body)?;
    Ok(lines.iter().map(|text| line(text, now)).collect())
}

fn line(text: &str, now: SystemTime) -> Line {
    let Ok(mut fields) = serde_json::from_str::<Map<String, Value>>(text) else {
        return Line {
            time: now,
            level: Level::INFO,
            message: text.to_owned(),
            labels: Vec::new(),
        };
    };
    let mut string = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let (level, time, message) = (string("level"), string("time"), string("msg"));
    let time = time.parse::<Timestamp>().map_or(now, SystemTime::from);
    let labels = fields.into_iter().take(MOST_LABELS);
    let label = |(name, value)| match value {
        Value::String(text) => (name, text),
        other => (name, other.to_string()),
    };
    Line {
        time,
        level: level_named(&level),
        message,
        labels: labels.map(label).collect(),
    }
}

/// The level by any of the names that loggers have for it. What is not known should be seen.
fn level_named(name: &str) -> Level {
    match name.to_ascii_lowercase().as_str() {
        "trace" => Level::TRACE,
        "debug" => Level::DEBUG,
        "warn" | "warning" => Level::WARN,
        "error" | "fatal" | "panic" => Level::ERROR,
        _ => Level::INFO,
    }
}

impl Sink for log::Handle {
    fn write(&self, record: &Record<'_>) {
        Self::write(self, record);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_keeps_its_time_level_and_labels() {
        let now = SystemTime::now();
        let body = br#"["{\"level\":\"warn\",\"time\":\"2025-01-23T05:07:25.8066Z\",\"msg\":\"slow\",\"ns\":\"shop\",\"tries\":3}"]"#;
        let time = "2025-01-23T05:07:25.8066Z".parse::<Timestamp>().unwrap();
        assert_eq!(
            parse(body, now).unwrap(),
            [Line {
                time: time.into(),
                level: Level::WARN,
                message: "slow".to_owned(),
                labels: vec![
                    ("ns".to_owned(), "shop".to_owned()),
                    ("tries".to_owned(), "3".to_owned()),
                ],
            }]
        );
    }

    #[test]
    fn what_is_no_line_is_a_text() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let lines = parse(br#"["panic: x", "{\"msg\":", "[]", "{}"]"#, now).unwrap();
        let texts: Vec<_> = lines.iter().map(|line| line.message.as_str()).collect();
        assert_eq!(texts, ["panic: x", "{\"msg\":", "[]", ""]);
        assert!(lines.iter().all(|line| line.time == now));
        assert!(
            parse(b"{}", now).is_err() && parse(b"[1]", now).is_err() && parse(b"", now).is_err()
        );
    }
}
