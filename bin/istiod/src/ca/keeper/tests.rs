//! Pauses and sizes.

use std::path::Path;

use super::*;

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
