#!/usr/bin/env bash
# Two ranks of one thread, in turns: cloze, and PyTorch's DistributedDataParallel over gloo. `benches/scaling/race.sh PROGRAM
# PYTHON ROUNDS [avx2] OPTIONS ..` prints a line of JSON per turn; PROGRAM is `cloze-scaling`, built with the feature `mpi`,
# and PYTHON has torch and transformers.
set -euo pipefail
cd "$(dirname "$0")"
program="$1" python="$2" rounds="$3"
shift 3
if [ "${1:-}" = avx2 ]; then
  shift
  export CLOZE_SIMD=avx2 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 DNNL_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
fi
for _ in $(seq "$rounds"); do
  mpirun.openmpi --allow-run-as-root --oversubscribe --bind-to none -n 2 "$program" "$@"
  "$python" ddp_peer.py "$@"
done
