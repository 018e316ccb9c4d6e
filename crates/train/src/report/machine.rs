//! The machine that a run used.

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// A description of a machine and the software on it. Unknown fields are empty or 0.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Machine {
    /// Name of the processor.
    pub processor: String,
    /// Number of logical processors: a core that runs two threads counts as two.
    pub processors: usize,
    /// Number of threads that the library uses.
    pub threads: usize,
    /// Memory in bytes.
    pub memory: u64,
    /// Operating system and architecture.
    pub system: String,
    /// Version of this crate.
    pub version: String,
}

impl Machine {
    /// Describes the machine that this program runs on.
    pub fn this() -> Machine {
        let wanted = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(wanted);
        let processor = system.cpus().first().map(|cpu| cpu.brand().trim().to_string()).unwrap_or_default();
        let name = System::long_os_version().unwrap_or_else(|| std::env::consts::OS.to_string());
        Machine {
            processor,
            processors: system.cpus().len(),
            threads: rayon::current_num_threads(),
            memory: system.total_memory(),
            system: format!("{name}, {}", std::env::consts::ARCH),
            version: env!("CARGO_PKG_VERSION").to_string(),
        }
    }

    /// Returns the names and values of known fields, for a table.
    pub(super) fn table(&self) -> Vec<(String, String)> {
        let memory = format!("{:.1} GiB", self.memory as f64 / f64::from(1 << 30));
        let lines = [
            ("processor", self.processor.clone()),
            ("logical processors", self.processors.to_string()),
            ("threads", self.threads.to_string()),
            ("memory", memory),
            ("system", self.system.clone()),
            ("cloze", self.version.clone()),
        ];
        let known = lines.into_iter().filter(|(_, value)| !value.is_empty() && value != "0" && value != "0.0 GiB");
        known.map(|(name, value)| (name.to_string(), value)).collect()
    }
}
