//! Both ends of HBONE in one process, for the tests of this module.

use std::time::Duration;

use http::{HeaderMap, Method, Request};
use mesh_runtime::{
    drain::{self, Trigger},
    task::Tracker,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use super::{
    client::{self, Driver, Handle, Progress},
    server,
    settings::Settings,
    stream::Stream,
};

/// Longer than anything here takes, so that a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes in flight between the two ends.
pub(super) const PIPE: usize = 64 * 1024;

/// A server of one connection; the test answers its requests.
pub(super) struct Server {
    pub(super) requests: mpsc::UnboundedReceiver<server::Request>,
    pub(super) served: JoinHandle<Result<(), server::Error>>,
    pub(super) trigger: Trigger,
    pub(super) tasks: Tracker,
}

/// Waits for something that has to happen.
pub(super) async fn soon<F: Future>(what: F) -> F::Output {
    timeout(PATIENCE, what).await.expect("it happens in time")
}

pub(super) fn connect_to(authority: &str) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = authority.parse().unwrap();
    request
}

/// Serves `io`; requests go to the test.
pub(super) fn serve(io: DuplexStream, settings: &Settings) -> Server {
    let (trigger, watch) = drain::channel();
    let (sender, requests) = mpsc::unbounded_channel();
    let tasks = Tracker::new();
    let (settings, spawner) = (settings.clone(), tasks.clone());
    let served = tokio::spawn(async move {
        let handler = |request| {
            let sender = sender.clone();
            async move {
                // The request counts as under way until the test lets go of the channel.
                drop(sender.send(request));
                sender.closed().await;
            }
        };
        server::serve(io, &settings, watch, &spawner, handler).await
    });
    Server {
        requests,
        served,
        trigger,
        tasks,
    }
}

/// Runs a client's connection to its end.
pub(super) async fn run<IO: AsyncRead + AsyncWrite + Unpin>(mut driver: Driver<IO>) {
    while !matches!(driver.progress().await, Progress::Closed(_)) {}
}

/// A client and a server, connected.
pub(super) async fn pair(client: &Settings, server: &Settings) -> (Handle, Server) {
    let (near, far) = tokio::io::duplex(PIPE);
    let server = serve(far, server);
    let (handle, driver) = client::handshake(near, client).await.unwrap();
    drop(server.tasks.spawn("client", run(driver)));
    (handle, server)
}

/// Both ends of a tunnel.
pub(super) async fn tunnel(client: &Handle, server: &mut Server) -> (Stream, Stream) {
    let accepted = async {
        let request = server.requests.recv().await.unwrap();
        request.responder.accept(HeaderMap::new()).unwrap()
    };
    let (answer, far) =
        soon(async { tokio::join!(client.send(connect_to("10.0.0.1:80")), accepted) }).await;
    let (response, send) = answer.unwrap();
    assert_eq!(response.status(), http::StatusCode::OK);
    (Stream::new(send, response.into_body(), None), far)
}
