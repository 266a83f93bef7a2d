# The packages that hack/setup.sh asks for, and how they are installed. Sourced, not run.

# command, Debian package, Fedora package
needs='cc gcc gcc
pkg-config pkg-config pkgconf-pkg-config
ip iproute2 iproute
nft nftables nftables
iptables-restore iptables iptables-nft
iptables-legacy-restore iptables iptables-legacy
ipset ipset ipset
curl curl curl
python3 python3 python3
tcpdump tcpdump tcpdump
iperf3 iperf3 iperf3
containerd containerd containerd
runc runc runc
openssl openssl openssl
kubectl kubernetes-client kubernetes-client'

install_missing() {
    local deb=() rpm=() command debian fedora log
    while read -r command debian fedora; do
        command -v "$command" >/dev/null || { deb+=("$debian"); rpm+=("$fedora"); }
    done <<<"$needs"
    [ -e /usr/include/stdio.h ] || { deb+=(libc6-dev); rpm+=(glibc-devel); }
    # The CNI plugin is linked statically.
    case $(cc -print-file-name=libc.a 2>/dev/null) in
        /*) ;;
        *) deb+=(libc6-dev); rpm+=(glibc-static) ;;
    esac
    [ -d /usr/lib/cni ] || [ -d /usr/libexec/cni ] ||
        { deb+=(containernetworking-plugins); rpm+=(containernetworking-plugins); }
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
