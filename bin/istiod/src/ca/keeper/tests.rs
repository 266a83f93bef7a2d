//! Pauses and sizes.

use std::path::Path;

use serde_json::json;
use tokio::{task::AbortHandle, time::sleep};

use super::*;
use crate::fake::{FakeApi, Network};

const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn mk_settings(files: &Path) -> Settings {
    Settings {
        files: files.to_owned(),
        namespace: "istio-system".into(),
        organization: "cluster.local".into(),
        kind: RootKind::EcP256,
        root_ttl: 1000 * HOUR,
        check_interval: HOUR,
        jitter: false,
        grace_percent: 20,
        default_ttl: 24 * HOUR,
        max_ttl: 90 * 24 * HOUR,
        clock: Clock::system(),
    }
}

#[test]
fn lives_are_written_down_in_few_sizes() {
    let settings = mk_settings(Path::new("/nowhere"));
    let sizes = (1..90 * 24).map(|hours| settings.rounded(hours * HOUR));
    let sizes: std::collections::BTreeSet<_> = sizes.collect();
    let days: Vec<_> = sizes.iter().map(|size| size.as_secs() / 86_400).collect();
    assert_eq!(days, [1, 2, 4, 8, 16, 32, 64, 90]);
    for hours in 1..=90 * 24 {
        assert!(settings.rounded(hours * HOUR) >= hours * HOUR);
    }
}

#[test]
fn the_root_is_looked_at_in_time_and_never_in_a_tight_loop() {
    let at = SystemTime::UNIX_EPOCH + 1_000_000 * HOUR;
    let mut settings = Settings {
        clock: Clock::new(move || at),
        ..mk_settings(Path::new("/nowhere"))
    };
    let second = Duration::from_secs(1);
    for (due, pause) in [
        (None, HOUR),
        (Some(at + 5 * HOUR), HOUR),
        (Some(at + HOUR / 2), HOUR / 2),
        (Some(at), second),
        (Some(at - HOUR), second),
    ] {
        assert_eq!(settings.pause(due), pause);
    }
    settings.jitter = true;
    for _ in 0..100 {
        let pause = settings.pause(None);
        assert!(
            pause >= HOUR.mul_f64(0.9) && pause <= HOUR.mul_f64(1.1),
            "{pause:?}"
        );
    }
}

const SECRET: &str = "/api/v1/namespaces/istio-system/secrets/istio-ca-secret";

/// A replica that keeps a root as long as the test runs, which is on a paused clock.
struct Replica {
    api: FakeApi,
    authority: Authority,
    leader: watch::Sender<bool>,
    keeping: AbortHandle,
}

impl Replica {
    async fn start() -> Self {
        let api = FakeApi::default();
        let settings = mk_settings(Path::new("/nowhere"));
        let opened = Authority::open(
            settings,
            api.client(),
            Metrics::default(),
            collection::Metrics::default(),
        );
        let (authority, keeper) = opened.await.unwrap();
        let leader = watch::Sender::new(false);
        let keeping = tokio::spawn(keeper.run(leader.subscribe())).abort_handle();
        Self {
            api,
            authority,
            leader,
            keeping,
        }
    }

    fn roots(&self) -> usize {
        let issuer = self.authority.current().get();
        issuer.roots().matches("BEGIN CERTIFICATE").count()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_signed_once_the_secret_has_not_been_seen_for_an_hour() {
    let replica = Replica::start().await;
    let minutes = |count: u32| sleep(count * HOUR / 60);
    let reserve = || replica.authority.reserve(HOUR);
    // However quiet it is, as long as the API server answers.
    minutes(180).await;
    reserve().await.unwrap();
    for network in [Network::Refuses, Network::Hangs] {
        replica.api.becomes(network);
        minutes(49).await;
        reserve().await.unwrap();
        minutes(12).await;
        let refused = reserve().await.unwrap_err();
        assert!(matches!(refused, Error::Unconfirmed(_)), "{refused}");
        replica.api.becomes(Network::Works);
        minutes(11).await;
        reserve().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_lead_changes_nothing() {
    let replica = Replica::start().await;
    let mut secret = replica.api.object(SECRET).unwrap();
    let written = replica.api.writes();
    // Long enough for everything that happens from time to time.
    sleep(3 * HOUR).await;
    secret["metadata"]["annotations"][secret::ROTATE] = json!("now");
    replica.api.put(SECRET, secret);
    sleep(3 * HOUR).await;
    assert_eq!(replica.api.writes(), written);
    assert_eq!(replica.roots(), 1);
    replica.leader.send_replace(true);
    sleep(HOUR).await;
    assert_ne!(replica.api.writes(), written);
    assert_eq!(replica.roots(), 2);
}
