//! The log as the subscriber of the whole process. One test, because there is only one such subscriber.

use std::{
    fmt, io,
    sync::mpsc::{Sender, channel},
    time::Duration,
};

use mesh_runtime::log::{self, Config};
use tracing::info;

const DEADLINE: Duration = Duration::from_secs(5);

struct Lines(Sender<String>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.0.send(text).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A value that logs while it is printed.
struct Chatty;

impl fmt::Display for Chatty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        info!("inner");
        f.write_str("value")
    }
}

#[test]
fn an_event_logged_while_another_is_rendered_gets_its_own_line() {
    let (output, written) = channel();
    let (subscriber, handle) = log::build(&Config::default(), Lines(output)).unwrap();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    assert!(matches!(
        log::init(&Config::default()),
        Err(log::Error::Twice)
    ));

    info!(v = %Chatty, "outer");
    assert!(handle.flush(DEADLINE));
    let text: String = written.try_iter().collect();
    let lines: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once("inproc_log\t"))
        .map(|(_, rest)| rest)
        .collect();
    assert_eq!(lines, ["inner", "outer\tv=value"]);
}
