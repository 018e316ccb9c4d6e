#!/usr/bin/env bash
# run.sh EMULATOR: builds the operation of CONTRIBUTING.md in a copy of the repository, exactly as the page says, and runs its
# conformance cases on the CPU and on the emulated GPU, of which EMULATOR is the folder that kernels/tests/run.sh filled.
set -euo pipefail
emulator="$(realpath "${1:?the folder of the emulated GPU}")"
cd "$(dirname "$0")/../.."
target="$(realpath "${CARGO_TARGET_DIR:-target}")"
copy="$target/contributing"
rm -rf "$copy"
mkdir -p "$copy/emulator"
git ls-files -z | xargs -0 cp --parents -t "$copy"
tests/contributing/apply.py "$copy"
# The emulator runs kernels of its own library, and reads of an image only that there is one.
for image in "$copy"/kernels/images/softmax.*; do cp "$image" "${image/softmax/swish}"; done
g++ -std=c++20 -O2 -march=native -fPIC -Wno-unknown-pragmas -x c++ -c "$copy/kernels/cuda/swish.cu" -o "$copy/emulator/swish.cu.o"
g++ -shared -pthread "$emulator"/*.o "$copy/emulator/swish.cu.o" -o "$copy/emulator/libcuda.so.1"
cd "$copy"
export CARGO_TARGET_DIR="$target" CLOZE_REQUIRE_GPU=1 LD_LIBRARY_PATH="$copy/emulator"
cargo test -p cloze-tensor --features cuda --lib conformance
