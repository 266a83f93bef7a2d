//! Many proxies in one process of their own, so that what they use is not counted as the server's.
//!
//! They subscribe to everything as ztunnels do, acknowledge, and write down when they learned of each
//! marked change. Then they all connect again, and say what they hold. They keep next to nothing and read
//! no more of a response than they must: what is measured is the server.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::future::try_join_all;
use http::{Request, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use mesh_identity::control::{Target, roots::RootSource};
use mesh_proto::{
    discovery::{DeltaDiscoveryRequest, Node},
    type_url,
};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::UnboundedReceiverStream};
use tonic::body::Body;
use tower::{Service as _, ServiceExt as _};

use self::skim::{Skim, Skimmed};

mod skim;

/// How the proxies are started.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The server, `https://host:port`.
    #[arg(long)]
    address: String,
    /// Its root.
    #[arg(long)]
    roots: PathBuf,
    /// How many there are.
    #[arg(long)]
    count: u32,
    /// How many marked changes each of them waits for.
    #[arg(long)]
    changes: u32,
    /// Resources in the first responses, before which a proxy is not in sync.
    #[arg(long)]
    resources: usize,
}

/// What the proxies saw.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Monotonic time, in nanoseconds, at which each proxy learned of each marked change.
    pub(crate) arrivals: BTreeMap<u32, Vec<u64>>,
}

/// What the first line of the output says: all proxies have everything.
pub(crate) const SYNCED: &str = "synced";

/// What the last line says: all proxies have connected again and been told what they lack.
pub(crate) const RETURNED: &str = "returned";

/// The method that is called.
const PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// Longest time without a word from the server.
const PATIENCE: Duration = Duration::from_secs(300);

/// One proxy's stream.
struct Stream {
    requests: mpsc::UnboundedSender<Bytes>,
    body: Body,
    skim: Skim,
}

/// Runs the proxies; the answer is on standard output. They come back when they are told a line on
/// standard input, and stay until told another.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let arguments = Arc::new(arguments);
    let first = (0..arguments.count).map(|number| first_sync(number, Arc::clone(&arguments)));
    let streams = together(first).await?;
    say(SYNCED)?;

    let changes = arguments.changes as usize;
    let watching = streams.into_iter().map(|stream| watch(stream, changes));
    let (mut streams, mut seen) = (Vec::new(), Seen::default());
    for (stream, arrivals) in together(watching).await? {
        streams.push(stream);
        for (sequence, at) in arrivals {
            seen.arrivals.entry(sequence).or_default().push(at);
        }
    }
    say(&serde_json::to_string(&seen)?)?;

    let held = held(&arguments).await?;
    told().await?;
    drop(streams);
    let again = (0..arguments.count).map(|number| {
        let (arguments, held) = (Arc::clone(&arguments), held.clone());
        async move { come_back(number, &arguments, held).await }
    });
    let streams = together(again).await?;
    say(RETURNED)?;
    told().await?;
    drop(streams);
    Ok(())
}

/// Runs all of them, on all threads.
async fn together<F, T>(proxies: impl Iterator<Item = F>) -> anyhow::Result<Vec<T>>
where
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let tasks = try_join_all(proxies.map(tokio::spawn)).await?;
    tasks.into_iter().collect()
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

/// Waits for a line, or for the end of the input.
async fn told() -> anyhow::Result<()> {
    let read =
        tokio::task::spawn_blocking(|| std::io::stdin().lock().read_line(&mut String::new()));
    read.await??;
    Ok(())
}

/// A stream that has been told everything.
async fn first_sync(number: u32, arguments: Arc<Arguments>) -> anyhow::Result<Stream> {
    let first = [type_url::AUTHORIZATION, type_url::ADDRESS].map(|url| framed(&first(number, url)));
    let mut stream = Stream::open(&arguments, first).await?;
    let mut held = 0;
    while held < arguments.resources {
        held += stream.addresses().await?.resources;
    }
    Ok(stream)
}

