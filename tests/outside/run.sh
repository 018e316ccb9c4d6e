#!/usr/bin/env bash
# tests/outside/run.sh FOLDER: builds a program that uses the library from outside of the workspace, in the profiles `dev` and
# `release`, runs both, and checks that `dev`, with the lines that README.md gives, takes at most five times as long.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p "$1"
export CARGO_TARGET_DIR="$(realpath "$1")"
cargo build --quiet --locked
cargo build --quiet --locked --release
total() {
  local said
  said="$("$CARGO_TARGET_DIR/$1/outside" ../../models/tiny)"
  echo "$said" | sed "s/^/$1 /" >&2
  echo "$said" | awk '{ sum += $2 } END { print sum }'
}
# The best of three, taking turns.
best() { sort -n | head -1; }
for round in 1 2 3; do
  total debug >>"$CARGO_TARGET_DIR/debug.times.$$"
  total release >>"$CARGO_TARGET_DIR/release.times.$$"
done
debug="$(best <"$CARGO_TARGET_DIR/debug.times.$$")"
release="$(best <"$CARGO_TARGET_DIR/release.times.$$")"
rm "$CARGO_TARGET_DIR/debug.times.$$" "$CARGO_TARGET_DIR/release.times.$$"
awk -v debug="$debug" -v release="$release" 'BEGIN {
  printf "dev takes %.3f s, release %.3f s: %.2f times as long\n", debug, release, debug / release
  exit debug > 5 * release
}'
