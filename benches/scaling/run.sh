#!/usr/bin/env bash
# Measures what `docs/src/scaling.md` shows, as lines of JSON: `benches/scaling/run.sh PROGRAM [MODEL ..]`, where PROGRAM is
# `cloze-scaling`, built with the feature `mpi` for Open MPI, and models are mini, base4 and base. Ranks have one thread each.
# A model takes 3 to 8 minutes on two cores with nothing else running. Hosts that are network namespaces need root.
set -euo pipefail
cd "$(dirname "$0")"
program="$1"
shift
[ $# -gt 0 ] || set -- mini base4 base

# Ranks that share memory.
memory() {
  ranks="$1"
  shift
  mpirun.openmpi --allow-run-as-root --oversubscribe --bind-to none -n "$ranks" "$program" "$@"
}
# A rank on each of several hosts.
hosts() {
  rate="$1" ranks="$2"
  shift 2
  ./hosts.sh "$ranks" "$rate" "$ranks" "$program" --network "tcp$rate" "$@" || [ $? = 77 ]
}
emulated="--bandwidth 10 --latency 50 --network emulated10"

for ranks in 2 4; do
  memory "$ranks" --kind exchange
  memory "$ranks" --kind exchange $emulated
  hosts 10 "$ranks" --kind exchange
  hosts 1 "$ranks" --kind exchange
done
for model in "$@"; do
  case "$model" in
    mini) shape="--config mini --steps 15" ;;
    base4) shape="--config base --layers 4 --steps 5" ;;
    base) shape="--config base --steps 3" ;;
  esac
  for ranks in 1 2 4; do
    for of_rank in 2 8; do memory "$ranks" --kind alone $shape --sequences $((ranks * of_rank)); done
  done
  for ranks in 2 4; do
    for reduce in f32 bf16; do
      # With two ranks to a core, bf16 would show the cores and not the network.
      if [ "$ranks $reduce" = "4 bf16" ]; then continue; fi
      step="$shape --sequences $((ranks * 8)) --reduce $reduce"
      memory "$ranks" $step
      memory "$ranks" $step $emulated
      hosts 10 "$ranks" $step
      hosts 1 "$ranks" $step
    done
  done
done
