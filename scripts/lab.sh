#!/bin/sh
# A network of its own to play with: a client, a node and a server, each in its namespace, on one switch.
#   tp-client 10.7.0.1 ──┐                   scripts/lab.sh up [QUEUES]   stays up; prints what to run next
#   tp-node   10.7.0.2 ──┼── tp-switch       scripts/lab.sh exec NAMESPACE COMMAND…
#   tp-server 10.7.0.3 ──┘                   scripts/lab.sh status | down
# The interface is fabric0 in each, its offloads are off, 10.7.0.10 is free for a raw port. -n, --dry-run prints only.
set -eu
. "${0%/*}/lib.sh"
lab=${TOWPATH_LAB:-tp} # another name is another lab beside it
down() { # with what still runs inside
    for ns in "$lab-client" "$lab-node" "$lab-server" "$lab-switch"; do
        [ -e "/run/netns/$ns" ] || continue
        for pid in $(ip netns pids "$ns"); do run kill "$pid" || true; done
        run ip netns del "$ns"
    done
}
join() { # ROLE ADDRESS
    run ip netns add "$lab-$1" && run ip -n "$lab-$1" link set lo up
    run ip -n "$lab-$1" link add fabric0 numrxqueues "$queues" numtxqueues "$queues" type veth \
        peer name "$1" netns "$lab-switch" numrxqueues "$queues" numtxqueues "$queues"
    run ip netns exec "$lab-$1" ethtool -K fabric0 tx off sg off tso off gso off gro off >/dev/null
    run ip netns exec "$lab-switch" ethtool -K "$1" tx off sg off tso off gso off gro off >/dev/null
    run ip -n "$lab-$1" addr add "$2/24" dev fabric0 && run ip -n "$lab-$1" link set fabric0 up
    run ip -n "$lab-switch" link set "$1" master switch up
}
case ${1:-status} in
up) [ ! -e "/run/netns/$lab-switch" ] || die "it is up already; see: $0 status"
    command -v ethtool >/dev/null || die "ethtool is missing: apt-get install ethtool"; queues=${2:-1}; need_root
    [ -n "$DRY" ] || trap 'echo "lab.sh: it did not come up; what there was is removed" >&2; down' EXIT
    run ip netns add "$lab-switch" && run ip -n "$lab-switch" link add switch up type bridge
    join client 10.7.0.1 && join node 10.7.0.2 && join server 10.7.0.3
    trap - EXIT && sed "1,/^## /d; s/tp-/$lab-/g" "${0%/*}/../examples/lab/README.md" ;;
down) need_root && down ;;
status) [ -e "/run/netns/$lab-switch" ] || die "it is down; $0 up"
    for ns in "$lab-client" "$lab-node" "$lab-server"; do
        echo "$ns $(ip -n "$ns" -br addr show fabric0)" && ip netns pids "$ns" | xargs -r ps -o pid=,args= -p
    done ;;
exec) [ $# -ge 3 ] || die "expected: exec NAMESPACE COMMAND…"; shift && exec ip netns exec "$@" ;;
*) die "no command $1; see $0 --help" ;;
esac
