//! The steps of the demo, in order.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use mesh_api::{condition, labels, security::AuthorizationPolicy};
use mesh_redirect::Backend;
use serde_json::Value;
use testkit_net::tcp::Dial;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

use super::{
    Options,
    traffic::{
        HTTP_PORT, SECRET, captured, curl, kernel_state, ports_opened, start_servers, throughput,
    },
};
use crate::{
    agent::NodeAgent,
    control_plane::Cluster,
    mesh::{Mesh, NAMESPACE, NODES, dump},
    node::PATIENCE,
    report::Report,
    traces,
};

/// Client, a client that will be refused, server.
const PODS: [&str; 3] = ["curl", "batch", "web"];

/// A pod that comes later.
const LATE: &str = "late";

/// The service in front of `web`; no kube-proxy knows this address, only the mesh does.
const SERVICE_ADDRESS: [u8; 4] = [10, 96, 0, 10];

/// As a user writes it.
const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: demo
spec:
  clusterIP: 10.96.0.10
  selector:
    app: web
  ports:
  - name: http
    port: 80
    targetPort: 8080
";

/// The name of [`DENY_BATCH`].
const POLICY: &str = "deny-batch";

/// As a user writes it.
const DENY_BATCH: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: deny-batch
  namespace: demo
spec:
  action: DENY
  rules:
  - from:
    - source:
        principals:
        - cluster.local/ns/demo/sa/batch
";

/// All steps but the last.
pub(super) async fn all(
    mesh: &mut Mesh<Cluster>,
    report: &mut Report,
    options: &Options,
) -> anyhow::Result<()> {
    let before = before_the_mesh(mesh, report).await?;
    enrol(mesh, report, options.cni.backend).await?;
    through_the_mesh(mesh, report, before.throughput).await?;
    by_service(mesh, report).await?;
    by_policy(mesh, report).await?;
    restart(mesh, report).await?;
    new_pod(mesh, report).await?;
    metrics(mesh, report)?;
    if options.keep {
        look_around(mesh, report).await?;
    }
    leave(mesh, report, &before.kernel).await?;
    uninstall(mesh, report).await
}

/// What was measured before anything was in the mesh.
struct Before {
    throughput: f64,
    kernel: Vec<String>,
}

async fn before_the_mesh(mesh: &mut Mesh<Cluster>, report: &mut Report) -> anyhow::Result<Before> {
    report.step("Two nodes, three pods, no mesh yet");
    for pod in PODS {
        mesh.add_pod(node_of(pod), pod).await?;
    }
    start_servers(mesh).await?;
    for pod in PODS {
        let node = node_of(pod);
        report.show(format!(
            "pod {pod:5}  {node}  {}",
            mesh.address(pod, false)?
        ));
    }
    let url = url(mesh, false)?;
    report.show(format!("$ curl {url}"));
    let (answer, wire) = captured(mesh, || curl(mesh, "curl", &url)).await?;
    report.show(answer.trim_end());
    report.check(
        "without the mesh, the request can be read on the wire",
        wire.contains(SECRET),
        || format!("the capture between the nodes does not hold `{SECRET}`"),
    )?;
    let kernel = PODS
        .iter()
        .map(|pod| kernel_state(mesh, pod))
        .collect::<Result<_, _>>()?;
    Ok(Before {
        throughput: throughput(mesh, "curl")?,
        kernel,
    })
}

async fn enrol(
    mesh: &mut Mesh<Cluster>,
    report: &mut Report,
    backend: Backend,
) -> anyhow::Result<()> {
    report.step("The pods join the mesh");
    let (label, ambient) = (labels::DATAPLANE_MODE, labels::dataplane_mode::AMBIENT);
    report.show(format!(
        "$ kubectl label namespace {NAMESPACE} {label}={ambient}"
    ));
    let cluster = mesh.control_plane();
    cluster
        .label_namespace(NAMESPACE, label, Some(ambient))
        .await?;
    for pod in PODS {
        mesh.joined(pod).await?;
        report.show(format!(
            "{pod}: redirection by {backend}, listeners in the pod, HBONE announced by istiod"
        ));
    }
    let alive = mesh
        .applications()
        .iter_mut()
        .all(|app| matches!(app.status(), Ok(None)));
    report.check("no application was restarted", alive, || {
        "an application has ended".to_owned()
    })?;
    let sockets = mesh.pod("web")?.exec("ss", &["-ltnH"], "")?;
    let listens = |port: u16| {
        sockets
            .lines()
            .any(|line| line.contains(&format!("*:{port} ")))
    };
    report.check(
        "ztunnel listens in the pod on 15001, 15006 and 15008",
        [15001, 15006, 15008].into_iter().all(listens),
        || format!("sockets in pod web:\n{sockets}"),
    )
}

