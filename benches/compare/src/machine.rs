//! The machine, the versions of the software, and the date of a comparison.

use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::Result;
use cloze_benches::{Ceilings, Memory};

/// The machine and the software on it.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    processor: String,
    caches: String,
    memory_gib: f64,
    threads: usize,
    system: String,
    rustc: String,
    commit: String,
    date: String,
    /// Its ceilings, as text.
    ceilings: String,
}

impl Machine {
    /// Describes this machine. Properties that the system does not report are `unknown`.
    ///
    /// # Errors
    /// Returns an error if there is not enough memory to measure its bandwidth.
    pub fn here(threads: usize) -> Result<Machine> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        Ok(Machine {
            processor: processor(),
            caches: caches(),
            memory_gib: memory_gib(),
            threads,
            system: output_of(Command::new("uname").arg("-sr")),
            rustc: output_of(Command::new(rustc).arg("--version")),
            commit: commit(),
            date: output_of(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"])),
            ceilings: Ceilings::measure(&mut Memory::new()?).to_string(),
        })
    }

    /// Returns three lines of Markdown.
    pub fn markdown(&self) -> String {
        let Machine { processor, caches, memory_gib, threads, system, rustc, commit, date, ceilings } = self;
        format!(
            "{processor}; caches {caches}; {memory_gib:.0} GiB; {system}; {threads} threads for each contestant.\n\
             Measured first: {ceilings}.\n\
             Commit {commit}, {rustc}, {date}."
        )
    }
}

const UNKNOWN: &str = "unknown";

/// Returns the output of a command.
fn output_of(command: &mut Command) -> String {
    let output = command.output().ok().filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| UNKNOWN.into())
}

fn git(arguments: &[&str]) -> String {
    output_of(Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(arguments))
}

fn commit() -> String {
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]) != UNKNOWN;
    git(&["rev-parse", "--short=10", "HEAD"]) + if changed { " with changes" } else { "" }
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
        line.and_then(|line| line.split(':').nth(1)).map_or(UNKNOWN, str::trim)
    };
    let flags: Vec<&str> = field("flags").split(' ').collect();
    let relevant = ["avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8"];
    let has = relevant.into_iter().filter(|flag| flags.contains(flag)).collect::<Vec<_>>().join(" ");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (name, family, model) = (field("model name"), field("cpu family"), field("model"));
    format!("{name} (family {family}, model {model}; {has}), {cores} cores")
}

/// Returns the data caches of the first core: `L1 48K, L2 1024K, L3 32768K`.
fn caches() -> String {
    let folder = Path::new("/sys/devices/system/cpu/cpu0/cache");
    let mut caches = Vec::new();
    for index in 0.. {
        let read = |name: &str| std::fs::read_to_string(folder.join(format!("index{index}")).join(name));
        let (Ok(level), Ok(size), Ok(kind)) = (read("level"), read("size"), read("type")) else { break };
        if kind.trim() != "Instruction" {
            caches.push(format!("L{} {}", level.trim(), size.trim()));
        }
    }
    if caches.is_empty() { UNKNOWN.into() } else { caches.join(", ") }
}

fn memory_gib() -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / (1 << 20) as f64
}
