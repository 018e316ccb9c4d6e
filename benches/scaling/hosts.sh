#!/usr/bin/env bash
# Runs a program as ranks on "hosts" of this machine: `benches/scaling/hosts.sh HOSTS GBIT/S RANKS PROGRAM ..`. A host is a
# network namespace with a port of this rate on a switch (a bridge); its ranks reach those of other hosts, and each other,
# over TCP alone. Needs root, ip, tc with the queue tbf, and Open MPI. Exits with 77 if they are missing.
set -euo pipefail
hosts="$1" rate="$2" ranks="$3"
shift 3

skip() { echo "SKIPPED: $1" >&2; exit 77; }
[ "$(id -u)" = 0 ] || skip "network namespaces need root"
for program in ip tc mpirun.openmpi; do command -v "$program" >/dev/null || skip "$program is not installed"; done

id="cz$$"
folder="$(mktemp -d)"
clean() {
  for host in $(seq "$hosts"); do ip netns del "$id-$host" 2>/dev/null || true; done
  ip netns del "$id-switch" 2>/dev/null || true
  rm -r "$folder"
}
trap clean EXIT
ip netns add "$id-switch" 2>/dev/null || skip "network namespaces cannot be made here"
ip -n "$id-switch" link add switch type bridge
ip -n "$id-switch" link set switch up

# What leaves a port is limited on its side of the cable, in both directions. The burst lets whole segments of TCP through.
shape() { tc -n "$1" qdisc add dev "$2" root tbf rate "${rate}gbit" burst 512kb limit 8mb; }
for host in $(seq "$hosts"); do
  name="$id-$host"
  ip netns add "$name"
  ip -n "$name" link add port type veth peer name "port$host" netns "$id-switch"
  ip -n "$name" address add "10.77.0.$host/24" dev port
  ip -n "$name" link set lo up
  ip -n "$name" link set port up
  ip -n "$id-switch" link set "port$host" master switch up
  # A connection keeps its window between two steps, as clusters are set up.
  ip netns exec "$name" sysctl -qw net.ipv4.tcp_slow_start_after_idle=0
  shape "$name" port
  shape "$id-switch" "port$host"
  echo "10.77.0.$host slots=$(((ranks + hosts - 1) / hosts))" >>"$folder/hosts"
done

# Open MPI starts its daemon on a host with "ssh ADDRESS COMMAND"; this program takes the place of ssh. Hosts have names of their own,
# by which Open MPI tells who shares memory.
cat >"$folder/enter" <<EOF
#!/usr/bin/env bash
host="\${1##*.}"
shift
exec ip netns exec "$id-\$host" unshare --uts bash -c 'hostname "\$0"; eval "\$@"' "host\$host" "\$@"
EOF
chmod +x "$folder/enter"

# The first host is that of mpirun.
"$folder/enter" 10.77.0.1 mpirun.openmpi --allow-run-as-root --hostfile "$folder/hosts" -n "$ranks" --oversubscribe \
  --bind-to none --mca plm_rsh_agent "$folder/enter" --mca btl tcp,self --mca pml ob1 \
  --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24 "$@"
