//! The control plane's own work: index, discovery and the way to the proxies. The API server is not part
//! of it: objects are fed to the index.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use mesh_identity::{
    control::{grpc_server, incoming, server_config},
    issuer::Issuer,
    provider::Versions,
};
use mesh_index::{Index, Object, Settings};
use mesh_xds::server::{Client, Resources, Service};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};
use tokio::{net::TcpListener, runtime::Runtime};

use crate::{
    figures::{Figures, Repeat, median},
    mesh::{self, Size},
    process::{self, mib},
    proxies::{self, RETURNED, SYNCED, Seen},
};

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    size: Size,
    /// Proxies that subscribe to everything.
    #[arg(long, default_value_t = 100)]
    proxies: u32,
    /// Changes of one pod whose way is timed.
    #[arg(long, default_value_t = 50)]
    changes: u32,
    /// Time between two changes, in milliseconds.
    #[arg(long, default_value_t = 100)]
    pause: u64,
    #[command(flatten)]
    repeat: Repeat,
}

/// The name on the server's certificate.
pub(crate) const NAME: &str = "istiod.istio-system.svc";

/// That of `istiod`.
const STREAM_WINDOW: u32 = 65_535;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The proxies' process; it is killed when dropped.
struct Proxies {
    child: Child,
    output: BufReader<ChildStdout>,
}

/// Something that all proxies do, in time and in memory of the server.
struct Phase {
    name: &'static str,
    idle: u64,
    begun: Instant,
    cpu: Duration,
}

/// Measures, or has it measured in processes of their own, and prints.
#[expect(clippy::print_stdout, reason = "the answer")]
pub(crate) fn run(arguments: &Arguments, runtime: &Runtime) -> anyhow::Result<()> {
    if arguments.repeat.json {
        println!("{}", measure(arguments, runtime)?.json()?);
        return Ok(());
    }
    let Arguments {
        size,
        proxies,
        changes,
        pause,
        repeat,
    } = arguments;
    let command = format!(
        "istiod --pods {} --services {} --namespaces {} --nodes {} \
         --proxies {proxies} --changes {changes} --pause {pause}",
        size.pods, size.services, size.namespaces, size.nodes,
    );
    let table = repeat.table(&command)?;
    println!(
        "{} pods, {} services, {} nodes, {proxies} proxies",
        size.pods, size.services, size.nodes
    );
    print!("{table}");
    Ok(())
}

fn measure(arguments: &Arguments, runtime: &Runtime) -> anyhow::Result<Figures> {
    let mut figures = Figures::default();
    let size = arguments.size;
    let before = resident()?;
    let mut index = Index::new(Settings::default());
    let begun = Instant::now();
    size.nodes()
        .for_each(|node| index.apply(Object::from(node)));
    (size.namespaces()).for_each(|namespace| index.apply(Object::from(namespace)));
    (size.services()).for_each(|service| index.apply(Object::from(service)));
    size.pods().for_each(|pod| index.apply(Object::from(pod)));
    figures.time("index: objects of the whole mesh", begun.elapsed());
    let begun = Instant::now();
    let changes = index.drain().changes;
    figures.time("index: what follows from them", begun.elapsed());
    figures.set(
        "index: resident, MiB",
        mib(resident()?.saturating_sub(before)),
    );
    let resources = Resources::default();
    let count = changes.len();
    let begun = Instant::now();
    resources.apply(changes);
    resources.ready();
    figures.time("discovery: publish the whole mesh", begun.elapsed());
    figures.set(
        "index and discovery: resident, MiB",
        mib(resident()?.saturating_sub(before)),
    );
    one_change(&mut index, size, &mut figures);
    resources.apply(index.drain().changes);
    if arguments.proxies > 0 {
        let directory = tempfile::tempdir()?;
        let roots = directory.path().join("root-cert.pem");
        let address = serve(runtime, resources.clone(), &roots)?;
        let idle = resident()?;
        figures.set("proxies: 0: resident, MiB", mib(idle));
        let mut phase = Phase::begin("proxies: 1 first sync of all at once", idle)?;
        let mut proxies = Proxies::start(address, &roots, arguments, count)?;
        proxies.expect(SYNCED)?;
        phase.end(arguments.proxies, &mut figures)?;
        to_proxies(
            arguments,
            runtime,
            &mut index,
            &resources,
            &mut proxies,
            &mut figures,
        )?;
        phase = Phase::begin("proxies: 2 return of all at once", idle)?;
        proxies.go_on()?;
        proxies.expect(RETURNED)?;
        phase.end(arguments.proxies, &mut figures)?;
    }
    Ok(figures)
}

/// The cost of one changed pod to the index.
fn one_change(index: &mut Index, size: Size, figures: &mut Figures) {
    let mut times = Vec::new();
    for sequence in 0..1000 {
        let mut pod = size.pod(sequence % size.pods);
        mesh::change(&mut pod, 1_000_000 + sequence);
        let begun = Instant::now();
        index.apply(Object::from(pod));
        let changes = index.drain().changes;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
        drop(changes);
    }
    figures.set(
        "index: one changed pod, µs",
        median(times).unwrap_or(f64::NAN),
    );
}

