//! The body of the fuzz target, exported so that a plain test feeds it the saved corpus too.

use std::time::SystemTime;

use super::lines::{MOST_LABELS, parse};

/// Reads a body of the log socket. Whatever it is: nothing panics, and nothing grows beyond what came.
///
/// # Panics
/// When that does not hold.
pub fn log_body(data: &[u8]) {
    let Ok(lines) = parse(data, SystemTime::UNIX_EPOCH) else {
        return;
    };
    // A string in JSON takes two bytes at least, and a comma or bracket.
    assert!(lines.len() * 3 <= data.len() + 1);
    for line in &lines {
        assert!(line.labels.len() <= MOST_LABELS);
        // Numbers may be written longer than they came, such as 1e5.
        let labels = line.labels.iter().map(|(k, v)| k.len() + v.len());
        assert!(line.message.len() + labels.sum::<usize>() <= 32 * data.len());
    }
}
