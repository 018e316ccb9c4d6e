//! The memory of this process, and of the system that it runs on.

use std::path::{Path, PathBuf};

use sysinfo::{MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System};

/// Returns the memory of this process in bytes; 0 if the system does not say.
pub(crate) fn resident() -> u64 {
    status("VmRSS:").unwrap_or_else(|| {
        let Ok(pid) = sysinfo::get_current_pid() else { return 0 };
        let mut system = System::new();
        let what = ProcessRefreshKind::nothing().with_memory();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, what);
        system.process(pid).map_or(0, sysinfo::Process::memory)
    })
}

/// Returns the most memory that this process had so far, in bytes, on systems that say so.
pub(crate) fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// Returns a line of `/proc/self/status`, in bytes.
fn status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Returns the memory that this process may still take, in bytes: what the system has available or, if that is less, what is
/// left of the limit of a control group, such as a container's.
pub(crate) fn available() -> Option<u64> {
    let wanted = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let of_system = Some(System::new_with_specifics(wanted).available_memory()).filter(|&bytes| bytes > 0);
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    [of_system, left_of_groups(&groups, Path::new("/sys/fs/cgroup"))].into_iter().flatten().min()
}

/// Returns the least that is left of the limits of the control groups that `groups` lists, in the form of `/proc/self/cgroup`,
/// and of those that they are in.
fn left_of_groups(groups: &str, root: &Path) -> Option<u64> {
    let line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        match controllers.split(',').any(|controller| controller == "memory") {
            true => Some((root.join("memory"), group.to_string(), &VERSION_1)),
            false => controllers.is_empty().then(|| (root.to_path_buf(), group.to_string(), &VERSION_2)),
        }
    };
    let of_group = |(root, group, files): (PathBuf, String, &Files)| {
        let path = root.join(group);
        // Within a container, the path may be that outside of it.
        path.ancestors().take_while(|path| path.starts_with(&root)).filter_map(|path| files.left(path)).min()
    };
    groups.lines().filter_map(line).filter_map(of_group).min()
}

/// The files of a control group: its limit, its use, and the name of the part of its use that the system can take back.
struct Files {
    limit: &'static str,
    used: &'static str,
    cache: &'static str,
}

const VERSION_1: Files =
    Files { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", cache: "total_inactive_file" };
const VERSION_2: Files = Files { limit: "memory.max", used: "memory.current", cache: "inactive_file" };

impl Files {
    fn left(&self, group: &Path) -> Option<u64> {
        let number = |name: &str| std::fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
        let (limit, used) = (number(self.limit)?, number(self.used)?);
        let statistics = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let cache = statistics.lines().find_map(|line| line.strip_prefix(self.cache)?.trim().parse().ok()).unwrap_or(0);
        Some(limit.saturating_sub(used.saturating_sub(cache)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_control_group_counts() -> std::io::Result<()> {
        let root = tempfile::tempdir()?;
        let write = |group: &str, files: [(&str, &str); 3]| -> std::io::Result<()> {
            std::fs::create_dir_all(root.path().join(group))?;
            files.into_iter().try_for_each(|(name, text)| std::fs::write(root.path().join(group).join(name), text))
        };
        write(
            "a",
            [("memory.max", "1000\n"), ("memory.current", "700\n"), ("memory.stat", "anon 5\ninactive_file 100\n")],
        )?;
        write("a/b", [("memory.max", "max\n"), ("memory.current", "200\n"), ("memory.stat", "")])?;
        assert_eq!(left_of_groups("0::/a/b\n", root.path()), Some(400));
        assert_eq!(left_of_groups("0::/\n", root.path()), None);
        // The path of the host, of which the container sees nothing.
        assert_eq!(left_of_groups("0::/docker/1234\n", root.path()), None);
        let files = [("memory.limit_in_bytes", "500"), ("memory.usage_in_bytes", "450"), ("memory.stat", "")];
        write("memory/job", files)?;
        assert_eq!(left_of_groups("4:cpu,cpuacct:/x\n3:memory:/job\n0::/a\n", root.path()), Some(50));
        Ok(())
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident() > 1 << 20);
        if let Some(peak) = peak() {
            assert!(peak >= 1 << 20);
        }
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