async fn through_the_mesh(
    mesh: &mut Mesh<Cluster>,
    report: &mut Report,
    plain: f64,
) -> anyhow::Result<()> {
    report.step("The same request, through the mesh");
    let (client, server) = (mesh.proxy("node1")?.mark(), mesh.proxy("node2")?.mark());
    let url_v4 = url(mesh, false)?;
    report.show(format!("$ curl {url_v4}"));
    let (answer, wire) = captured(mesh, || curl(mesh, "curl", &url_v4)).await?;
    report.show(answer.trim_end());
    report.check(
        "the answer is the same",
        answer.trim_end() == SECRET,
        || answer.clone(),
    )?;
    report.check(
        "nothing of it can be read on the wire",
        !wire.contains(SECRET),
        || format!("the capture between the nodes holds `{SECRET}`"),
    )?;
    let ports = ports_opened(mesh, &wire)?;
    report.check(
        "between the nodes there is HBONE alone, on port 15008",
        ports == [15008],
        || format!("connections were opened to the ports {ports:?}"),
    )?;
    both_sides_log(mesh, report, client, server).await?;
    let address = mesh.address("curl", false)?;
    let seen = saw(mesh, address);
    report.check("the server sees the client's own address", seen, || {
        format!("the HTTP server's log does not name {address}")
    })?;
    let url_v6 = url(mesh, true)?;
    report.show(format!("$ curl {url_v6}"));
    let (answer, wire) = captured(mesh, || curl(mesh, "curl", &url_v6)).await?;
    let private = answer.trim_end() == SECRET && !wire.contains(SECRET);
    report.check("the same holds over IPv6", private, || answer)?;
    let meshed = throughput(mesh, "curl")?;
    report.show(format!(
        "iperf3, one stream for a second: {plain:.1} Gbit/s plain, {meshed:.1} Gbit/s encrypted"
    ));
    Ok(())
}

/// The access-log lines of the last request, one from each side.
async fn both_sides_log(
    mesh: &Mesh<Cluster>,
    report: &mut Report,
    client: crate::node::Mark,
    server: crate::node::Mark,
) -> anyhow::Result<()> {
    let outbound = "direction=\"outbound\"";
    let inbound = "direction=\"inbound\"";
    let out = mesh
        .proxy("node1")?
        .line_since(client, &["connection complete", outbound])
        .await?;
    let into = mesh
        .proxy("node2")?
        .line_since(server, &["connection complete", inbound])
        .await?;
    report.show("the client's node logs:");
    report.show(&out);
    report.show("the server's node logs:");
    report.show(&into);
    let (curl, web) = (mesh.identity("curl")?, mesh.identity("web")?);
    let target = SocketAddr::new(mesh.address("web", false)?, HTTP_PORT);
    let expected = [
        format!("src.identity=\"{curl}\""),
        format!("dst.identity=\"{web}\""),
        "src.workload=\"curl\"".to_owned(),
        "dst.workload=\"web\"".to_owned(),
        format!("dst.hbone_addr={target}"),
    ];
    let complete = expected
        .iter()
        .all(|part| out.contains(part) && into.contains(part));
    report.check(
        "both sides log who spoke with whom, by identity",
        complete,
        || format!("expected in both lines: {}", expected.join(" ")),
    )
}

