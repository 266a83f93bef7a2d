//! Where on the host a mounted folder is.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where `path` is within its file system, which is its path on the host unless that is mounted there itself.
/// `None` if nothing is mounted at it or above it but the root of this process.
pub(super) fn on_host(path: &Path) -> Option<String> {
    let path = fs::canonicalize(path).ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    origin(&mounts, &path).map(|origin| origin.display().to_string())
}

/// The same, by the text of `mountinfo`.
fn origin(mounts: &str, path: &Path) -> Option<PathBuf> {
    let mount = |line: &str| {
        // ID, parent, device, root within the file system, where it is mounted, …
        let mut fields = line.split(' ').skip(3);
        let root = PathBuf::from(unescaped(fields.next()?));
        let point = PathBuf::from(unescaped(fields.next()?));
        Some((point, root))
    };
    let above = mounts.lines().filter_map(mount);
    // The last of several at the same place is the one that is seen.
    let nearest = above
        .filter(|(point, _)| path.starts_with(point))
        .max_by_key(|(point, _)| point.components().count())?;
    let (point, root) = nearest;
    if point == Path::new("/") {
        return None;
    }
    let below = path.strip_prefix(&point).ok()?;
    Some(if below.as_os_str().is_empty() {
        root
    } else {
        root.join(below)
    })
}

/// White space and backslashes stand as three octal digits.
fn unescaped(field: &str) -> String {
    field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 259:2 / / rw,relatime - overlay overlay rw
30 22 259:2 /var/lib/rancher/k3s/agent/etc/cni/net.d /host/etc/cni/net.d rw - ext4 /dev/sda1 rw
31 22 259:3 /lib/cni/bin /host/opt/cni/bin rw,noexec - xfs /dev/sdb1 rw
32 22 259:4 / /host/var/my\\040run rw - tmpfs tmpfs rw
33 22 259:5 /later /host/opt/cni/bin rw - xfs /dev/sdb2 rw
";

    #[test]
    fn a_mounted_folder_is_found_where_the_host_has_it() {
        for (path, origin_of) in [
            (
                "/host/etc/cni/net.d",
                Some("/var/lib/rancher/k3s/agent/etc/cni/net.d"),
            ),
            ("/host/opt/cni/bin", Some("/later")),
            ("/host/opt/cni/bin/below", Some("/later/below")),
            ("/host/var/my run/a", Some("/a")),
            ("/host/opt", None),
        ] {
            let found = origin(MOUNTS, Path::new(path));
            assert_eq!(found.as_deref(), origin_of.map(Path::new), "{path}");
        }
    }
}
