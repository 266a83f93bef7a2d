//! The HTTP server against clients that are slow, wrong or many, over real sockets.

use std::{
    future::{pending, ready},
    sync::Arc,
};

use http::StatusCode;
use mesh_runtime::{
    drain::Mode,
    http::{Limits, Router, text},
};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    sync::Semaphore,
    time::{Instant, timeout},
};

#[cfg(test)]
#[path = "support/client.rs"]
mod client;

use client::{DEADLINE, body, mk_server, read, status};

fn mk_router() -> Router {
    Router::new()
        .dashboard("Test")
        .get("/hello", "says hello", |_| {
            ready(text(StatusCode::OK, "hello\n"))
        })
        .post("/echo", "says it again", |request| {
            let body = String::from_utf8_lossy(request.body()).into_owned();
            ready(text(StatusCode::OK, body))
        })
}

fn mk_post(length: usize, body: &str) -> Vec<u8> {
    format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}").into()
}

#[tokio::test]
async fn known_paths_are_answered() {
    let server = mk_server(mk_router(), Limits::default()).await;
    let hello = server.ask("GET /hello?a=b HTTP/1.1").await;
    assert_eq!((status(&hello), body(&hello)), ("200 OK", "hello\n"));
    let head = server.ask("HEAD /hello HTTP/1.1").await;
    assert_eq!((status(&head), body(&head)), ("200 OK", ""));
    let echo = read(server.send(&mk_post(4, "echo")).await).await;
    assert_eq!((status(&echo), body(&echo)), ("200 OK", "echo"));
    let page = server.ask("GET / HTTP/1.1").await;
    assert!(
        page.contains("<a href=\"/hello\">GET /hello</a></td><td>says hello"),
        "{page}"
    );
}

#[tokio::test]
async fn other_paths_and_methods_are_told_what_there_is() {
    let server = mk_server(mk_router(), Limits::default()).await;
    let lost = server.ask("GET /nowhere HTTP/1.1").await;
    assert_eq!(status(&lost), "404 Not Found");
    assert!(body(&lost).contains("GET /hello  says hello\n"), "{lost}");

    let refused = server.ask("GET /echo HTTP/1.1").await;
    assert_eq!(status(&refused), "405 Method Not Allowed");
    assert!(refused.contains("allow: POST\r\n"), "{refused}");
    let refused = server.ask("DELETE /hello HTTP/1.1").await;
    assert!(refused.contains("allow: GET\r\n"), "{refused}");
    let refused = server.ask("POST / HTTP/1.1").await;
    assert!(refused.contains("allow: GET\r\n"), "{refused}");
}

