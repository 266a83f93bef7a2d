//! What an idle connection costs, measured at the allocator. One test, because the count is of the
//! whole process.
#![expect(unsafe_code, reason = "an allocator that counts")]
#![expect(
    clippy::unwrap_used,
    reason = "what a test needs is there or the test fails"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    future::{Future, pending},
    pin::{Pin, pin},
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use mesh_net::copy::{Counters, End, Error, bidirectional, split};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Counts bytes.
struct Counting;

/// Allocated and not freed.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// Ever allocated.
static TOTAL: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all requests go to the system's allocator as they come, and so do the pointers it returns.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        TOTAL.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above; the pointer came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Much larger than the largest read buffer, and than what sockets hold.
const BURST: usize = 16 * 1024 * 1024;

async fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let address = listener.local_addr().unwrap();
    let peer = TcpStream::connect(address).await.unwrap();
    (listener.accept().await.unwrap().0, peer)
}

fn poll_once(copy: Pin<&mut impl Future<Output = Result<End<()>, Error>>>) {
    let polled = copy.poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Pending));
}

#[tokio::test]
async fn an_idle_connection_holds_no_buffer_before_and_after_a_burst() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (a, mut a_peer) = pair(&listener).await;
    let (b, mut b_peer) = pair(&listener).await;
    let counters = Counters::default();
    let (a, b) = (split(a), split(b));
    let mut received = vec![0; BURST];
    let sent = vec![7; BURST];

    let before = LIVE.load(Ordering::Relaxed);
    let mut copy = pin!(bidirectional(a, b, &counters, pending::<()>()));
    // The runtime supposes that an accepted connection brings data, so that the first poll tries.
    poll_once(copy.as_mut());
    let total = TOTAL.load(Ordering::Relaxed);
    poll_once(copy.as_mut());
    let allocated = TOTAL.load(Ordering::Relaxed) - total;
    assert_eq!(
        allocated, 0,
        "waiting takes no buffer, not even for a moment"
    );
    let idle = LIVE.load(Ordering::Relaxed);
    assert_eq!(idle, before, "a connection without traffic holds nothing");

    let burst = async {
        let (sent, read) = tokio::join!(a_peer.write_all(&sent), b_peer.read_exact(&mut received));
        sent.unwrap();
        read.unwrap();
    };
    let copied = async {
        tokio::select! {
            end = copy.as_mut() => panic!("{end:?}"),
            () = burst => {}
        }
    };
    timeout(Duration::from_secs(60), copied).await.unwrap();
    poll_once(copy.as_mut());
    assert_eq!(counters.totals().forward, BURST as u64);
    let after = LIVE.load(Ordering::Relaxed);
    let held = after.saturating_sub(idle);
    assert!(held < 1024, "{held} bytes are still held after the burst");
}
