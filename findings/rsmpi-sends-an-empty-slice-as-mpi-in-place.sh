#!/usr/bin/env bash
# An empty slice of bytes in Rust points to address 1, its alignment. Open MPI 4.1 defines MPI_IN_PLACE as address 1, so
# rsmpi (crate mpi 0.8.2), which passes the address of a slice on, asks for another operation when a rank has nothing to
# send: an all-to-all of no bytes into a buffer that receives some. With MPICH, whose MPI_IN_PLACE is -1, it works.
#
# Seen on 29 November 2026 with Open MPI 4.1.4 and MPICH 4.0.2 of Debian 12, cargo 1.95.0, two processes, where rank 1
# sends nothing and rank 0 sends a byte to each:
#   MPICH: both ranks receive their byte
#   Open MPI: MPI_ERR_TRUNCATE in MPI_Alltoallv of rank 0, because rank 1 exchanges in place; exit status not 0
#
# Needs cargo, and the packages openmpi-bin libopenmpi-dev mpich libmpich-dev libclang-dev. Exits with 1 if the behaviour has
# changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cargo init -q --name empty --vcs none .
cargo add -q mpi@=0.8.2 --no-default-features
cat >src/main.rs <<'RUST'
use mpi::datatype::{Partition, PartitionMut};
use mpi::traits::*;

fn main() {
    let universe = mpi::initialize().unwrap();
    let world = universe.world();
    let (sent, counts): (&[u8], [i32; 2]) = if world.rank() == 0 { (&[7, 8], [1, 1]) } else { (&[], [0, 0]) };
    let starts = [0, counts[0]];
    let mut received = [0u8];
    let send = Partition::new(sent, &counts[..], &starts[..]);
    let mut receive = PartitionMut::new(&mut received[..], &[1, 0][..], &[0, 1][..]);
    world.all_to_all_varcount_into(&send, &mut receive);
    println!("rank {} sends {} bytes from address {:?}, received {received:?}", world.rank(), sent.len(), sent.as_ptr());
}
RUST
cargo generate-lockfile -q
cargo update -q -p mpi-sys --precise 0.2.4
run() {
  MPICC="mpicc.$1" cargo build -q --target-dir "target-$1"
  OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "mpirun.$1" "${@:2}" "target-$1/debug/empty" 2>&1 || echo "exit status not 0"
}
echo "-- MPICH"
run mpich -n 2 | sort | tee mpich
echo "-- Open MPI"
run openmpi --oversubscribe -n 2 | tee openmpi
[ "$(grep -c 'received \[[78]\]' mpich)" = 2 ] && grep -q '^rank 1 .* from address 0x1,' mpich
grep -q MPI_ERR_TRUNCATE openmpi && grep -q '^exit status not 0' openmpi
