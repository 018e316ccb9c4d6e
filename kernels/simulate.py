"""Estimates the cycles of the kernels' loops from their machine code, without a GPU.

simulate.py OUT: simulates the cubins that compile.py wrote to OUT, prints every hot loop, and compares the cycles with cycles.json.
simulate.py OUT --update: writes cycles.json.
simulate.py OUT KERNEL: prints the loops of one kernel with their instructions.

A quarter of a multiprocessor is modelled: it issues an instruction per cycle, of one of the warps that it holds, in each warp in
order. An instruction waits until the registers that it reads are there, and until its unit is free. Barriers, caches and the
branches that a loop takes rarely are not modelled, so the estimates are good to about a quarter, and better when they compare two
versions of a loop. Needs nvdisasm from PyPI, see requirements.txt.
"""

import collections
import json
import re
import subprocess
import sys
from pathlib import Path

BUDGETS = Path(__file__).resolve().parent / "cycles.json"
ARCHITECTURES = ["sm_80", "sm_90a"]
# Compilers and this model change a loop by a few percent without anybody having touched it.
TOLERANCE = 1.05
# Shorter loops end kernels or wait for barriers.
SHORTEST = 40
ITERATIONS = 4

# Warps of a kernel that share a quarter: blocks that fit by registers and shared memory, times their warps, over four.
WARPS = {"gemm": 4, "gemm_hopper": 4, "attention_forward": 4, "attention_backward": 3}
OTHER_WARPS = 8
# Cycles until a result can be read. Global memory is taken as DRAM under load.
LATENCY = {"LDG": 650, "HMMA": 33, "LDSM": 33, "LDS": 30, "MUFU": 23, "SHFL": 25, "LDC": 40, "S2R": 25, "F2F": 12}
OTHER_LATENCY = 5
# Cycles for which an instruction keeps its unit busy; vectors of 16 bytes take four times as long as words.
BUSY = {"HMMA": 6.45, "LDSM": 16, "MUFU": 8, "SHFL": 8, "LDGSTS": 16, "LDS": 4, "STS": 4, "LDG": 4, "STG": 4}
BRANCH = 8
BARRIER = 20

Instruction = collections.namedtuple("Instruction", "address text name reads writes")


def registers(text, count=1):
    """Returns the registers that an operand names: `count` of them from the first on."""
    found = re.findall(r"\b(UR\d+|R\d+|UP\d|P\d)\b", text)
    if found and count > 1 and found[0].startswith("R"):
        first = int(found[0][1:])
        return [f"R{first + i}" for i in range(count)] + found[1:]
    return found


def words(name):
    """Returns the registers of the data that an instruction moves."""
    if name.startswith("LDSM"):
        return int(name[-1]) if name[-1] in "24" else 1
    return 4 if ".128" in name else 2 if ".64" in name or "WIDE" in name else 1


def parse(address, text):
    predicate = re.match(r"@!?(U?P\d)\s+", text)
    body = text[predicate.end():] if predicate else text
    name = body.split()[0]
    operands = [operand.strip() for operand in body[len(name):].split(",")]
    reads = [predicate[1]] if predicate else []
    writes = []
    if name.startswith("HMMA") and len(operands) == 4:
        sizes = [4, 4, 2, 4] if "16816" in name else [4, 2, 1, 4]
        for at, (operand, size) in enumerate(zip(operands, sizes)):
            (writes if at == 0 else reads).extend(registers(operand, size))
    elif name.startswith(("ST", "BRA", "BSYNC", "BSSY", "RED", "SYNCS", "WARPSYNC", "BAR")):
        # The last operand of a store is its data.
        for operand in operands[:-1]:
            reads.extend(registers(operand, 2))
        reads.extend(registers(operands[-1], words(name)))
    else:
        results = 1
        if name.startswith(("ISETP", "FSETP", "PLOP3")) or re.fullmatch(r"U?P\d|U?PT", operands[min(1, len(operands) - 1)]):
            results = 2
        for at, operand in enumerate(operands):
            if at < results:
                writes.extend(registers(operand, words(name) if at == 0 else 1))
            else:
                reads.extend(registers(operand, 2 if name.startswith("LDG") else 1))
    return Instruction(address, text, name, reads, writes)


def kernels(cubin):
    """Returns the instructions of each kernel, in which labels are strings."""
    program = next(Path(sys.prefix).rglob("nvdisasm"))
    code = subprocess.run([program, cubin], check=True, capture_output=True, text=True).stdout
    found, current = {}, None
    for line in code.splitlines():
        if start := re.match(r"\.text\.(\w+):", line):
            current = found[start[1]] = []
        elif current is not None:
            if label := re.match(r"(\.L_x_\d+):", line):
                current.append(label[1])
            elif instruction := re.match(r"\s*/\*([0-9a-f]+)\*/\s+(.*?);", line):
                current.append(parse(int(instruction[1], 16), instruction[2].strip()))
    return found


