//! What processes use, as the kernel tells it.

use anyhow::Context as _;

/// Bytes of memory of a process, `self` or its number, by the field of proc_pid_status(5).
pub(crate) fn memory(process: &str, field: &str) -> anyhow::Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = number.context("no such memory")?.trim().parse()?;
    Ok(kib * 1024)
}

pub(crate) fn mib(bytes: u64) -> f64 {
    // Exact up to 2^53 bytes.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}
