#!/usr/bin/env bash
# mpi-sys 0.2.4 (the bindings of rsmpi, crate mpi 0.8.2) chooses the MPI by the variable MPICC, but does not tell Cargo so: a
# second build in the same target folder with another MPICC is skipped, and the program keeps the MPI of the first. Types
# and constants differ between Open MPI and MPICH, so a target folder per MPI is needed, or `cargo clean -p mpi-sys`.
#
# Seen on 29 November 2026 with Open MPI 4.1.4 and MPICH 4.0.2 of Debian 12, cargo 1.95.0:
#   first build, MPICC=mpicc.openmpi: the program needs libmpi.so.40
#   second build, MPICC=mpicc.mpich: "Finished" without compiling; the program still needs libmpi.so.40
#   after cargo clean -p mpi-sys: the program needs libmpich.so.12
#
# Needs cargo, and the packages openmpi-bin libopenmpi-dev mpich libmpich-dev libclang-dev. Exits with 1 if the behaviour has
# changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cargo init -q --name which --vcs none .
cargo add -q mpi@=0.8.2 --no-default-features
cat >src/main.rs <<'RUST'
fn main() {
    println!("{}", mpi::environment::library_version().unwrap_or_default());
}
RUST
export CARGO_TARGET_DIR="$folder/target"
cargo generate-lockfile -q
cargo update -q -p mpi-sys --precise 0.2.4
needed() { readelf -d target/debug/which | grep -o 'libmpi[a-z]*\.so\.[0-9]*' | head -n 1; }
build() { MPICC="$1" cargo build 2>&1 | grep -c '^ *Compiling' || true; }

first=$(build mpicc.openmpi); library=$(needed)
echo "MPICC=mpicc.openmpi: $first crates compiled, needs $library"
second=$(build mpicc.mpich); still=$(needed)
echo "MPICC=mpicc.mpich: $second crates compiled, needs $still"
cargo clean -q -p mpi-sys
third=$(build mpicc.mpich); changed=$(needed)
echo "MPICC=mpicc.mpich after cargo clean -p mpi-sys: $third crates compiled, needs $changed"
[ "$library" = libmpi.so.40 ] && [ "$second" = 0 ] && [ "$still" = libmpi.so.40 ] && [ "$changed" = libmpich.so.12 ]