def target(instruction):
    found = re.search(r"`\((\.L_x_\d+)\)", instruction.text)
    return found[1] if found and instruction.name.startswith("BRA") else None


def loops(code):
    """Returns the bodies of the loops that contain no other loop, the way through them without the branches that are conditional."""
    labels = {line: at for at, line in enumerate(code) if isinstance(line, str)}
    ends = [(labels[target(line)], at) for at, line in enumerate(code)
            if not isinstance(line, str) and labels.get(target(line), len(code)) <= at]
    innermost = [(start, end) for start, end in ends if not any((start <= s and e <= end) and (s, e) != (start, end) for s, e in ends)]
    for start, end in sorted(set(innermost)):
        body, at = [], start
        while at <= end:
            line = code[at]
            at += 1
            if isinstance(line, str):
                continue
            body.append(line)
            jump = labels.get(target(line), -1)
            if line.name == "BRA" and not line.text.startswith("@") and at < jump <= end:
                at = jump
        yield body


def of(table, name, otherwise):
    return next((value for prefix, value in table.items() if name.startswith(prefix)), otherwise)


def cycles(body, warps):
    """Returns the cycles of an iteration of all warps."""
    ready = [{} for _ in range(warps)]
    at, done, free, units = [0] * warps, [0] * warps, [0] * warps, {}
    now, last = 0, 0
    while min(done) < ITERATIONS:
        for turn in range(warps):
            warp = (last + 1 + turn) % warps
            if done[warp] >= ITERATIONS or free[warp] > now:
                continue
            instruction = body[at[warp]]
            if any(ready[warp].get(register, 0) > now for register in instruction.reads + instruction.writes):
                continue
            unit = next((prefix for prefix in BUSY if instruction.name.startswith(prefix)), None)
            if unit and units.get(unit, 0) > now:
                continue
            if unit:
                wide = words(instruction.name) if unit in ("LDS", "STS", "LDG", "STG") else 1
                units[unit] = max(now, units.get(unit, 0)) + BUSY[unit] * wide
            for register in instruction.writes:
                ready[warp][register] = now + of(LATENCY, instruction.name, OTHER_LATENCY)
            branches = instruction.name.startswith(("BRA", "BSYNC", "BSSY"))
            free[warp] = now + (BRANCH if branches else BARRIER if instruction.name.startswith("BAR") else 1)
            at[warp] += 1
            if at[warp] == len(body):
                at[warp], done[warp] = 0, done[warp] + 1
            last = warp
            break
        now += 1
    return round(now / ITERATIONS)


def kinds(body):
    """Returns the number of instructions by name, the most frequent first."""
    return collections.Counter(instruction.name.split(".")[0] for instruction in body).most_common()


def simulate(out):
    """Returns the cycles of the hot loops of each kernel, by architecture and name."""
    found = {}
    for architecture in ARCHITECTURES:
        for cubin in sorted(Path(out).glob(f"*.{architecture}.cubin")):
            for kernel, code in kernels(cubin).items():
                warps = of(WARPS, kernel, OTHER_WARPS)
                if kernel.startswith("gemm_any"):
                    warps = OTHER_WARPS
                # wgmma works beside the warps that issue it, so its loop is not theirs.
                hot = [body for body in loops(code)
                       if len(body) >= SHORTEST and not any(i.name.startswith("HGMMA") for i in body)]
                if hot:
                    found.setdefault(architecture, {})[kernel] = [cycles(body, warps) for body in hot]
    return found


def main():
    out, *rest = sys.argv[1:]
    if rest and rest[0] != "--update":
        for cubin in sorted(Path(out).glob("*.cubin")):
            for kernel, code in kernels(cubin).items():
                if kernel == rest[0]:
                    for body in loops(code):
                        counts = " ".join(f"{name} {count}" for name, count in kinds(body)[:12])
                        spent = cycles(body, of(WARPS, kernel, OTHER_WARPS))
                        print(f"{cubin.name} {body[0].address:#x}: {len(body)} instructions, {spent} cycles: {counts}")
        return
    found = simulate(out)
    if rest:
        lines = [f'  "{a}": {{\n' + ",\n".join(f'    "{k}": {json.dumps(v)}' for k, v in by.items()) + "\n  }" for a, by in found.items()]
        BUDGETS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return
    budgets, slower = json.loads(BUDGETS.read_text()), []
    for architecture, by in found.items():
        for kernel, spent in by.items():
            budget = budgets.get(architecture, {}).get(kernel)
            print(f"{architecture} {kernel}: {spent}")
            if budget is None or len(budget) != len(spent) or any(s > TOLERANCE * b for s, b in zip(sorted(spent), sorted(budget))):
                slower.append(f"{architecture} {kernel}: {spent} cycles, budget {budget}")
    if slower:
        sys.exit("loops that are slower, or not in cycles.json:\n" + "\n".join(slower))


if __name__ == "__main__":
    main()
