//! What tests do to a server, and what it does about pods.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, LogParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use testkit_kube::{
    auth::{User, token::Wanted},
    server::{ApiServer, Error, LogRequest, LogStream, NodeAgent, Options},
    status::Status,
};
use tokio::net::TcpListener;

use super::fixture::{get, mk, mk_map, start};

#[tokio::test]
async fn a_server_starts_in_no_time() {
    // The first one in a process reads OpenSSL's configuration and the like.
    let _first = ApiServer::start(Options::default()).await.unwrap();
    let before = worked();
    let _second = ApiServer::start(Options::default()).await.unwrap();
    let took = worked().saturating_sub(before);
    println!("started with {took:?} of work");
    assert!(took.as_millis() < 500, "{took:?}");
}

/// How long this thread, and all that runs on it, has had a processor: others may keep it waiting for any time.
fn worked() -> Duration {
    /// The fields for user and kernel, counted after the name, and their unit. See proc(5).
    const TIMES: std::ops::Range<usize> = 11..13;
    const TICK: Duration = Duration::from_millis(10);
    let told = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let (_, fields) = told.rsplit_once(')').unwrap();
    let fields: Vec<_> = fields.split_ascii_whitespace().collect();
    let ticks = fields[TIMES]
        .iter()
        .map(|ticks| ticks.parse::<u32>().unwrap());
    TICK * ticks.sum::<u32>()
}

#[tokio::test]
async fn requests_are_counted_by_user_verb_and_resource() {
    let (server, client) = start().await;
    let nobody = User::new("nobody");
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    maps.create(&PostParams::default(), &mk_map("a"))
        .await
        .unwrap();
    for _ in 0..2 {
        maps.get("a").await.unwrap();
    }
    let refused = Api::<ConfigMap>::default_namespaced(server.client(&nobody).await.unwrap());
    refused.get("a").await.unwrap_err();
    let counted = server.requests(&User::admin());
    let expected = [("create configmaps", 1), ("get configmaps", 2)];
    assert_eq!(
        counted,
        expected
            .map(|(what, times)| (what.to_owned(), times))
            .into()
    );
    assert!(server.requests(&nobody).is_empty());
}

#[tokio::test]
async fn data_and_clients_survive_a_stop() {
    let (server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    maps.create(&PostParams::default(), &mk_map("a"))
        .await
        .unwrap();
    let address = server.address();
    server.stop().await;
    assert!(maps.get("a").await.is_err());
    server.start_again().await.unwrap();
    assert_eq!(server.address(), address);
    maps.get("a").await.unwrap();
}

#[tokio::test]
async fn a_further_listener_serves_the_same_objects_until_the_server_stops() {
    let further = "127.0.0.2";
    let options = Options {
        hosts: vec![further.to_owned()],
        ..Options::default()
    };
    let server = ApiServer::start(options).await.unwrap();
    let listen = || TcpListener::bind((further, 0));
    let listener = listen().await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    server.serve_also(listener).unwrap();
    let config = server.authority().kubeconfig(&url, &User::admin()).unwrap();
    let config = Kubeconfig::from_yaml(&config).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(config, &options);
    let there = Api::default_namespaced(Client::try_from(config.await.unwrap()).unwrap());
    let here = Api::<ConfigMap>::default_namespaced(server.admin_client().await.unwrap());
    let params = PostParams::default();
    there.create(&params, &mk_map("a")).await.unwrap();
    here.get("a").await.unwrap();
    server.stop().await;
    assert!(there.get("a").await.is_err());
    let refused = server.serve_also(listen().await.unwrap());
    assert!(matches!(refused, Err(Error::Stopped)), "{refused:?}");
}

#[tokio::test]
async fn a_server_can_refuse_everything_for_a_while() {
    let (server, client) = start().await;
    server.refuse_requests(true);
    let (code, status) = get(&client, "/api/v1/namespaces").await;
    assert_eq!(
        (code, &status["reason"]),
        (503, &json!("ServiceUnavailable"))
    );
    server.refuse_requests(false);
    assert_eq!(get(&client, "/api/v1/namespaces").await.0, 200);
}

#[tokio::test]
async fn a_dropped_server_is_gone() {
    let (server, client) = start().await;
    drop(server);
    assert!(client.apiserver_version().await.is_err());
}

#[tokio::test]
async fn callers_need_rights() {
    let (server, _admin) = start().await;
    let client = server.client(&User::new("nobody")).await.unwrap();
    let (code, status) = get(&client, "/api/v1/namespaces/default/pods").await;
    assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")));
    assert_eq!(get(&client, "/version").await.0, 200);
    let wanted = Wanted {
        audiences: Vec::new(),
        lifetime: jiff::SignedDuration::from_hours(1),
        bound: None,
    };
    let token = server.token("default", "default", &wanted).unwrap();
    let client = server.client_with_token(&token).await.unwrap();
    let (code, status) = get(&client, "/api/v1/namespaces/default/pods").await;
    assert_eq!(code, 403);
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("system:serviceaccount:default:default")
    );
    let client = server.client_with_token("nonsense").await.unwrap();
    assert_eq!(get(&client, "/api/v1/namespaces/default/pods").await.0, 401);
}

#[derive(Debug)]
struct Agent;

impl NodeAgent for Agent {
    fn logs(&self, request: LogRequest) -> BoxFuture<'static, Result<LogStream, Status>> {
        let line = format!("{} tail {:?}\n", request.container, request.tail_lines);
        Box::pin(async move { Ok(stream::iter([Bytes::from(line)]).boxed()) })
    }
}

fn mk_pod(node: &str) -> Pod {
    mk(json!({
        "metadata": {"name": "a"},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
    }))
}

#[tokio::test]
async fn logs_come_from_the_node_agent() {
    let (server, client) = start().await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    pods.create(&PostParams::default(), &mk_pod("n"))
        .await
        .unwrap();
    let params = LogParams {
        tail_lines: Some(3),
        ..LogParams::default()
    };
    let kube::Error::Api(refused) = pods.logs("a", &params).await.unwrap_err() else {
        panic!("not an answer of the API");
    };
    assert_eq!(refused.code, 501);
    assert!(refused.message.contains("pods/log"), "{refused:?}");
    server.set_node_agent(Arc::new(Agent));
    assert_eq!(pods.logs("a", &params).await.unwrap(), "c tail Some(3)\n");
    let wrong = LogParams {
        container: Some("x".to_owned()),
        ..params
    };
    assert!(pods.logs("a", &wrong).await.is_err());
}

#[tokio::test]
async fn a_pod_on_a_node_ends_when_its_agent_says_so() {
    let (server, client) = start().await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    pods.create(&PostParams::default(), &mk_pod("n"))
        .await
        .unwrap();
    pods.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(pods.get_opt("a").await.unwrap().is_none());

    server.set_node_agent(Arc::new(Agent));
    pods.create(&PostParams::default(), &mk_pod("n"))
        .await
        .unwrap();
    let going = pods
        .delete("a", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert_eq!(going.metadata.deletion_grace_period_seconds, Some(30));
    pods.get("a").await.unwrap();
    pods.delete("a", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert!(pods.get_opt("a").await.unwrap().is_none());
}
