#!/usr/bin/env bash
# Fuzzes without cargo-fuzz, on the stable toolchain.
#
#   fuzz/run.sh replay [TARGET ..]     runs every seed once
#   fuzz/run.sh SECONDS [TARGET ..]    replays the seeds, then fuzzes each target this long, and prints a table
#   fuzz/run.sh build                  only builds
#   fuzz/run.sh seeds                  writes the seeds again
#
# CLOZE_FUZZ_CORPUS=DIR keeps what fuzzing finds in DIR/TARGET; without it, a target starts from its seeds.
# CLOZE_FUZZ_ASAN=1 builds with AddressSanitizer, on the nightly toolchain.
# CLOZE_EMULATOR=DIR has the emulated driver that kernels/emulator/build.sh built; without it, gpu_failures is skipped.
# Inputs that crash are left in fuzz/artifacts/TARGET. Exits with 77 if there is no C++ compiler.
set -euo pipefail
cd "$(dirname "$0")"
here="$PWD"
mode="${1:?a number of seconds, replay, build or seeds}"
shift
if ! command -v "${CXX:-c++}" >/dev/null; then
  echo "SKIPPED: fuzzing, because libFuzzer needs a C++ compiler"
  exit 77
fi

all=(safetensors pytorch config model_folder tokenizer_files wordpiece readers corpora parquet tokenized_corpus checkpoint
  adapter views kernels gpu_failures)
targets=("${@:-${all[@]}}")
triple="$(rustc -vV | sed -n 's/^host: //p')"
toolchain=()
# As cargo-fuzz has it: counters of edges, the addresses of functions, and the operands of comparisons.
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$here/target}" CARGO_INCREMENTAL=0
if [ -n "${CLOZE_FUZZ_ASAN:-}" ]; then
  toolchain=(+nightly)
  flags="$flags -Zsanitizer=address"
  CARGO_TARGET_DIR="$CARGO_TARGET_DIR/asan"
  # Memory that lives until the end of the process is meant to.
  export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0}"
fi

programs=("${all[@]}")
if [ "$mode" = seeds ]; then programs=(seeds); fi
# With a target, the flags do not apply to build scripts and macros.
RUSTFLAGS="$flags" RUSTC_WRAPPER="$here/rustc.sh" cargo "${toolchain[@]}" build --release --locked --target "$triple" "${programs[@]/#/--bin=}"
binaries="$CARGO_TARGET_DIR/$triple/release"
case "$mode" in
build) exit ;;
seeds) exec "$binaries/seeds" ;;
esac

memory=/dev/shm
[ -w "$memory" ] || memory="${TMPDIR:-/tmp}"
scratch="$(mktemp -d "$memory/cloze-fuzz.XXXXXX")"
trap 'rm -rf "$scratch"' EXIT
export TMPDIR="$scratch"

# Prints the last number after a word of libFuzzer's output.
last() { sed -n "s/.*$1:* *\([0-9]*\).*/\1/p" "$scratch/said" | tail -1; }

failed=0
printf '%-17s %11s %9s %7s %7s %7s %8s\n' target executions per_s cov ft corpus crashes
for target in "${targets[@]}"; do
  environment=()
  if [ "$target" = gpu_failures ]; then
    if [ ! -e "${CLOZE_EMULATOR:-}/libcuda.so.1" ]; then
      echo "SKIPPED: gpu_failures, because CLOZE_EMULATOR does not name a folder with the emulated driver"
      continue
    fi
    # A small device, so that memory that is lost after an error is noticed.
    environment=(LD_LIBRARY_PATH="$CLOZE_EMULATOR" CLOZE_EMU_MEMORY=$((64 << 20)) CLOZE_EMU_WORKERS=1)
  fi
  artifacts="artifacts/$target"
  mkdir -p "$artifacts"
  before="$(find "$artifacts" -type f | wc -l)"
  limits=(-timeout=10 -rss_limit_mb=2048 -artifact_prefix="$artifacts/")
  if [ "$mode" = replay ]; then
    arguments=(-runs=0 "seeds/$target")
  else
    corpus="${CLOZE_FUZZ_CORPUS:-$scratch/corpus}/$target"
    mkdir -p "$corpus"
    arguments=(-max_total_time="$mode" -print_final_stats=1 "$corpus" "seeds/$target")
  fi
  status=0
  env "${environment[@]}" "$binaries/$target" "${limits[@]}" "${arguments[@]}" >"$scratch/said" 2>&1 || status=$?
  crashes=$(($(find "$artifacts" -type f | wc -l) - before))
  executions="$(last stat::number_of_executed_units)"
  [ -n "$executions" ] || executions="$(sed -n 's/^#\([0-9]*\).*/\1/p' "$scratch/said" | tail -1)"
  printf '%-17s %11s %9s %7s %7s %7s %8s\n' "$target" "${executions:--}" "$(last 'exec.s')" "$(last cov)" "$(last ft)" \
    "$(sed -n 's/.*corp: \([0-9]*\).*/\1/p' "$scratch/said" | tail -1)" "$crashes"
  if [ "$status" != 0 ]; then
    failed=1
    grep -v '^#\|^INFO\|^MS:\|^0x' "$scratch/said" | tail -40
  fi
done
exit "$failed"
