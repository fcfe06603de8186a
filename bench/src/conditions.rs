//! Under what conditions a measure was taken: figures mean nothing without them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::process;
use crate::router::Place;

/// Taken at the begin of a measure.
pub(crate) struct Conditions {
    facts: Map<String, Value>,
    machine_cpu_s: f64,
    machine_total_s: f64,
    own_cpu_s: f64,
}

impl Conditions {
    pub(crate) fn begin(place: &Place) -> Result<Self> {
        let mut facts = Map::new();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        facts.insert("kernel".into(), kernel.trim().into());
        facts.insert("cores".into(), std::thread::available_parallelism()?.get().into());
        facts.insert("cpu".into(), cpu_model().into());
        facts.insert("disk".into(), file_system(&place.data).into());
        facts.insert("quipu".into(), version(&place.quipu.display().to_string(), &["--version"]).into());
        let (machine_cpu_s, machine_total_s) = process::machine_cpu_s()?;
        Ok(Self { facts, machine_cpu_s, machine_total_s, own_cpu_s: process::own_cpu_s()? })
    }

    /// One more fact.
    pub(crate) fn add(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.into(), value.into());
    }

    /// With what others took of the machine meanwhile.
    pub(crate) fn end(mut self) -> Result<Value> {
        let (busy, total) = process::machine_cpu_s()?;
        let foreign = busy - self.machine_cpu_s - (process::own_cpu_s()? - self.own_cpu_s);
        let percent = 100.0 * foreign / (total - self.machine_total_s).max(0.01);
        self.add("foreign_cpu_percent", json!((percent * 10.0).round() / 10.0));
        Ok(self.facts.into())
    }
}

/// The first line that a program says about its version.
pub(crate) fn version(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    said.lines().next().unwrap_or("unknown").to_owned()
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, model)| model).to_owned()
}

/// The device and type of the file system that has this path.
fn file_system(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        Some((fields.next()?, fields.next()?, fields.next()?))
    });
    let nearest = fields.filter(|(_, at, _)| path.starts_with(at)).max_by_key(|(_, at, _)| at.len());
    nearest.map_or("unknown".into(), |(device, _, kind)| format!("{kind} on {device}"))
}
