#!/usr/bin/env bash
# run.sh DIR: builds all kernels for the emulator in DIR and runs their tests in three orders, with and without the race checker.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
out="${1:?missing argument: a folder to build in}"
"$here/../emulator/build.sh" "$out" "$here"/../cuda/*.cu
for source in "$here"/*.cpp; do
  name="$(basename "$source" .cpp)"
  g++ -std=c++20 -O1 -Wall -Wextra -Wno-sign-compare "$source" -o "$out/$name" -ldl
  for library in "$out" "$out/checked"; do
    for seed in 0 1 2; do
      LD_LIBRARY_PATH="$library" CLOZE_EMU_SEED="$seed" timeout 600 "$out/$name" >"$out/said" 2>&1 || { cat "$out/said"; exit 1; }
    done
  done
  cat "$out/said"
done
