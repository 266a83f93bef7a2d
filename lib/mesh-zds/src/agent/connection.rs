//! The loop that carries messages between a session and a proxy.

use std::{convert::Infallible, os::fd::AsFd as _, sync::Arc, time::Duration};

use mesh_net::{
    netns::NetNs,
    seqpacket::{self, Credentials, Passed, Socket},
};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    Error, Registration, Reply, Shared,
    session::{self, Answered, Outgoing, Session},
};
use crate::{
    codec::{self, Ack, MAX_MESSAGE, Request},
    error::chain,
};

/// Time a proxy has for its hello, and for taking a message.
const DEADLINE: Duration = Duration::from_secs(5);

/// Why a connection came to an end. Others go on; the proxy connects again.
#[derive(Debug, thiserror::Error)]
enum End {
    /// The proxy stopped or restarts.
    #[error("ztunnel closed the connection")]
    Closed,
    /// The connection broke, or the proxy sent something that is no message.
    #[error("the connection to ztunnel failed")]
    Connection(#[source] seqpacket::Error),
    /// The proxy did not say hello, or does not take messages, in 5 s.
    #[error("ztunnel did not {0} in time")]
    TimedOut(&'static str),
    /// The proxy sent nonsense. Its version may not fit ours.
    #[error("ztunnel sent a message that cannot be used")]
    Message(#[source] codec::Error),
    /// Proxies have no descriptors to send.
    #[error("ztunnel sent a file descriptor")]
    UnexpectedDescriptor,
    /// The proxy answered too much or too little.
    #[error("ztunnel does not keep to the protocol")]
    Session(#[source] session::Broken),
}

/// Serves one proxy until the connection ends.
pub(super) async fn serve(socket: Socket, peer: Credentials, shared: &Arc<Shared>) {
    tracing::info!(pid = peer.pid, "ztunnel connected");
    let Err(end) = try_serve(&socket, shared).await;
    match end {
        End::Closed => tracing::info!(pid = peer.pid, "ztunnel disconnected"),
        end => {
            let error = chain(&end);
            tracing::warn!(pid = peer.pid, error, "disconnecting ztunnel");
        }
    }
}

async fn try_serve(socket: &Socket, shared: &Arc<Shared>) -> Result<Infallible, End> {
    let mut buffer = [0; MAX_MESSAGE];
    let hello = timeout(DEADLINE, receive(socket, &mut buffer)).await;
    let hello = hello.map_err(|_elapsed| End::TimedOut("say hello"))??;
    codec::decode_hello(hello).map_err(End::Message)?;

    let (registration, mut changes, snapshot) = shared.register();
    let mut session: Session<Reply> = Session::new(snapshot);
    // Dropped before the session: whoever learns that this proxy is gone finds it off the list.
    let registration = registration;
    loop {
        while let Some(outgoing) = next(&mut session, shared) {
            send(socket, outgoing).await?;
        }
        let deadline = session.deadline();
        tokio::select! {
            // What the proxy says comes first: it may make room for the next request, and decides
            // whether a deadline was met.
            biased;
            received = receive(socket, &mut buffer) => {
                let ack = Ack::decode(received?).map_err(End::Message)?;
                let answered = session.answered(ack).map_err(End::Session)?;
                conclude(answered, &registration);
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                if let Some(expired) = session.expire(Instant::now()).map_err(End::Session)? {
                    let request = expired.request.name();
                    tracing::warn!(request, uid = ?expired.request.uid(), "ztunnel does not answer");
                    answer(expired.reply, Err(Error::TimedOut));
                }
            }
            Some((change, reply)) = changes.recv(), if session.has_room() => {
                session.push(change, reply);
            }
        }
    }
}

fn next(session: &mut Session<Reply>, shared: &Shared) -> Option<Outgoing<Arc<NetNs>>> {
    let state = shared.state.lock();
    session.next(Instant::now(), &state.pods, |reply, error| {
        answer(Some(reply), Err(error));
    })
}

async fn send(socket: &Socket, outgoing: Outgoing<Arc<NetNs>>) -> Result<(), End> {
    let bytes = outgoing.request.encode().map_err(End::Message)?;
    let netns = outgoing.netns.as_ref().map(|netns| netns.as_fd());
    match timeout(DEADLINE, socket.send(&bytes, netns)).await {
        Ok(sent) => sent.map_err(End::Connection),
        Err(_elapsed) => Err(End::TimedOut("take a message")),
    }
}

async fn receive<'a>(socket: &Socket, buffer: &'a mut [u8]) -> Result<&'a [u8], End> {
    let received = socket.recv(buffer).await.map_err(End::Connection)?;
    let received = received.ok_or(End::Closed)?;
    match received.passed {
        Passed::Nothing => Ok(buffer.get(..received.len).unwrap_or_default()),
        Passed::Descriptor(_) | Passed::Lost => Err(End::UnexpectedDescriptor),
    }
}

/// Takes notice of an answer and passes it on.
fn conclude(answered: Answered<Reply>, registration: &Registration) {
    let request = answered.request.name();
    let uid = answered.request.uid();
    match &answered.result {
        Err(error) => tracing::warn!(
            request,
            ?uid,
            late = answered.late,
            error,
            "ztunnel refused"
        ),
        Ok(()) if answered.late => tracing::info!(request, ?uid, "ztunnel answered late"),
        Ok(()) => tracing::debug!(request, ?uid, "ztunnel answered"),
    }
    if answered.request == Request::SnapshotSent && answered.result.is_ok() {
        registration.synced();
    }
    answer(answered.reply, answered.result.map_err(Error::Refused));
}

/// Passes an answer on, if somebody still waits for it.
fn answer(reply: Option<Reply>, result: Result<(), Error>) {
    if let Some(reply) = reply {
        // The caller may have given up.
        drop(reply.send(result));
    }
}
