#!/usr/bin/env python3
"""Plants a bug in a copy of the repository: planted.py BUG COPY. Without arguments, lists the bugs and the tool that each is for.

The text that a bug replaces must occur exactly once, so a bug that no longer fits the code fails here.
"""

import pathlib
import sys

ROUND = "crates/tensor/src/cpu/team/round.rs"
EMBEDDING = "crates/tensor/src/cpu/embedding.rs"
DRIVER = "crates/tensor/src/cpu/gemm/driver.rs"
PORTABLE = "crates/tensor/src/cpu/gemm/portable.rs"

# Name: the tool and the tests that find it, the file, what is replaced, and by what.
BUGS = {
    "owner-does-not-wait": (
        "loom",
        ROUND,
        "        spin_until(|| self.inside.load(SeqCst) == CLOSED);\n",
        "",
    ),
    "late-helper-enters": (
        "loom",
        ROUND,
        "(inside & CLOSED == 0).then_some(inside + 1)",
        "Some::<usize>(inside + 1)",
    ),
    "nobody-is-woken": (
        "loom",
        ROUND,
        "            self.wake.notify_all();\n",
        "",
    ),
    "sleeper-does-not-look-again": (
        "loom",
        ROUND,
        "            while self.round.load(SeqCst) == seen {\n",
        "            {\n",
    ),
    "task-is-not-published": (
        "loom",
        ROUND,
        "self.inside.store(0, SeqCst)",
        "self.inside.store(0, std::sync::atomic::Ordering::Relaxed)",
    ),
    "columns-overlap": (
        "miri embedding::tests::scatter",
        EMBEDDING,
        "task * COLUMNS..((task + 1) * COLUMNS).min(width)",
        "task * COLUMNS..((task + 1) * COLUMNS + 1).min(width)",
    ),
    "rows-past-the-tile": (
        "miri gemm::tests::any_strides",
        PORTABLE,
        "        if i >= to.rows {\n            continue;\n        }\n",
        "",
    ),
    "panel-is-freed": (
        "address attention::tests::extremes",
        DRIVER,
        "scratch.insert(fitting.unwrap_or_else(|| Scratch::new(bytes))).pointer()",
        "fitting.unwrap_or_else(|| Scratch::new(bytes)).pointer()",
    ),
}


def main():
    if len(sys.argv) == 1:
        for name, (tool, *_) in BUGS.items():
            print(name, tool)
        return
    _, path, old, new = BUGS[sys.argv[1]]
    file = pathlib.Path(sys.argv[2]) / path
    text = file.read_text()
    if text.count(old) != 1:
        sys.exit(f"{path}: the text to replace occurs {text.count(old)} times, not once")
    file.write_text(text.replace(old, new))


if __name__ == "__main__":
    main()
