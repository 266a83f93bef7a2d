# Shared by hack/demo and hack/test: packages, the Rust toolchain, root. Sourced, not run.
# Prints nothing when all is there.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "needs Linux on x86-64; this is $(uname -s) on $(uname -m)"
[ "$(id -u)" = 0 ] || fail "needs root for network namespaces and nftables: run 'sudo hack/$(basename "$0")'"

# A root that came by `su` may not have them in its path.
PATH="$PATH:/usr/sbin:/sbin"

# command, Debian package, Fedora package
needs='cc gcc gcc
pkg-config pkg-config pkgconf-pkg-config
ip iproute2 iproute
nft nftables nftables
iptables-restore iptables iptables-nft
curl curl curl
python3 python3 python3
tcpdump tcpdump tcpdump
iperf3 iperf3 iperf3
openssl openssl openssl'

install_missing() {
    local deb=() rpm=() command debian fedora log
    while read -r command debian fedora; do
        command -v "$command" >/dev/null || { deb+=("$debian"); rpm+=("$fedora"); }
    done <<<"$needs"
    [ -e /usr/include/stdio.h ] || { deb+=(libc6-dev); rpm+=(glibc-devel); }
    [ -d /etc/ssl/certs ] || { deb+=(ca-certificates); rpm+=(ca-certificates); }
    pkg-config --exists 'openssl >= 3.0' 2>/dev/null || { deb+=(libssl-dev); rpm+=(openssl-devel); }
    [ ${#deb[@]} -gt 0 ] || return 0
    log=$(mktemp)
    if command -v apt-get >/dev/null; then
        echo "installing from Debian: ${deb[*]}"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "${deb[@]}"; } >"$log" 2>&1
    elif command -v dnf >/dev/null; then
        echo "installing with dnf: ${rpm[*]}"
        dnf install -y -q "${rpm[@]}" >"$log" 2>&1
    else
        fail "neither apt-get nor dnf is here; install these by hand: ${deb[*]}"
    fi || { tail -n 20 "$log" >&2; rm -f "$log"; fail "the packages could not be installed, see above"; }
    rm -f "$log"
}

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
