//! What needs somebody to run pods: logs. The embedded server asks a node agent.

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use testkit_kube::{
    server::{LogRequest, LogStream, NodeAgent},
    status::Status,
};

use crate::harness::Kubectl;

/// Writes what it was asked for.
#[derive(Debug)]
struct Echo;

impl NodeAgent for Echo {
    fn logs(&self, request: LogRequest) -> BoxFuture<'static, Result<LogStream, Status>> {
        let lines = [
            format!("container {}\n", request.container),
            format!("tail {:?}, follow {}\n", request.tail_lines, request.follow),
        ];
        let lines = stream::iter(lines.map(Bytes::from)).boxed();
        async move { Ok(lines) }.boxed()
    }
}

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {containers: [{name: main, image: 'main:1'}, {name: side, image: 'side:1'}]}
";

#[tokio::test]
async fn logs_come_from_whoever_runs_the_pod() {
    let kubectl = Kubectl::start().await;
    kubectl.say_with("apply -f -", POD).await;
    let Some(server) = &kubectl.embedded else {
        return;
    };
    let refused = kubectl.attempt("logs p -c main").await.fails();
    assert!(refused.contains("node agent"), "{refused}");
    server.set_node_agent(Arc::new(Echo));
    let said = kubectl.say("logs p -c side").await;
    assert_eq!(said, "container side\ntail None, follow false\n");
    let said = kubectl.say("logs p -c main --tail=5 -f").await;
    assert_eq!(said, "container main\ntail Some(5), follow true\n");
    let refused = kubectl.attempt("logs p -c none").await.fails();
    assert!(
        refused.contains("container none is not valid for pod p"),
        "{refused}"
    );
}
