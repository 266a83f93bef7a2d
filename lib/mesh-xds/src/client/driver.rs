//! The loop around the machine: connect, exchange, wait, again.

use std::{convert::Infallible, error::Error as StdError, fmt, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use mesh_proto::{
    discovery::{
        DeltaDiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
    type_url,
};
use prost::Message as _;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue},
    transport::Channel,
};

use super::{
    Config, Machine,
    backoff::{self, Backoff},
    outage::{Loudness, Outage},
};
use crate::{
    Change,
    metrics::{Metrics, Termination},
};

/// A way to the control plane, good for one stream.
#[derive(Debug)]
pub struct Connection {
    /// The channel; it may connect lazily.
    pub channel: Channel,
    /// What is sent along with the stream, see [`credentials`].
    pub metadata: MetadataMap,
}

/// Where connections come from. Asked anew for each stream, so that roots of trust and tokens that
/// changed on disk take effect. It should give up by itself after a few seconds.
pub trait Connect: Send + Sync {
    /// A connection for one stream.
    fn connect(&self) -> BoxFuture<'_, Result<Connection, BoxError>>;
}

/// Where changes go. Called from the client's task, which waits: no response is acknowledged before it
/// was applied.
pub trait Sink: Send {
    /// What one response changed, to be applied in order. Never empty.
    fn apply(&mut self, changes: Vec<Change>);

    /// All types have been applied for the first time. Called once.
    fn synced(&mut self);
}

/// Why a stream ended, or could not begin. All of these are retried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection: network, certificate or token, as the source says.
    #[error("connecting to the control plane")]
    Connect(#[source] BoxError),
    /// The control plane refused the stream; `Unauthenticated` points to the token.
    #[error("opening the discovery stream")]
    Open(#[source] tonic::Status),
    /// The stream broke, or a response was too large or not well-formed.
    #[error("reading the discovery stream")]
    Stream(#[source] tonic::Status),
    /// The control plane took the stream and says nothing: it hangs, or is overloaded.
    #[error("waiting for the first answer of the control plane, {FIRST_ANSWER:?} long")]
    Silent,
    /// A token, cluster or header from the configuration cannot be sent. Correct the configuration.
    #[error("the value of header `{0}` has characters that a header may not hold")]
    Header(String),
}

/// An error of the caller's.
pub type BoxError = Box<dyn StdError + Send + Sync>;

struct Driver<C, S> {
    connect: C,
    sink: S,
    metrics: Metrics,
    response_limit: usize,
    machine: Machine,
    synced: bool,
    outage: Outage,
}

/// Prints an error and what caused it. A gRPC status is printed by its name and message, or not at all
/// where the failure of the connection stands behind it: its own text would show that in Rust's form.
struct Causes<'a>(&'a dyn StdError);

/// Requests that may wait to be sent. One is outstanding per type at most, besides the first ones.
const QUEUE: usize = 8;

/// Longest time from the request until the first answer is there. Every control plane answers the first
/// request of a stream, if with nothing; the largest answer takes this long at 6 Mb/s. A server that is
/// gone is found sooner, by the connection's own pings; this is for one that lives and does nothing.
const FIRST_ANSWER: Duration = Duration::from_secs(300);

/// Keeps a stream to the control plane open and hands what it says to `sink`, for ever.
pub async fn run<C: Connect, S: Sink>(
    connect: C,
    config: Config,
    metrics: Metrics,
    sink: S,
) -> Infallible {
    let mut driver = Driver {
        connect,
        sink,
        metrics,
        response_limit: config.response_limit,
        machine: Machine::new(config),
        synced: false,
        outage: Outage::default(),
    };
    let mut backoff = Backoff::new();
    loop {
        let mut answered = None;
        let ended = driver.stream(&mut answered).await;
        let worked = answered.map_or(Duration::ZERO, |since: Instant| since.elapsed());
        let wait = backoff.ended(worked);
        driver.report(&ended, worked, wait);
        tokio::time::sleep(wait).await;
    }
}

/// Metadata as control planes of Istio's kind expect it: the bearer token, the cluster it belongs to,
/// and what else the configuration asks for.
pub fn credentials(
    token: Option<&str>,
    cluster: &str,
    extra: &[(String, String)],
) -> Result<MetadataMap, Error> {
    let mut metadata = MetadataMap::new();
    if let Some(token) = token {
        let mut bearer = header_value("authorization", &format!("Bearer {}", token.trim()))?;
        bearer.set_sensitive(true);
        metadata.insert("authorization", bearer);
    }
    metadata.insert("clusterid", header_value("clusterid", cluster)?);
    for (name, text) in extra {
        let key = MetadataKey::<Ascii>::from_bytes(name.to_ascii_lowercase().as_bytes());
        let key = key.ok().ok_or_else(|| Error::Header(name.clone()))?;
        metadata.insert(key, header_value(name, text)?);
    }
    Ok(metadata)
}

fn header_value(name: &str, text: &str) -> Result<MetadataValue<Ascii>, Error> {
    let value = MetadataValue::try_from(text).ok();
    value.ok_or_else(|| Error::Header(name.to_owned()))
}

// === impl Error ===

impl Error {
    /// The channel connects at the first call, so a call may fail for want of a connection.
    fn opening(status: tonic::Status) -> Self {
        if status.source().is_some() {
            return Self::Connect(status.into());
        }
        Self::Open(status)
    }
}

// === impl Connect ===

impl<C: Connect + ?Sized> Connect for Arc<C> {
    fn connect(&self) -> BoxFuture<'_, Result<Connection, BoxError>> {
        C::connect(self)
    }
}

