//! Watches, from wherever they start to whatever ends them.

use std::pin::pin;

use futures::{AsyncBufReadExt as _, Stream, StreamExt as _, TryStreamExt as _};
use http::Request;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::watcher::{self, watcher},
};
use serde_json::{Value, json};
use testkit_kube::{
    server::{ApiServer, Options},
    store::GroupResource,
};
use tokio::time::timeout;

use super::fixture::{DEADLINE, get, mk, mk_map, start};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const STORED: GroupResource = GroupResource::new("", "configmaps");

/// The events of a watch, as they are.
async fn watch(
    client: &Client,
    path: &str,
    query: &str,
) -> impl Stream<Item = Value> + Unpin + use<> {
    let uri = format!("{path}?watch=true&{query}");
    let request = Request::get(uri).body(Vec::new()).unwrap();
    let lines = client.request_stream(request).await.unwrap().lines();
    Box::pin(lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()))
}

async fn next(events: &mut (impl Stream<Item = Value> + Unpin)) -> Value {
    timeout(DEADLINE, events.next())
        .await
        .expect("an event in time")
        .expect("an event")
}

/// The type and the name of the next event.
async fn brief(events: &mut (impl Stream<Item = Value> + Unpin)) -> (String, String) {
    let event = next(events).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (
        text(&event["type"]),
        text(&event["object"]["metadata"]["name"]),
    )
}

fn told(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

fn seed(server: &ApiServer, name: &str, app: &str) {
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
    });
    server.store().put(&STORED, object);
}

#[tokio::test]
async fn a_watch_goes_on_from_any_version_that_is_remembered() {
    let (server, client) = start().await;
    seed(&server, "a", "x");
    let version = server.store().resource_version();
    seed(&server, "a", "y");
    seed(&server, "b", "x");
    let mut events = watch(&client, MAPS, &format!("resourceVersion={version}")).await;
    assert_eq!(brief(&mut events).await, told("MODIFIED", "a"));
    assert_eq!(brief(&mut events).await, told("ADDED", "b"));
    server.store().remove(&STORED, "default", "b");
    let deleted = next(&mut events).await;
    assert_eq!(deleted["type"], "DELETED");
    let now = server.store().resource_version().to_string();
    assert_eq!(deleted["object"]["metadata"]["resourceVersion"], json!(now));
}

#[tokio::test]
async fn a_watch_without_a_version_begins_with_what_is_there() {
    let (server, client) = start().await;
    seed(&server, "a", "x");
    let mut events = watch(&client, MAPS, "labelSelector=app").await;
    assert_eq!(brief(&mut events).await, told("ADDED", "a"));
    seed(&server, "b", "x");
    assert_eq!(brief(&mut events).await, told("ADDED", "b"));
}

#[tokio::test]
async fn an_object_that_leaves_the_selection_is_deleted_for_its_watcher() {
    let (server, client) = start().await;
    let version = server.store().resource_version();
    let query = format!("resourceVersion={version}&labelSelector=app%3Dx");
    let mut events = watch(&client, MAPS, &query).await;
    seed(&server, "a", "x");
    seed(&server, "a", "y");
    seed(&server, "a", "x");
    assert_eq!(brief(&mut events).await, told("ADDED", "a"));
    assert_eq!(brief(&mut events).await, told("DELETED", "a"));
    assert_eq!(brief(&mut events).await, told("ADDED", "a"));
}

#[tokio::test]
async fn pods_are_watched_by_their_node() {
    let (server, client) = start().await;
    let pods = GroupResource::new("", "pods");
    let put = |name: &str, node: &str| {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": node, "containers": []},
        });
        server.store().put(&pods, pod);
    };
    put("a", "one");
    put("b", "two");
    let mut events = watch(&client, "/api/v1/pods", "fieldSelector=spec.nodeName%3Dtwo").await;
    assert_eq!(brief(&mut events).await, told("ADDED", "b"));
    put("c", "one");
    put("d", "two");
    assert_eq!(brief(&mut events).await, told("ADDED", "d"));
}

#[tokio::test]
async fn the_initial_state_is_streamed_and_marked() {
    let (server, client) = start().await;
    seed(&server, "a", "x");
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=app";
    let mut events = watch(&client, MAPS, query).await;
    assert_eq!(brief(&mut events).await, told("ADDED", "a"));
    let mark = next(&mut events).await;
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["kind"], "ConfigMap");
    let metadata = &mark["object"]["metadata"];
    assert_eq!(metadata["annotations"]["k8s.io/initial-events-end"], "true");
    let version = server.store().resource_version().to_string();
    assert_eq!(metadata["resourceVersion"], json!(version));
}

#[tokio::test]
async fn bookmarks_move_a_watch_on_that_has_nothing_to_tell() {
    let (server, client) = start().await;
    let version = server.store().resource_version();
    let query =
        format!("resourceVersion={version}&allowWatchBookmarks=true&labelSelector=app%3Dnever");
    let mut events = watch(&client, MAPS, &query).await;
    seed(&server, "a", "x");
    server.send_bookmarks();
    let mark = next(&mut events).await;
    assert_eq!(mark["type"], "BOOKMARK");
    let version = server.store().resource_version().to_string();
    assert_eq!(
        mark["object"]["metadata"]["resourceVersion"],
        json!(version)
    );
}

