#!/usr/bin/env bash
# Builds with Open MPI and with MPICH, and trains as several processes under each: `tests/mpi/run.sh FOLDER`. Builds are
# kept in FOLDER. Exits with 77 if neither MPI, nor libclang, which the bindings need, can be had.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p "$1"
folder="$(realpath "$1")"

has_clang() { ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* >/dev/null 2>&1; }
installed() { command -v mpicc.openmpi >/dev/null && command -v mpicc.mpich >/dev/null && has_clang; }
packages() {
  apt-get update -qq &&
    apt-get install -qq -y --no-install-recommends openmpi-bin libopenmpi-dev mpich libmpich-dev libclang-dev
}

if ! installed; then (packages) >"$folder/log" 2>&1 || tail -n 1 "$folder/log"; fi
tested=0
for mpi in openmpi mpich; do
  if ! command -v "mpicc.$mpi" >/dev/null || ! has_clang; then
    echo "SKIPPED: $mpi or libclang cannot be had"
    continue
  fi
  options="" features=mpi
  # Open MPI counts processors before it starts more processes than there are, and binds processes to them. The programs for it
  # also have what `tests/nccl/run.sh` needs.
  if [ "$mpi" = openmpi ]; then options="--oversubscribe --bind-to none" features=nccl; fi
  echo "-- $mpi"
  export MPICC="mpicc.$mpi" CLOZE_MPIRUN="mpirun.$mpi $options" CARGO_TARGET_DIR="$folder/$mpi"
  # A test alone does not build the examples that it runs.
  cargo build --release --locked -p cloze --features "$features" --example pretrain --example finetune --example finetune_ner \
    --example finetune_qa --example finetune_similarity --example finetune_reranker
  cargo test --release --locked -p cloze --features "$features" --test ranks
  tested=1
done
[ "$tested" = 1 ] || exit 77
