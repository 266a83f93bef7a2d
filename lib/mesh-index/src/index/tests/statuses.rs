//! What objects are told.

use mesh_api::condition::reporter;

use super::*;

fn using(waypoint: &str) -> Value {
    labelled(json!({"istio.io/use-waypoint": waypoint}))
}

#[test]
fn a_status_is_said_once_and_withdrawn_when_it_no_longer_applies() {
    let mut mesh = Mesh::of([gateway("wp", json!({}))]);
    let update = |conditions| StatusUpdate {
        kind: Kind::Service,
        key: Key::new("shop", "web"),
        generation: 0,
        reporter: reporter::SERVICE,
        conditions,
        addresses: vec![],
    };
    let accepted = Condition {
        kind: "istio.io/WaypointBound",
        status: true,
        reason: "WaypointAccepted",
        message: "traffic goes through waypoint shop/wp".into(),
    };
    assert_eq!(
        mesh.apply(service("web", using("wp"))).statuses,
        [update(vec![accepted])]
    );
    assert_eq!(mesh.apply(service("web", using("wp"))).statuses, []);
    assert_eq!(
        mesh.apply(service("web", json!({}))).statuses,
        [update(vec![])]
    );
    assert_eq!(mesh.apply(service("web", json!({}))).statuses, []);
}

#[test]
fn what_an_earlier_leader_wrote_and_does_not_hold_is_withdrawn() {
    let stale = json!({"status": {"conditions": [{
        "type": "istio.io/WaypointBound", "status": "True", "reason": "WaypointAccepted",
        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]}});
    let mut mesh = Mesh::of([service("web", json!({}))]);
    assert!(mesh.statuses.is_empty());
    let output = mesh.apply(service("web", stale));
    assert_eq!(output.statuses.len(), 1);
    assert!(output.statuses[0].conditions.is_empty());
}

#[test]
fn what_was_said_of_an_object_that_can_no_longer_be_used_is_withdrawn() {
    let mut mesh = Mesh::of([gateway("wp", json!({})), service("web", using("wp"))]);
    let alias = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let output = mesh.apply(service("web", merged(using("wp"), alias)));
    assert_eq!(output.statuses.len(), 1);
    assert!(output.statuses[0].conditions.is_empty());
}

#[test]
fn an_object_that_was_made_anew_is_told_anew() {
    let mut mesh = Mesh::of([gateway("wp", json!({})), service("web", using("wp"))]);
    mesh.index.delete(Kind::Service, &Key::new("shop", "web"));
    assert_eq!(mesh.apply(service("web", using("wp"))).statuses.len(), 1);
}

#[test]
fn a_new_leader_hears_every_status_again() {
    let mut mesh = Mesh::of([
        gateway("wp", json!({})),
        service("web", using("wp")),
        service("plain", json!({})),
        authorization_policy("all", json!({})),
    ]);
    assert_eq!(mesh.hear(), Output::default());
    mesh.index.resend_statuses();
    let output = mesh.hear();
    assert_eq!((output.changes.len(), output.statuses.len()), (0, 2));
}

#[test]
fn the_status_of_an_object_that_is_gone_is_nobody_s_business() {
    let mut mesh = Mesh::of([gateway("wp", json!({})), service("web", using("wp"))]);
    assert_eq!(mesh.delete(Kind::Service, "shop", "web").statuses, []);
    assert_eq!(mesh.delete(Kind::Gateway, "shop", "wp").statuses, []);
}

#[test]
fn a_workload_entry_is_told_of_its_waypoint_unless_that_is_for_others() {
    let mut mesh = Mesh::of([
        namespace("shop", using("wp")),
        gateway("wp", json!({})),
        workload_entry("vm", json!({})),
    ]);
    assert!(mesh.reasons(Kind::WorkloadEntry, "shop", "vm").is_empty());
    mesh.apply(workload_entry("vm", using("wp")));
    let told = mesh.reasons(Kind::WorkloadEntry, "shop", "vm");
    assert_eq!(told, ["WaypointBound=false/UnsupportedTrafficType"]);
    let reporters: Vec<_> = mesh
        .statuses
        .keys()
        .map(|(.., reporter)| *reporter)
        .collect();
    assert_eq!(reporters, [reporter::WORKLOAD_ENTRY]);
}

#[test]
fn an_entry_is_told_who_sees_it_and_whether_it_needs_a_waypoint() {
    let wildcard = json!({"spec": {"hosts": ["*.example"], "resolution": "DYNAMIC_DNS"}});
    let mut mesh = Mesh::of([entry("api", wildcard.clone())]);
    assert_eq!(
        mesh.reasons(Kind::ServiceEntry, "shop", "api"),
        [
            "WaypointMissing=true/NoWaypointForWildcardService",
            "VisibilityApplied=true/Public",
        ]
    );
    mesh.apply(gateway("wp", json!({})));
    let own = merged(wildcard, json!({"spec": {"exportTo": ["."]}}));
    mesh.apply(entry("api", merged(own, using("wp"))));
    assert_eq!(
        mesh.reasons(Kind::ServiceEntry, "shop", "api"),
        [
            "WaypointBound=true/WaypointAccepted",
            "VisibilityApplied=true/Namespace",
        ]
    );
}

#[test]
fn an_entry_whose_addresses_race_is_told_that_it_needs_a_waypoint() {
    let strategy = |strategy: &str, resolution: &str| {
        merged(
            json!({"spec": {"resolution": resolution}}),
            annotated(json!({"ambient.istio.io/connect-strategy": strategy})),
        )
    };
    let race = strategy("FIRST_HEALTHY_RACE", "DNS");
    let missing = "WaypointMissing=true/NoWaypointForRacingConnectStrategy";
    let mut mesh = Mesh::of([entry("api", race.clone()), gateway("wp", json!({}))]);
    let told = |mesh: &Mesh| mesh.reasons(Kind::ServiceEntry, "shop", "api")[0].clone();
    assert_eq!(told(&mesh), missing);
    mesh.apply(entry("api", merged(race, using("wp"))));
    assert_eq!(told(&mesh), "WaypointBound=true/WaypointAccepted");
    for (stated, resolution, problems) in [
        ("DEFAULT", "DNS", 0),
        ("FIRST_HEALTHY_RACE", "STATIC", 0),
        ("RACE", "DNS", 1),
    ] {
        mesh.problems.clear();
        mesh.apply(entry("api", strategy(stated, resolution)));
        assert_eq!(
            told(&mesh),
            "VisibilityApplied=true/Public",
            "{stated} {resolution}"
        );
        assert_eq!(mesh.problems.len(), problems, "{:?}", mesh.problems);
    }
}

#[test]
fn a_generation_that_was_looked_at_is_said_even_if_nothing_else_is_new() {
    let mut mesh = Mesh::of([entry("api", json!({}))]);
    let output = mesh.apply(entry("api", json!({"metadata": {"generation": 2}})));
    assert_eq!(output.changes, []);
    assert_eq!(output.statuses.len(), 1);
    assert_eq!(output.statuses[0].generation, 2);
}
