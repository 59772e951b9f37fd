#!/bin/sh
# Hugepages for DPDK: reserves them, mounts them, and gives them back.
#
#   scripts/hugepages.sh status
#   scripts/hugepages.sh reserve MIB [2M|1G [NODE]]   so much in all (on one NUMA node), mounted on /dev/hugepages
#   scripts/hugepages.sh undo                         as it was before
#
# -n, --dry-run prints what it would do; -h, --help prints this. Pages of 1G are best reserved at boot, by
# `default_hugepagesz=1G hugepagesz=1G hugepages=4` on the kernel's command line: later memory is in pieces.
set -eu
. "${0%/*}/lib.sh"

mount=${TOWPATH_HUGETLBFS:-/dev/hugepages} undo=$STATE/hugepages
is_mounted() { grep -q " $mount hugetlbfs " "$PROC/mounts"; }
case ${1:-status} in
status)
    for pool in "$SYS"/kernel/mm/hugepages/hugepages-*kB "$SYS"/devices/system/node/node*/hugepages/hugepages-*kB; do
        [ ! -r "$pool/nr_hugepages" ] || echo "$pool: $(cat "$pool/nr_hugepages"), $(cat "$pool/free_hugepages") free"
    done
    if is_mounted; then echo "$mount: mounted"; else echo "$mount: not mounted"; fi ;;
reserve)
    case ${3:-2M} in 2M) kib=2048 ;; 1G) kib=1048576 mount=${mount}1G ;; *) die "a page is 2M or 1G, not $3" ;; esac
    case ${2:-} in '' | *[!0-9]* | 0) die "expected: reserve MIB, as in: reserve 1024" ;; esac
    if [ $# = 4 ]; then pool=$SYS/devices/system/node/node$4; else pool=$SYS/kernel/mm; fi
    file=$pool/hugepages/hugepages-${kib}kB/nr_hugepages pages=$((($2 * 1024 + kib - 1) / kib))
    [ -e "$file" ] || die "$file is not there: this kernel${4:+, or node $4,} has no pages of ${3:-2M}"
    need_root
    grep -qs " $file$" "$undo" || remember hugepages "put $(cat "$file") $file"
    put "$pages" "$file"
    [ -n "$DRY" ] || [ "$(cat "$file")" -ge "$pages" ] || die "only $(cat "$file") of $pages pages: memory is in \
pieces. Ask for less, or 'echo 1 > /proc/sys/vm/compact_memory' and again, or reserve at boot; then: $0 undo"
    is_mounted || { remember hugepages "run umount $mount"; run mkdir -p "$mount"
        run mount -t hugetlbfs -o "pagesize=${3:-2M},mode=0700" none "$mount"; } ;;
undo)
    [ -e "$undo" ] || die "nothing to undo: $undo is not there"
    need_root
    while read -r how what file; do "$how" "$what" ${file:+"$file"}; done <"$undo"
    run rm "$undo" ;;
*) die "no command $1; see $0 --help" ;;
esac
