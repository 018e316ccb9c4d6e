//! The library that lets a call fail, and the ways in which it can.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A way for a call to fail, by its name in `interpose.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The disk is full, for this call only.
    NoSpace,
    /// The disk reports an error, for this call only.
    IoError,
    /// A signal interrupts the call.
    Interrupted,
    /// Half of the bytes are read or written.
    Short,
    /// SIGKILL instead of the call.
    Killed,
    /// SIGKILL after the call, or after half of its bytes.
    Torn,
    /// The disk is full from this call on.
    Full,
    /// Every call fails from this one on.
    Dead,
}

impl Way {
    pub const ALL: [Way; 8] =
        [Way::NoSpace, Way::IoError, Way::Interrupted, Way::Short, Way::Killed, Way::Torn, Way::Full, Way::Dead];

    pub fn name(self) -> &'static str {
        match self {
            Way::NoSpace => "ENOSPC",
            Way::IoError => "EIO",
            Way::Interrupted => "EINTR",
            Way::Short => "short",
            Way::Killed => "kill",
            Way::Torn => "torn",
            Way::Full => "full",
            Way::Dead => "dead",
        }
    }

    /// Whether the process gets the signal.
    pub fn kills(self) -> bool {
        matches!(self, Way::Killed | Way::Torn)
    }

    /// Whether the program must succeed as if nothing had happened.
    pub fn is_harmless(self) -> bool {
        matches!(self, Way::Interrupted | Way::Short)
    }

    /// Whether the failure differs from that of another call: half of a `stat` is all of it, a full disk fails the next call
    /// that needs space, and a process killed after it has looked at something is one killed before its next call.
    pub fn applies(self, call: &Call) -> bool {
        match self {
            Way::Short => ["read", "write", "copy", "send"].iter().any(|part| call.name.contains(part)),
            Way::Torn => matches!(call.kind.as_str(), "writes" | "needs-space"),
            Way::Full => call.kind == "needs-space",
            _ => true,
        }
    }
}

/// A call that a program made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What it does: `looks`, `reads`, `writes` or `needs-space`.
    kind: String,
    pub name: String,
    /// The path within the folder, with a slash in front of it.
    pub path: String,
}

/// Reads the log of the library.
pub fn calls(log: &Path) -> std::io::Result<Vec<Call>> {
    let call = |line: &str| {
        let mut words = line.splitn(3, ' ').map(str::to_string);
        let mut word = || words.next().unwrap_or_default();
        Call { kind: word(), name: word(), path: word() }
    };
    Ok(std::fs::read_to_string(log)?.lines().map(call).collect())
}

/// Compiles the library in `folder`. Returns `None`, and says why, where that is not possible.
pub fn compile(folder: &Path) -> Option<PathBuf> {
    let skipped = |why: &str| {
        println!("SKIPPED: faults, because {why}");
        None
    };
    if !cfg!(all(target_os = "linux", target_env = "gnu")) {
        return skipped("calls are intercepted on Linux with the GNU C library only");
    }
    let (source, library) = (folder.join("interpose.c"), folder.join("interpose.so"));
    std::fs::write(&source, include_str!("interpose.c")).expect("a temporary folder can be written");
    let arguments = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"];
    let output = Command::new("cc").args(arguments).arg(&library).arg(&source).arg("-ldl").output();
    let Ok(output) = output else { return skipped("there is no C compiler") };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(library)
}

/// What the library does to a program.
#[derive(Clone, Copy)]
pub enum Order {
    /// It logs every call.
    Log,
    /// The call of this number, from 1, fails, and is logged.
    Fail(usize, Way),
    /// Nothing fails.
    Pass,
}

/// Lets a program run with the library, which looks at the calls below `root`.
pub fn intercept(command: &mut Command, library: &Path, root: &Path, log: &Path, order: Order) {
    let (call, way) = match order {
        Order::Log => (0, "pass"),
        Order::Fail(call, way) => (call, way.name()),
        Order::Pass => (usize::MAX >> 1, "pass"),
    };
    command.env("LD_PRELOAD", library).env("CLOZE_FAULT_ROOT", root).env("CLOZE_FAULT_LOG", log);
    command.env("CLOZE_FAULT_CALL", call.to_string()).env("CLOZE_FAULT_WAY", way);
}