async fn by_service(mesh: &mut Mesh<Cluster>, report: &mut Report) -> anyhow::Result<()> {
    report.step("A request to the service's address");
    apply(mesh, report, SERVICE).await?;
    let hostname = format!("web.{NAMESPACE}.svc.cluster.local");
    let known = |shown: &Value| dump::has_endpoints(shown, &hostname);
    mesh.known("the service and its pod", known).await?;
    let mark = mesh.proxy("node1")?.mark();
    let url = format!("http://{}/account", IpAddr::from(SERVICE_ADDRESS));
    report.show(format!("$ curl {url}"));
    let answer = curl(mesh, "curl", &url)?;
    let target = SocketAddr::new(mesh.address("web", false)?, HTTP_PORT);
    let delivery = format!("dst.hbone_addr={target}");
    let line = mesh
        .proxy("node1")?
        .line_since(mark, &["connection complete", &delivery])
        .await?;
    report.show(&line);
    let named = format!("dst.service=\"{hostname}\"");
    let delivered = answer.trim_end() == SECRET && line.contains(&named);
    report.check(
        "the mesh finds the service's pod, and logs the service",
        delivered,
        || format!("answer: {answer}\nexpected in the line: {named}"),
    )
}

async fn by_policy(mesh: &mut Mesh<Cluster>, report: &mut Report) -> anyhow::Result<()> {
    report.step("A policy denies one client");
    let url = url(mesh, false)?;
    let answer = curl(mesh, "batch", &url)?;
    report.check(
        "without the policy, batch gets the answer",
        answer.trim_end() == SECRET,
        || answer,
    )?;
    let target = SocketAddr::new(mesh.address("web", false)?, HTTP_PORT);
    // Open and idle; the server waits for its request.
    let open = Dial::to(target).connect(mesh.pod("batch")?).await?;
    apply(mesh, report, DENY_BATCH).await?;
    let known = |shown: &Value| dump::has_policy(shown, POLICY);
    mesh.known("the policy", known).await?;
    report.check("its open connection is closed", closes(open).await, || {
        format!("it is still open after {PATIENCE:?}")
    })?;
    report.show(format!("$ curl {url}     (in pod batch)"));
    let mark = mesh.proxy("node2")?.mark();
    let refused = curl(mesh, "batch", &url);
    report.show(
        refused
            .as_ref()
            .map_or_else(ToString::to_string, Clone::clone),
    );
    report.check("batch is refused", refused.is_err(), || {
        "it got an answer".to_owned()
    })?;
    let line = mesh
        .proxy("node2")?
        .line_since(mark, &["error", "policy"])
        .await?;
    report.show(&line);
    let key = format!("{NAMESPACE}/{POLICY}");
    report.check("the log names the policy", line.contains(&key), || {
        format!("expected in the line: {key}")
    })?;
    let answer = curl(mesh, "curl", &url)?;
    report.check(
        "the other client is not affected",
        answer.trim_end() == SECRET,
        || answer,
    )?;
    accepted(mesh, report).await
}

/// What istiod says of the policy, where its author looks.
async fn accepted(mesh: &Mesh<Cluster>, report: &mut Report) -> anyhow::Result<()> {
    report.show(format!(
        "$ kubectl -n {NAMESPACE} get authorizationpolicy {POLICY} -o jsonpath={{.status.conditions}}"
    ));
    let told = |object: &Value| condition_of(object).is_some();
    let cluster = mesh.control_plane();
    let object = cluster.until::<AuthorizationPolicy>(NAMESPACE, POLICY, told);
    let object = object.await?;
    let told = condition_of(&object).cloned().unwrap_or_default();
    report.show(&told);
    report.check(
        "the policy's status says that it is enforced",
        told["status"] == "True" && told["observedGeneration"] == object["metadata"]["generation"],
        || object.to_string(),
    )
}