/// The way of changes to proxies that are connected over TLS.
fn to_proxies(
    arguments: &Arguments,
    runtime: &Runtime,
    index: &mut Index,
    resources: &Resources,
    proxies: &mut Proxies,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let mut sent = Vec::new();
    for sequence in 0..arguments.changes {
        let mut pod = arguments.size.pod(sequence % arguments.size.pods);
        mesh::change(&mut pod, sequence);
        sent.push(proxies::now());
        index.apply(Object::from(pod));
        resources.apply(index.drain().changes);
        let pause = Duration::from_millis(arguments.pause);
        runtime.block_on(async move { tokio::time::sleep(pause).await });
    }
    let seen = proxies.seen()?;
    let (mut all, mut last) = (Vec::new(), Vec::new());
    for (sequence, sent) in (0..).zip(sent) {
        let arrivals = seen.arrivals.get(&sequence);
        let arrivals = arrivals.context("a change never arrived")?;
        let times = arrivals
            .iter()
            .map(|at| milliseconds(at.saturating_sub(sent)));
        last.push(times.clone().fold(0.0, f64::max));
        all.extend(times);
    }
    let (all, last) = (median(all), median(last));
    figures.set(
        "one changed pod: at a proxy, median, ms",
        all.unwrap_or(f64::NAN),
    );
    figures.set(
        "one changed pod: at the last proxy, median, ms",
        last.unwrap_or(f64::NAN),
    );
    Ok(())
}

fn serve(runtime: &Runtime, resources: Resources, roots: &Path) -> anyhow::Result<SocketAddr> {
    let issuer = Issuer::self_signed("cluster.local", DAY)?;
    std::fs::write(roots, issuer.roots())?;
    let tls = server_config(&issuer.server_certificate(&[NAME], DAY)?, Versions::Tls13)?;
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
    let address = listener.local_addr()?;
    // The server's timers belong to the runtime.
    let _within = runtime.enter();
    let everybody = |_: &tonic::metadata::MetadataMap, _: &tonic::Extensions| Ok(Client::default());
    let server = grpc_server()
        .initial_stream_window_size(STREAM_WINDOW)
        .add_service(Service::new(resources, everybody).into_server())
        .serve_with_incoming(incoming(listener, tls));
    drop(runtime.spawn(server));
    Ok(address)
}

// === impl Proxies ===

impl Proxies {
    fn start(
        address: SocketAddr,
        roots: &Path,
        arguments: &Arguments,
        resources: usize,
    ) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("proxies")
            .args(["--address", &format!("https://{address}")])
            .arg("--roots")
            .arg(roots)
            .args(["--count", &arguments.proxies.to_string()])
            .args(["--changes", &arguments.changes.to_string()])
            .args(["--resources", &resources.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the proxies")?;
        let output = child.stdout.take().context("the proxies have no output")?;
        Ok(Self {
            child,
            output: BufReader::new(output),
        })
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("the proxies ended early");
        }
        Ok(line)
    }

    /// Waits until all of them have come so far.
    fn expect(&mut self, word: &str) -> anyhow::Result<()> {
        let line = self.line()?;
        ensure!(line.trim() == word, "the proxies say {line}");
        Ok(())
    }

    fn go_on(&mut self) -> anyhow::Result<()> {
        let input = self.child.stdin.as_mut();
        let input = input.context("the proxies have no input")?;
        Ok(writeln!(input)?)
    }

    /// Waits until they have seen all changes.
    fn seen(&mut self) -> anyhow::Result<Seen> {
        Ok(serde_json::from_str(&self.line()?)?)
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

// === impl Phase ===

impl Phase {
    /// `idle` is the memory in use without proxies.
    fn begin(name: &'static str, idle: u64) -> anyhow::Result<Self> {
        // Makes the peak the present value; see proc_pid_clear_refs(5).
        std::fs::write("/proc/self/clear_refs", "5").context("forget the peak")?;
        Ok(Self {
            name,
            idle,
            begun: Instant::now(),
            cpu: cpu()?,
        })
    }

    /// While the streams are still open.
    fn end(&self, proxies: u32, figures: &mut Figures) -> anyhow::Result<()> {
        let Self {
            name,
            idle,
            begun,
            cpu: before,
        } = self;
        figures.time(name, begun.elapsed());
        figures.time(
            &format!("{name}: CPU of the server"),
            cpu()?.saturating_sub(*before),
        );
        let (peak, after) = (memory("VmHWM:")?, resident()?);
        figures.set(&format!("{name}: peak, MiB"), mib(peak));
        figures.set(&format!("{name}: resident after, MiB"), mib(after));
        let each = mib(after.saturating_sub(*idle)) * 1024.0 / f64::from(proxies);
        figures.set(&format!("{name}: after, per proxy, KiB"), each);
        Ok(())
    }
}

/// What this process has used of all processors. Other load of the machine changes it little.
fn cpu() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let used = [usage.user_time(), usage.system_time()];
    let used = used.map(|time| u64::try_from(time.num_microseconds()));
    let [user, system] = used;
    Ok(Duration::from_micros(user? + system?))
}

/// Bytes of this process that are in memory.
fn resident() -> anyhow::Result<u64> {
    memory("VmRSS:")
}

fn memory(field: &str) -> anyhow::Result<u64> {
    process::memory("self", field)
}

fn milliseconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3
}
