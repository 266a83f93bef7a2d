//! The operator in a large cluster, with its own rights: its memory, the time of an installation, and what
//! it does when there is nothing to do. The API server and the controllers of workloads are in this process
//! and answer at once, so that times are the operator's and those of its requests.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams, PostParams},
};
use mesh_api::sail::{Istio, IstioCNI, IstioRevision, ZTunnel};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use self::{
    cluster::{Cluster, Size, TOKEN, Versions},
    program::Operator,
};
use crate::figures::{Figures, Repeat};

mod cluster;
pub(crate) mod program;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    size: Size,
    /// Changes of one pod whose cost is measured.
    #[arg(long, default_value_t = 5000)]
    changes: u32,
    #[command(flatten)]
    repeat: Repeat,
}

/// The one name that IstioCNI and ZTunnel may have.
const NAME: &str = "default";
/// The version that is installed.
const VERSION: &str = "v1.30.2";
/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// Pods change by so many at a time ..
const BURST: u32 = 10;
/// .. with this much time between them.
const PAUSE: Duration = Duration::from_millis(5);

/// Measures, or has it measured in processes of their own, and prints.
#[expect(clippy::print_stdout, reason = "the answer")]
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments {
        size,
        changes,
        repeat,
    } = arguments;
    let Size { namespaces, pods } = size;
    ensure!(
        *namespaces > 0 && *pods > 0,
        "a cluster has namespaces and pods"
    );
    ensure!(*changes > 0, "there must be changes to measure");
    if repeat.json {
        let measured = crate::runtime()?.block_on(Box::pin(measure(*size, *changes)))?;
        println!("{}", measured.json()?);
        return Ok(());
    }
    let command = format!("operator --namespaces {namespaces} --pods {pods} --changes {changes}");
    let table = repeat.table(&command)?;
    println!("{pods} pods in {namespaces} namespaces");
    print!("{table}");
    Ok(())
}

async fn measure(size: Size, changes: u32) -> anyhow::Result<Figures> {
    let mut figures = Figures::default();
    // Nobody may miss a change and have to list everything again.
    let history = usize::try_from(size.pods.max(changes))?.saturating_mul(2);
    let cluster = Cluster::start(size, history).await?;
    let server = cluster.server.clone();
    let controllers = tokio::spawn(async move { Cluster::roll_out(server.store()).await });
    let directory = tempfile::tempdir()?;
    let kubeconfig = directory.path().join("kubeconfig");
    std::fs::write(&kubeconfig, cluster.kubeconfig()?)?;

    let begun = Instant::now();
    let operator = Operator::start(&kubeconfig, TOKEN).await?;
    figures.time("start: the cluster seen, and leading", begun.elapsed());
    operator.rest().await?;
    operator.weigh("memory before the mesh", &mut figures)?;
    install(&cluster, &operator, &mut figures).await?;
    operator.rest().await?;
    operator.weigh("memory with the mesh", &mut figures)?;
    look_again(&cluster, &operator, &mut figures).await?;
    change_pods(&cluster, &operator, changes, &mut figures).await?;
    operator.weigh("memory in the end", &mut figures)?;
    operator.rest().await?;
    operator.stop().await?;
    restart(&cluster, &kubeconfig, &mut figures).await?;
    controllers.abort();
    Ok(figures)
}

/// All three resources at once.
async fn install(
    cluster: &Cluster,
    operator: &Operator,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let spec = |namespace: &str| {
        let spec = json!({"version": VERSION, "profile": "ambient", "namespace": namespace});
        json!({"metadata": {"name": NAME}, "spec": spec})
    };
    let cpu = operator.cpu()?;
    let begun = Instant::now();
    tokio::try_join!(
        create::<Istio>(cluster, spec("istio-system")),
        create::<IstioCNI>(cluster, spec("istio-cni")),
        create::<ZTunnel>(cluster, spec("ztunnel")),
    )?;
    let applied = async {
        tokio::try_join!(
            cluster.until::<IstioRevision>(is_applied),
            cluster.until::<IstioCNI>(is_applied),
            cluster.until::<ZTunnel>(is_applied),
        )?;
        anyhow::Ok(begun.elapsed())
    };
    let healthy = async {
        tokio::try_join!(
            cluster.until::<Istio>(is_healthy),
            cluster.until::<IstioCNI>(is_healthy),
            cluster.until::<ZTunnel>(is_healthy),
        )?;
        anyhow::Ok(begun.elapsed())
    };
    let (applied, healthy) = tokio::try_join!(applied, healthy)?;
    figures.time("install: all objects applied", applied);
    figures.time("install: all resources Healthy", healthy);
    operator.rest().await?;
    figures.time("install: CPU", operator.cpu()?.saturating_sub(cpu));
    figures.set("install: writes", operator.page().await?.writes());
    Ok(())
}

fn is_applied(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| one["type"] == "Reconciled" && one["status"] == "True")
}

