//! Metrics that are read when they are asked for: of the process and of its runtime.

use std::{fmt, fs};

use nix::sys::resource::{Resource, getrlimit};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use tokio::runtime::RuntimeMetrics;

/// Where Linux lists the open file descriptors of this process.
const DESCRIPTORS: &str = "/proc/self/fd";

/// `process_open_fds` and `process_max_fds`.
#[derive(Debug)]
pub(super) struct FileDescriptors;

/// `tokio_*`, as far as tokio's stable interface goes.
#[derive(Debug)]
pub(super) struct Runtime(RuntimeMetrics);

// === impl FileDescriptors ===

impl Collector for FileDescriptors {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut gauge =
            |name, help, value: Option<u64>| match value {
                Some(value) => ConstGauge::new(saturated(value))
                    .encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?),
                None => Ok(()),
            };
        gauge(
            "process_open_fds",
            "Number of open file descriptors (unstable)",
            open(),
        )?;
        gauge(
            "process_max_fds",
            "Maximum number of open file descriptors (unstable)",
            getrlimit(Resource::RLIMIT_NOFILE)
                .ok()
                .map(|(soft, _)| soft),
        )
    }
}

/// Linux 6.2 and later say the number as the size of the directory; before, the entries are counted,
/// without the one that the counting itself opens.
fn open() -> Option<u64> {
    match fs::metadata(DESCRIPTORS).ok()?.len() {
        0 => (fs::read_dir(DESCRIPTORS).ok()?.count() as u64).checked_sub(1),
        size => Some(size),
    }
}

fn saturated(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

// === impl Runtime ===

impl Runtime {
    pub(super) fn new(metrics: RuntimeMetrics) -> Self {
        Self(metrics)
    }
}

impl Collector for Runtime {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let metrics = &self.0;
        let gauges = [
            (
                "tokio_num_workers",
                "Worker threads of the runtime (unstable)",
                metrics.num_workers(),
            ),
            (
                "tokio_num_alive_tasks",
                "Tasks alive in the runtime (unstable)",
                metrics.num_alive_tasks(),
            ),
            (
                "tokio_global_queue_depth",
                "Tasks waiting in the runtime's global queue (unstable)",
                metrics.global_queue_depth(),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(saturated(value as u64)).encode(gauge)?;
        }
        self.encode_workers(&mut encoder)
    }
}

impl Runtime {
    fn encode_workers(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let metrics = &self.0;
        let mut family = encoder.encode_descriptor(
            "tokio_worker_park_count",
            "How often a worker went to sleep (unstable)",
            None,
            MetricType::Counter,
        )?;
        for worker in 0..metrics.num_workers() {
            ConstCounter::new(metrics.worker_park_count(worker))
                .encode(family.encode_family(&[("worker", worker.to_string())])?)?;
        }
        let mut family = encoder.encode_descriptor(
            "tokio_worker_park_unpark_count",
            "How often a worker went to sleep and was woken, together (unstable)",
            None,
            MetricType::Counter,
        )?;
        for worker in 0..metrics.num_workers() {
            ConstCounter::new(metrics.worker_park_unpark_count(worker))
                .encode(family.encode_family(&[("worker", worker.to_string())])?)?;
        }
        let mut family = encoder.encode_descriptor(
            "tokio_worker_total_busy_duration_seconds",
            "Time that a worker was busy (unstable)",
            None,
            MetricType::Counter,
        )?;
        for worker in 0..metrics.num_workers() {
            ConstCounter::new(metrics.worker_total_busy_duration(worker).as_secs_f64())
                .encode(family.encode_family(&[("worker", worker.to_string())])?)?;
        }
        Ok(())
    }
}
