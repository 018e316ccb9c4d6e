#!/usr/bin/env bash
# run.sh BINARIES OUT [--smoke]: everything that a GPU can show of cloze, into the folder OUT, in under eight minutes: that it is
# right, that memory checkers find nothing, and how fast it is beside PyTorch. BINARIES is a folder of what was built elsewhere:
#
#   cargo test --release --features cuda -p cloze-tensor --lib --no-run     as BINARIES/operations
#   cargo test --release --features cuda --test gpu --no-run                as BINARIES/training
#   cargo test --release --features cuda --test gpu_graph --no-run          as BINARIES/graph
#   cargo bench --features cuda --bench gpu --no-run                        as BINARIES/gpu
#
# and, for the kernels' own tests, the programs and cubins that kernels/tests/run.sh and kernels/build.sh make, in
# BINARIES/kernels. PYTHON is one that has torch and transformers.
set -uo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
binaries="$(realpath "${1:?a folder of programs}")"
mkdir -p "${2:?a folder for what is found}"
out="$(realpath "$2")"
smoke="${3:-}"
python="${PYTHON:-python3}"
failed=0
# A GPU that is not found is a failure.
export CLOZE_REQUIRE_GPU=1
check() { # NAME COMMAND..: says how it went, and goes on.
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

# Which cubins this GPU loads. Without one, there are none, and the programs take the emulator's kernels.
images=()
programs=("$binaries"/kernels/*)
case "$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sed -n 1p)" in
  "") ;;
  7.5) images=("$binaries"/kernels/*.sm_75.cubin) ;;
  8.*) images=("$binaries"/kernels/*.sm_80.cubin) ;;
  9.0) images=("$binaries"/kernels/*.sm_90a.cubin) ;;
  10.*) images=("$binaries"/kernels/*.sm_100.cubin) ;;
  12.*) images=("$binaries"/kernels/*.sm_120.cubin) ;;
  *) echo "SKIPPED kernels' own tests: there are no cubins for this GPU"; programs=() ;;
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
  echo "SKIPPED compute-sanitizer: it is not here"
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
