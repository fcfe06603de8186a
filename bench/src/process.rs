//! What the system knows of a process and of those it started: CPU time, bytes written, memory. Read from `/proc`.

use std::fs;

use anyhow::{Context as _, Result};

/// What processes have used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User and system time of all threads.
    pub(crate) cpu_s: f64,
    /// Bytes that they caused to be written to the disk: `write_bytes` of `/proc/PID/io`.
    pub(crate) written_bytes: u64,
}

impl Usage {
    /// What was used since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu_s: self.cpu_s - before.cpu_s,
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }
}

/// Of a process and all below it.
pub(crate) fn usage(pid: u32) -> Result<Usage> {
    let mut sum = Usage::default();
    for pid in tree(pid)? {
        // One that has just ended has nothing to add.
        let Ok(stat) = Stat::read(pid) else { continue };
        sum.cpu_s += stat.cpu_s;
        sum.written_bytes += written_bytes(pid).unwrap_or(0);
    }
    Ok(sum)
}

/// CPU time of this process and of the children it has waited for.
pub(crate) fn own_cpu_s() -> Result<f64> {
    let stat = Stat::read(std::process::id())?;
    Ok(stat.cpu_s + stat.children_cpu_s)
}

/// CPU time of the whole machine that went into work, and what it had in all.
pub(crate) fn machine_cpu_s() -> Result<(f64, f64)> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let fields: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    let second = ticks_per_second();
    // user, nice, system, idle, iowait, irq, softirq, steal; the two that follow are within user and nice.
    let all: f64 = fields.iter().take(8).sum();
    let idle: f64 = fields.iter().skip(3).take(2).sum();
    Ok(((all - idle) / second, all / second))
}

/// Resident memory, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = text.split_whitespace().nth(1).context("statm has no second field")?.parse()?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// A process and all below it, parents first.
pub(crate) fn tree(root: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Ok(stat) = Stat::read(pid) {
            parents.push((pid, stat.parent));
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| child));
        next += 1;
    }
    Ok(found)
}

struct Stat {
    parent: u32,
    cpu_s: f64,
    children_cpu_s: f64,
}

impl Stat {
    fn read(pid: u32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name stands in parentheses and may contain anything.
        let (_, rest) = text.rsplit_once(") ").context("stat without a name")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).context("a short stat");
        let second = ticks_per_second();
        Ok(Self {
            parent: fields.get(1).context("a short stat")?.parse()?,
            cpu_s: (number(11)? + number(12)?) / second,
            children_cpu_s: (number(13)? + number(14)?) / second,
        })
    }
}

fn written_bytes(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.context("no write_bytes")?.parse()?)
}

fn ticks_per_second() -> f64 {
    // At most some thousands.
    u32::try_from(rustix::param::clock_ticks_per_second()).map_or(100.0, f64::from)
}
