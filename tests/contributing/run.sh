#!/usr/bin/env bash
# run.sh EMULATOR: adds the operation of CONTRIBUTING.md to a copy of the repository, exactly as the page describes, and runs
# its conformance cases on the CPU and on the emulated GPU. EMULATOR is the output folder of kernels/tests/run.sh.
set -euo pipefail
emulator="$(realpath "${1:?folder with the emulated GPU}")"
cd "$(dirname "$0")/../.."
target="$(realpath "${CARGO_TARGET_DIR:-target}")"
copy="$target/contributing"
rm -rf "$copy"
mkdir -p "$copy/emulator"
git ls-files -z | xargs -0 cp --parents -t "$copy"
tests/contributing/apply.py "$copy"
# The emulator runs the kernels compiled into its library. Of an image, it only checks that the file exists.
for image in "$copy"/kernels/images/softmax.*; do cp "$image" "${image/softmax/swish}"; done
g++ -std=c++20 -O2 -march=native -fPIC -Wno-unknown-pragmas -x c++ -c "$copy/kernels/cuda/swish.cu" -o "$copy/emulator/swish.cu.o"
g++ -shared -pthread "$emulator"/*.o "$copy/emulator/swish.cu.o" -o "$copy/emulator/libcuda.so.1"
cd "$copy"
export CARGO_TARGET_DIR="$target" CLOZE_REQUIRE_GPU=1 LD_LIBRARY_PATH="$copy/emulator"
cargo test -p cloze-tensor --features cuda --lib conformance
