#!/usr/bin/env bash
# Trains as several processes with an emulated GPU each, over the emulated NCCL: `tests/nccl/run.sh FOLDER EMULATOR`. FOLDER is
# that of `tests/mpi/run.sh`, which has built for Open MPI in it; EMULATOR is an absolute path that `kernels/tests/run.sh` has
# built in. Exits with 77 if there is no Open MPI.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder="$(realpath "$1")"

if ! command -v mpicc.openmpi >/dev/null; then exit 77; fi
export MPICC=mpicc.openmpi CLOZE_MPIRUN="mpirun.openmpi --oversubscribe --bind-to none" CARGO_TARGET_DIR="$folder"
# A test alone does not build the example that it runs.
cargo build --release --locked -p cloze --features nccl --example pretrain
# Seed 0 does the work of a stream as late as possible, 1 at once, and 2 does that of other streams before.
for seed in 0 1 2; do
  CLOZE_EMU_SEED="$seed" LD_LIBRARY_PATH="$2" cargo test --release --locked -p cloze --features nccl --test gpu_ranks
done
