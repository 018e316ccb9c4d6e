"""Compiles the kernels and packs them into images/, which the library embeds.

compile.py OUT [SOURCE.cu ..]: compiles CUDA sources to PTX and to a cubin for each architecture, with NVRTC from NVIDIA's wheels.
compile.py --pack OUT: compresses the cubins and PTX in OUT into images/, with a manifest.
compile.py --check [OUT]: checks images/ against the sources, by the hashes in the manifest, and against OUT.

Compiling needs the packages in `requirements.txt`, but neither a CUDA installation nor a GPU. `build.sh` creates an environment with
these packages. For each kernel it prints registers, shared memory and local memory. It fails if a kernel uses local memory, because
spilled registers and arrays in local memory are slow.
"""

import ctypes
import hashlib
import json
import re
import sys
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
IMAGES = HERE / "images"
MOST_BYTES = 5_000_000
ARCHITECTURES = ["sm_75", "sm_80", "sm_90a", "sm_100", "sm_120"]
# The driver compiles PTX for architectures without a cubin, such as future ones.
PTX = "compute_80"
ONLY = {"gemm_hopper": ["sm_90a"], "primitives": [*ARCHITECTURES[1:], PTX]}
OPTIONS = ["--std=c++17", "-default-device", "--ptxas-options=-v"]


class Nvrtc:
    def __init__(self):
        import nvidia.cuda_nvrtc

        folder = Path(nvidia.cuda_nvrtc.__path__[0]) / "lib"
        # NVRTC looks for its builtins by name, so they must be loaded first.
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
        """Returns the cubin or PTX, and the compiler's log."""
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
        what = "PTX" if architecture == PTX else "CUBIN"
        return self.text(what, program), self.text("ProgramLog", program).decode()


def report(log):
    """Yields name, registers, shared memory and local memory of each kernel."""
    for part in log.split("Compiling entry function")[1:]:
        name = re.search(r"'(\w+)'", part)[1]
        number = lambda pattern: int(found[1]) if (found := re.search(pattern, part)) else 0
        yield name, number(r"Used (\d+) registers"), number(r"(\d+) bytes smem"), number(r"(\d+) bytes stack frame")


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def unpacked():
    """Returns the uncompressed contents of images/ by name."""
    return {file.stem: zlib.decompress(file.read_bytes()) for file in sorted(IMAGES.glob("*.z"))}


def manifest(images):
    """Returns the compiler and the hashes of sources and images."""
    compiler = next(line for line in (HERE / "requirements.txt").read_text().split() if "nvrtc" in line)
    sources = {file.name: sha256(file.read_bytes()) for file in sorted(HERE.glob("cuda/*.cu*"))}
    hashes = {name: sha256(image) for name, image in images.items()}
    return {"compiler": compiler, "options": OPTIONS, "sources": sources, "images": hashes}


def compiled(out):
    """Returns the cubins and PTX in a folder by name."""
    return {file.name: file.read_bytes() for file in sorted(Path(out).iterdir()) if file.suffix in (".cubin", ".ptx")}


def pack(out):
    images = compiled(out)
    IMAGES.mkdir(exist_ok=True)
    for file in IMAGES.iterdir():
        file.unlink()
    for name, image in images.items():
        (IMAGES / f"{name}.z").write_bytes(zlib.compress(image, 9))
    (IMAGES / "manifest.json").write_text(json.dumps(manifest(images), indent=1) + "\n")
    check()


def check(out=None):
    images = unpacked()
    found, expected = manifest(images), json.loads((IMAGES / "manifest.json").read_text())
    update = "run kernels/build.sh DIR and kernels/compile.py --pack DIR"
    for what in expected:
        if found[what] != expected[what]:
            raise SystemExit(f"kernels/images/manifest.json is out of date ({what}): {update}")
    if out and compiled(out) != images:
        raise SystemExit(f"kernels/images differs from {out}: {update}")
    size = sum(file.stat().st_size for file in IMAGES.iterdir())
    if size > MOST_BYTES:
        raise SystemExit(f"kernels/images has {size} bytes, at most {MOST_BYTES} are allowed")
    print(f"{len(images)} images of {len(found['sources'])} sources, {size} bytes: up to date")


def main(out, *sources):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    nvrtc, in_local = Nvrtc(), []
    for source in map(Path, sources or sorted(HERE.glob("cuda/*.cu"))):
        for architecture in [*ARCHITECTURES, PTX]:
            if architecture not in ONLY.get(source.stem, [architecture]):
                continue
            image, log = nvrtc.compile(source.resolve(), architecture)
            kind = "ptx" if architecture == PTX else f"{architecture}.cubin"
            (out / f"{source.stem}.{kind}").write_bytes(image)
            for name, registers, shared, local in report(log):
                print(f"{architecture:7} {name:26} {registers:4} registers {shared:7} bytes shared {local:5} bytes local")
                if local:
                    in_local.append(f"{name} ({architecture})")
    if in_local:
        raise SystemExit(f"kernels with local memory: {', '.join(in_local)}")


if __name__ == "__main__":
    commands = {"--check": check, "--pack": pack}
    first, *rest = sys.argv[1:]
    commands[first](*rest) if first in commands else main(first, *rest)
