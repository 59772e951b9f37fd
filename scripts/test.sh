#!/bin/sh
# THE test command: every test of the project, installing what they need.
#   scripts/test.sh [--full] [--only STEP[,STEP]] [--list]
# The steps and their order are in scripts/steps.py; this only finds the two programs it needs.
set -eu
cd "$(dirname "$0")/.."
if [ -d "$HOME/.cargo/bin" ]; then PATH="$PATH:$HOME/.cargo/bin"; fi
if [ -d /usr/local/go/bin ]; then PATH="$PATH:/usr/local/go/bin"; fi
export PATH
if ! command -v python3 >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -q && apt-get install -y -q --no-install-recommends python3 python3-venv
    else
        echo "python3 is missing: sudo apt-get install python3 python3-venv" >&2
        exit 1
    fi
fi
if ! command -v cargo >/dev/null; then
    echo "cargo is missing: install Rust with rustup (https://rustup.rs)" >&2
    exit 1
fi
exec python3 scripts/steps.py "$@"
