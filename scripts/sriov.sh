#!/bin/sh
# Virtual functions of a NIC: one for Towpath, while the kernel keeps the NIC itself.
#
#   scripts/sriov.sh status            NICs that can, how many VFs they have, and where these are
#   scripts/sriov.sh create NIC COUNT  NIC is the interface of a physical function
#   scripts/sriov.sh remove NIC        all of its VFs
#
# -n, --dry-run prints what it would do; -h, --help prints this. Then: scripts/nic.sh bind VF, with its PCI address.
set -eu
. "${0%/*}/lib.sh"

show() { # NIC
    dev=$SYS/class/net/$1/device
    echo "$1: $(cat "$dev/sriov_numvfs") of $(cat "$dev/sriov_totalvfs") VFs"
    for vf in "$dev"/virtfn*; do
        [ ! -e "$vf" ] || echo "  ${vf##*/}  $(name_of "$vf")  driver $(name_of "$vf/driver" || echo none)"
    done
}
has() { [ "$(find "$dev/" -maxdepth 1 -name 'virtfn*' | wc -l)" -eq "$1" ]; }
case ${1:-status} in
status)
    for file in "$SYS"/class/net/*/device/sriov_totalvfs; do
        [ -e "$file" ] || die "no NIC here has virtual functions (SR-IOV off in the firmware, or a virtual machine)"
        net=${file%/device/*} && show "${net##*/}"
    done
    exit ;;
create) case ${3:-} in '' | 0 | *[!0-9]*) die "expected: create NIC COUNT, as in: create eth1 2" ;; esac ;;
remove) [ $# = 2 ] || die "expected: remove NIC" ;;
*) die "no command $1; see $0 --help" ;;
esac
dev=$SYS/class/net/$2/device count=${3:-0}
[ -e "$dev/sriov_totalvfs" ] || die "$2 has no virtual functions: not a physical function of an SR-IOV NIC; see status"
refuse_default "$2" "many NICs reset their link for this. Do it at boot, see docs/deploy.md"
[ "$count" -le "$(cat "$dev/sriov_totalvfs")" ] || die "$2 has at most $(cat "$dev/sriov_totalvfs") VFs"
[ "$1" = remove ] || [ "$(cat "$dev/sriov_numvfs")" = 0 ] || die "$2 has VFs already; first: $0 remove $2"
need_root
put "$count" "$dev/sriov_numvfs"
wait_for "$2 did not get $count VFs" has "$count"
[ -n "$DRY" ] || show "$2"
[ "$1$(cat "$SYS/class/net/$2/operstate" 2>/dev/null)" != createdown ] || echo "$2 is down, and its VFs carry nothing until it is up: ip link set $2 up"