/// The marked changes that a stream brings, and when.
async fn watch(mut stream: Stream, changes: usize) -> anyhow::Result<(Stream, Vec<(u32, u64)>)> {
    let mut arrivals = Vec::new();
    while arrivals.len() < changes {
        let marks = stream.addresses().await?.marks;
        let now = now();
        arrivals.extend(marks.into_iter().map(|sequence| (sequence, now)));
    }
    Ok((stream, arrivals))
}

/// A first request with the versions of everything there is.
async fn held(arguments: &Arguments) -> anyhow::Result<Bytes> {
    let first_requests =
        [type_url::AUTHORIZATION, type_url::ADDRESS].map(|url| framed(&first(0, url)));
    let mut stream = Stream::open(arguments, first_requests).await?;
    stream.skim.keep();
    let mut request = first(0, type_url::ADDRESS);
    let held = &mut request.initial_resource_versions;
    while held.len() < arguments.resources {
        let resources = stream.addresses().await?.kept;
        held.extend(resources.into_iter().map(|one| (one.name, one.version)));
    }
    Ok(framed(&request))
}

/// A stream of a proxy that holds everything, and has been told so.
async fn come_back(number: u32, arguments: &Arguments, held: Bytes) -> anyhow::Result<Stream> {
    let requests = [framed(&first(number, type_url::AUTHORIZATION)), held];
    let mut stream = Stream::open(arguments, requests).await?;
    stream.addresses().await?;
    Ok(stream)
}

// === impl Stream ===

impl Stream {
    async fn open(arguments: &Arguments, first: [Bytes; 2]) -> anyhow::Result<Self> {
        let roots = RootSource::File(arguments.roots.clone());
        let mut target = Target::new(arguments.address.clone(), roots);
        target.alternative_names = vec![crate::istiod::NAME.to_owned()];
        let mut channel = target.channel()?;
        let (requests, outgoing) = mpsc::unbounded_channel();
        for request in first {
            requests.send(request)?;
        }
        let outgoing = UnboundedReceiverStream::new(outgoing);
        let outgoing = outgoing.map(|request| Ok::<_, tonic::Status>(Frame::data(request)));
        let call = Request::post(PATH)
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(Body::new(StreamBody::new(outgoing)))?;
        let response = channel.ready().await?.call(call).await?;
        Ok(Self {
            requests,
            body: response.into_body(),
            skim: Skim::default(),
        })
    }

    /// The next response that is about addresses. All are acknowledged.
    async fn addresses(&mut self) -> anyhow::Result<Skimmed> {
        loop {
            let response = self.response().await?;
            self.requests.send(framed(&DeltaDiscoveryRequest {
                type_url: response.type_url.clone(),
                response_nonce: response.nonce.clone(),
                ..DeltaDiscoveryRequest::default()
            }))?;
            if response.type_url == type_url::ADDRESS {
                return Ok(response);
            }
        }
    }

    async fn response(&mut self) -> anyhow::Result<Skimmed> {
        loop {
            if let Some(response) = self.skim.next()? {
                return Ok(response);
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await;
            let frame = frame.context("the server says nothing")?;
            let frame = frame.context("the server ended the stream")??;
            let data = frame.into_data();
            let data = data.map_err(|end| anyhow::anyhow!("the stream ended: {end:?}"))?;
            self.skim.push(&data);
        }
    }
}

fn framed(request: &DeltaDiscoveryRequest) -> Bytes {
    let len = request.encoded_len();
    let mut bytes = BytesMut::with_capacity(len + 5);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    // There is room: the buffer grows.
    request.encode(&mut bytes).ok();
    bytes.freeze()
}

fn first(number: u32, url: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(Node {
            id: format!(
                "ztunnel~10.255.0.1~ztunnel-{number}.istio-system~istio-system.svc.cluster.local"
            ),
            ..Node::default()
        }),
        type_url: url.to_owned(),
        ..DeltaDiscoveryRequest::default()
    }
}

/// A time that all processes of the machine share.
pub(crate) fn now() -> u64 {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    let time = nix::time::clock_gettime(clock).map(Duration::from);
    time.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
