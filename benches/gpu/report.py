"""report.py FOLDER: prints the measurements of run.sh as a page.

FOLDER contains machine.txt, stages.txt, the lines of the benches (cloze-*.txt) and of PyTorch (peers-*.txt), as far as they got.
"""

import json
import sys
from pathlib import Path


def rows(folder, which):
    """Returns the lines of JSON. The last line of a program that was stopped may be cut."""
    found = []
    for file in sorted(folder.glob(f"{which}-*.txt")):
        for line in file.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return found


def rate(row):
    return f"{row['per_second'] / 1e12:.1f} TFLOP/s" if row["unit"] == "FLOP" else f"{row['per_second']:,.0f} tokens/s"


def comparison(ours, theirs):
    print("| | cloze, ms | | peer | ms | | peer's time divided by cloze's |\n|---|---|---|---|---|---|---|")
    for row in ours:
        name, told = row["name"], f"| {row['name']} | {row['ms']:.3f} | {rate(row)} |"
        peers = [peer for peer in theirs if peer["name"].split(" [")[0] == name]
        for peer in peers or [{"name": name, "error": "not measured"}]:
            label = peer["name"].partition("[")[2].rstrip("]") or "torch.matmul"
            if "error" in peer:
                print(f"{told} {label} | {peer['error']} | | |")
            else:
                print(f"{told} {label} | {peer['ms']:.3f} | {rate(peer)} | {peer['ms'] / row['ms']:.2f} |")


def kernels(rows):
    for step in dict.fromkeys(row["step"] for row in rows):
        own = [row for row in rows if row["step"] == step]
        whole = sum(row["ms"] for row in own)
        print(f"\n## {step}, kernel by kernel: {whole:.3f} ms\n")
        print("| kernel | launches | ms | share | GB/s | TFLOP/s |\n|---|---|---|---|---|---|")
        for row in own:
            seconds = max(row["ms"], 1e-9) / 1e3
            gigabytes, tera = row["bytes"] / 1e9 / seconds, row["operations"] / 1e12 / seconds
            share = 100 * row["ms"] / max(whole, 1e-9)
            print(f"| {row['kernel']} | {row['launches']} | {row['ms']:.3f} | {share:.1f} % | {gigabytes:,.0f} | {tera:,.1f} |")


def main(folder):
    folder = Path(folder)
    ours, theirs = rows(folder, "cloze"), rows(folder, "peers")
    print("# On a GPU, compared with PyTorch\n")
    print("```\n" + (folder / "machine.txt").read_text().strip() + "\n```\n")
    comparison([row for row in ours if "name" in row], theirs)
    kernels([row for row in ours if "kernel" in row])
    print("\n## Stages\n\n```\n" + (folder / "stages.txt").read_text().strip() + "\n```")


if __name__ == "__main__":
    main(*sys.argv[1:])
