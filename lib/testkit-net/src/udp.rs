//! UDP peers.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use mesh_net::socket::set_mark;
use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};
use tokio::{net::UdpSocket, task::JoinHandle, time::timeout};

use crate::Namespace;

/// How long a client waits for an answer. There is nothing between the peers that loses packets.
const PATIENCE: Duration = Duration::from_secs(2);

/// A server that answers every datagram with the same words, until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    clients: Arc<Mutex<Vec<SocketAddr>>>,
    task: JoinHandle<()>,
}

// === impl Server ===

impl Server {
    /// Listens inside a namespace. Call it inside a tokio runtime, which then serves.
    pub fn start(namespace: &Namespace, address: SocketAddr, words: &str) -> io::Result<Self> {
        let socket = bind(namespace, address, None)?;
        let address = socket.local_addr()?;
        let clients: Arc<Mutex<Vec<_>>> = Arc::default();
        let (seen, words) = (Arc::clone(&clients), words.to_owned());
        let task = tokio::spawn(async move {
            let mut datagram = [0; 2048];
            while let Ok((_, client)) = socket.recv_from(&mut datagram).await {
                seen.lock().push(client);
                // An answer that cannot be sent is noticed by the client, who waits for it.
                drop(socket.send_to(words.as_bytes(), client).await);
            }
        });
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

/// A socket in a namespace; IPv6 ones are for IPv6 alone.
pub fn bind(
    namespace: &Namespace,
    address: SocketAddr,
    mark: Option<u32>,
) -> io::Result<UdpSocket> {
    namespace.handle().run(|| {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        if let Some(mark) = mark {
            set_mark(&socket, mark)?;
        }
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket.into())
    })?
}

/// Sends a datagram through a connected socket, so that only an answer from where it was sent to counts,
/// and returns that answer.
pub async fn ask(socket: &UdpSocket, to: SocketAddr) -> io::Result<String> {
    socket.connect(to).await?;
    socket.send(b"?").await?;
    let mut answer = [0; 2048];
    let length = timeout(PATIENCE, socket.recv(&mut answer)).await??;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answer_comes_from_the_namespace_of_the_server() {
        let namespace = Namespace::new("udp").unwrap();
        let server = Server::start(&namespace, "127.0.0.1:0".parse().unwrap(), "here").unwrap();
        let client = bind(&namespace, "127.0.0.1:0".parse().unwrap(), None).unwrap();
        assert_eq!(ask(&client, server.address()).await.unwrap(), "here");
        assert_eq!(server.clients(), [client.local_addr().unwrap()]);
    }
}