#[tokio::test]
async fn a_version_that_has_expired_is_told_in_the_stream() {
    let (server, client) = start().await;
    let version = server.store().resource_version();
    seed(&server, "a", "x");
    server.compact();
    let mut events = watch(&client, MAPS, &format!("resourceVersion={version}")).await;
    let error = next(&mut events).await;
    assert_eq!(error["type"], "ERROR");
    assert_eq!(
        (&error["object"]["code"], &error["object"]["reason"]),
        (&json!(410), &json!("Expired"))
    );
    assert!(timeout(DEADLINE, events.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn compaction_leaves_connected_watches_alone() {
    let (server, client) = start().await;
    let version = server.store().resource_version();
    let mut events = watch(
        &client,
        MAPS,
        &format!("resourceVersion={version}&allowWatchBookmarks=true"),
    )
    .await;
    seed(&server, "a", "x");
    assert_eq!(brief(&mut events).await, told("ADDED", "a"));
    server.compact();
    seed(&server, "b", "x");
    assert_eq!(brief(&mut events).await, told("ADDED", "b"));
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_up_and_when_it_is_disconnected() {
    let (server, client) = start().await;
    let version = server.store().resource_version();
    let query = format!("resourceVersion={version}&timeoutSeconds=1&allowWatchBookmarks=true");
    let mut events = watch(&client, MAPS, &query).await;
    assert_eq!(next(&mut events).await["type"], "BOOKMARK");
    assert!(timeout(DEADLINE, events.next()).await.unwrap().is_none());

    let mut events = watch(&client, MAPS, &format!("resourceVersion={version}")).await;
    server.disconnect_watches();
    assert!(timeout(DEADLINE, events.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_slow_watcher_of_a_short_history_is_told_to_list_again() {
    let options = Options {
        history: 4,
        ..Options::default()
    };
    let server = ApiServer::start(options).await.unwrap();
    let client = server.admin_client().await.unwrap();
    let version = server.store().resource_version();
    for index in 0..8 {
        seed(&server, &format!("m{index}"), "x");
    }
    let mut events = watch(&client, MAPS, &format!("resourceVersion={version}")).await;
    assert_eq!(next(&mut events).await["object"]["reason"], "Expired");
}

#[tokio::test]
async fn kube_rs_watches_through_faults_and_misses_nothing() {
    let (server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let config = watcher::Config::default().labels("app");
    let mut events = pin!(watcher(maps, config));
    let mut seen = std::collections::BTreeSet::new();
    seed(&server, "a", "x");
    let mut fault = 0;
    timeout(DEADLINE, async {
        while seen.len() < 4 {
            let name = match events.next().await.unwrap() {
                Ok(watcher::Event::Apply(map) | watcher::Event::InitApply(map)) => {
                    map.metadata.name
                }
                Ok(_) | Err(_) => None,
            };
            let Some(name) = name else { continue };
            if !seen.insert(name) {
                continue;
            }
            fault += 1;
            match fault {
                1 => {
                    server.disconnect_watches();
                    seed(&server, "b", "x");
                }
                2 => {
                    server.stop().await;
                    seed(&server, "c", "x");
                    server.start_again().await.unwrap();
                }
                3 => {
                    server.disconnect_watches();
                    seed(&server, "d", "x");
                    server.compact();
                }
                _ => {}
            }
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn kube_rs_streams_lists() {
    let (server, client) = start().await;
    seed(&server, "a", "x");
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let config = watcher::Config::default().labels("app").streaming_lists();
    let mut events = pin!(watcher(maps, config));
    let mut next = async || {
        timeout(DEADLINE, events.try_next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    };
    assert!(matches!(next().await, watcher::Event::Init));
    assert!(matches!(next().await, watcher::Event::InitApply(_)));
    assert!(matches!(next().await, watcher::Event::InitDone));
    seed(&server, "b", "x");
    assert!(matches!(next().await, watcher::Event::Apply(_)));
}

#[tokio::test]
async fn changes_through_the_api_are_watched() {
    let (server, client) = start().await;
    let version = server.store().resource_version();
    let mut events = watch(
        &client,
        "/api/v1/configmaps",
        &format!("resourceVersion={version}"),
    )
    .await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    maps.create(&PostParams::default(), &mk_map("a"))
        .await
        .unwrap();
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    maps.patch("a", &PatchParams::default(), &Patch::Merge(label))
        .await
        .unwrap();
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    for kind in ["ADDED", "MODIFIED", "DELETED"] {
        assert_eq!(brief(&mut events).await, told(kind, "a"));
    }
}

#[tokio::test]
async fn one_object_is_watched_by_its_path() {
    let (server, client) = start().await;
    let _pod: Pod = mk(json!({"metadata": {"name": "unused"}}));
    seed(&server, "a", "x");
    seed(&server, "b", "x");
    let mut events = watch(&client, &format!("{MAPS}/b"), "").await;
    assert_eq!(brief(&mut events).await, told("ADDED", "b"));
}

#[tokio::test]
async fn nonsense_is_refused_before_a_watch_starts() {
    let (_server, client) = start().await;
    for (query, code) in [
        ("watch=1&resourceVersion=x", 422),
        ("watch=1&sendInitialEvents=true", 422),
        ("watch=1&resourceVersionMatch=Exact&resourceVersion=1", 422),
        ("watch=1&fieldSelector=spec.x%3D1", 400),
        ("watch=1&labelSelector=a%20b", 400),
        ("watch=1&timeoutSeconds=x", 400),
    ] {
        let (found, status) = get(&client, &format!("{MAPS}?{query}")).await;
        assert_eq!(found, code, "{query}: {status}");
    }
}
