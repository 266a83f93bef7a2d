use std::pin::pin;

use futures::{FutureExt as _, poll};

use super::*;
use crate::hbone::{
    settings::Settings,
    testing::{pair, soon, tunnel},
};

async fn send_all(sink: &mut Sink, total: usize, chunk: impl Fn(usize) -> usize) {
    let mut sent = 0;
    while sent < total {
        let length = chunk(sent).clamp(1, total - sent);
        sink.write(pattern(sent, length)).await.unwrap();
        sent += length;
    }
    sink.finish().await.unwrap();
}

/// Reads to the end, checks every byte and returns how many there were.
async fn receive_all(source: &mut Source) -> usize {
    let mut received = 0;
    while let Some(chunk) = source.next().await.unwrap() {
        assert_eq!(chunk, pattern(received, chunk.len()), "at {received}");
        received += chunk.len();
    }
    received
}

/// Bytes that differ at every offset up to 251 × 241.
fn pattern(offset: usize, length: usize) -> Bytes {
    let byte = |at: usize| ((at % 251) ^ (at / 251 % 241)).to_le_bytes()[0];
    (offset..offset + length).map(byte).collect()
}

#[tokio::test]
async fn large_transfers_arrive_unchanged_both_ways_at_once() {
    const TOTAL: usize = 6 * 1024 * 1024;
    let settings = Settings::default();
    let (client, mut server) = pair(&settings, &settings).await;
    let (near, far) = tunnel(&client, &mut server).await;
    let (mut near_source, mut near_sink) = near.into_split();
    let (mut far_source, mut far_sink) = far.into_split();
    let (received, returned, (), ()) = soon(async {
        tokio::join!(
            receive_all(&mut far_source),
            receive_all(&mut near_source),
            send_all(&mut near_sink, TOTAL, |sent| 1 + sent * 7919 % 300_000),
            send_all(&mut far_sink, TOTAL, |sent| 1 + sent * 6007 % 20_000),
        )
    })
    .await;
    assert_eq!((received, returned), (TOTAL, TOTAL));
}

#[tokio::test]
async fn half_close_by_the_client_leaves_the_other_direction_open() {
    let settings = Settings::default();
    let (client, mut server) = pair(&settings, &settings).await;
    let (near, far) = tunnel(&client, &mut server).await;
    half_closed(near, far).await;
}

#[tokio::test]
async fn half_close_by_the_server_leaves_the_other_direction_open() {
    let settings = Settings::default();
    let (client, mut server) = pair(&settings, &settings).await;
    let (near, far) = tunnel(&client, &mut server).await;
    half_closed(far, near).await;
}

#[tokio::test]
async fn a_peer_that_gives_up_after_half_closing_is_noticed() {
    let settings = Settings::default();
    let (client, mut server) = pair(&settings, &settings).await;
    let (near, far) = tunnel(&client, &mut server).await;
    let (near_source, mut near_sink) = near.into_split();
    let (mut far_source, mut far_sink) = far.into_split();
    soon(async {
        near_sink.finish().await.unwrap();
        assert_eq!(far_source.next().await.unwrap(), None);
        assert!(poll!(pin!(far_sink.closed())).is_pending());
        drop((near_source, near_sink));
        far_sink.closed().await;
    })
    .await;
}