fn condition_of(policy: &Value) -> Option<&Value> {
    let conditions = policy["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.find(|it| it["type"] == condition::ZTUNNEL_ACCEPTED)
}

async fn restart(mesh: &mut Mesh<Cluster>, report: &mut Report) -> anyhow::Result<()> {
    report.step("The control plane crashes and comes back");
    let url = url(mesh, false)?;
    mesh.control_plane_mut().istiod_mut().kill().await?;
    report.show("istiod is killed");
    report.show(format!(
        "$ kubectl -n {NAMESPACE} delete authorizationpolicy {POLICY}"
    ));
    let cluster = mesh.control_plane();
    cluster
        .delete::<AuthorizationPolicy>(NAMESPACE, POLICY)
        .await?;
    let (answer, refused) = (curl(mesh, "curl", &url)?, curl(mesh, "batch", &url));
    report.check(
        "without it, traffic goes on and the policy that the proxies have stays in force",
        answer.trim_end() == SECRET && refused.is_err(),
        || format!("curl: {answer}, batch: {refused:?}"),
    )?;
    mesh.control_plane_mut().istiod_mut().restart().await?;
    report.show("istiod is started again");
    let gone = |shown: &Value| !dump::has_policy(shown, POLICY);
    mesh.known("the end of the policy", gone).await?;
    let answer = curl(mesh, "batch", &url)?;
    report.check(
        "what was removed meanwhile is gone from both proxies",
        answer.trim_end() == SECRET,
        || answer,
    )
}

/// Stays until somebody ends the demo.
async fn look_around(mesh: &Mesh<Cluster>, report: &mut Report) -> anyhow::Result<()> {
    report.step("Look around, Ctrl-C ends it");
    let kubeconfig = mesh.dir().join("kubeconfig");
    report.show(format!("export KUBECONFIG={}", kubeconfig.display()));
    report.show("kubectl get nodes,pods,services,authorizationpolicies --all-namespaces");
    let curl = mesh.pod("curl")?.name();
    report.show(format!("ip netns exec {curl} curl {}", url(mesh, false)?));
    let fabric = mesh.fabric().name();
    report.show(format!(
        "ip netns exec {fabric} curl 127.0.0.1:8080/debug/syncz"
    ));
    report.keep();
    std::future::pending().await
}

/// Applies objects as a user does, and shows how.
async fn apply(mesh: &Mesh<Cluster>, report: &mut Report, text: &str) -> anyhow::Result<()> {
    report.show("$ kubectl apply -f - <<EOF");
    report.show(text);
    report.show("EOF");
    mesh.control_plane().apply(text).await
}

/// The plugin brings a new pod into the mesh, and the agent keeps it there.
async fn new_pod(mesh: &mut Mesh<Cluster>, report: &mut Report) -> anyhow::Result<()> {
    report.step("A new pod, and a crash of the CNI agent");
    let node = node_of(LATE);
    mesh.add_pod(node, LATE).await?;
    let state = kernel_state(mesh, LATE)?;
    report.check(
        "when the CNI plugin lets it start, the pod is in the mesh",
        state.contains("15001"),
        || state,
    )?;
    mesh.joined(LATE).await?;
    let url = url(mesh, false)?;
    report.show(format!("$ curl {url}     (in pod {LATE})"));
    let (answer, wire) = captured(mesh, || curl(mesh, LATE, &url)).await?;
    let private = answer.trim_end() == SECRET && !wire.contains(SECRET);
    report.check("its first request is encrypted", private, || answer)?;
    report.show(format!("the CNI agent of {node} is killed"));
    mesh.kill_agent(node).await?;
    let (answer, wire) = captured(mesh, || curl(mesh, LATE, &url)).await?;
    let private = answer.trim_end() == SECRET && !wire.contains(SECRET);
    report.check("without it, its pods stay in the mesh", private, || answer)?;
    report.show("it is started again");
    mesh.restart_agent(node).await?;
    let (answer, wire) = captured(mesh, || curl(mesh, LATE, &url)).await?;
    let private = answer.trim_end() == SECRET && !wire.contains(SECRET);
    report.check("and when it is back", private, || answer)?;
    mesh.delete_pod(LATE).await
}

fn metrics(mesh: &Mesh<Cluster>, report: &mut Report) -> anyhow::Result<()> {
    report.step("The metrics");
    let metrics = mesh.ask_proxy("node2", "http://127.0.0.1:15020/metrics")?;
    let principal = format!("source_principal=\"{}\"", mesh.identity("curl")?);
    let found = metrics.lines().find(|line| {
        line.starts_with("istio_tcp_connections_opened_total{")
            && line.contains("reporter=\"destination\"")
            && line.contains(&principal)
            && line.contains("connection_security_policy=\"mutual_tls\"")
    });
    report.show(found.unwrap_or_default());
    report.check(
        "connections are counted by who, to whom, and as mutual TLS",
        found.is_some(),
        || metrics.clone(),
    )
}

async fn leave(
    mesh: &mut Mesh<Cluster>,
    report: &mut Report,
    before: &[String],
) -> anyhow::Result<()> {
    report.step("The pods leave the mesh");
    let label = labels::DATAPLANE_MODE;
    report.show(format!("$ kubectl label namespace {NAMESPACE} {label}-"));
    let cluster = mesh.control_plane();
    cluster.label_namespace(NAMESPACE, label, None).await?;
    for pod in PODS {
        mesh.left(pod).await?;
    }
    for (pod, before) in PODS.iter().zip(before) {
        let gone = || kernel_state(mesh, pod).is_ok_and(|now| now == *before);
        let waited = testkit_net::eventually(format!("{pod} as it was"), PATIENCE, gone).await;
        let evidence = || {
            format!(
                "before:\n{before}\nnow:\n{}",
                kernel_state(mesh, pod).unwrap_or_default()
            )
        };
        report.check(
            &format!("no rule, route or socket is left in pod {pod}"),
            waited.is_ok(),
            evidence,
        )?;
    }
    let url = url(mesh, false)?;
    let (answer, wire) = captured(mesh, || curl(mesh, "curl", &url)).await?;
    let plain = answer.trim_end() == SECRET && wire.contains(SECRET);
    report.check("the applications go on without the mesh", plain, || answer)
}

/// Takes the CNI agents from the cluster.
async fn uninstall(mesh: &mut Mesh<Cluster>, report: &mut Report) -> anyhow::Result<()> {
    report.step("The mesh leaves the nodes");
    report.show("$ kubectl -n istio-cni delete daemonset istio-cni-node");
    mesh.uninstall_agents().await?;
    for node in NODES {
        let traces = traces::of_mesh(mesh.node(node)?)?;
        let left = mesh.agent(node)?.left()?;
        report.check(
            &format!("no rule, set, route, file or plugin is left on {node}"),
            traces.is_empty() && left.is_empty(),
            || {
                format!(
                    "{traces:?}\n{left:?}\n{}",
                    mesh.agent(node).map(NodeAgent::log).unwrap_or_default()
                )
            },
        )?;
    }
    Ok(())
}

/// Takes the lab down; the last step.
pub(super) async fn end(mesh: Mesh<Cluster>, report: &mut Report) -> anyhow::Result<()> {
    report.step("The end");
    let dir = mesh.dir().to_owned();
    let processes = [
        mesh.control_plane().istiod().id(),
        mesh.proxy("node1")?.id(),
        mesh.proxy("node2")?.id(),
        mesh.agent("node1")?.id(),
        mesh.agent("node2")?.id(),
    ];
    let failures = mesh.stop().await;
    let texts = failures
        .iter()
        .map(|failure| format!("{failure:#}"))
        .collect::<Vec<_>>();
    report.check("everything ends in order", texts.is_empty(), || {
        texts.join("\n")
    })?;
    let own = format!("lateen-{}.", std::process::id());
    let left = testkit_net::leftover::list().context("list network namespaces")?;
    let left: Vec<String> = left
        .into_iter()
        .map(|l| l.name)
        .filter(|name| name.starts_with(&own))
        .collect();
    let running = processes
        .iter()
        .any(|id| std::path::Path::new(&format!("/proc/{id}")).exists());
    let nothing = left.is_empty() && !running && !dir.exists();
    report.check("no namespace, process or file remains", nothing, || {
        format!(
            "namespaces: {left:?}, programs running: {running}, {} exists: {}",
            dir.display(),
            dir.exists()
        )
    })
}

fn node_of(pod: &str) -> &'static str {
    if pod == "web" { "node2" } else { "node1" }
}

fn url(mesh: &Mesh<Cluster>, ipv6: bool) -> anyhow::Result<String> {
    let server = SocketAddr::new(mesh.address("web", ipv6)?, HTTP_PORT);
    Ok(format!("http://{server}/account"))
}

/// Whether the HTTP server has logged a request from this address.
fn saw(mesh: &mut Mesh<Cluster>, client: IpAddr) -> bool {
    let logs = |app: &testkit_net::Process| format!("{}{}", app.stdout(), app.stderr());
    mesh.applications()
        .iter()
        .any(|app| logs(app).contains(&format!("{client} - - ")))
}

/// Whether the other side closes a connection on which nothing was said.
async fn closes(mut connection: TcpStream) -> bool {
    let mut byte = [0];
    let read = timeout(PATIENCE, connection.read(&mut byte)).await;
    read.is_ok_and(|read| !matches!(read, Ok(1..)))
}
