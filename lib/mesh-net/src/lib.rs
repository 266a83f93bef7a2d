//! Linux: sockets, original destination, marks, network namespaces, netlink, descriptor passing, byte copy. All unsafe code lives here.
