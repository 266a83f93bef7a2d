use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::AsFd as _,
};

use rustix::io::{FdFlags, fcntl_getfd};

use super::*;

fn mk_pipe() -> (File, OwnedFd) {
    let (read, write) = io::pipe().unwrap();
    (File::from(OwnedFd::from(read)), write.into())
}

#[tokio::test]
async fn messages_keep_their_bounds() {
    let (a, b) = Socket::pair().unwrap();
    a.send(b"one", None).await.unwrap();
    a.send(b"second", None).await.unwrap();
    let mut buffer = [0; 16];
    for expected in [&b"one"[..], b"second"] {
        let received = b.recv(&mut buffer).await.unwrap().unwrap();
        assert_eq!(&buffer[..received.len], expected);
        assert!(matches!(received.passed, Passed::Nothing));
    }
}

#[tokio::test]
async fn a_descriptor_arrives_usable_and_is_closed_on_exec() {
    let (a, b) = Socket::pair().unwrap();
    let (mut read, write) = mk_pipe();
    a.send(b"with", Some(write.as_fd())).await.unwrap();
    drop(write);
    let received = b.recv(&mut [0; 16]).await.unwrap().unwrap();
    let Passed::Descriptor(fd) = received.passed else {
        panic!("{received:?}");
    };
    assert!(fcntl_getfd(&fd).unwrap().contains(FdFlags::CLOEXEC));
    File::from(fd).write_all(b"through").unwrap();
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "through");
}

#[tokio::test]
async fn the_end_of_the_connection_is_no_message() {
    let (a, b) = Socket::pair().unwrap();
    drop(a);
    assert!(b.recv(&mut [0; 16]).await.unwrap().is_none());
    let error = b.send(b"x", None).await.unwrap_err();
    assert!(matches!(error, Error::Send(e) if e.kind() == io::ErrorKind::BrokenPipe));
}

#[tokio::test]
async fn a_message_that_does_not_fit_is_an_error_and_its_descriptor_is_closed() {
    let (a, b) = Socket::pair().unwrap();
    let (mut read, write) = mk_pipe();
    a.send(&[7; 17], Some(write.as_fd())).await.unwrap();
    drop(write);
    let error = b.recv(&mut [0; 16]).await.unwrap_err();
    assert_eq!(error.to_string(), "the message is longer than 16 bytes");
    // The end arrives only when the last copy of the writing side is closed.
    assert_eq!(read.read(&mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn more_than_one_descriptor_is_an_error_and_all_are_closed() {
    for count in 2..=ROOM + 1 {
        let (a, b) = Socket::pair().unwrap();
        let (mut read, write) = mk_pipe();
        let fds = vec![write.as_fd(); count];
        a.send_descriptors(b"many", &fds).await.unwrap();
        drop(fds);
        drop(write);
        let error = b.recv(&mut [0; 16]).await.unwrap_err();
        assert!(
            matches!(error, Error::TooManyDescriptors),
            "{count}: {error}"
        );
        assert_eq!(read.read(&mut [0]).unwrap(), 0, "{count} descriptors");
        // The connection itself is not harmed.
        a.send(b"next", None).await.unwrap();
        assert_eq!(b.recv(&mut [0; 16]).await.unwrap().unwrap().len, 4);
    }
}

#[tokio::test]
async fn the_peer_of_an_accepted_connection_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let listener = Listener::bind(folder.path().join("s")).unwrap();
    let _client = Socket::connect(listener.path()).unwrap();
    let (_server, peer) = listener.accept().await.unwrap();
    assert_eq!(peer.pid, i32::try_from(process::id()).unwrap());
    assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
}

#[tokio::test]
async fn only_the_owner_may_connect_and_the_file_goes_with_the_listener() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = Listener::bind(&path).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(listener);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_socket_of_a_dead_process_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    // Dropping the bare socket leaves its file behind, as a killed process does.
    let dead = create().unwrap();
    dead.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    dead.listen(1).unwrap();
    drop(dead);
    let listener = Listener::bind(&path).unwrap();
    let _client = Socket::connect(&path).unwrap();
    listener.accept().await.unwrap();
}

#[tokio::test]
async fn a_socket_in_use_and_a_file_of_another_kind_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = Listener::bind(&path).unwrap();
    let error = Listener::bind(&path).unwrap_err();
    assert!(matches!(error, Error::Occupied { .. }), "{error}");
    Socket::connect(listener.path()).unwrap();

    let file = folder.path().join("f");
    fs::write(&file, "precious").unwrap();
    let error = Listener::bind(&file).unwrap_err();
    assert!(matches!(error, Error::NotASocket { .. }), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn a_listener_does_not_remove_the_file_of_its_successor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let old = Listener::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let new = Listener::bind(&path).unwrap();
    drop(old);
    Socket::connect(new.path()).unwrap();
}

#[tokio::test]
async fn connecting_where_nobody_listens_names_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nobody");
    let error = Socket::connect(&path).unwrap_err();
    assert_eq!(error.to_string(), format!("connect to {}", path.display()));
}

#[tokio::test]
async fn a_sender_waits_for_a_slow_receiver() {
    let (a, b) = Socket::pair().unwrap();
    let message = [1; 1000];
    let send = async {
        for _ in 0..2000 {
            a.send(&message, None).await.unwrap();
        }
    };
    let receive = async {
        for _ in 0..2000 {
            assert_eq!(b.recv(&mut [0; 1024]).await.unwrap().unwrap().len, 1000);
        }
    };
    tokio::join!(send, receive);
}
