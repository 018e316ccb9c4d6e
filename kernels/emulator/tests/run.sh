#!/usr/bin/env bash
# run.sh DIR: builds the emulator with the test kernels in DIR and runs them in three orders, with and without the race checker.
# Then builds them with each planted bug in turn, which must be found.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
out="${1:?missing argument: a folder to build in}"
"$here/../build.sh" "$out" "$here/primitives.cu"
for program in primitives nccl; do g++ -std=c++20 -O1 -Wall -Wextra "$here/$program.cpp" -o "$out/$program" -ldl; done

# in_order LIBRARY SEED: fails on an error, a deadlock or a timeout.
in_order() {
  LD_LIBRARY_PATH="$1" CLOZE_EMU_SEED="$2" CLOZE_EMU_ARCH=90 timeout 60 "$out/primitives"
}

for library in "$out" "$out/checked"; do
  for seed in 0 1 2; do
    in_order "$library" "$seed" >"$out/said" 2>&1 || { cat "$out/said"; exit 1; }
  done
done
echo "right in every order, and no race"
for seed in 0 1; do
  LD_LIBRARY_PATH="$out" CLOZE_EMU_SEED="$seed" timeout 60 "$out/nccl" >"$out/said" 2>&1 || { cat "$out/said"; exit 1; }
done
tail -n 1 "$out/said"

bugs="$(grep -o 'BUG [!=]= [0-9]*' "$here/primitives.cu" | grep -o '[0-9]*' | sort -n | tail -1)"
for bug in $(seq 1 "$bugs"); do
  FLAGS="-DBUG=$bug" "$here/../build.sh" "$out" "$here/primitives.cu"
  found=""
  for library in "$out/checked" "$out"; do
    for seed in 0 1 2; do
      in_order "$library" "$seed" >"$out/said" 2>&1 || { found="$(grep -m1 emulator: "$out/said" || grep -m1 FAILED "$out/said")"; break 2; }
    done
  done
  if [ -z "$found" ]; then echo "bug $bug was not found"; exit 1; fi
  echo "bug $bug: $found"
done
