//! Notes become Events, without anybody waiting.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, ObjectReference};
use kube::{Api, api::ListParams};
use mesh_kube::events::{Note, Reporter, Severity, channel};
use tokio::{sync::oneshot, time::timeout};

use super::support::start;

fn mk_note(message: &str) -> Note {
    Note {
        regarding: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some("default".into()),
            name: Some("web".into()),
            uid: Some("1-2-3".into()),
            ..ObjectReference::default()
        },
        severity: Severity::Warning,
        reason: "NotEnrolled".into(),
        action: "Enrol".into(),
        message: message.into(),
    }
}

fn mk_reporter() -> Reporter {
    Reporter {
        controller: "istiod".into(),
        instance: "istiod-0".into(),
    }
}

#[tokio::test]
async fn a_note_taken_many_times_is_one_event_with_a_count() {
    let (_server, client) = start().await;
    let (recorder, publisher) = channel(client.clone(), mk_reporter());
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(publisher.run(async { drop(stopped.await) }));
    for _ in 0..5 {
        recorder.record(mk_note("the same"));
    }
    recorder.record(mk_note("another"));
    drop(stop);
    timeout(Duration::from_secs(20), task)
        .await
        .unwrap()
        .unwrap();

    let api = Api::<Event>::namespaced(client, "default");
    let events = api.list(&ListParams::default()).await.unwrap();
    let ours = events
        .items
        .iter()
        .filter(|event| event.reason.as_deref() == Some("NotEnrolled"));
    let mut counts: Vec<_> = ours
        .map(|event| (event.message.clone().unwrap(), event.count.unwrap()))
        .collect();
    counts.sort();
    assert_eq!(counts, [("another".into(), 1), ("the same".into(), 5)]);
    let event = &events.items[0];
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    assert_eq!(event.involved_object.name.as_deref(), Some("web"));
    assert_eq!(event.reporting_component.as_deref(), Some("istiod"));
}

#[tokio::test]
async fn a_server_that_is_away_never_makes_the_recorder_wait() {
    let (server, client) = start().await;
    server.stop().await;
    let (recorder, publisher) = channel(client, mk_reporter());
    for number in 0..3000 {
        recorder.record(mk_note(&number.to_string()));
    }
    assert!(recorder.dropped() > 1000);
    timeout(Duration::from_secs(20), publisher.run(async {}))
        .await
        .unwrap();
}
