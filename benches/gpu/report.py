"""report.py FOLDER: prints the measurements of run.sh as docs/src/benchmarks/gpu.md.

FOLDER contains machine.txt and, for each round N, cloze.N.jsonl and peers.N.jsonl. Each time is the minimum over the
rounds."""

import json
import re
import sys
from pathlib import Path


def read(folder, which):
    found = {}
    for file in sorted(folder.glob(f"{which}.*.jsonl")):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            before = found.get(row["name"], {})
            if "ms" not in before or row.get("ms", float("inf")) < before["ms"]:
                found[row["name"]] = row
    return found


def rate(row):
    return f"{row['per_second'] / 1e12:.1f} TFLOP/s" if row["unit"] == "FLOP" else f"{row['per_second']:,.0f} tokens/s"


def main(folder):
    folder = Path(folder)
    ours, theirs = read(folder, "cloze"), read(folder, "peers")
    print("# On a GPU, compared with PyTorch\n")
    print("Measured by `benches/gpu/run.sh`, which runs both in turns. Each time is the minimum over the rounds.\n")
    print("```\n" + (folder / "machine.txt").read_text().strip() + "\n```\n")
    print("| | cloze, ms | | peer | ms | | peer's time divided by cloze's |\n|---|---|---|---|---|---|---|")
    for name, row in ours.items():
        peers = {re.sub(r".*\[(.*)\]", r"\1", other): of for other, of in theirs.items() if other.split(" [")[0] == name}
        for label, peer in (peers or {"": {"error": "not measured"}}).items():
            label = label if label != name else "torch.matmul"
            if "error" in peer:
                print(f"| {name} | {row['ms']:.3f} | {rate(row)} | {label} | {peer['error']} | | |")
            else:
                print(f"| {name} | {row['ms']:.3f} | {rate(row)} | {label} | {peer['ms']:.3f} | {rate(peer)} | {peer['ms'] / row['ms']:.2f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
