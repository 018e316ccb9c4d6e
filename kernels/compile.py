"""compile.py OUT [SOURCE.cu ..]: compiles CUDA sources to a cubin for each architecture, with NVRTC from NVIDIA's wheels.
compile.py --check: whether the cubins of this repository are those of its sources, by the hashes in their manifest.

Compiling needs the packages of `requirements.txt`, no CUDA installation and no GPU. `build.sh` makes an environment that has
them. Prints for each kernel its registers, shared memory and local memory; fails where a kernel has any of that, spilled
registers or arrays: it is the slowest there is.
"""

import ctypes
import hashlib
import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CUBINS = HERE / "cubins"
ARCHITECTURES = ["sm_75", "sm_80", "sm_90a", "sm_120"]
# What Turing has no instructions for: products of bf16 on tensor cores, and asynchronous copies.
NOT_FOR_TURING = {"attention_backward", "attention_forward", "gemm", "primitives"}
OPTIONS = ["--std=c++17", "-default-device", "--ptxas-options=-v"]


class Nvrtc:
    def __init__(self):
        import nvidia.cuda_nvrtc

        folder = Path(nvidia.cuda_nvrtc.__path__[0]) / "lib"
        # The first finds the second by its name alone.
        for builtins in folder.glob("libnvrtc-builtins.so.*"):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        self.library = ctypes.CDLL(str(folder / "libnvrtc.so.12"))

    def call(self, name, *arguments):
        result = getattr(self.library, name)(*arguments)
        if result != 0:
            self.library.nvrtcGetErrorString.restype = ctypes.c_char_p
            raise RuntimeError(f"{name}: {self.library.nvrtcGetErrorString(result).decode()}")

    def text(self, what, program):
        size = ctypes.c_size_t()
        self.call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        self.call(f"nvrtcGet{what}", program, text)
        return text.raw

    def compile(self, source, architecture):
        """The cubin, and what the compiler said."""
        program = ctypes.c_void_p()
        code = source.read_bytes()
        self.call("nvrtcCreateProgram", ctypes.byref(program), code, source.name.encode(), 0, None, None)
        options = [f"--gpu-architecture={architecture}", *OPTIONS, f"--include-path={source.parent}"]
        array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        try:
            self.call("nvrtcCompileProgram", program, len(options), array)
        except RuntimeError as error:
            log = self.text("ProgramLog", program).decode().rstrip("\0\n")
            raise SystemExit(f"{source} for {architecture}: {error}\n{log}") from None
        return self.text("CUBIN", program), self.text("ProgramLog", program).decode()


def report(log):
    """Name, registers, shared memory and local memory of each kernel."""
    for part in log.split("Compiling entry function")[1:]:
        name = re.search(r"'(\w+)'", part)[1]
        number = lambda pattern: int(found[1]) if (found := re.search(pattern, part)) else 0
        yield name, number(r"Used (\d+) registers"), number(r"(\d+) bytes smem"), number(r"(\d+) bytes stack frame")


def hashes(files):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)}


def manifest(folder):
    """What cubins were made from, with what, and what they are."""
    compiler = (HERE / "requirements.txt").read_text().strip()
    sources = hashes(HERE.glob("cuda/*.cu*"))
    return {"compiler": compiler, "options": OPTIONS, "sources": sources, "cubins": hashes(folder.glob("*.cubin"))}


def check():
    found, expected = manifest(CUBINS), json.loads((CUBINS / "manifest.json").read_text())
    for what in expected:
        if found[what] != expected[what]:
            raise SystemExit(f"kernels/cubins/manifest.json differs in its {what}: kernels/build.sh kernels/cubins makes them anew")
    size = sum(file.stat().st_size for file in CUBINS.iterdir())
    if size > 5_000_000:
        raise SystemExit(f"kernels/cubins has {size} bytes, more than 5 MB")
    print(f"{len(found['cubins'])} cubins of {len(found['sources'])} sources, {size} bytes: as the manifest says")


def main(out, *sources):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    nvrtc, in_local = Nvrtc(), []
    for source in map(Path, sources or sorted(HERE.glob("cuda/*.cu"))):
        for architecture in ARCHITECTURES:
            if architecture == "sm_75" and source.stem in NOT_FOR_TURING:
                continue
            cubin, log = nvrtc.compile(source.resolve(), architecture)
            (out / f"{source.stem}.{architecture}.cubin").write_bytes(cubin)
            for name, registers, shared, local in report(log):
                print(f"{architecture:7} {name:26} {registers:4} registers {shared:7} bytes shared {local:5} bytes local")
                if local:
                    in_local.append(f"{name} ({architecture})")
    if in_local:
        raise SystemExit(f"local memory: {', '.join(in_local)}")
    if not sources:
        (out / "manifest.json").write_text(json.dumps(manifest(out), indent=1) + "\n")


if __name__ == "__main__":
    check() if sys.argv[1:] == ["--check"] else main(*sys.argv[1:])