#[tokio::test]
async fn garbage_and_excess_are_refused() {
    let server = mk_server(mk_router(), Limits::default()).await;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"GET\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
    ] {
        let refused = read(server.send(garbage).await).await;
        assert_eq!(status(&refused), "400 Bad Request", "{garbage:?}");
    }
    let long = format!("GET /hello HTTP/1.1\r\nX: {}", "x".repeat(9000));
    let refused = read(server.send(long.as_bytes()).await).await;
    assert_eq!(status(&refused), "431 Request Header Fields Too Large");
    let refused = read(server.send(&mk_post(9000, &"x".repeat(9000))).await).await;
    assert_eq!(status(&refused), "413 Payload Too Large");
    assert_eq!(status(&server.ask("GET /hello HTTP/1.1").await), "200 OK");
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_in_time_ends_the_connection() {
    let server = mk_server(mk_router(), Limits::default()).await;
    for beginning in ["", "GET /hello HTTP/1.1\r\nX-Slow: "] {
        let start = Instant::now();
        let response = read(server.send(beginning.as_bytes()).await).await;
        assert_eq!(response, "");
        assert_eq!(start.elapsed().as_secs(), 2, "{beginning}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_in_time_is_refused() {
    let server = mk_server(mk_router(), Limits::default()).await;
    let start = Instant::now();
    let refused = read(server.send(&mk_post(5, "slow")).await).await;
    assert_eq!(status(&refused), "408 Request Timeout");
    assert_eq!(start.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_nobody_takes_ends_the_connection() {
    let router = Router::new().get("/large", "a lot", |_| {
        ready(text(StatusCode::OK, "x".repeat(64 << 20)))
    });
    let limits = Limits::default();
    let server = mk_server(router, limits).await;
    let start = Instant::now();
    let stream = server.send(b"GET /large HTTP/1.1\r\n\r\n").await;
    stream.readable().await.unwrap();
    server.drain.drain(Mode::Graceful).await;
    assert_eq!(start.elapsed().as_secs(), limits.total_time.as_secs());
    drop(stream);
}

#[tokio::test]
async fn connections_over_the_bound_wait_for_their_turn() {
    let gate = Arc::new(Semaphore::new(0));
    let opener = Arc::clone(&gate);
    let router = Router::new().get("/wait", "waits", move |_| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            text(StatusCode::OK, "done\n")
        }
    });
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let server = mk_server(router, limits).await;
    let ask = || server.ask("GET /wait HTTP/1.1");
    let open = async {
        while server.tasks.running().get("http-connection") != Some(&2) {
            tokio::task::yield_now().await;
        }
        // Whatever else could run has run: the third has not been let in.
        for _ in 0..100 {
            tokio::task::yield_now().await;
            assert_eq!(server.tasks.running()["http-connection"], 2);
        }
        opener.add_permits(3);
    };
    let (one, two, three, ()) =
        timeout(DEADLINE, async { tokio::join!(ask(), ask(), ask(), open) })
            .await
            .unwrap();
    for response in [one, two, three] {
        assert_eq!(body(&response), "done\n");
    }
}

#[tokio::test]
async fn a_handler_that_panics_costs_its_own_request_only() {
    let router = mk_router().get("/panic", "fails", |_| async { panic!("handler") });
    let server = mk_server(router, Limits::default()).await;
    assert_eq!(server.ask("GET /panic HTTP/1.1").await, "");
    assert_eq!(status(&server.ask("GET /hello HTTP/1.1").await), "200 OK");
    server.stop().await;
}

#[tokio::test]
async fn a_graceful_drain_answers_what_is_under_way_and_accepts_nothing_new() {
    let gate = Arc::new(Semaphore::new(0));
    let (opener, entered) = (Arc::clone(&gate), Arc::new(Semaphore::new(0)));
    let begun = Arc::clone(&entered);
    let router = Router::new().get("/wait", "waits", move |_| {
        entered.add_permits(1);
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            text(StatusCode::OK, "done\n")
        }
    });
    let server = mk_server(router, Limits::default()).await;
    let under_way = server.send(b"GET /wait HTTP/1.1\r\n\r\n").await;
    begun.acquire().await.unwrap().forget();

    let (address, tasks) = (server.address, server.tasks.clone());
    let drained = tokio::spawn(server.drain.drain(Mode::Graceful));
    timeout(DEADLINE, async {
        while tasks.running().contains_key("http") {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    assert!(!drained.is_finished());
    opener.add_permits(1);
    assert_eq!(body(&read(under_way).await), "done\n");
    timeout(DEADLINE, drained).await.unwrap().unwrap();
    timeout(DEADLINE, tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn an_immediate_drain_drops_what_is_under_way() {
    let router = Router::new().get("/stuck", "never answers", |_| pending());
    let server = mk_server(router, Limits::default()).await;
    let mut under_way = server.send(b"GET /stuck HTTP/1.1\r\n\r\n").await;
    while !server.tasks.running().contains_key("http-connection") {
        tokio::task::yield_now().await;
    }
    timeout(DEADLINE, server.drain.drain(Mode::Immediate))
        .await
        .unwrap();
    let mut rest = Vec::new();
    drop(under_way.read_to_end(&mut rest).await);
    assert_eq!(rest, b"");
}
