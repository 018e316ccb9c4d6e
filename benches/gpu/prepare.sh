#!/usr/bin/env bash
# prepare.sh FOLDER: builds all that run.sh needs and puts it into FOLDER, small enough to carry to the machine with the GPU:
# stripped programs, the tests of the kernels and of what they are built from, and cubins. Needs no GPU and no CUDA installation;
# the compiler of the cubins comes from PyPI, or from the virtual environment PYTHON.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p "${1:?a folder}/kernels"
folder="$(realpath "$1")"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
export CARGO_INCREMENTAL=0

# program NAME CARGO..: builds a test or bench and copies it, without symbols.
program() {
  local name="$1" built
  shift
  built="$("$@" --no-run --message-format=json-render-diagnostics | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)"
  strip -o "$folder/$name" "$built"
}
program operations cargo test --release --features cuda -p cloze-tensor --lib
program training cargo test --release -p cloze --features cuda --test gpu
program graph cargo test --release -p cloze --features cuda --test gpu_graph
program gpu cargo bench -p cloze-benches --features cuda --bench gpu

for source in kernels/tests/*.cpp kernels/emulator/tests/primitives.cpp; do
  g++ -std=c++20 -O1 -Wall -Wextra -Wno-sign-compare -s "$source" -o "$folder/kernels/$(basename "$source" .cpp)" -ldl
done
PYTHON="${PYTHON:-$scratch/python}" kernels/build.sh "$scratch/images" kernels/cuda/*.cu kernels/emulator/tests/primitives.cu \
  >"$scratch/compiled"
cp "$scratch"/images/*.cubin "$folder/kernels"
cp benches/gpu/{run.sh,peers.py,report.py} "$folder"
du -sh "$folder"
