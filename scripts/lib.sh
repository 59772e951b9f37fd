# shellcheck shell=sh
# What hugepages.sh, nic.sh, sriov.sh and lab.sh share; sourced, never run. Every change goes through `run` or `put`,
# so what is printed is what happens, and --dry-run prints the same and does nothing.
SYS=${TOWPATH_SYSFS:-/sys}            # tests give a tree of their own
PROC=${TOWPATH_PROCFS:-/proc}
# shellcheck disable=SC2034 # where undoing finds what was before; used by who sources this
STATE=${TOWPATH_STATE:-/run/towpath}
DRY=

die() { echo "${0##*/}: $*" >&2; exit 1; }
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0; }
run() { echo "+ $*" >&2; [ -n "$DRY" ] || "$@"; }
put() { echo "+ echo '$1' > $2" >&2; [ -n "$DRY" ] || printf '%s\n' "$1" >"$2" || die "the kernel refuses '$1' in $2"; }
remember() { [ -n "$DRY" ] || { mkdir -p "$STATE" && printf '%s\n' "$2" >>"$STATE/$1"; }; } # NAME LINE
need_root() { [ -n "$DRY" ] || [ "$SYS" != /sys ] || [ "$(id -u)" = 0 ] || die "needs root: sudo $0"; }
name_of() { link=$(readlink "$1") && echo "${link##*/}"; } # what a symlink of sysfs points at

# Whether `$1`, or a bond, bridge or VLAN on top of it, carries a default route.
carries_default() {
    awk -v me="$1" '
        NF > 10 && $1 == me && $2 == "00000000" && $8 == "00000000" { found = 1 }
        NF == 10 && $10 == me && me != "lo" && $1 ~ /^0+$/ && $2 == "00" { found = 1 }
        END { exit !found }' "$PROC"/net/*route && return 0
    for upper in "$SYS/class/net/$1"/upper_*; do
        if [ -e "$upper" ] && (carries_default "${upper##*/upper_}"); then return 0; fi
    done
    return 1
}
refuse_default() { ! carries_default "$1" || die "$1 carries the default route: this machine would be cut off; $2"; }
wait_for() { # WHAT CONDITION…: the kernel's answer comes at once, udev's may take a moment
    [ -z "$DRY" ] || return 0
    what=$1 && shift
    for _ in 1 2 3 4 5 6 7 8 9 10; do "$@" && return 0; sleep 0.2; done
    die "$what; see dmesg"
}
if [ "${1:-}" != exec ]; then
    for arg; do shift; case $arg in -h | --help) usage ;; -n | --dry-run) DRY=1 ;; *) set -- "$@" "$arg" ;; esac; done
fi
