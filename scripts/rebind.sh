# shellcheck shell=sh disable=SC2154
# The second half of nic.sh: gives $dev, at $addr under $pci, the driver $to instead of $old. Sourced, never run.
is_bound() { [ "$(name_of "$dev/driver" || echo none)" = "$to" ]; }
is_unbound() { [ ! -e "$dev/driver" ]; }

if [ "$to" = vfio-pci ]; then
    [ -d "$pci/drivers/vfio-pci" ] || run modprobe vfio-pci || die "no vfio-pci: the kernel needs CONFIG_VFIO_PCI"
    if [ ! -e "$dev/iommu_group" ]; then
        [ -n "${TOWPATH_NOIOMMU:-}" ] || die "$addr is behind no IOMMU: boot with intel_iommu=on (or amd_iommu=on) and \
iommu=pt, after switching VT-d or AMD-Vi on in the firmware; or see --help for how to do without"
        put Y "$SYS/module/vfio/parameters/enable_unsafe_noiommu_mode"
    fi
    for other in "$dev"/iommu_group/devices/*; do # DPDK gets a group as a whole, or nothing
        driver=$(name_of "$other/driver" || echo none)
        case ${other##*/}:$driver in
        "$addr":* | *:none | *:vfio-pci | *:pcieport | '*:'*) ;;
        *) die "${other##*/} ($driver) is in the same IOMMU group: bind it too, or use another slot" ;;
        esac
    done
    [ -e "$STATE/nic-$addr" ] || remember "nic-$addr" "$old"
fi
put "$to" "$dev/driver_override"
if [ "$old" != none ]; then
    put "$addr" "$dev/driver/unbind"
    wait_for "$addr is held by $old" is_unbound
fi
if [ "$to" != none ]; then
    put "$addr" "$pci/drivers_probe"
    wait_for "$to did not take $addr" is_bound
fi
if [ "$to" = vfio-pci ]; then
    echo "$addr: $to instead of $old. In node.toml: device = \"$addr\". Back: $0 restore $addr"
else
    put "" "$dev/driver_override"
    run rm -f "$STATE/nic-$addr"
    echo "$addr: $to again"
fi