// === impl Driver ===

impl<C: Connect, S: Sink> Driver<C, S> {
    /// One stream, until it ends. Notes when the first answer came.
    async fn stream(&mut self, answered: &mut Option<Instant>) -> Result<(), Error> {
        let connection = self.connect.connect().await.map_err(Error::Connect)?;
        let (requests, queue) = mpsc::channel(QUEUE);
        let first = futures::stream::iter(self.machine.connected());
        let queue = futures::StreamExt::chain(first, ReceiverStream::new(queue));
        let mut request = tonic::Request::new(queue);
        *request.metadata_mut() = connection.metadata;
        let mut client = AggregatedDiscoveryServiceClient::new(connection.channel)
            .max_decoding_message_size(self.response_limit);
        let opening = async {
            let opened = client.delta_aggregated_resources(request).await;
            let mut responses = opened.map_err(Error::opening)?.into_inner();
            let first = responses.message().await.map_err(Error::Stream)?;
            Ok::<_, Error>((first, responses))
        };
        let opened = timeout(FIRST_ANSWER, opening).await;
        let (mut next, mut responses) = opened.map_err(|_elapsed| Error::Silent)??;
        while let Some(response) = next {
            if answered.is_none() {
                *answered = Some(Instant::now());
                self.answered();
            }
            let reply = self.received(response);
            if requests.send(reply).await.is_err() {
                // The sending half is gone; the receiving one will say why.
                tracing::debug!("the discovery stream no longer takes acknowledgements");
            }
            next = responses.message().await.map_err(Error::Stream)?;
        }
        Ok(())
    }

    fn received(
        &mut self,
        response: DeltaDiscoveryResponse,
    ) -> mesh_proto::discovery::DeltaDiscoveryRequest {
        let url = known_url(&response.type_url);
        self.metrics.received(url, response.encoded_len());
        let (resources, removed) = (response.resources.len(), response.removed_resources.len());
        let received = self.machine.received(response);
        tracing::debug!(url, resources, removed, "discovery response");
        if let Some(first) = received.rejected.first() {
            let rejected = received.rejected.len();
            tracing::warn!(url, rejected, first = %first, "refused resources of the control plane");
        }
        if !received.changes.is_empty() {
            self.sink.apply(received.changes);
        }
        if !self.synced && self.machine.is_synced() {
            self.synced = true;
            self.sink.synced();
        }
        received.reply
    }

    fn report(&mut self, ended: &Result<(), Error>, worked: Duration, wait: Duration) {
        self.metrics.terminated(termination(ended, worked));
        let reason = match ended {
            Ok(()) => "the control plane ended the stream".to_owned(),
            Err(error) => Causes(error).to_string(),
        };
        match self.outage.ended(&reason, worked) {
            Loudness::Warn => tracing::warn!(reason, ?wait, "discovery is interrupted"),
            Loudness::Info => {
                tracing::info!(reason, ?worked, ?wait, "opening a new discovery stream");
            }
            Loudness::Debug => tracing::debug!(reason, ?wait, "discovery is still interrupted"),
        }
    }

