use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::client::SendRequest;
use mesh_net::copy::{ByteSink as _, ByteSource as _};
use mesh_runtime::drain;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::hbone::testing::{
    PIPE, Server as Served, connect_to, pair, serve as served, soon, tunnel,
};

/// A client without our settings and our care, for requests that ours would not make.
async fn rough_client(settings: &Settings) -> (SendRequest<Bytes>, Served) {
    let (near, far) = tokio::io::duplex(PIPE);
    let server = served(far, settings);
    let (requests, connection) = h2::client::handshake(near).await.unwrap();
    let task = async { drop(connection.await) };
    drop(server.tasks.spawn("rough", task));
    (requests, server)
}

async fn status_of(requests: &SendRequest<Bytes>, request: http::Request<()>) -> StatusCode {
    let mut requests = requests.clone().ready().await.unwrap();
    let (response, _send) = requests.send_request(request, false).unwrap();
    soon(response).await.unwrap().status()
}

fn request(method: Method, uri: &str) -> http::Request<()> {
    let mut request = connect_to("host:1");
    *request.method_mut() = method;
    *request.uri_mut() = uri.parse().unwrap();
    request
}

#[tokio::test]
async fn a_connect_reaches_the_handler_with_its_authority_and_headers() {
    let settings = Settings::default();
    let (client, mut server) = pair(&settings, &settings).await;
    let mut request = connect_to("[fd00::1]:8080");
    let baggage = "k8s.namespace.name=bookinfo".parse().unwrap();
    request.headers_mut().insert("baggage", baggage);
    let (answer, ()) = soon(async {
        tokio::join!(client.send(request), async {
            let request = server.requests.recv().await.unwrap();
            assert_eq!(request.authority.to_string(), "[fd00::1]:8080");
            assert_eq!(request.headers["baggage"], "k8s.namespace.name=bookinfo");
            request.responder.reject(StatusCode::UNAUTHORIZED);
        })
    })
    .await;
    assert_eq!(answer.unwrap().0.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn what_is_no_connect_is_answered_with_400_and_harms_nobody() {
    let settings = Settings::default();
    let (client, mut server) = rough_client(&settings).await;
    for bad in [
        request(Method::GET, "https://10.0.0.1:80/"),
        request(Method::POST, "https://host/connect"),
        request(Method::CONNECT, "host"),
        request(Method::CONNECT, "user@host:80"),
        request(Method::CONNECT, "10.0.0.1:0"),
        request(Method::CONNECT, "999.0.0.1:80"),
        request(Method::CONNECT, "[fe80::1]"),
    ] {
        let what = format!("{bad:?}");
        assert_eq!(
            status_of(&client, bad).await,
            StatusCode::BAD_REQUEST,
            "{what}"
        );
    }
    assert!(
        server.requests.try_recv().is_err(),
        "none reached the handler"
    );
    let (status, ()) = tokio::join!(status_of(&client, connect_to("host:80")), async {
        let request = soon(server.requests.recv()).await.unwrap();
        request.responder.accept(HeaderMap::new()).unwrap();
    });
    assert_eq!(status, StatusCode::OK);
}

#[test]
fn an_authority_has_to_be_there_and_alone() {
    let no_authority = request(Method::CONNECT, "/");
    assert_eq!(target(&no_authority), Err(Malformed::NoAuthority));
    let path = request(Method::CONNECT, "https://host:80/path");
    assert_eq!(target(&path), Err(Malformed::NotPlain));
}

/// HTTP/2's preface and empty SETTINGS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// `:method: CONNECT`, `:authority: host:80`, `:scheme: https` and `:path: /` in HPACK.
const CONNECT: &[u8] = b"\x02\x07CONNECT";
const AUTHORITY: &[u8] = b"\x01\x07host:80";
const SCHEME: &[u8] = b"\x87";
const PATH: &[u8] = b"\x84";

/// Sends a request as it stands; the type and contents of the first frame on its stream.
async fn raw_answer(headers: &[&[u8]]) -> (u8, Vec<u8>) {
    let (mut near, far) = tokio::io::duplex(PIPE);
    let _server = served(far, &Settings::default());
    let block = headers.concat();
    let length = u8::try_from(block.len()).unwrap();
    near.write_all(PREFACE).await.unwrap();
    // HEADERS with END_HEADERS on stream 1.
    near.write_all(&[0, 0, length, 1, 4, 0, 0, 0, 1])
        .await
        .unwrap();
    near.write_all(&block).await.unwrap();
    loop {
        let mut head = [0; 9];
        soon(near.read_exact(&mut head)).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut contents = vec![0; length];
        soon(near.read_exact(&mut contents)).await.unwrap();
        if head[8] == 1 {
            return (head[3], contents);
        }
    }
}

#[tokio::test]
async fn a_connect_with_scheme_or_path_is_reset() {
    const RST_STREAM: u8 = 3;
    let protocol_error = u32::from(Reason::PROTOCOL_ERROR).to_be_bytes().to_vec();
    for headers in [
        &[CONNECT, AUTHORITY, SCHEME, PATH][..],
        &[CONNECT, AUTHORITY, SCHEME],
        &[CONNECT, AUTHORITY, PATH],
    ] {
        let answer = raw_answer(headers).await;
        assert_eq!(answer, (RST_STREAM, protocol_error.clone()), "{headers:?}");
    }
}

#[tokio::test]
async fn a_connect_without_authority_is_answered_with_400() {
    const HEADERS: u8 = 1;
    // `:status: 400` stands in HPACK's static table.
    assert_eq!(raw_answer(&[CONNECT]).await, (HEADERS, vec![0x8c]));
}

#[tokio::test]
async fn a_header_list_over_the_limit_is_refused() {
    let settings = Settings::default();
    let (client, mut server) = rough_client(&settings).await;
    let mut large = connect_to("host:80");
    let value = "x".repeat(settings.server_header_list as usize);
    large
        .headers_mut()
        .insert("baggage", value.parse().unwrap());
    let status = status_of(&client, large).await;
    assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert!(server.requests.try_recv().is_err());
}

#[tokio::test]
async fn bytes_that_are_not_http2_end_the_connection() {
    let settings = Settings::default();
    let (mut near, far) = tokio::io::duplex(PIPE);
    let server = served(far, &settings);
    near.write_all(b"GET / HTTP/1.1\r\nhost: example.com\r\n\r\n")
        .await
        .unwrap();
    let error = soon(server.served).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Handshake(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stalls_in_its_preface_is_given_up() {
    let settings = Settings::default();
    let (mut near, far) = tokio::io::duplex(PIPE);
    let server = served(far, &settings);
    near.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let start = tokio::time::Instant::now();
    let error = soon(server.served).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::HandshakeTimeout(_)), "{error:?}");
    assert_eq!(start.elapsed(), settings.connect_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_no_ping_is_given_up() {
    let settings = Settings::default();
    let (mut near, far) = tokio::io::duplex(PIPE);
    let server = served(far, &settings);
    near.write_all(PREFACE).await.unwrap();
    let start = tokio::time::Instant::now();
    let error = soon(server.served).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Unanswered(_)), "{error:?}");
    assert_eq!(
        start.elapsed(),
        settings.ping_interval + settings.ping_timeout
    );
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_that_answers_pings_lives_on() {
    let settings = Settings::default();
    let (client, mut server) = pair(&settings, &settings).await;
    let (near, far) = tunnel(&client, &mut server).await;
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(
        timeout(Duration::from_secs(3600), &mut server.served)
            .await
            .is_err(),
        "the connection ended"
    );
    let (_, mut sink) = near.into_split();
    let (mut source, _) = far.into_split();
    sink.write(Bytes::from_static(b"still here")).await.unwrap();
    assert_eq!(soon(source.next()).await.unwrap().unwrap(), "still here");
}

#[tokio::test]
async fn a_client_has_no_more_streams_than_it_may() {
    let settings = Settings {
        max_concurrent_streams: 2,
        ..Settings::default()
    };
    let (client, mut server) = pair(&settings, &settings).await;
    let _first = tunnel(&client, &mut server).await;
    let _second = tunnel(&client, &mut server).await;
    assert_eq!(client.limit(), 2);
    let third = client.send(connect_to("host:80"));
    tokio::select! {
        biased;
        _ = third => panic!("answered beyond the limit"),
        request = server.requests.recv() => panic!("{request:?} beyond the limit"),
        () = ready_after_turns(100) => {}
    }
}

async fn ready_after_turns(turns: usize) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn streams_that_are_reset_at_once_do_not_pile_up() {
    const FLOOD: usize = 5000;
    let settings = Settings {
        max_concurrent_streams: 20,
        ..Settings::default()
    };
    let (near, far) = tokio::io::duplex(PIPE);
    let (_trigger, watch) = drain::channel();
    let tasks = Tracker::new();
    let under_way = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let counters = (Arc::clone(&under_way), Arc::clone(&most));
    let spawner = tasks.clone();
    let server = tokio::spawn(async move {
        let handler = |request: Request| {
            let (under_way, most) = (Arc::clone(&counters.0), Arc::clone(&counters.1));
            async move {
                let now = under_way.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                // The application takes forever to be reached.
                let () = std::future::pending().await;
                drop(request);
            }
        };
        serve(far, &settings, watch, &spawner, handler).await
    });
    let (requests, connection) = h2::client::Builder::new()
        .max_concurrent_reset_streams(FLOOD)
        .handshake::<_, Bytes>(near)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let mut opened = 0;
    while opened < FLOOD {
        let Ok(mut requests) = requests.clone().ready().await else {
            break;
        };
        let Ok((_, mut send)) = requests.send_request(connect_to("host:80"), false) else {
            break;
        };
        // Let it reach the server, which must not be helped by a reset that overtakes.
        ready_after_turns(3).await;
        send.send_reset(Reason::CANCEL);
        opened += 1;
    }
    assert!(opened < FLOOD, "the flood was never stopped");
    let error = soon(server).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Connection(_)), "{error:?}");
    let ended = soon(connection).await.unwrap().unwrap_err();
    assert_eq!(ended.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    assert_eq!(most.load(Ordering::SeqCst), 20);
}

#[tokio::test]
async fn a_responder_notices_that_its_client_has_given_up() {
    let settings = Settings::default();
    let (client, mut server) = pair(&settings, &settings).await;
    let asking = client.send(connect_to("host:80"));
    let mut request = tokio::select! {
        _ = asking => panic!("nobody has answered"),
        request = server.requests.recv() => request.unwrap(),
    };
    soon(request.responder.given_up()).await;
    assert!(request.responder.accept(HeaderMap::new()).is_err());
}

#[tokio::test]
async fn a_responder_notices_that_the_connection_is_gone() {
    let settings = Settings::default();
    let (near, far) = tokio::io::duplex(PIPE);
    let mut server = served(far, &settings);
    let (mut requests, connection) = h2::client::handshake(near).await.unwrap();
    let connection = tokio::spawn(connection);
    let (_response, _send) = requests.send_request(connect_to("host:80"), false).unwrap();
    let _: &SendRequest<Bytes> = &requests;
    let mut request = soon(server.requests.recv()).await.unwrap();
    connection.abort();
    soon(request.responder.given_up()).await;
}

#[tokio::test]
async fn a_handler_that_panics_takes_nobody_with_it() {
    let settings = Settings::default();
    let (near, far) = tokio::io::duplex(PIPE);
    let (_trigger, watch) = drain::channel();
    let tasks = Tracker::new();
    let spawner = tasks.clone();
    let server = tokio::spawn(async move {
        let handler = |request: Request| async move {
            assert_ne!(
                request.authority.to_string(),
                "bad:1",
                "as the test wants it"
            );
            request.responder.reject(StatusCode::SERVICE_UNAVAILABLE);
        };
        serve(far, &settings, watch, &spawner, handler).await
    });
    let (requests, connection) = h2::client::handshake::<_>(near).await.unwrap();
    drop(tasks.spawn("client", async { drop(connection.await) }));
    let mut bad = requests.clone().ready().await.unwrap();
    let (response, send) = bad.send_request(connect_to("bad:1"), false).unwrap();
    let error = soon(response).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::CANCEL));
    drop(send);
    let status = status_of(&requests, connect_to("good:1")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    drop((requests, bad));
    soon(server).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_graceful_drain_takes_no_new_streams_and_waits_for_the_open_ones() {
    let settings = Settings::default();
    let (client, mut server) = pair(&settings, &settings).await;
    let (near, far) = tunnel(&client, &mut server).await;
    let drained = tokio::spawn(server.trigger.drain(Mode::Graceful));
    while !client.is_closed() {
        tokio::task::yield_now().await;
    }
    let (mut near_source, mut near_sink) = near.into_split();
    let (mut far_source, mut far_sink) = far.into_split();
    near_sink.write(Bytes::from_static(b"ping")).await.unwrap();
    assert_eq!(soon(far_source.next()).await.unwrap().unwrap(), "ping");
    assert!(!server.served.is_finished() && !drained.is_finished());
    near_sink.finish().await.unwrap();
    far_sink.finish().await.unwrap();
    assert_eq!(soon(near_source.next()).await.unwrap(), None);
    assert_eq!(soon(far_source.next()).await.unwrap(), None);
    soon(server.served).await.unwrap().unwrap();
    soon(drained).await.unwrap();
}

#[tokio::test]
async fn an_immediate_drain_breaks_what_is_open() {
    let settings = Settings::default();
    let (client, mut server) = pair(&settings, &settings).await;
    let (near, far) = tunnel(&client, &mut server).await;
    soon(server.trigger.drain(Mode::Immediate)).await;
    soon(server.served).await.unwrap().unwrap();
    let (mut near_source, _) = near.into_split();
    let (mut far_source, _) = far.into_split();
    assert!(soon(near_source.next()).await.is_err());
    assert!(soon(far_source.next()).await.is_err());
}

#[tokio::test]
async fn a_client_that_has_not_begun_does_not_hold_up_a_drain() {
    let settings = Settings::default();
    let (mut near, far) = tokio::io::duplex(PIPE);
    let server = served(far, &settings);
    soon(server.trigger.drain(Mode::Graceful)).await;
    soon(server.served).await.unwrap().unwrap();
    let mut rest = Vec::new();
    near.read_to_end(&mut rest).await.unwrap();
}
