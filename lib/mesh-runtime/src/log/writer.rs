//! The writer: a queue bounded in bytes and the thread that empties it.
//!
//! The queue is one buffer that callers append to and the thread swaps for an empty one, so that a
//! caller's cost is one short lock and one copy, and a burst leaves in one write. The thread never
//! holds the lock while it writes.

use std::{
    fmt, io, mem,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;

/// Bytes that may wait to be written: some 8000 lines of an access log.
pub(super) const LIMIT: usize = 4 * 1024 * 1024;

/// A larger buffer is given back after a burst.
const KEPT_CAPACITY: usize = 64 * 1024;

/// Appends the line that says how many lines are missing.
pub(super) type Notice = Box<dyn Fn(u64, &mut String) + Send>;

/// The callers' end of the queue. The thread ends when the last clone is dropped and all is written.
#[derive(Clone, Debug)]
pub(super) struct Producer(Arc<CloseOnDrop>);

#[derive(Debug)]
struct CloseOnDrop(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    limit: usize,
    state: Mutex<State>,
    /// Wakes the thread: there is something to write, or nobody left to write anything.
    filled: Condvar,
    /// Wakes those who flush: the thread has finished a write.
    written: Condvar,
    dropped: Counter,
}

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    /// Lines dropped since the thread last looked.
    lost: u64,
    closed: bool,
    /// The thread sleeps on `filled` and has to be woken.
    asleep: bool,
    /// Lines that left the queue but did not arrive yet.
    writing: bool,
}

/// Starts the thread that writes to `output`.
pub(super) fn start(
    output: impl io::Write + Send + 'static,
    notice: Notice,
    limit: usize,
) -> io::Result<Producer> {
    let queue = Arc::new(Queue {
        limit,
        state: Mutex::default(),
        filled: Condvar::new(),
        written: Condvar::new(),
        dropped: Counter::default(),
    });
    let consumer = Arc::clone(&queue);
    // Not joined: a write that never returns must not keep the process from ending.
    drop(
        thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || consumer.drain_into(output, &notice))?,
    );
    Ok(Producer(Arc::new(CloseOnDrop(queue))))
}

// === impl Producer ===

impl Producer {
    /// Queues one line, or counts it as dropped if there is no room. Never waits for the output.
    pub(super) fn push(&self, line: &[u8]) {
        let queue = &self.0.0;
        let mut state = queue.state.lock();
        if state.pending.len() + line.len() > queue.limit {
            state.lost += 1;
            queue.dropped.inc();
            return;
        }
        state.pending.extend_from_slice(line);
        let wake = mem::take(&mut state.asleep);
        drop(state);
        if wake {
            queue.filled.notify_one();
        }
    }

    pub(super) fn flush(&self, limit: Duration) -> bool {
        let queue = &self.0.0;
        let deadline = Instant::now() + limit;
        let mut state = queue.state.lock();
        let unfinished = |state: &mut State| state.writing || !state.pending.is_empty();
        !queue
            .written
            .wait_while_until(&mut state, unfinished, deadline)
            .timed_out()
    }

    pub(super) fn dropped(&self) -> Counter {
        self.0.0.dropped.clone()
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.filled.notify_one();
    }
}

// === impl Queue ===

impl Queue {
    fn drain_into(&self, mut output: impl io::Write, notice: &Notice) {
        let mut batch = Vec::new();
        while let Some(lost) = self.next(&mut batch) {
            if lost > 0 {
                let mut line = String::new();
                notice(lost, &mut line);
                batch.extend_from_slice(line.as_bytes());
            }
            if output
                .write_all(&batch)
                .and_then(|()| output.flush())
                .is_err()
            {
                // Nobody is left to tell but the metric. Part of the batch may have arrived.
                let lines = batch.split(|byte| *byte == b'\n').count() - 1;
                self.dropped.inc_by(lines as u64);
            }
            batch.clear();
            batch.shrink_to(KEPT_CAPACITY);
        }
    }

    /// Waits for lines and swaps them into the empty `batch`; `None` at the end. Returns how many lines
    /// were lost after those in the batch.
    fn next(&self, batch: &mut Vec<u8>) -> Option<u64> {
        let mut state = self.state.lock();
        state.writing = false;
        self.written.notify_all();
        while state.pending.is_empty() {
            if state.closed {
                return None;
            }
            state.asleep = true;
            self.filled.wait(&mut state);
        }
        mem::swap(&mut state.pending, batch);
        state.writing = true;
        Some(mem::take(&mut state.lost))
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("pending", &self.pending.len())
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}
