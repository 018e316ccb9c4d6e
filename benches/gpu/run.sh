#!/usr/bin/env bash
# run.sh OUT [--smoke]: tests cloze on a GPU and compares its speed with PyTorch, in nine minutes at most. Runs in the folder that
# prepare.sh filled. PYTHON names a Python with torch and transformers; CLOZE_GPU_SECONDS is the time for all stages, 540.
#
# The stages run in order, what matters most first. Each has a limit of its own and what is left of the whole; one that does not
# finish is reported as such, and the next runs. OUT receives two files, rewritten after every stage: results.tar, with what each
# stage printed, and report.md. So whatever ends the run, what was measured before is there.
#
# Without a GPU but with the emulator in LD_LIBRARY_PATH, --smoke rehearses all stages at the smallest sizes.
set -uo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
mkdir -p "${1:?folder for the results}"
out="$(realpath "$1")"
smoke="${2:-}"
python="${PYTHON:-python3}"
deadline=$((SECONDS + ${CLOZE_GPU_SECONDS:-540}))
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
failed=0
# A missing GPU is a failure.
export CLOZE_REQUIRE_GPU=1 TORCHINDUCTOR_CACHE_DIR="$work/inductor"
mkdir "$work/results"
cd "$work/results"

# Refreshes what is brought home.
keep() {
  "$python" "$here/report.py" . >../report.md 2>../report.txt && cp ../report.md "$out/report.md"
  tar -cf ../results.tar . && mv ../results.tar "$out/results.tar"
}

say() { printf '%-12s %s (%s s)\n' "$1" "$2" "$SECONDS" | tee -a stages.txt; }

# stage NAME SECONDS COMMAND..: runs the command within its time, and what is left.
stage() {
  local name="$1" limit="$2" left=$((deadline - SECONDS)) code
  shift 2
  if ((left < 5)); then
    say "not run" "$name: no time is left"
    keep
    return
  fi
  timeout -k 2 "$((limit < left ? limit : left))" "$@" >"$name.txt" 2>"$name.err"
  code=$?
  case "$code" in
    0) say ok "$name" ;;
    124 | 137) say "not finished" "$name" ;;
    *)
      say FAILED "$name: $(tail -n 1 "$name.err" | cut -c 1-200)"
      failed=1
      ;;
  esac
  keep
}

{
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || echo "no nvidia-smi: the emulated GPU"
  "$python" -c 'import torch, transformers; print("torch", torch.__version__, "transformers", transformers.__version__)' 2>/dev/null
  echo "$(nproc) CPU cores"
  date -u +%F
} >machine.txt
cat machine.txt

# The cubins for this GPU. Without a GPU there are none, and the programs use the kernels of the emulator.
capability="$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sed -n 1p)"
case "$capability" in
  "") architecture="" ;;
  7.5) architecture=sm_75 ;;
  8.*) architecture=sm_80 ;;
  9.0) architecture=sm_90a ;;
  10.*) architecture=sm_100 ;;
  12.*) architecture=sm_120 ;;
  *) architecture=none ;;
esac

# kernels PROGRAM SECONDS: a test of the kernels on the cubins of this GPU.
kernels() {
  local images=()
  if [ "$architecture" = none ]; then
    say SKIPPED "$1: there are no cubins for compute capability $capability"
    return
  fi
  # The primitives have an emulator of their own.
  if [ -z "$architecture" ] && [ "$1" = primitives ]; then return; fi
  if [ -n "$architecture" ] && [ "$1" = primitives ]; then images=("$here/kernels/primitives.$architecture.cubin")
  elif [ -n "$architecture" ]; then
    for image in "$here"/kernels/*."$architecture".cubin; do
      if [[ "$(basename "$image")" != primitives.* ]]; then images+=("$image"); fi
    done
  fi
  stage "kernel-$1" "$2" "$here/kernels/$1" "${images[@]}"
}

smoke_argument=(${smoke:+"$smoke"})
kernels gemm 20
stage operations 60 "$here/operations" a_gpu
stage training 40 "$here/training"
stage graph 20 "$here/graph"
stage cloze-steps 45 "$here/gpu" "${smoke_argument[@]}" steps
stage peers-steps 150 "$python" "$here/peers.py" "${smoke_argument[@]}" steps
stage cloze-kernels 20 "$here/gpu" "${smoke_argument[@]}" kernels
stage cloze-products 15 "$here/gpu" "${smoke_argument[@]}" products
stage cloze-attention 40 "$here/gpu" "${smoke_argument[@]}" attention
stage peers-products 15 "$python" "$here/peers.py" "${smoke_argument[@]}" products
stage peers-attention 50 "$python" "$here/peers.py" "${smoke_argument[@]}" attention
for program in "$here"/kernels/*; do
  name="$(basename "$program")"
  if [ -x "$program" ] && [[ "$name" != *.* ]] && [ "$name" != gemm ]; then kernels "$name" 10; fi
done
if command -v ncu >/dev/null; then
  stage ncu 60 ncu --target-processes all --launch-skip 200 --launch-count 20 --section SpeedOfLight --section Occupancy \
    --section WarpStateStats "$here/gpu" steps
else
  say SKIPPED "ncu: not installed"
fi
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    stage "$tool" 100 compute-sanitizer --tool "$tool" --error-exitcode 1 "$here/operations" a_gpu
  done
else
  say SKIPPED "compute-sanitizer: not installed"
fi
keep
exit "$failed"
