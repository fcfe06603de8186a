#!/usr/bin/env bash
# Gets the tools of every plugin language, as `toolchains.toml` pins them, into ${QUIPU_TOOLS:-~/.cache/quipu-tools}: one
# place outside of the tree, shared by tests and projects. What is there already costs nothing.
#
#   plugin-sdk/toolchains.sh [QUIPU]        QUIPU: the binary, that of `cargo test` unless said
#
# It needs python3 with venv, and node 20 or later with npm. As root on Debian or its kin it installs those that are
# missing; anywhere else it says which.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

quipu="$(realpath "${1:-${CARGO_TARGET_DIR:-target}/debug/quipu}")"
export QUIPU_TOOLS="${QUIPU_TOOLS:-$HOME/.cache/quipu-tools}"

if [ ! -x "$quipu" ]; then
    echo "toolchains.sh: $quipu is not there; build it first, as 'cargo test --no-run' does, or name it" >&2
    exit 2
fi

missing=()
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
if [ "${#missing[@]}" -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "toolchains.sh: install ${missing[*]} (so they are called in Debian), then run this again" >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

# In a folder without a project: then it is about every language.
empty="$(mktemp -d)"
trap 'rmdir "$empty"' EXIT
"$quipu" plugin doctor --install --dir "$empty"
