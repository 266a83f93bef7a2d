use std::{os::unix::net::UnixListener, thread};

use proptest::prelude::*;

use super::*;

const SOON: Duration = Duration::from_secs(10);

/// One connection that is answered with these bytes, and what was asked on it.
fn exchange(answer: &'static [u8], patience: Duration) -> (Result<Answer, Error>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let agent = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).unwrap();
        request.truncate(length);
        stream.write_all(answer).unwrap();
        // An answer without an end is one that never comes.
        let _end = answer.is_empty().then(|| stream.read(&mut [0]));
        request
    });
    let answer = post(&socket, "/v1/add", b"{\"a\":1}", Instant::now() + patience);
    (answer, agent.join().unwrap())
}

#[test]
fn request_is_posted_and_answer_read() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\n\r\n{}";
    let (answer, request) = exchange(answer, SOON);
    let answer = answer.unwrap();
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (200, b"{}".as_slice())
    );
    let request = String::from_utf8(request).unwrap();
    assert!(
        request.starts_with("POST /v1/add HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(request.contains("Content-Length: 7\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"a\":1}"), "{request}");
}

#[test]
fn answer_without_a_length_ends_with_the_connection() {
    let (answer, _) = exchange(b"HTTP/1.0 500 Oops\r\n\r\nno ztunnel", SOON);
    let answer = answer.unwrap();
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (500, b"no ztunnel".as_slice())
    );
}

#[test]
fn answer_that_breaks_off_is_none() {
    for answer in [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}".as_slice(),
        b"HTTP/1.1 200 OK\r\n",
    ] {
        let (answer, _) = exchange(answer, SOON);
        assert!(matches!(answer, Err(Error::Broken(_))), "{answer:?}");
    }
}

#[test]
fn what_is_not_http_is_refused() {
    for (answer, fault) in [
        (
            b"SSH-2.0-OpenSSH\r\n\r\n".as_slice(),
            "it does not begin with an HTTP status",
        ),
        (
            b"HTTP/1.1 OK\r\n\r\n",
            "it does not begin with an HTTP status",
        ),
        (
            b"HTTP/1.1 999 OK\r\n\r\n",
            "it does not begin with an HTTP status",
        ),
        (b"HTTP/1.1 200 \xff\r\n\r\n", "its head is not text"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "its length is not one, or over 1 MiB",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "it is encoded for transfer",
        ),
    ] {
        let error = exchange(answer, SOON).0.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("read the agent's answer: {fault}")
        );
    }
    let endless = vec![b'x'; MAX_HEAD];
    assert!(matches!(
        complete(&endless, false),
        Err(Error::Malformed { .. })
    ));
}

#[test]
fn silent_agent_is_waited_for_until_the_deadline() {
    let (answer, _) = exchange(b"", Duration::from_millis(20));
    assert!(matches!(answer, Err(Error::TimedOut)), "{answer:?}");
}

#[test]
fn absent_agent_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no.sock");
    let stale = folder.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let long = folder.path().join("x".repeat(200));
    for socket in [missing, stale, long] {
        let answer = post(&socket, "/", b"", Instant::now() + SOON);
        assert!(matches!(answer, Err(Error::Connect { .. })), "{answer:?}");
    }
}

#[test]
fn full_queue_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let address = SocketAddrUnix::new(&socket).unwrap();
    let listener = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    rustix::net::bind(&listener, &address).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let mut waiting = Vec::new();
    let error = loop {
        match open(&socket) {
            Ok(stream) => waiting.push(stream),
            Err(error) => break error,
        }
        assert!(waiting.len() < 100, "the queue has no end");
    };
    assert!(matches!(error, Error::Connect { .. }), "{error}");
}

#[test]
fn only_root_is_talked_to() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), open_to_all).unwrap();
    let path = socket.clone();
    // Of the thread alone, which is what the kernel looks at.
    let nobody = thread::spawn(move || {
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65534)).unwrap();
        UnixListener::bind(path).unwrap()
    });
    let _listener = nobody.join().unwrap();
    let answer = post(&socket, "/", b"", Instant::now() + SOON);
    assert!(
        matches!(answer, Err(Error::NotRoot { uid: 65534, .. })),
        "{answer:?}"
    );
}

proptest! {
    /// However an answer is cut into pieces, it is complete at the same byte.
    #[test]
    fn answer_is_complete_when_all_of_it_is_there(body in ".{0,40}", more in "[a-z]{0,9}") {
        let head = format!("HTTP/1.1 503 x\r\nA: {more}\r\nContent-Length: {}\r\n\r\n", body.len());
        let whole = [head.as_bytes(), body.as_bytes()].concat();
        for cut in 0..whole.len() {
            prop_assert!(complete(&whole[..cut], false).unwrap().is_none());
        }
        let answer = complete(&whole, false).unwrap().unwrap();
        prop_assert_eq!((answer.status, answer.body), (503, body.into_bytes()));
    }
}
