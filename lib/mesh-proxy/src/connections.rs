//! The open connections of one pod: for the configuration dump, and to close those that a policy which
//! arrives later denies.
//!
//! Locked only when a connection opens or closes and for a dump; a connection learns by a lock-free
//! signal that it has to end.

use std::{collections::HashMap, future::Future, net::SocketAddr, sync::Arc};

use mesh_core::{
    rbac::{self, Denial, Verdict},
    workload::Workload,
};
use mesh_net::copy::{self, ByteSink, ByteSource, End};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::{error::Error, telemetry::Account};

/// The open connections of one pod; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Entry>,
    /// Set once all have been told to end; whoever opens after that is told at once.
    drained: bool,
}

#[derive(Debug)]
struct Entry {
    view: View,
    /// What policies decide on; `None` for outbound connections, which they do not concern.
    subject: Option<Arc<Subject>>,
    end: Option<oneshot::Sender<Ended>>,
}

/// What a verdict is asked about.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// The pod, as it was known when the connection came.
    pub(crate) local: Arc<Workload>,
    /// What reaches it.
    pub(crate) connection: rbac::Connection,
}

/// Why a connection was told to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A policy denies it.
    Denied(Denial),
    /// The proxy lets go of it.
    Drained,
}

/// An open connection's place in the table; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Tracked {
    connections: Connections,
    id: u64,
    end: oneshot::Receiver<Ended>,
}

/// A connection as the configuration dump shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// The client.
    pub src: SocketAddr,
    /// Where the client wanted to go.
    pub original_dst: SocketAddr,
    /// Where the proxy sends it.
    pub actual_dst: SocketAddr,
    /// How it crosses the network.
    pub protocol: Protocol,
}

/// How a connection crosses the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// In a tunnel.
    Hbone,
    /// As it is.
    Tcp,
}

/// All open connections of a pod, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dump {
    /// Those that clients opened to the pod.
    pub inbound: Vec<View>,
    /// Those that the pod opened.
    pub outbound: Vec<View>,
}

/// Connections judged between two moments at which other tasks may run.
const JUDGED_AT_ONCE: usize = 256;

// === impl Connections ===

impl Connections {
    /// What is open now.
    pub fn dump(&self) -> Dump {
        let mut open: Vec<(u64, bool, View)> = {
            let table = self.0.lock();
            let views = table.open.iter();
            views
                .map(|(id, entry)| (*id, entry.subject.is_some(), entry.view.clone()))
                .collect()
        };
        open.sort_unstable_by_key(|(id, ..)| *id);
        let mut dump = Dump::default();
        for (_, inbound, view) in open {
            if inbound {
                dump.inbound.push(view);
            } else {
                dump.outbound.push(view);
            }
        }
        dump
    }

    /// Enters a connection that reaches the pod, to be judged whenever policies change. Enter it
    /// *before* asking for the first verdict: then no change can fall between the two.
    pub(crate) fn track_inbound(&self, view: View, subject: Arc<Subject>) -> Tracked {
        self.track(view, Some(subject))
    }

    /// Enters a connection that leaves the pod.
    pub(crate) fn track_outbound(&self, view: View) -> Tracked {
        self.track(view, None)
    }

