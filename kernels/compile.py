"""compile.py OUT [SOURCE.cu ..]: compiles CUDA sources to a cubin for each architecture, with NVRTC from NVIDIA's wheels.

Needs the packages of `requirements.txt`, no CUDA installation and no GPU. `build.sh` makes an environment that has them.
Prints for each kernel its registers, shared memory and spilled bytes; fails where a kernel spills.
"""

import ctypes
import re
import sys
from pathlib import Path

import nvidia.cuda_nvrtc

HERE = Path(__file__).resolve().parent
ARCHITECTURES = ["sm_80", "sm_90a", "sm_120"]


class Nvrtc:
    def __init__(self):
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
        options = [f"--gpu-architecture={architecture}", "--std=c++17", "-default-device", f"--include-path={source.parent}", "--ptxas-options=-v"]
        array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        try:
            self.call("nvrtcCompileProgram", program, len(options), array)
        except RuntimeError as error:
            log = self.text("ProgramLog", program).decode().rstrip("\0\n")
            raise SystemExit(f"{source} for {architecture}: {error}\n{log}") from None
        return self.text("CUBIN", program), self.text("ProgramLog", program).decode()


def report(log):
    """Name, registers, shared memory and spilled bytes of each kernel."""
    for part in log.split("Compiling entry function")[1:]:
        name = re.search(r"'(\w+)'", part)[1]
        number = lambda pattern: int(found[1]) if (found := re.search(pattern, part)) else 0
        yield name, number(r"Used (\d+) registers"), number(r"(\d+) bytes smem"), number(r"(\d+) bytes spill stores")


def main(out, *sources):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    nvrtc, spilled = Nvrtc(), []
    for source in map(Path, sources or sorted(HERE.glob("cuda/*.cu"))):
        for architecture in ARCHITECTURES:
            cubin, log = nvrtc.compile(source.resolve(), architecture)
            (out / f"{source.stem}.{architecture}.cubin").write_bytes(cubin)
            for name, registers, shared, spill in report(log):
                print(f"{architecture:7} {name:24} {registers:4} registers {shared:7} bytes shared {spill:5} bytes spilled")
                if spill:
                    spilled.append(f"{name} ({architecture})")
    if spilled:
        raise SystemExit(f"spills: {', '.join(spilled)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
