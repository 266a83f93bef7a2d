//! What a connection carries: every byte, each half to its own end, and many connections over few tunnels.

use std::time::Duration;

use testkit_net::tcp::{Behaviour, exchange};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::fixture::{Lab, echoes};

/// Time for a large transfer through an unoptimised build on a busy machine.
const LONG: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_after_the_end_of_the_question_arrives() {
    let lab = Lab::with_pair().await;
    let server = lab.serve("web", Behaviour::EchoAtEnd);
    let question = b"and that is all".repeat(1000);
    let pod = lab.pod("curl").unwrap();
    let mark = lab.mark("node1");
    let answer = exchange(pod, server.address(), &question).await.unwrap();
    assert!(answer == question);
    let both = format!("bytes_sent={0} bytes_recv={0}", question.len());
    lab.line("node1", mark, &["complete", &both]).await;
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_transfer_is_whole_in_both_directions_at_once() {
    const SIZE: usize = 48 << 20;
    let lab = Lab::with_pair().await;
    let server = lab.serve("web", Behaviour::Echo);
    let mut random = fastrand::Rng::with_seed(7);
    let data: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
        .take(SIZE)
        .collect();
    let (mut read, mut write) = lab.connect("curl", server.address()).await.into_split();
    let mark = lab.mark("node1");
    let sending = async {
        write.write_all(&data).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut back = Vec::with_capacity(SIZE);
    let receiving = async { read.read_to_end(&mut back).await.unwrap() };
    timeout(LONG, async { tokio::join!(sending, receiving) })
        .await
        .unwrap();
    // Not `assert_eq`: nobody wants to read the difference.
    assert!(back == data);
    drop((read, write));
    let both = format!("bytes_sent={SIZE} bytes_recv={SIZE}");
    lab.line("node1", mark, &["complete", &both]).await;
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_connections_share_a_few_tunnels() {
    const MANY: usize = 200;
    let lab = Lab::with_pair().await;
    let server = lab.serve("web", Behaviour::Echo);
    let opening = (0..MANY).map(|_| lab.connect("curl", server.address()));
    let mut open = futures::future::join_all(opening).await;
    let speaking = open.iter_mut().map(echoes);
    for spoken in futures::future::join_all(speaking).await {
        spoken.unwrap();
    }
    // All are open at this moment.
    let mut addresses: Vec<_> = server.clients();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), MANY);
    let pods = lab.dump("node1")["workloadState"].clone();
    let count = |pod: &serde_json::Value| pod["connections"]["outbound"].as_array().unwrap().len();
    let outbound: usize = pods.as_object().unwrap().values().map(count).sum();
    assert_eq!(outbound, MANY);
    let filter = ["-tnH", "state", "established", "dport", "=", "15008"];
    let tunnels = lab.pod("curl").unwrap().exec("ss", &filter, "").unwrap();
    let tunnels = tunnels.lines().count();
    assert!((1..=8).contains(&tunnels), "{tunnels}");
    drop(open);
    lab.end().await;
}
