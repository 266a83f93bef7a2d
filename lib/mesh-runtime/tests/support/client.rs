//! A server under test on a free loopback port, and a client that sends exactly the bytes it is given.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mesh_runtime::{
    drain,
    http::{self, Limits, Router},
    task::Tracker,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) tasks: Tracker,
    pub(crate) drain: drain::Trigger,
}

pub(crate) async fn mk_server(router: Router, limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tracker::new();
    let (drain, watch) = drain::channel();
    let serve = http::serve(listener, Arc::new(router), limits, tasks.clone(), watch);
    tasks.spawn("http", serve);
    Server {
        address,
        tasks,
        drain,
    }
}

impl Server {
    /// A connection on which `bytes` have been sent.
    pub(crate) async fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    /// Stops the server and waits until nothing of it is left.
    pub(crate) async fn stop(self) {
        let stopped = async {
            self.drain.drain(drain::Mode::Graceful).await;
            self.tasks.wait().await;
        };
        tokio::time::timeout(DEADLINE, stopped).await.unwrap();
    }

    /// The whole response to a request given by its first line and further headers.
    pub(crate) async fn ask(&self, head: &str) -> String {
        let request = format!("{head}\r\nHost: localhost\r\n\r\n");
        read(self.send(request.as_bytes()).await).await
    }
}

/// Everything that arrives until the server closes.
pub(crate) async fn read(mut stream: TcpStream) -> String {
    let mut response = Vec::new();
    // A reset after the response is as good as a close.
    drop(stream.read_to_end(&mut response).await);
    String::from_utf8(response).unwrap()
}

pub(crate) fn status(response: &str) -> &str {
    let line = response.lines().next().unwrap_or_default();
    line.strip_prefix("HTTP/1.1 ").unwrap_or(line)
}

pub(crate) fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}
