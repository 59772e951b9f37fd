#!/bin/sh
# Builds towpath and pktgen for production: twice, and the second time the compiler knows from a minute's load what is
# hot. A call then costs 10 to 20 % less CPU. Takes some ten minutes; what it builds is in target/pgo/bin.
#   scripts/pgo.sh [--features dpdk]      what cargo build takes; with DPDK, as root, memif is part of the load
# -n, --dry-run prints only. Needs two cores, python3 and rustup's llvm-tools, which it adds.
set -eu
. "${0%/*}/lib.sh"
cd "${0%/*}/.."
host=$(rustc -vV | sed -n 's/^host: //p') && sysroot=$(rustc --print sysroot)
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/pgo && export CARGO_TARGET_DIR
built=$CARGO_TARGET_DIR/$host/release profiles=$CARGO_TARGET_DIR/profiles
merge=$sysroot/lib/rustlib/$host/bin/llvm-profdata
backends="uring epoll"
case "$*" in *dpdk*) [ "$(id -u)" != 0 ] || backends="$backends memif" ;; esac

# With a target named, only what will run later is built so, and not what runs while it is being built.
build() { # FLAG ARGUMENT…
    flag=$1 && shift
    run env RUSTFLAGS="${RUSTFLAGS:-} $flag" cargo build --release --locked --target "$host" --bin towpath --bin pktgen "$@"
}
[ -x "$merge" ] || run rustup component add llvm-tools
run rm -rf "$profiles"
build "-Cprofile-generate=$profiles" "$@"
# shellcheck disable=SC2086 # words
run python3 benches/train.py "$built" $backends
run "$merge" merge -o "$profiles/merged" "$profiles"
build "-Cprofile-use=$profiles/merged" "$@"
run mkdir -p "$CARGO_TARGET_DIR/bin" && run cp "$built/towpath" "$built/pktgen" "$CARGO_TARGET_DIR/bin/"