fn is_healthy(object: &Value) -> bool {
    let observed = &object["status"]["observedGeneration"];
    object["status"]["state"] == "Healthy" && *observed == object["metadata"]["generation"]
}

/// Every resource is looked at, and nothing is to be done.
async fn look_again(
    cluster: &Cluster,
    operator: &Operator,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let before = operator.page().await?;
    operator.rest().await?;
    let (cpu, mut versions) = (operator.cpu()?, cluster.versions());
    touch::<Istio>(cluster, &mut versions).await?;
    touch::<IstioRevision>(cluster, &mut versions).await?;
    touch::<IstioCNI>(cluster, &mut versions).await?;
    touch::<ZTunnel>(cluster, &mut versions).await?;
    operator.rest().await?;
    let cpu = operator.cpu()?.saturating_sub(cpu);
    let after = operator.page().await?;
    after.looked_since(Some(&before))?;
    let writes = after.writes() - before.writes();
    report_writes("nothing to do", writes, &versions, cluster, figures)?;
    figures.time("nothing to do: CPU", cpu);
    Ok(())
}

/// As [`look_again`], by an operator that has only now been started.
async fn restart(
    cluster: &Cluster,
    kubeconfig: &std::path::Path,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let versions = cluster.versions();
    let operator = Operator::start(kubeconfig, TOKEN).await?;
    operator.rest().await?;
    let page = operator.page().await?;
    page.looked_since(None)?;
    report_writes("restart", page.writes(), &versions, cluster, figures)?;
    figures.time("restart: CPU", operator.cpu()?);
    operator.weigh("memory after a restart", figures)?;
    operator.stop().await
}

/// What the operator says of itself must be what the API server has seen.
fn report_writes(
    when: &str,
    writes: f64,
    before: &Versions,
    cluster: &Cluster,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let changed = before.changed(&cluster.versions());
    ensure!(
        writes > 0.0 || changed.is_empty(),
        "the operator counts no writes, but these have changed: {changed:?}"
    );
    figures.set(&format!("{when}: writes"), writes);
    Ok(())
}

/// The cost of changed pods: such as mean nothing to the mesh, and such as come into it or leave it.
async fn change_pods(
    cluster: &Cluster,
    operator: &Operator,
    changes: u32,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let pods = cluster.size.pods;
    let touch = |number: u32| cluster.touch(number % pods);
    let half = changes.div_ceil(2);
    let enroll = |number: u32| {
        // Pods of ambient namespaces: first they all leave, then they come back.
        let pod = (number % half * 5 + 1) % pods;
        cluster.enroll(pod, number >= half);
    };
    let kinds: [(&str, &dyn Fn(u32)); 2] = [
        ("1000 pods that changed", &touch),
        ("1000 pods that joined or left", &enroll),
    ];
    for (name, change) in kinds {
        let before = operator.page().await?;
        operator.rest().await?;
        let cpu = operator.cpu()?;
        for number in 0..changes {
            change(number);
            if number % BURST == BURST - 1 {
                sleep(PAUSE).await;
            }
        }
        operator.rest().await?;
        let cpu = operator.cpu()?.saturating_sub(cpu);
        let after = operator.page().await?;
        let seen = "lateen_operator_k8s_watch_events_total{type=\"Pod\"";
        let seen = after.sum(seen) - before.sum(seen);
        ensure!(
            seen > 0.0,
            "the operator has seen nothing of {changes} changes of pods"
        );
        let thousand = cpu.mul_f64(1000.0 / f64::from(changes));
        figures.time(&format!("{name}: CPU"), thousand);
        figures.set(
            &format!("{name}: writes"),
            (after.writes() - before.writes()) * 1000.0 / f64::from(changes),
        );
    }
    Ok(())
}

async fn create<K>(cluster: &Cluster, object: Value) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let mut object = object;
    object["apiVersion"] = K::api_version(&()).into();
    object["kind"] = K::kind(&()).into();
    let object: K = serde_json::from_value(object)?;
    let api: Api<K> = Api::all(cluster.client.clone());
    let created = api.create(&PostParams::default(), &object).await;
    created.with_context(|| format!("create the {}", K::kind(&())))?;
    Ok(())
}

/// Has a resource looked at.
async fn touch<K>(cluster: &Cluster, versions: &mut Versions) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(cluster.client.clone());
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"touched": "yes"}}}));
    let patched = api.patch(NAME, &PatchParams::default(), &patch).await;
    let patched = patched.with_context(|| format!("touch the {}", K::kind(&())))?;
    let version = patched.meta().resource_version.as_deref();
    versions.note::<K>(version.unwrap_or_default().parse()?);
    Ok(())
}

/// Waits for something, but not for ever.
async fn within<T>(failure: &str, something: impl Future<Output = T>) -> anyhow::Result<T> {
    let outcome = timeout(DEADLINE, something).await;
    outcome.with_context(|| format!("{failure} within {DEADLINE:?}"))
}