async fn half_closed(first: Stream, second: Stream) {
    let (mut first_source, mut first_sink) = first.into_split();
    let (mut second_source, mut second_sink) = second.into_split();
    soon(async {
        send_all(&mut first_sink, 100, |_| 100).await;
        assert_eq!(receive_all(&mut second_source).await, 100);
        assert_eq!(second_source.next().await.unwrap(), None, "the end stays");
        send_all(&mut second_sink, 100_000, |_| 10_000).await;
        assert_eq!(receive_all(&mut first_source).await, 100_000);
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_dropped_by_the_client_is_a_reset_to_the_server() {
    let settings = Settings::default();
    let (client, mut server) = pair(&settings, &settings).await;
    let (near, far) = tunnel(&client, &mut server).await;
    dropped(near, far).await;
}

#[tokio::test]
async fn a_tunnel_dropped_by_the_server_is_a_reset_to_the_client() {
    let settings = Settings::default();
    let (client, mut server) = pair(&settings, &settings).await;
    let (near, far) = tunnel(&client, &mut server).await;
    dropped(far, near).await;
}

async fn dropped(first: Stream, second: Stream) {
    let (mut source, mut sink) = second.into_split();
    drop(first);
    let received = soon(source.next()).await.unwrap_err();
    assert_eq!(received.kind(), io::ErrorKind::ConnectionReset);
    let sent = soon(sink.write(pattern(0, 10))).await.unwrap_err();
    assert_eq!(sent.kind(), io::ErrorKind::ConnectionReset);
    let finished = soon(sink.finish()).await.unwrap_err();
    assert_eq!(finished.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_reaches_a_sender_that_waits_for_room() {
    let settings = Settings::default();
    let (client, mut server) = pair(&settings, &settings).await;
    let (near, far) = tunnel(&client, &mut server).await;
    let (_source, mut sink) = near.into_split();
    let blocked = async { while sink.write(pattern(0, 100_000)).await.is_ok() {} };
    let mut blocked = pin!(blocked);
    assert!(poll!(&mut blocked).is_pending());
    drop(far);
    soon(blocked).await;
}

#[tokio::test]
async fn a_failure_of_the_peer_keeps_its_reason() {
    let error = into_io(Reason::INTERNAL_ERROR.into());
    assert_eq!(error.kind(), io::ErrorKind::Other);
    for reason in [Reason::CANCEL, Reason::NO_ERROR, Reason::STREAM_CLOSED] {
        assert_eq!(
            into_io(reason.into()).kind(),
            io::ErrorKind::ConnectionReset
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_stalls_its_sender_and_holds_one_window_at_most() {
    let settings = Settings {
        stream_window: 256 * 1024,
        send_buffer: 64 * 1024,
        ..Settings::default()
    };
    let (client, mut server) = pair(&settings, &settings).await;
    let (near, far) = tunnel(&client, &mut server).await;
    let (_near_source, mut near_sink) = near.into_split();
    let (mut far_source, _far_sink) = far.into_split();

    let mut sent = 0;
    let stalled = tokio::time::timeout(std::time::Duration::from_secs(5), async {
        loop {
            near_sink.write(pattern(sent, 8192)).await.unwrap();
            sent += 8192;
        }
    });
    assert!(stalled.await.is_err(), "the sender never has to wait");
    let most = settings.stream_window as usize + settings.send_buffer;
    assert!(sent <= most, "{sent} bytes are held, more than {most}");

    // Taking a chunk is not delivering it.
    let first = soon(far_source.next()).await.unwrap().unwrap();
    assert_eq!(far_source.unreleased, first.len());
    assert!(far_source.stream.flow_control().used_capacity() >= first.len());

    let rest = async {
        let mut received = first.len();
        while received < sent {
            received += far_source.next().await.unwrap().unwrap().len();
        }
    };
    soon(rest).await;
    soon(near_sink.write(pattern(sent, 8192))).await.unwrap();
}

#[tokio::test]
async fn a_slow_reader_does_not_stall_other_tunnels() {
    const TOTAL: usize = 5 * 1024 * 1024;
    let settings = Settings::default();
    let (client, mut server) = pair(&settings, &settings).await;
    let (slow, _unread) = tunnel(&client, &mut server).await;
    let (_, mut slow_sink) = slow.into_split();
    let mut blocked = pin!(async { while slow_sink.write(pattern(0, 65536)).await.is_ok() {} });
    let (near, far) = tunnel(&client, &mut server).await;
    let (_near_source, mut sink) = near.into_split();
    let (mut source, _far_sink) = far.into_split();
    let transfer = async {
        let (received, ()) = tokio::join!(
            receive_all(&mut source),
            send_all(&mut sink, TOTAL, |_| 65536)
        );
        assert_eq!(received, TOTAL);
    };
    tokio::select! {
        () = soon(transfer) => {}
        () = &mut blocked => panic!("the slow tunnel broke"),
    }
}

#[tokio::test]
async fn a_receiver_that_is_dropped_gives_back_what_it_held() {
    let settings = Settings {
        stream_window: 65_535,
        connection_window: 65_535,
        ..Settings::default()
    };
    let (client, mut server) = pair(&settings, &settings).await;
    let (near, far) = tunnel(&client, &mut server).await;
    let (_, mut near_sink) = near.into_split();
    let (mut far_source, _far_sink) = far.into_split();
    soon(near_sink.write(pattern(0, 65_535))).await.unwrap();
    let mut held = 0;
    while held < 65_535 {
        held += soon(far_source.next_chunk_kept()).await.len();
    }
    drop(far_source);
    // Needs the connection's window, all of which the half that is left would hold.
    let (near, far) = tunnel(&client, &mut server).await;
    let (_near_source, mut sink) = near.into_split();
    let (mut source, _sink) = far.into_split();
    let (received, ()) = soon(async {
        tokio::join!(
            receive_all(&mut source),
            send_all(&mut sink, 65_535, |_| 65_535)
        )
    })
    .await;
    assert_eq!(received, 65_535);
}

#[tokio::test]
async fn a_small_chunk_waits_until_the_one_before_has_left() {
    let settings = Settings::default();
    let (client, mut server) = pair(&settings, &settings).await;
    let (near, _far) = tunnel(&client, &mut server).await;
    let (_source, mut sink) = near.into_split();
    assert!(sink.write(pattern(0, 1)).now_or_never().is_some());
    // The connection's task has not run since.
    assert!(sink.write(pattern(1, 1)).now_or_never().is_none());
    assert!(sink.write(pattern(1, SMALL_CHUNK)).now_or_never().is_some());
    soon(sink.write(pattern(0, 1))).await.unwrap();
}

#[tokio::test]
async fn many_small_chunks_do_not_exhaust_a_strict_peer() {
    let settings = Settings::default();
    // The budget of h2 0.4.16: a hundred unread frames.
    let strict = Settings {
        small_frame_budget: 25_600,
        ..Settings::default()
    };
    let (client, mut server) = pair(&settings, &strict).await;
    let (near, far) = tunnel(&client, &mut server).await;
    let (_near_source, mut sink) = near.into_split();
    let (mut source, _far_sink) = far.into_split();
    let (received, ()) =
        soon(async { tokio::join!(receive_all(&mut source), send_all(&mut sink, 20_000, |_| 1)) })
            .await;
    assert_eq!(received, 20_000);
}

#[tokio::test]
async fn an_empty_chunk_is_no_frame() {
    let settings = Settings::default();
    let (client, mut server) = pair(&settings, &settings).await;
    let (near, far) = tunnel(&client, &mut server).await;
    let (_near_source, mut sink) = near.into_split();
    let (mut source, _far_sink) = far.into_split();
    let sending = async {
        // A peer allows a hundred frames without bytes in a connection's life.
        for _ in 0..300 {
            sink.write(Bytes::new()).await.unwrap();
            tokio::task::yield_now().await;
        }
        send_all(&mut sink, 10, |_| 10).await;
    };
    let (received, ()) = soon(async { tokio::join!(receive_all(&mut source), sending) }).await;
    assert_eq!(received, 10);
}

#[tokio::test]
async fn what_is_here_already_is_taken_without_waiting() {
    let settings = Settings::default();
    let (client, mut server) = pair(&settings, &settings).await;
    let (near, far) = tunnel(&client, &mut server).await;
    let (_near_source, mut sink) = near.into_split();
    let (mut source, _far_sink) = far.into_split();
    assert_eq!(source.next_ready(), None);
    soon(sink.write(pattern(0, 2000))).await.unwrap();
    soon(sink.write(pattern(2000, 2000))).await.unwrap();
    let first = soon(source.next()).await.unwrap().unwrap();
    let mut second = source.next_ready();
    while second.is_none() {
        tokio::task::yield_now().await;
        second = source.next_ready();
    }
    let second = second.unwrap();
    assert_eq!(source.unreleased, first.len() + second.len());
    assert_eq!(second, pattern(2000, 2000));
}

impl Source {
    /// The next chunk, without telling the peer that the one before was delivered.
    async fn next_chunk_kept(&mut self) -> Bytes {
        let next = poll_fn(|cx| self.poll_next(cx));
        next.await.unwrap().expect("more to come")
    }
}
