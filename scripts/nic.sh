#!/bin/sh
# Takes a NIC from the kernel and gives it to DPDK (vfio-pci), and back.
#
#   scripts/nic.sh status           PCI network devices: driver, interface, NUMA node, IOMMU group
#   scripts/nic.sh bind NIC         NIC is an interface (eth1) or a PCI address (0000:3b:00.1)
#   scripts/nic.sh restore NIC      to the driver it had before
#
# -n, --dry-run prints what it would do; -h, --help prints this. Without an IOMMU: TOWPATH_NOIOMMU=1 scripts/nic.sh
# bind NIC, and any process with the device can then read all memory.
set -eu
. "${0%/*}/lib.sh"

pci=$SYS/bus/pci
nets_of() { find -L "$1/net" "$1"/virtio*/net -mindepth 1 -maxdepth 1 2>/dev/null | sed 's|.*/||'; }
case ${1:-status} in
status)
    for dev in "$pci"/devices/*; do
        case $(cat "$dev/class" 2>/dev/null) in 0x02*) ;; *) continue ;; esac
        echo "${dev##*/}  driver $(name_of "$dev/driver" || echo none)  interface $(nets_of "$dev")  \
node $(cat "$dev/numa_node" 2>/dev/null || echo '?')  iommu group $(name_of "$dev/iommu_group" || echo none)"
    done
    exit ;;
bind | restore) [ $# = 2 ] || die "expected: $1 NIC, an interface or a PCI address" ;;
*) die "no command $1; see $0 --help" ;;
esac
addr=$2
if [ ! -d "$pci/devices/$2" ]; then
    real=$(readlink -f "$SYS/class/net/$2/device" | sed 's|/virtio[0-9]*$||') && addr=${real##*/}
fi
dev=$pci/devices/$addr
case $addr in *:*) ;; *) die "$2 is no PCI device; see: $0 status" ;; esac
for net in $(nets_of "$dev"); do refuse_default "$net" "use another NIC or a VF of it"; done
old=$(name_of "$dev/driver" || echo none) to=vfio-pci
if [ "$1" = restore ]; then to=$(cat "$STATE/nic-$addr" 2>/dev/null) || die "$addr was not bound by this script"; fi
case $old in mlx*) die "$addr keeps $old: its DPDK driver shares the NIC with the kernel; device = \"$addr\" is all" ;; esac
[ "$old" != "$to" ] || { echo "$addr has $to already"; exit 0; }
need_root
. "${0%/*}/rebind.sh"
