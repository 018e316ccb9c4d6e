#!/usr/bin/env bash
# Checks the unsafe code: `tests/unsafe/run.sh TASK..`, with these tasks:
#
#   loom      the rounds of the team of threads in every order (with stable Rust)
#   miri      the tests of the tensor crate and of the readers of files, interpreted, with the baseline's kernels
#   levels    matrix products and attention, interpreted, with the kernels of AVX2
#   seeds     the team of threads, interpreted in 16 random orders
#   address   the tests of the three crates and of the package with AddressSanitizer, at every SIMD level of this processor
#   thread    the same with ThreadSanitizer
#   careful   the same with the debug assertions of the standard library
#   planted   each tool finds bugs that are planted in a copy; PLANTED=loom plants only those for one tool
#   short     loom, and the interpreter on what is most delicate: less than three minutes
#   all       everything but `short`
#
# Builds in the folder `unsafe` of CARGO_TARGET_DIR. All but `loom` need nightly Rust with the components miri and rust-src, which
# rustup is asked for; exits with 77 if they cannot be had.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p "${CARGO_TARGET_DIR:-target}"
base="$(realpath "${CARGO_TARGET_DIR:-target}")/unsafe"
host="$(rustc -vV | sed -n 's/^host: //p')"
# Several sets of builds: without debug information but line tables, they take a quarter of the space.
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=line-tables-only

step() { printf '\n-- %s (%s s)\n' "$1" "$SECONDS"; }

# Finds or installs nightly Rust with the components.
need_nightly() {
  has() { rustup +nightly component list --installed 2>/dev/null | grep -q "^$1"; }
  if has miri && has rust-src; then return; fi
  rustup toolchain install nightly --profile minimal --component miri,rust-src >/dev/null 2>&1 || {
    echo "SKIPPED: nightly Rust with miri and rust-src cannot be had"
    exit 77
  }
}

# Tests that run every operation hundreds of times, as others do once.
repeats=(--skip finite_differences --skip spoiled_backward --skip every_operation_has)

loom() { CARGO_TARGET_DIR="$base/loom" cargo test --locked --manifest-path tests/unsafe/loom/Cargo.toml --lib -- --nocapture; }

# interpret FLAGS ARGUMENTS..: cargo test under Miri. Memory may be left over at the end, as that of the team's threads is. Files
# are read and written as usual, which needs no isolation.
interpret() {
  local flags="$1"
  shift
  need_nightly
  # The interpreter has no instructions that the compiler does not assume, so the flags choose the level.
  CARGO_TARGET_DIR="$base/miri" RUSTFLAGS="$flags" \
    MIRIFLAGS="-Zmiri-strict-provenance -Zmiri-ignore-leaks -Zmiri-disable-isolation -Zmiri-deterministic-floats ${seeds:-}" \
    cargo +nightly miri test --locked "$@"
}

miri() {
  interpret "" -p cloze-tensor --lib
  interpret "" -p cloze-tensor --test files
}

levels() { interpret "-Ctarget-feature=+avx2,+fma" -p cloze-tensor --lib -- gemm:: attention::; }

seeds() { seeds="-Zmiri-many-seeds=0..16" interpret "" -p cloze-tensor --lib -- team:: parallel::; }

# sanitize NAME ARGUMENTS..: cargo test with a sanitizer, which the standard library is built with too.
sanitize() {
  local name="$1"
  shift
  need_nightly
  CARGO_TARGET_DIR="$base/$name" RUSTFLAGS="-Zsanitizer=$name --cfg sanitized" \
    cargo +nightly test --locked -Zbuild-std --target "$host" "$@"
}

# Some tests ask for more memory than there is, which the sanitizers must be allowed to refuse.
address() {
  export ASAN_OPTIONS="detect_stack_use_after_return=1:detect_leaks=0:allocator_may_return_null=1"
  suite sanitize address
}

thread() {
  export TSAN_OPTIONS="suppressions=$PWD/tests/unsafe/thread.supp:halt_on_error=1:allocator_may_return_null=1"
  suite sanitize thread
}

# The debug assertions of the standard library, which its usual build is without, check the preconditions of its unsafe functions.
careful() {
  need_nightly
  checked() {
    CARGO_TARGET_DIR="$base/careful" RUSTFLAGS="--cfg sanitized" cargo +nightly test --locked -Zbuild-std --target "$host" "$@"
  }
  suite checked
}

# suite COMMAND..: runs the tests of the three crates by a command that takes the arguments of `cargo test`.
suite() {
  "$@" -p cloze-tensor --lib --tests -- "${repeats[@]}"
  "$@" -p cloze-bert -p cloze-train --lib --tests
}

# Each bug must make its tool fail, in a copy of the repository that is built in the same folders.
planted() {
  local copy="$base/planted" name tool tests
  while read -r name tool tests; do
    rm -rf "$copy"
    mkdir -p "$copy"
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$copy"
    tests/unsafe/planted.py "$name" "$copy"
    if (cd "$copy" && planted_run "$tool" "$tests") >"$base/planted.log" 2>&1; then
      echo "$tool does not find $name"
      exit 1
    fi
    # The tool, not the compiler or a comparison of results.
    grep -q "$(signs "$tool")" "$base/planted.log" || { cat "$base/planted.log"; exit 1; }
    echo "$tool finds $name"
  done < <(tests/unsafe/planted.py | grep "${PLANTED:-}")
  rm -rf "$copy" "$base/planted-miri" "$base/planted.log"
}

planted_run() {
  case "$1" in
    loom) timeout 300 cargo test --manifest-path tests/unsafe/loom/Cargo.toml --lib ;;
    # In a folder of its own: in that of the repository, cargo takes the copy for built.
    miri) base="$base/planted-miri" interpret "" -p cloze-tensor --lib -- "$2" ;;
    *) sanitize "$1" -p cloze-tensor --lib -- "$2" ;;
  esac
}

# What a report of a tool says.
signs() {
  case "$1" in
    loom) echo "Causality violation\|deadlock\|Model exceeded maximum number of branches\|assertion.*failed" ;;
    miri) echo "error: Undefined Behavior" ;;
    *) echo "ERROR: AddressSanitizer\|WARNING: ThreadSanitizer" ;;
  esac
}

# What is shared between threads, borrowed for longer than the compiler sees, or written while others refer to it.
short() {
  loom
  interpret "" -p cloze-tensor --lib -- team:: parallel:: memory:: gradients:: mapped:: gemm::tests::any_strides
}

for task in "${@:?tasks, see the head of this file}"; do
  case "$task" in
    loom | miri | levels | seeds | address | thread | careful | planted | short) step "$task"; "$task" ;;
    all) "$0" loom miri levels seeds address thread careful planted ;;
    *) echo "no task $task" >&2; exit 2 ;;
  esac
done