    /// Judges all connections that reach the pod again and ends those that are denied now.
    ///
    /// A policy that is selected but not known yet ends nothing: an earlier verdict allowed these
    /// connections, and the next change brings the answer.
    pub(crate) async fn judge(&self, decide: impl Fn(&Subject) -> Verdict) {
        let subjects: Vec<(u64, Arc<Subject>)> = {
            let table = self.0.lock();
            let entries = table.open.iter();
            entries
                .filter_map(|(id, entry)| Some((*id, entry.subject.clone()?)))
                .collect()
        };
        for some in subjects.chunks(JUDGED_AT_ONCE) {
            for (id, subject) in some {
                match decide(subject) {
                    Verdict::Allow | Verdict::Deny(Denial::UnknownPolicy(_)) => {}
                    Verdict::Deny(denial) => self.end(*id, Ended::Denied(denial)),
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Ends all connections, and from now on each that opens.
    pub(crate) fn end_all(&self) {
        let mut table = self.0.lock();
        table.drained = true;
        for sender in table.open.values_mut().filter_map(|entry| entry.end.take()) {
            // Nobody listens any more when the connection is ending by itself.
            drop(sender.send(Ended::Drained));
        }
    }

    fn end(&self, id: u64, why: Ended) {
        let sender = self
            .0
            .lock()
            .open
            .get_mut(&id)
            .and_then(|entry| entry.end.take());
        if let Some(sender) = sender {
            drop(sender.send(why));
        }
    }

    fn track(&self, view: View, subject: Option<Arc<Subject>>) -> Tracked {
        let (sender, end) = oneshot::channel();
        let mut table = self.0.lock();
        let id = table.next;
        table.next += 1;
        let sender = if table.drained {
            drop(sender.send(Ended::Drained));
            None
        } else {
            Some(sender)
        };
        table.open.insert(
            id,
            Entry {
                view,
                subject,
                end: sender,
            },
        );
        Tracked {
            connections: self.clone(),
            id,
            end,
        }
    }
}

// === impl Tracked ===

impl Tracked {
    /// Resolves when the connection has to end. Polling it takes no lock.
    pub(crate) async fn ended(&mut self) -> Ended {
        // The sender is kept until the place is left, so an error cannot come first.
        (&mut self.end).await.unwrap_or(Ended::Drained)
    }

    /// Does `work`, unless the connection has to end meanwhile.
    pub(crate) async fn unless_ended<T>(
        &mut self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            ended = self.ended() => Err(ended.into()),
            done = work => done,
        }
    }

    /// Copies between the client `a` and the server `b` until both are done, or the connection has to
    /// end.
    pub(crate) async fn carry<A, AS, B, BS>(
        &mut self,
        account: &Account,
        a: (A, AS),
        b: (B, BS),
    ) -> Result<(), Error>
    where
        A: ByteSource,
        AS: ByteSink,
        B: ByteSource,
        BS: ByteSink,
    {
        let counters = account.counters();
        match copy::bidirectional(a, b, &counters, self.ended()).await {
            Ok(End::Closed) => Ok(()),
            Ok(End::Cancelled(ended)) => Err(ended.into()),
            Err(error) => Err(Error::Copy(error)),
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.connections.0.lock().open.remove(&self.id);
    }
}

// === impl Ended ===

impl From<Ended> for Error {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Denied(denial) => Self::DeniedLate(denial),
            Ended::Drained => Self::Drained,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn view(port: u16) -> View {
        View {
            src: ([10, 0, 0, 1], port).into(),
            original_dst: ([10, 0, 0, 2], 80).into(),
            actual_dst: ([10, 0, 0, 2], 80).into(),
            protocol: Protocol::Hbone,
        }
    }

    fn subject(port: u16) -> Arc<Subject> {
        let connection = rbac::Connection {
            source_identity: None,
            source_ip: [10, 0, 0, 1].into(),
            destination: ([10, 0, 0, 2], port).into(),
        };
        let local = Arc::new(Workload::with_uid("w"));
        Arc::new(Subject { local, connection })
    }

    fn deny(port: u16) -> impl Fn(&Subject) -> Verdict {
        move |subject| match subject.connection.destination.port() {
            denied if denied == port => Verdict::Deny(Denial::Policy("default/deny".into())),
            81 => Verdict::Deny(Denial::UnknownPolicy("default/late".into())),
            _ => Verdict::Allow,
        }
    }

    #[tokio::test]
    async fn only_what_a_known_policy_denies_is_ended() {
        let connections = Connections::default();
        let mut denied = connections.track_inbound(view(1), subject(80));
        let mut unknown = connections.track_inbound(view(2), subject(81));
        let mut allowed = connections.track_inbound(view(3), subject(82));
        let mut outbound = connections.track_outbound(view(4));
        connections.judge(deny(80)).await;
        let why = Ended::Denied(Denial::Policy("default/deny".into()));
        assert_eq!(denied.ended().now_or_never(), Some(why));
        assert_eq!(unknown.ended().now_or_never(), None);
        assert_eq!(allowed.ended().now_or_never(), None);
        assert_eq!(outbound.ended().now_or_never(), None);
    }

    #[tokio::test]
    async fn each_connection_of_the_pod_is_judged_once_per_change() {
        let connections = Connections::default();
        let open: Vec<_> = (0..1000)
            .map(|n| connections.track_inbound(view(n), subject(n)))
            .collect();
        let judged = Mutex::new(0);
        let count = |_: &Subject| {
            *judged.lock() += 1;
            Verdict::Allow
        };
        connections.judge(count).await;
        assert_eq!(*judged.lock(), open.len());
    }

    #[tokio::test]
    async fn a_connection_that_opens_after_all_were_ended_ends_at_once() {
        let connections = Connections::default();
        let mut before = connections.track_outbound(view(1));
        connections.end_all();
        let mut after = connections.track_outbound(view(2));
        assert_eq!(before.ended().now_or_never(), Some(Ended::Drained));
        assert_eq!(after.ended().now_or_never(), Some(Ended::Drained));
    }

    #[test]
    fn the_dump_holds_what_is_open_in_order_and_nothing_else() {
        let connections = Connections::default();
        let _first = connections.track_inbound(view(1), subject(80));
        let gone = connections.track_inbound(view(2), subject(80));
        let _third = connections.track_inbound(view(3), subject(80));
        let _out = connections.track_outbound(view(4));
        drop(gone);
        let expected = Dump {
            inbound: vec![view(1), view(3)],
            outbound: vec![view(4)],
        };
        assert_eq!(connections.dump(), expected);
    }

    #[test]
    fn the_dump_is_written_as_its_readers_know_it() {
        let connections = Connections::default();
        let _in = connections.track_inbound(view(1), subject(80));
        let expected = serde_json::json!({
            "inbound": [{
                "src": "10.0.0.1:1",
                "originalDst": "10.0.0.2:80",
                "actualDst": "10.0.0.2:80",
                "protocol": "HBONE",
            }],
            "outbound": [],
        });
        assert_eq!(serde_json::to_value(connections.dump()).unwrap(), expected);
    }
}