    fn answered(&mut self) {
        if let Some(over) = self.outage.answered() {
            let (attempts, lasted) = (over.attempts, over.lasted);
            tracing::info!(attempts, ?lasted, "discovery works again");
        }
    }
}

// === impl Causes ===

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            cause = error.source();
            let text = match error.downcast_ref::<tonic::Status>() {
                Some(_) if cause.is_some() => continue,
                Some(status) => format!("{:?}: {}", status.code(), status.message()),
                None => error.to_string(),
            };
            // Other people's errors sometimes repeat their source.
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
        }
        Ok(())
    }
}

/// How a stream that had worked for so long is counted when it ends.
fn termination(ended: &Result<(), Error>, worked: Duration) -> Termination {
    match ended {
        Ok(()) => Termination::Complete,
        Err(Error::Connect(_) | Error::Header(_)) => Termination::ConnectionError,
        Err(Error::Stream(_)) if worked >= backoff::LONGEST => Termination::Reconnect,
        Err(Error::Open(_) | Error::Stream(_) | Error::Silent) => Termination::Error,
    }
}

/// A label value that the control plane cannot choose.
fn known_url(url: &str) -> &'static str {
    match url {
        type_url::ADDRESS => type_url::ADDRESS,
        type_url::AUTHORIZATION => type_url::AUTHORIZATION,
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_what_the_control_plane_looks_for() {
        let extra = [("X-Tenant".to_owned(), "blue".to_owned())];
        let metadata = credentials(Some("token\n"), "cluster1", &extra).unwrap();
        let mut headers: Vec<_> = (metadata.into_headers().iter())
            .map(|(name, value)| format!("{name}: {value:?}"))
            .collect();
        headers.sort();
        // The token is marked, so that no log shows it.
        let expected = [
            "authorization: Sensitive",
            "clusterid: \"cluster1\"",
            "x-tenant: \"blue\"",
        ];
        assert_eq!(headers, expected);
    }

    #[test]
    fn a_value_that_no_header_can_hold_is_refused_by_its_name_alone() {
        let bad = [("X-Tenant".to_owned(), "a\u{1}b".to_owned())];
        let errors = [
            credentials(Some("to\nken"), "c", &[]),
            credentials(None, "c\u{7f}", &[]),
            credentials(None, "c", &bad),
        ];
        for (error, name) in errors
            .into_iter()
            .zip(["authorization", "clusterid", "X-Tenant"])
        {
            let text = error.unwrap_err().to_string();
            assert!(text.contains(name) && !text.contains("ken`"), "{text}");
        }
    }

    #[test]
    fn a_stream_that_worked_and_is_cut_is_no_error() {
        // Istiod cuts a connection that has come of age.
        let cut = || Err(Error::Stream(tonic::Status::unavailable("GOAWAY")));
        let counted = |ended, worked| termination(&ended, Duration::from_secs(worked));
        assert_eq!(counted(cut(), 1800), Termination::Reconnect);
        assert_eq!(counted(cut(), 1), Termination::Error);
        assert_eq!(counted(Err(Error::Silent), 0), Termination::Error);
        assert_eq!(counted(Ok(()), 1800), Termination::Complete);
    }

    #[test]
    fn an_error_is_printed_with_its_causes() {
        let cause = std::io::Error::other("no route");
        let text = Causes(&Error::Connect(cause.into())).to_string();
        assert_eq!(text, "connecting to the control plane: no route");
        let denied = tonic::Status::unauthenticated("the token is not valid");
        assert_eq!(
            Causes(&Error::opening(denied)).to_string(),
            "opening the discovery stream: Unauthenticated: the token is not valid"
        );
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_a_failure_to_connect_in_plain_words() {
        let refused = tower::service_fn(|_uri: http::Uri| async {
            let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            Err::<hyper_util::rt::TokioIo<tokio::io::DuplexStream>, _>(refused)
        });
        let endpoint = tonic::transport::Endpoint::from_static("http://nobody:1");
        let channel = endpoint.connect_with_connector_lazy(refused);
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let opened = client.delta_aggregated_resources(futures::stream::empty());
        let error = Error::opening(opened.await.unwrap_err());
        assert!(matches!(error, Error::Connect(_)));
        let text = Causes(&error).to_string();
        assert_eq!(
            text,
            "connecting to the control plane: transport error: connection refused"
        );
    }
}
