//! Accepting connections, whatever the state of the process.

use std::{io, net::SocketAddr, ops::ControlFlow, time::Duration};

use mesh_net::socket::{canonical, is_descriptor_shortage};
use mesh_runtime::drain;
use tokio::net::{TcpListener, TcpStream};

/// What to do about a failure to accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// The connection is gone before it was accepted; take the next.
    Connection,
    /// The process or the host has no descriptors left.
    Descriptors,
    /// Something else that concerns the host, such as memory.
    Host,
}

/// How long to pause after failures in a row.
#[derive(Debug, Default)]
struct Pause {
    failures: u32,
}

/// Shortest pause: long enough not to spin, short enough for one closing connection to make room.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// Longest pause; what clients wait at most once there is room again.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Most connections accepted after the end, as many as the kernel lets wait (`net.core.somaxconn`).
const MOST_WAITING: usize = 4096;

/// Hands each accepted connection to `accepted`, until `drain` begins. The peer's address is never an
/// IPv4 one inside of IPv6.
///
/// Connections that the kernel has set up by then are accepted too when there is time: it would reset
/// them with the listener, although another proxy may listen already.
///
/// No failure ends the loop. When descriptors run out it says so once, waits, and goes on when some
/// have been freed; the kernel keeps the clients in its queue meanwhile.
pub(crate) async fn serve(
    name: &'static str,
    listener: TcpListener,
    drain: &drain::Watch,
    mut accepted: impl FnMut(TcpStream, SocketAddr),
) {
    let mut pause = Pause::default();
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    pause.succeeded(name);
                    accepted(stream, canonical(peer));
                }
                Err(error) => {
                    if let ControlFlow::Continue(duration) = pause.failed(name, &error) {
                        tokio::time::sleep(duration).await;
                    }
                }
            }
        }
    };
    let mode = tokio::select! {
        biased;
        mode = drain.signaled() => mode,
        () = accepting => return,
    };
    if mode == drain::Mode::Graceful
        && let Err(error) = accept_waiting(listener, accepted)
    {
        tracing::debug!(listener = name, %error, "connections may have been reset at the end");
    }
}

/// Accepts what waits in the kernel, and closes the listener. The kernel is asked itself: the runtime may
/// not have heard yet of the last ones.
fn accept_waiting(
    listener: TcpListener,
    mut accepted: impl FnMut(TcpStream, SocketAddr),
) -> io::Result<()> {
    let listener = listener.into_std()?;
    for _ in 0..MOST_WAITING {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(true)?;
                accepted(TcpStream::from_std(stream)?, canonical(peer));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if Failure::of(&error) == Failure::Connection => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

// === impl Pause ===

impl Pause {
    /// How long to wait before the next attempt; `Break` for not at all.
    fn failed(&mut self, listener: &'static str, error: &io::Error) -> ControlFlow<(), Duration> {
        let failure = Failure::of(error);
        if failure == Failure::Connection {
            return ControlFlow::Break(());
        }
        if self.failures == 0 {
            let reason = match failure {
                Failure::Descriptors => {
                    "no file descriptor is left: new connections wait, open ones go on"
                }
                _ => "connections cannot be accepted: new ones wait, open ones go on",
            };
            tracing::error!(listener, %error, "{reason}");
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        ControlFlow::Continue(pause.min(LONGEST_PAUSE))
    }

    fn succeeded(&mut self, listener: &'static str) {
        if self.failures > 0 {
            tracing::info!(
                listener,
                failures = self.failures,
                "connections are accepted again"
            );
            self.failures = 0;
        }
    }
}

// === impl Failure ===

impl Failure {
    fn of(error: &io::Error) -> Self {
        if is_descriptor_shortage(error) {
            return Self::Descriptors;
        }
        match error.kind() {
            // Linux also reports errors of the new connection's network on accept (accept(2)).
            io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::TimedOut => Self::Connection,
            _ => Self::Host,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMFILE: i32 = 24;
    const ENOMEM: i32 = 12;
    const ECONNABORTED: i32 = 103;

    fn pause_after(pause: &mut Pause, code: i32) -> ControlFlow<(), Duration> {
        pause.failed("test", &io::Error::from_raw_os_error(code))
    }

    #[test]
    fn the_pause_grows_to_a_limit_and_begins_anew_after_a_success() {
        let mut pause = Pause::default();
        assert_eq!(
            pause_after(&mut pause, EMFILE),
            ControlFlow::Continue(FIRST_PAUSE)
        );
        assert_eq!(
            pause_after(&mut pause, ENOMEM),
            ControlFlow::Continue(FIRST_PAUSE * 2)
        );
        for _ in 0..100 {
            let after = pause_after(&mut pause, EMFILE);
            assert!(matches!(after, ControlFlow::Continue(pause) if pause <= LONGEST_PAUSE));
        }
        pause.succeeded("test");
        assert_eq!(
            pause_after(&mut pause, EMFILE),
            ControlFlow::Continue(FIRST_PAUSE)
        );
    }

    #[tokio::test]
    async fn connections_that_wait_when_a_drain_begins_are_accepted() {
        for (mode, accepts) in [(drain::Mode::Graceful, 3), (drain::Mode::Immediate, 0)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let mut waiting = Vec::new();
            for _ in 0..3 {
                waiting.push(std::net::TcpStream::connect(address).unwrap());
            }
            let (trigger, watch) = drain::channel();
            let mut accepted = Vec::new();
            let serving = async move {
                serve("test", listener, &watch, |stream, peer| {
                    accepted.push((stream, peer));
                })
                .await;
                drop(watch);
                accepted
            };
            let ((), accepted) = tokio::join!(trigger.drain(mode), serving);
            assert_eq!(accepted.len(), accepts, "{mode:?}");
        }
    }

    #[test]
    fn a_connection_that_is_gone_already_delays_nobody() {
        let mut pause = Pause::default();
        assert_eq!(
            pause_after(&mut pause, ECONNABORTED),
            ControlFlow::Break(())
        );
    }
}
