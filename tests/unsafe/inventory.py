#!/usr/bin/env python3
"""Counts unsafe code, and checks the table of docs/src/reliability/unsafe-code.md.

    inventory.py          prints the table
    inventory.py --check  fails if the page has other numbers, or a crate lacks its lint
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/src/reliability/unsafe-code.md"

# The first that fits a file's path counts it.
AREAS = [
    ("matrix products", "crates/tensor/src/cpu/gemm"),
    ("the team of threads", "crates/tensor/src/cpu/team"),
    ("other CPU kernels, and sharing them out", "crates/tensor/src/cpu/"),
    ("CUDA and NCCL", "crates/tensor/src/cuda"),
    ("mapped files", "crates/tensor/src/files/"),
    ("memory of tensors and gradients", "crates/tensor/src/"),
    ("mapped shards of tokens", "crates/train/src/corpus/"),
    ("tests and benches", "crates/tensor/tests/"),
    ("tests and benches", "benches/src/"),
    ("tests and benches", "tests/unsafe/loom/"),
    ("tests and benches", "fuzz/"),
]

# Crates without unsafe code, and the file that says so.
WITHOUT = [
    "src/lib.rs",
    "crates/bert/src/lib.rs",
    "kernels/src/lib.rs",
    "examples/common/src/lib.rs",
    "benches/compare/src/main.rs",
]


def code(text: str) -> str:
    """Returns Rust without comments and strings."""
    return re.sub(r'//[^\n]*|"(?:\\.|[^"\\])*"', "", text)


def count() -> dict[str, list[int]]:
    counts = {name: [0, 0, 0] for name, _ in AREAS}
    for path in sorted(ROOT.rglob("*.rs")):
        name = path.relative_to(ROOT).as_posix()
        # Another workspace, that of the comparison with candle.
        if name.startswith(("target/", "benches/compare/candle/")) or "/target/" in name:
            continue
        text = code(path.read_text())
        found = [
            len(re.findall(r"\bunsafe\s*\{", text)),
            len(re.findall(r"\bunsafe\s+fn\s+[\w$]", text)),
            len(re.findall(r"\bunsafe\s+impl\b", text)),
        ]
        if any(found):
            area = next((area for area, prefix in AREAS if name.startswith(prefix)), None)
            if area is None:
                sys.exit(f"{name} has unsafe code, where none is expected")
            counts[area] = [a + b for a, b in zip(counts[area], found)]
    return counts


def table() -> str:
    rows = count()
    total = [sum(column) for column in zip(*rows.values())]
    lines = ["| where | blocks | functions | impls |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {' | '.join(map(str, numbers))} |" for name, numbers in rows.items()]
    lines.append(f"| all | {' | '.join(map(str, total))} |")
    return "\n".join(lines) + "\n"


def main():
    for name in WITHOUT:
        if "#![forbid(unsafe_code)]" not in (ROOT / name).read_text():
            sys.exit(f"{name} does not forbid unsafe code")
    if "#![deny(unsafe_code)]" not in (ROOT / "crates/train/src/lib.rs").read_text():
        sys.exit("crates/train does not deny unsafe code")
    if "--check" not in sys.argv:
        print(table(), end="")
    elif table() not in PAGE.read_text():
        sys.exit(f"the table of {PAGE.relative_to(ROOT)} is out of date; it should be\n{table()}")


if __name__ == "__main__":
    main()
