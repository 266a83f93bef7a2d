//! Who is let in, as whom, how many at a time, and with which certificate.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, client};

use super::*;
use crate::{
    fixture::{Authority, Leaf, mk_anonymous_client, mk_identity},
    issuer::Issuer,
};

const DEADLINE: Duration = Duration::from_secs(20);
/// Long enough for anything that is going to happen on loopback.
const MOMENT: Duration = Duration::from_millis(200);

fn mk_certificate() -> ServerCertificate {
    let issuer = Issuer::self_signed("cluster.local", DEADLINE).unwrap();
    issuer.server_certificate(&["istiod"], DEADLINE).unwrap()
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn connect(
    connector: &TlsConnector,
    address: SocketAddr,
) -> io::Result<client::TlsStream<TcpStream>> {
    let name = ServerName::try_from("istiod").unwrap();
    let tcp = TcpStream::connect(address).await?;
    timeout(DEADLINE, connector.connect(name, tcp)).await?
}

fn presented(stream: &client::TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

async fn accept(incoming: &mut BoxStream<'static, io::Result<Accepted>>) -> Accepted {
    let next = timeout(DEADLINE, incoming.next()).await;
    next.unwrap().unwrap().unwrap()
}

#[tokio::test]
async fn a_certificate_of_the_mesh_names_the_peer_and_none_names_nobody() {
    let (mesh, stranger) = (Authority::new(), Authority::new());
    let config = mutual_server_config(&mk_certificate(), Versions::Tls13, &mesh.pem()).unwrap();
    let (listener, address) = listen().await;
    let mut incoming = incoming(listener, config);
    let uri = "spiffe://cluster.local/ns/shop/sa/cart";
    let forged = stranger.sign(&Leaf::naming(&[uri])).client();
    let nameless = mesh.sign(&Leaf::naming(&[])).client();
    for (connector, identity) in [
        (
            mesh.sign(&Leaf::naming(&[uri])).client(),
            Some(mk_identity("shop", "cart")),
        ),
        (mk_anonymous_client(), None),
        (nameless, None),
    ] {
        // The forged one never arrives, so the one that does is the other.
        let (_forged, connected, accepted) = tokio::join!(
            connect(&forged, address),
            connect(&connector, address),
            accept(&mut incoming)
        );
        connected.unwrap();
        assert_eq!(accepted.connect_info().identity, identity);
        assert!(accepted.connect_info().address.ip().is_loopback());
    }
}

#[tokio::test]
async fn a_replaced_certificate_serves_the_next_connection_and_not_those_that_exist() {
    let config = || server_config(&mk_certificate(), Versions::Tls13).unwrap();
    let tls = ServerTls::new(config());
    let (listener, address) = listen().await;
    let mut incoming = incoming(listener, tls.clone());
    let connector = mk_anonymous_client();
    let (old, accepted) = tokio::join!(connect(&connector, address), accept(&mut incoming));
    let old = old.unwrap();
    tls.replace(config());
    let (new, _accepted) = tokio::join!(connect(&connector, address), accept(&mut incoming));
    assert_ne!(presented(&old), presented(&new.unwrap()));
    drop(accepted);
}

#[tokio::test]
async fn with_all_places_taken_a_client_waits_until_one_is_free() {
    let config = server_config(&mk_certificate(), Versions::Tls13).unwrap();
    let (listener, address) = listen().await;
    let mut incoming = incoming_at_most(1, listener, config);
    let connector = mk_anonymous_client();
    let (first, accepted) = tokio::join!(connect(&connector, address), accept(&mut incoming));
    let _first = first.unwrap();
    let (waiting, next) = (connect(&connector, address), accept(&mut incoming));
    let both = async { tokio::join!(waiting, next) };
    tokio::pin!(both);
    assert!(timeout(MOMENT, both.as_mut()).await.is_err());
    drop(accepted);
    let (second, _accepted) = both.await;
    second.unwrap();
}
