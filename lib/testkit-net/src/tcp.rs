//! TCP peers: servers that say who they are, and clients that come from anywhere.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use mesh_net::socket::{set_mark, set_transparent};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use crate::Namespace;

/// How long a client waits for an answer. Everything is on one machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server, until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    clients: Arc<Mutex<Vec<SocketAddr>>>,
    task: JoinHandle<()>,
}

/// What a server does with a connection.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// Says these words and closes.
    Say(String),
    /// Sends back what it receives, until the client closes its half.
    Echo,
    /// Sends back all that it received, but not before the client has closed its half.
    EchoAtEnd,
    /// Reads everything and says nothing.
    Discard,
}

/// From where and how to connect.
#[derive(Clone, Copy, Debug)]
pub struct Dial {
    /// Where to.
    pub to: SocketAddr,
    /// Under which address; by default what the kernel chooses.
    pub from: Option<SocketAddr>,
    /// Whether `from` is someone else's address (`IP_TRANSPARENT`).
    pub transparent: bool,
    /// The firewall mark of the socket.
    pub mark: Option<u32>,
}

// === impl Server ===

impl Server {
    /// Listens inside a namespace. Port 0 lets the kernel choose. An IPv6 address is for IPv6 alone.
    ///
    /// Call it inside a tokio runtime, which then serves.
    pub fn start(
        namespace: &Namespace,
        address: SocketAddr,
        behaviour: Behaviour,
    ) -> io::Result<Self> {
        let listener = namespace.handle().run(|| listen(address))??;
        let address = listener.local_addr()?;
        let clients = Arc::default();
        let task = tokio::spawn(serve(listener, behaviour, Arc::clone(&clients)));
        Ok(Self {
            address,
            clients,
            task,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The addresses of all clients so far, as the server saw them.
    pub fn clients(&self) -> Vec<SocketAddr> {
        self.clients.lock().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        let option = nix::sys::socket::sockopt::Ipv6V6Only;
        nix::sys::socket::setsockopt(&socket, option, &true)?;
    }
    socket.bind(address)?;
    socket.listen(128)
}

async fn serve(listener: TcpListener, behaviour: Behaviour, clients: Arc<Mutex<Vec<SocketAddr>>>) {
    // Connections end with the server: the set aborts them when this future is dropped.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, client)) = listener.accept().await {
        clients.lock().push(client);
        connections.spawn(converse(stream, behaviour.clone()));
    }
}

async fn converse(mut stream: TcpStream, behaviour: Behaviour) -> io::Result<()> {
    match behaviour {
        Behaviour::Say(words) => stream.write_all(words.as_bytes()).await?,
        Behaviour::Echo => {
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await?;
        }
        Behaviour::EchoAtEnd => {
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await?;
            stream.write_all(&received).await?;
        }
        Behaviour::Discard => {
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
        }
    }
    stream.shutdown().await
}

// === impl Dial ===

impl Dial {
    /// An ordinary connection.
    pub fn to(to: SocketAddr) -> Self {
        Self {
            to,
            from: None,
            transparent: false,
            mark: None,
        }
    }

    /// With this mark on the socket.
    #[must_use]
    pub fn marked(mut self, mark: u32) -> Self {
        self.mark = Some(mark);
        self
    }

    /// From this address of the namespace.
    #[must_use]
    pub fn from(mut self, from: SocketAddr) -> Self {
        self.from = Some(from);
        self
    }

    /// From this address, although it is someone else's.
    #[must_use]
    pub fn impersonating(mut self, from: SocketAddr) -> Self {
        (self.from, self.transparent) = (Some(from), true);
        self
    }

    /// Connects from inside a namespace.
    pub async fn connect(self, namespace: &Namespace) -> io::Result<TcpStream> {
        let socket = namespace.handle().run(|| self.socket())??;
        timeout(PATIENCE, socket.connect(self.to)).await?
    }

    /// Connects and reads until the server closes: what it said.
    pub async fn ask(self, namespace: &Namespace) -> io::Result<String> {
        let mut stream = self.connect(namespace).await?;
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await??;
        Ok(answer)
    }

    fn socket(self) -> io::Result<TcpSocket> {
        let socket = socket(self.to)?;
        if let Some(mark) = self.mark {
            set_mark(&socket, mark)?;
        }
        if self.transparent {
            set_transparent(&socket, self.to.is_ipv6())?;
        }
        if let Some(from) = self.from {
            socket.bind(from)?;
        }
        Ok(socket)
    }
}

/// Connects, sends everything, closes the sending half, and returns what comes back.
pub async fn exchange(namespace: &Namespace, to: SocketAddr, data: &[u8]) -> io::Result<Vec<u8>> {
    let stream = Dial::to(to).connect(namespace).await?;
    let (mut read, mut write) = stream.into_split();
    let mut answer = Vec::new();
    let sending = async {
        write.write_all(data).await?;
        write.shutdown().await
    };
    let (sent, received) = timeout(PATIENCE, async {
        tokio::join!(sending, read.read_to_end(&mut answer))
    })
    .await?;
    sent?;
    received?;
    Ok(answer)
}

fn socket(of: SocketAddr) -> io::Result<TcpSocket> {
    match of {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn server_is_reached_from_its_namespace_only() {
        let (inside, outside) = (
            Namespace::new("in").unwrap(),
            Namespace::new("out").unwrap(),
        );
        let address = "127.0.0.1:0".parse().unwrap();
        let server = Server::start(&inside, address, Behaviour::Say("here".into())).unwrap();
        let dial = Dial::to(server.address());
        assert_eq!(dial.ask(&inside).await.unwrap(), "here");
        assert!(dial.ask(&outside).await.is_err());
        assert_eq!(server.clients().len(), 1);
    }

    #[tokio::test]
    async fn echo_gives_everything_back() {
        let namespace = Namespace::new("echo").unwrap();
        let address = "[::1]:0".parse().unwrap();
        let server = Server::start(&namespace, address, Behaviour::Echo).unwrap();
        let data = vec![7; 1 << 20];
        let back = exchange(&namespace, server.address(), &data).await.unwrap();
        assert_eq!(back, data);
    }

    #[tokio::test]
    async fn echo_at_end_waits_for_the_end() {
        let namespace = Namespace::new("end").unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let server = Server::start(&namespace, address, Behaviour::EchoAtEnd).unwrap();
        let mut stream = Dial::to(server.address())
            .connect(&namespace)
            .await
            .unwrap();
        stream.write_all(b"all of it").await.unwrap();
        let mut byte = [0];
        let early = timeout(Duration::from_millis(20), stream.read(&mut byte));
        assert!(early.await.is_err());
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "all of it");
    }

    #[tokio::test]
    async fn dropped_server_refuses() {
        let namespace = Namespace::new("refuse").unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let server = Server::start(&namespace, address, Behaviour::Discard).unwrap();
        let address = server.address();
        drop(server);
        tokio::task::yield_now().await;
        let error = Dial::to(address).connect(&namespace).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
