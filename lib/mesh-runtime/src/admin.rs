//! The admin port: what the program is doing, and the few things that can be changed while it runs.
//!
//! It has no authentication: a program binds it to loopback addresses only.

use std::{future::ready, sync::Arc};

use http::StatusCode;
use serde::Serialize;

use crate::{
    error,
    http::{Request, Response, Router, router::response, text},
    log, shutdown,
};

/// The routes of the admin port: `GET /`, `GET /config_dump`, `POST /logging` and
/// `POST /quitquitquit`. A program may add its own.
///
/// `dump` collects what `/config_dump` shows as JSON. It is called on a thread that may block, once
/// per request.
pub fn routes<F, D>(title: &'static str, log: log::Handle, quit: shutdown::Quit, dump: F) -> Router
where
    F: Fn() -> D + Send + Sync + 'static,
    D: Serialize + 'static,
{
    let dump = Arc::new(dump);
    Router::new()
        .dashboard(title)
        .get(
            "/config_dump",
            "the configuration and state of this process",
            move |_| config_dump(Arc::clone(&dump)),
        )
        .post(
            "/logging",
            "the log levels: ?level=LEVEL, ?level=TARGET=LEVEL,…, ?reset",
            move |request| ready(logging(&log, &request)),
        )
        .post("/quitquitquit", "drain and end this process", move |_| {
            quit.quit();
            ready(text(StatusCode::OK, "shutdown now\n"))
        })
}

async fn config_dump<F, D>(dump: Arc<F>) -> Response
where
    F: Fn() -> D + Send + Sync + 'static,
    D: Serialize + 'static,
{
    // A large mesh takes a while to write down, which must not hold up the other tasks of the runtime.
    let json = tokio::task::spawn_blocking(move || serde_json::to_vec_pretty(&dump()));
    let failed = match json.await {
        Ok(Ok(json)) => return response(StatusCode::OK, "application/json", json),
        Ok(Err(error)) => error::chain(&error).to_string(),
        Err(error) => error::chain(&error).to_string(),
    };
    tracing::error!(error = failed, "cannot dump the configuration");
    text(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("cannot dump the configuration: {failed}\n"),
    )
}

fn logging(log: &log::Handle, request: &Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let mut reset = false;
    let mut directives = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "reset" => reset = true,
            "level" => directives.push(value.into_owned()),
            other => {
                let unknown: String = other.chars().take(64).collect();
                let refusal = format!("`{unknown}` is not a parameter: use level or reset\n");
                return text(StatusCode::BAD_REQUEST, refusal);
            }
        }
    }
    let directives = directives.join(",");
    let changed = if reset {
        log.reset_with(&directives)
    } else if directives.is_empty() {
        Ok(())
    } else {
        log.reload(&directives)
    };
    if let Err(refused) = changed {
        return text(StatusCode::BAD_REQUEST, format!("{refused}\n"));
    }
    let current = log.current();
    text(StatusCode::OK, format!("current log level is {current}\n"))
}
