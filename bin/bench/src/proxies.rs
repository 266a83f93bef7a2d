//! Many proxies in one process of their own, so that what they use is not counted as the server's.
//!
//! They subscribe to everything as ztunnels do, acknowledge, keep nothing, and write down when they
//! learned of each marked change.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use futures::future::try_join_all;
use mesh_identity::control::{Target, roots::RootSource};
use mesh_proto::{
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
    type_url,
    workload::{Address, address},
};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

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

/// What the first lines of the output say: all proxies have everything.
pub(crate) const SYNCED: &str = "synced";

/// A whole mesh in one message.
const MAX_RESPONSE: usize = 200 << 20;

/// Runs the proxies; the answer is on standard output.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let arguments = Arc::new(arguments);
    let synced = Arc::new(AtomicU32::new(0));
    let proxies = (0..arguments.count).map(|number| {
        let (arguments, synced) = (arguments.clone(), synced.clone());
        tokio::spawn(async move { proxy(number, &arguments, &synced).await })
    });
    let mut seen = Seen::default();
    for arrivals in try_join_all(proxies).await? {
        for (sequence, at) in arrivals? {
            seen.arrivals.entry(sequence).or_default().push(at);
        }
    }
    say(&serde_json::to_string(&seen)?)
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

/// One proxy, until it has seen all marked changes.
async fn proxy(
    number: u32,
    arguments: &Arguments,
    synced: &AtomicU32,
) -> anyhow::Result<Vec<(u32, u64)>> {
    let mut target = Target::new(
        arguments.address.clone(),
        RootSource::File(arguments.roots.clone()),
    );
    target.alternative_names = vec![crate::istiod::NAME.to_owned()];
    let mut client = AggregatedDiscoveryServiceClient::new(target.channel()?)
        .max_decoding_message_size(MAX_RESPONSE);
    let (requests, outgoing) = mpsc::unbounded_channel();
    for url in [type_url::AUTHORIZATION, type_url::ADDRESS] {
        requests.send(first(number, url))?;
    }
    let outgoing = UnboundedReceiverStream::new(outgoing);
    let mut responses = client
        .delta_aggregated_resources(outgoing)
        .await?
        .into_inner();
    let (mut held, mut arrivals) = (0, Vec::new());
    while arrivals.len() < arguments.changes as usize {
        let next = tokio::time::timeout(Duration::from_secs(300), responses.message());
        let response = next.await.context("the server says nothing")??;
        let response = response.context("the server ended the stream")?;
        let now = now();
        requests.send(acknowledge(&response))?;
        if response.type_url != type_url::ADDRESS {
            continue;
        }
        if held >= arguments.resources {
            arrivals.extend(marks(&response).map(|sequence| (sequence, now)));
            continue;
        }
        held += response.resources.len();
        if held >= arguments.resources
            && synced.fetch_add(1, Ordering::Relaxed) + 1 == arguments.count
        {
            say(SYNCED)?;
        }
    }
    Ok(arrivals)
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

fn acknowledge(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        ..DeltaDiscoveryRequest::default()
    }
}

/// The numbers of the marked changes in a response.
fn marks(response: &DeltaDiscoveryResponse) -> impl Iterator<Item = u32> {
    response.resources.iter().filter_map(|resource| {
        let body = resource.resource.as_ref()?.value.clone();
        let address::Type::Workload(workload) = Address::decode(body).ok()?.r#type? else {
            return None;
        };
        workload
            .canonical_revision
            .strip_prefix("seq-")?
            .parse()
            .ok()
    })
}

/// A time that all processes of the machine share.
pub(crate) fn now() -> u64 {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    let time = nix::time::clock_gettime(clock).map(Duration::from);
    time.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
