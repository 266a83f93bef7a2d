//! Traffic redirection as data: a rule model rendered to nftables and to iptables, diff and teardown.
