//! Each connection is counted exactly once, and only series in use are kept.

use std::time::Duration;

use mesh_core::rbac::Denial;
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::time::{Instant, advance};

use super::{
    Account, Ends,
    labels::{Labels, Peer, Reporter, ResponseFlag, SecurityPolicy},
    metrics::Metrics,
};
use crate::error::Error;

const RETENTION: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

fn mk_metrics() -> (Metrics, Registry) {
    let mut registry = Registry::default();
    (Metrics::new(&mut registry, RETENTION), registry)
}

fn mk_ends(workload: &str) -> Ends {
    let peer = Peer {
        workload: Some(workload.into()),
        ..Peer::default()
    };
    Ends {
        labels: Labels {
            reporter: Reporter::Destination,
            source: peer,
            destination: Peer::default(),
            service: None,
            flag: ResponseFlag::None,
            security: SecurityPolicy::Unknown,
        },
        source: ([10, 0, 0, 1], 1).into(),
        destination: ([10, 0, 0, 2], 2).into(),
        hbone_target: None,
        source_name: None,
        destination_name: None,
    }
}

fn mk_account(metrics: &Metrics, workload: &str) -> Account {
    Account::new(metrics, mk_ends(workload), Instant::now())
}

/// What a scrape shows of connections: name, response flag and value of each series.
fn scrape(registry: &Registry) -> Vec<(String, String, u64)> {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    let mut found: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("istio_tcp_connections_")?.split_once('{'))
        .map(|(name, rest)| {
            let (_, flag) = rest.split_once("response_flags=\"").unwrap();
            let (flag, _) = flag.split_once('"').unwrap();
            let value = rest.rsplit_once(' ').unwrap().1.parse().unwrap();
            (name.to_owned(), flag.to_owned(), value)
        })
        .collect();
    found.sort();
    found
}

fn expect(registry: &Registry, series: &[(&str, &str, u64)]) {
    let owned = |(name, flag, value): &(&str, &str, u64)| {
        (format!("{name}_total"), (*flag).to_owned(), *value)
    };
    assert_eq!(
        scrape(registry),
        series.iter().map(owned).collect::<Vec<_>>()
    );
}

#[test]
fn a_connection_that_is_dropped_is_closed_once_and_without_a_flag() {
    let (metrics, registry) = mk_metrics();
    let account = mk_account(&metrics, "a");
    drop(account);
    expect(&registry, &[("closed", "-", 1), ("opened", "-", 1)]);
}

#[test]
fn a_connection_that_is_finished_is_not_counted_again_when_dropped() {
    let (metrics, registry) = mk_metrics();
    let account = mk_account(&metrics, "a");
    account.finish(Ok(()));
    expect(&registry, &[("closed", "-", 1), ("opened", "-", 1)]);
}

#[test]
fn a_connection_that_fails_is_opened_closed_and_failed_with_its_flag() {
    for error in [Error::Denied, Error::DeniedLate] {
        let (metrics, registry) = mk_metrics();
        mk_account(&metrics, "a").finish(Err(&error(Denial::NoAllowMatched)));
        expect(
            &registry,
            &[
                ("closed", "DENY", 1),
                ("failed", "DENY", 1),
                ("opened", "-", 1),
            ],
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_series_is_forgotten_and_one_in_use_is_kept() {
    let (metrics, registry) = mk_metrics();
    let _used = mk_account(&metrics, "used");
    let idle = mk_account(&metrics, "idle");
    idle.finish(Ok(()));
    advance(RETENTION.saturating_sub(SECOND)).await;
    expect(
        &registry,
        &[("closed", "-", 1), ("opened", "-", 1), ("opened", "-", 1)],
    );
    advance(SECOND).await;
    expect(&registry, &[("opened", "-", 1)]);
}

#[tokio::test(start_paused = true)]
async fn idle_series_do_not_pile_up_though_nobody_scrapes() {
    let (metrics, registry) = mk_metrics();
    let mut most = 0;
    for hour in 0..100 {
        for n in 0..2_000 {
            mk_account(&metrics, &format!("{hour}-{n}")).finish(Ok(()));
        }
        most = most.max(metrics.traffic().len());
        advance(RETENTION).await;
    }
    assert!(most < 80_000, "{most} of 200,000 series at once");
    // The scrape itself forgets what is left.
    assert_eq!(scrape(&registry).len(), 0);
    assert!(metrics.traffic().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_connection_longer_than_the_retention_is_still_seen_to_close() {
    let (metrics, registry) = mk_metrics();
    let account = mk_account(&metrics, "a");
    advance(2 * RETENTION).await;
    drop(account);
    expect(&registry, &[("closed", "-", 1), ("opened", "-", 1)]);
    advance(RETENTION).await;
    expect(&registry, &[]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_always_says_something_new_of_itself_fills_no_memory() {
    let (metrics, registry) = mk_metrics();
    for n in 0..200_000 {
        mk_account(&metrics, &n.to_string()).finish(Ok(()));
    }
    let kept = metrics.traffic().len();
    assert!(kept <= 131_073, "{kept} series");
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let opened = text
        .lines()
        .filter(|line| line.starts_with("istio_tcp_connections_opened_total"));
    let counts = opened.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap());
    assert_eq!(counts.sum::<u64>(), 200_000, "all are counted nevertheless");

    // When it has stopped there is room again, though nobody scrapes.
    advance(RETENTION).await;
    let labels = mk_ends("new").labels;
    assert_eq!(*metrics.traffic().series(&labels).labels(), labels);
}
