#!/usr/bin/env bash
# Builds with Open MPI and with MPICH, and trains as several processes under each: `tests/mpi/run.sh FOLDER`. FOLDER is a
# target folder of cargo, in which most is built only once. CLOZE_KILLS=30 kills more jobs than CI does. Exits with 77 if
# neither MPI, nor libclang, which the bindings need, can be had.
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

if ! installed; then (packages) >"$folder/mpi.log" 2>&1 || tail -n 1 "$folder/mpi.log"; fi
tested=0
# Open MPI is the last one, because `tests/nccl/run.sh` needs it.
for mpi in mpich openmpi; do
  if ! command -v "mpicc.$mpi" >/dev/null || ! has_clang; then
    echo "SKIPPED: $mpi or libclang cannot be had"
    continue
  fi
  options=""
  # Open MPI counts processors before it starts more processes than there are, and binds processes to them.
  if [ "$mpi" = openmpi ]; then options="--oversubscribe --bind-to none"; fi
  echo "-- $mpi"
  export MPICC="mpicc.$mpi" CLOZE_MPIRUN="mpirun.$mpi $options" CARGO_TARGET_DIR="$folder"
  # The bindings do not notice another MPICC. They are rebuilt, with what depends on them.
  cargo clean --quiet --release -p mpi-sys
  # A test alone does not build the examples that it runs.
  cargo build --release --locked -p cloze --features mpi --example pretrain --example finetune --example finetune_ner \
    --example finetune_qa --example finetune_similarity --example finetune_reranker
  cargo test --release --locked -p cloze --features mpi --test ranks -- ${CLOZE_KILLS:+--nocapture --test-threads 1}
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  cargo build --release --locked -p cloze-benches --features mpi --bin cloze-scaling
  for kind in exchange together; do
    $CLOZE_MPIRUN -n 2 "$CARGO_TARGET_DIR/release/cloze-scaling" --config tiny --sequences 2 --length 8 --steps 1 --kind "$kind"
  done
  tested=1
done
[ "$tested" = 1 ] || exit 77
