# Shared by hack/demo and hack/test: packages, the Rust toolchain, root. Sourced, not run.
# Prints nothing when all is there.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "needs Linux on x86-64; this is $(uname -s) on $(uname -m)"
[ "$(id -u)" = 0 ] || fail "needs root for network namespaces and nftables: run 'sudo hack/$(basename "$0")'"

# A root that came by `su` may not have them in its path.
PATH="$PATH:/usr/sbin:/sbin"

. hack/packages.sh

find_cargo() {
    local want have home
    command -v cargo >/dev/null || PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    # Under sudo the toolchain is with the one who called it. What root downloads stays with root.
    if ! command -v cargo >/dev/null && [ -n "${SUDO_USER:-}" ]; then
        home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
        PATH="$home/.cargo/bin:$PATH"
        export RUSTUP_HOME="${RUSTUP_HOME:-$home/.rustup}"
    fi
    want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    have=$(cargo --version 2>/dev/null | cut -d' ' -f2) && [ -n "$have" ] ||
        fail "no Rust toolchain found; install Rust $want or later with rustup (https://rustup.rs) and run again"
    [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n1)" = "$want" ] ||
        fail "Rust $want or later is needed, found $have; run 'rustup update stable'"
}

# What was built under sudo belongs to the one who called it, who may want to build as well.
give_back() {
    local built=${CARGO_TARGET_DIR:-target}
    [ -z "${SUDO_UID:-}" ] || [ ! -d "$built" ] || chown -hR "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$built" || true
}

install_missing
find_cargo
