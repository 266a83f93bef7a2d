//! Streams in the memory of one process, on one thread.

use std::{convert::Infallible, time::Duration};

use bytes::{BufMut as _, Bytes};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use mesh_proto::{discovery::DeltaDiscoveryRequest, type_url::ADDRESS};
use mesh_xds::server::{
    Client, Limits, Metrics, Readable, Resources, Server, Service, Streams, Update,
};
use parking_lot::{Mutex, MutexGuard};
use peak_alloc::PeakAlloc;
use prost::Message as _;
use tokio::{runtime, sync::mpsc, time::timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Extensions, Status, body::Body, metadata::MetadataMap};
use tower::{Service as _, ServiceExt as _};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// One test at a time, since they share the counter.
static ALONE: Mutex<()> = Mutex::new(());

const DEADLINE: Duration = Duration::from_secs(60);

const RESOURCES: usize = 5_000;

/// Bytes of each of them, without its names.
const CONTENT: usize = 200;

/// What all of them take on the wire at least.
const MESH: usize = RESOURCES * (CONTENT + 2 * ADDRESS.len());

const STREAMS: usize = 20;

/// What a stream may hold that has been told everything.
const RESTING: usize = 32 * 1024;

/// What it may hold besides while it is told: a handle on each resource, in a list that has grown by
/// doubling, and what is on its way.
const BEING_TOLD: usize = 2 * size_of::<usize>() * RESOURCES + 64 * 1024;

type Admit = fn(&MetadataMap, &Extensions) -> Result<Client, Status>;

/// A server without a network, of which all streams may be told at once.
struct World {
    server: Server<Admit>,
    streams: Streams,
    runtime: runtime::Runtime,
    _alone: MutexGuard<'static, ()>,
}

/// A client that keeps nothing.
struct Stream {
    requests: mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>,
    responses: Body,
}

fn name(number: usize) -> String {
    format!("Kubernetes//Pod/namespace/pod-{number}")
}

fn ask() -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: ADDRESS.to_owned(),
        ..DeltaDiscoveryRequest::default()
    }
}

// === impl World ===

impl World {
    fn new() -> Self {
        let alone = ALONE.lock();
        let resources = Resources::default();
        resources.publish((0..RESOURCES).map(|number| Update {
            type_url: ADDRESS,
            name: name(number).into(),
            resource: Some(Bytes::from(vec![0; CONTENT]).into()),
        }));
        resources.ready();
        let limits = Limits {
            turns: STREAMS,
            ..Limits::default()
        };
        let admit: Admit = |_, _| {
            Ok(Client {
                may_read: Readable::Only(&[ADDRESS]),
                ..Client::default()
            })
        };
        let service = Service::with_limits(resources, admit, limits, Metrics::default());
        Self {
            streams: service.streams(),
            server: service.into_server(),
            runtime: runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            _alone: alone,
        }
    }

    fn open(&mut self) -> Stream {
        let (requests, outgoing) = mpsc::unbounded_channel();
        let outgoing = StreamBody::new(UnboundedReceiverStream::new(outgoing));
        let outgoing = outgoing.map_err(|never: Infallible| -> Status { match never {} });
        let path =
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
        let request = http::Request::post(path).body(Body::new(outgoing));
        let server = &mut self.server;
        let response = self.runtime.block_on(async {
            let server = server.ready().await.unwrap();
            server.call(request.unwrap()).await.unwrap()
        });
        Stream {
            requests,
            responses: response.into_body(),
        }
    }

    /// How many bytes come until the server has nothing to say; at most so many frames are taken.
    fn take(&self, stream: &mut Stream, most: usize) -> usize {
        let mut taken = 0;
        let silent = self.runtime.block_on(async {
            timeout(DEADLINE, async {
                for _ in 0..most {
                    let next = std::pin::pin!(stream.responses.frame());
                    let std::task::Poll::Ready(frame) = futures::poll!(next) else {
                        // What can be done is done at once: nothing here waits for anything else.
                        return;
                    };
                    let data = frame.unwrap().unwrap().into_data().unwrap();
                    assert!(
                        data.is_unique(),
                        "the stream shares what it has handed over"
                    );
                    taken += data.len();
                }
            })
            .await
        });
        silent.unwrap();
        taken
    }
}

// === impl Stream ===

impl Stream {
    fn say(&self, request: &DeltaDiscoveryRequest) {
        let message = request.encode_to_vec();
        let mut bytes = vec![0];
        bytes.put_u32(message.len().try_into().unwrap());
        bytes.extend(message);
        // As the transport would bring them.
        for part in bytes.chunks(16 * 1024) {
            let frame = Frame::data(Bytes::copy_from_slice(part));
            self.requests.send(Ok(frame)).unwrap();
        }
    }
}

#[test]
fn streams_that_are_told_the_whole_mesh_hold_handles_and_afterwards_nothing() {
    let mut world = World::new();
    let mut streams: Vec<_> = (0..STREAMS).map(|_| world.open()).collect();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    for stream in &mut streams {
        stream.say(&ask());
        assert!(world.take(stream, 2) < MESH / 10);
    }
    let being_told = (MEMORY.current_usage() - before) / STREAMS;
    assert!(being_told < RESTING + BEING_TOLD, "{being_told}");

    for stream in &mut streams {
        assert!(world.take(stream, usize::MAX) > MESH * 9 / 10);
    }
    let resting = (MEMORY.current_usage() - before) / STREAMS;
    assert!(resting < RESTING, "{resting}");
    // Never more than all handles at once, and what one stream needs to find them.
    let peak = MEMORY.peak_usage() - before;
    assert!(peak < STREAMS * (RESTING + BEING_TOLD) + MESH / 2, "{peak}");
    assert_eq!(world.streams.len(), STREAMS);
}

#[test]
fn streams_that_have_said_what_they_hold_do_not_keep_it() {
    let mut world = World::new();
    let mut streams: Vec<_> = (0..STREAMS).map(|_| world.open()).collect();
    let before = MEMORY.current_usage();
    let mut request = ask();
    let held = (0..RESOURCES).map(|number| (name(number), "0".repeat(16)));
    request.initial_resource_versions = held.collect();
    for stream in &mut streams {
        stream.say(&request);
        assert!(world.take(stream, usize::MAX) > MESH * 9 / 10);
    }
    drop(request);
    let resting = (MEMORY.current_usage() - before) / STREAMS;
    assert!(resting < RESTING, "{resting}");
}
