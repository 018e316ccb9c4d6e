#!/usr/bin/env bash
# run.sh BINARIES OUT [--smoke]: tests cloze on a GPU, runs memory checkers, and compares its speed with PyTorch, in under
# eight minutes. Results go to the folder OUT. The folder BINARIES contains programs that were built elsewhere:
#
#   cargo test --release --features cuda -p cloze-tensor --lib --no-run     as BINARIES/operations
#   cargo test --release -p cloze --features cuda --test gpu --no-run       as BINARIES/training
#   cargo test --release -p cloze --features cuda --test gpu_graph --no-run as BINARIES/graph
#   cargo bench -p cloze-benches --features cuda --bench gpu --no-run       as BINARIES/gpu
#
# and, for the tests of the kernels, the programs and cubins built by kernels/tests/run.sh and kernels/build.sh, in
# BINARIES/kernels. PYTHON names a Python with torch and transformers.
set -uo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
binaries="$(realpath "${1:?folder with programs}")"
mkdir -p "${2:?folder for the results}"
out="$(realpath "$2")"
smoke="${3:-}"
python="${PYTHON:-python3}"
failed=0
# A missing GPU is a failure.
export CLOZE_REQUIRE_GPU=1
check() { # NAME COMMAND..: runs the command, prints whether it succeeded, and continues.
  local name="$1"
  shift
  if "$@" >"$out/$name.txt" 2>&1; then echo "ok      $name"; else echo "FAILED  $name, see $out/$name.txt"; failed=1; fi
}

{
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || echo "no nvidia-smi: the emulated GPU"
  "$python" -c 'import torch, transformers; print("torch", torch.__version__, "transformers", transformers.__version__)' 2>/dev/null
  date -u +%F
} >"$out/machine.txt"
cat "$out/machine.txt"

# The cubins for this GPU. Without a GPU there are none, and the programs use the kernels of the emulator.
images=()
programs=("$binaries"/kernels/*)
case "$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sed -n 1p)" in
  "") ;;
  7.5) images=("$binaries"/kernels/*.sm_75.cubin) ;;
  8.*) images=("$binaries"/kernels/*.sm_80.cubin) ;;
  9.0) images=("$binaries"/kernels/*.sm_90a.cubin) ;;
  10.*) images=("$binaries"/kernels/*.sm_100.cubin) ;;
  12.*) images=("$binaries"/kernels/*.sm_120.cubin) ;;
  *) echo "SKIPPED the tests of the kernels: there are no cubins for this GPU"; programs=() ;;
esac
for program in "${programs[@]}"; do
  if [ -f "$program" ] && [ -x "$program" ] && [[ "$(basename "$program")" != *.* ]]; then
    check "kernel-$(basename "$program")" "$program" "${images[@]}"
  fi
done
check operations "$binaries/operations" a_gpu
check training "$binaries/training"
check graph "$binaries/graph"
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    check "$tool" timeout 100 compute-sanitizer --tool "$tool" --error-exitcode 1 "$binaries/operations" a_gpu
  done
else
  echo "SKIPPED compute-sanitizer: not installed"
fi
for round in 1 2; do
  # shellcheck disable=SC2086
  timeout 100 "$binaries/gpu" $smoke >"$out/cloze.$round.jsonl" 2>"$out/cloze.$round.txt" || { echo "FAILED  benches"; failed=1; }
  # shellcheck disable=SC2086
  timeout 140 "$python" "$here/peers.py" $smoke >"$out/peers.$round.jsonl" 2>"$out/peers.$round.txt" || echo "peers: stopped early"
done
"$python" "$here/report.py" "$out" >"$out/benchmarks-gpu.md"
echo "$out/benchmarks-gpu.md"
exit "$failed"
