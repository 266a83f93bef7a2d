//! Linux: sockets, original destination, marks, network namespaces, netlink, descriptor passing, byte
//! copy. All unsafe code lives here.
//!
//! Nothing in this crate spawns a task or a thread: what takes time is a future, and the program
//! decides where it runs.
#![expect(
    unsafe_code,
    reason = "descriptors that the kernel hands over, and ioctls, have no safe wrapper"
)]

pub mod branch;
pub mod command;
pub mod copy;
pub mod folder;
pub mod ipset;
pub mod limits;
pub mod netns;
pub mod nfnetlink;
pub mod routing;
pub mod seqpacket;
pub mod socket;
