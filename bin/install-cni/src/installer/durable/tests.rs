use std::os::unix::fs::symlink;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use super::*;

/// A mount that goes with the test.
struct Mount(TempDir);

impl Mount {
    fn new(kind: Option<&str>, flags: MsFlags, data: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = if kind.is_some() {
            Path::new("none")
        } else {
            folder.path()
        };
        mount(Some(source), folder.path(), kind, flags, data).expect("root may mount");
        Self(folder)
    }

    fn read_only(files: &[(&str, &str)]) -> Self {
        let mounted = Self::new(None, MsFlags::MS_BIND, None);
        for (name, text) in files {
            fs::write(mounted.path().join(name), text).unwrap();
        }
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(
            None::<&str>,
            mounted.path(),
            None::<&str>,
            flags,
            None::<&str>,
        )
        .unwrap();
        mounted
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).ok();
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_as_a_whole_with_its_mode() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plugin");
    for (bytes, mode) in [(&b"one"[..], 0o755), (b"a longer one", 0o600), (b"", 0o640)] {
        let before = path.metadata().ok().map(|found| found.ino());
        replace(folder.path(), "plugin", bytes, mode).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        let found = path.metadata().unwrap();
        assert_eq!(found.mode() & 0o7777, mode);
        assert_ne!(
            before,
            Some(found.ino()),
            "who has the old one open keeps it"
        );
    }
    assert_eq!(names(folder.path()), ["plugin"]);
}

#[test]
fn a_full_folder_keeps_what_it_had_and_nothing_half_done() {
    let folder = Mount::new(Some("tmpfs"), MsFlags::empty(), Some("size=64k"));
    replace(folder.path(), "istio-cni", b"old", 0o755).unwrap();
    let error = replace(folder.path(), "istio-cni", &vec![7; 1 << 20], 0o755).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert_eq!(fs::read(folder.path().join("istio-cni")).unwrap(), b"old");
    assert_eq!(names(folder.path()), ["istio-cni"]);
}

#[test]
fn a_folder_without_inodes_is_full_too() {
    let folder = Mount::new(Some("tmpfs"), MsFlags::empty(), Some("nr_inodes=2"));
    replace(folder.path(), "a", b"1", 0o600).unwrap();
    let error = replace(folder.path(), "a", b"2", 0o600).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"1");
}

#[test]
fn a_read_only_folder_is_named() {
    let folder = Mount::read_only(&[("a", "1")]);
    let changes = [
        replace(folder.path(), "a", b"2", 0o600),
        link(folder.path(), "a", "b"),
        rename(folder.path(), "a", "b"),
        remove(folder.path(), "a"),
    ];
    for change in changes {
        let error = change.unwrap_err();
        let expected = format!("{} is read-only", folder.path().display());
        assert_eq!(error.to_string(), expected, "{error:?}");
    }
    assert_eq!(names(folder.path()), ["a"]);
}

#[test]
fn a_folder_that_root_may_not_change_is_told_with_what_may_help() {
    let folder = tempfile::tempdir().unwrap();
    let denied = io::Error::from(ErrorKind::PermissionDenied);
    let path = folder.path().join("a");
    let told = because(folder.path(), "write", &path, denied).to_string();
    let expected = format!("{} may not be changed by root", folder.path().display());
    assert!(
        told.starts_with(&expected) && told.contains("spc_t"),
        "{told}"
    );
}

#[test]
fn a_folder_that_was_removed_while_it_was_open_is_gone() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("net.d");
    let mounted = parent.path().join("mounted");
    fs::create_dir(&folder).unwrap();
    fs::create_dir(&mounted).unwrap();
    mount(
        Some(&folder),
        &mounted,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    assert!(is_there(&mounted));
    fs::remove_dir(&folder).unwrap();
    let there = is_there(&mounted);
    let error = replace(&mounted, "a", b"1", 0o600).unwrap_err();
    umount2(&mounted, MntFlags::MNT_DETACH).unwrap();
    assert!(!there);
    assert!(matches!(error, Error::Gone { .. }), "{error:?}");
}

#[test]
fn what_is_linked_is_the_very_same_file_and_survives_the_other_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a"), "1").unwrap();
    fs::write(at("kept"), "something older").unwrap();
    link(folder.path(), "a", "kept").unwrap();
    assert_eq!(
        at("a").metadata().unwrap().ino(),
        at("kept").metadata().unwrap().ino()
    );
    link(folder.path(), "a", "kept").unwrap();
    assert_eq!(
        names(folder.path()),
        ["a", "kept"],
        "also when it was done before"
    );
    let before = at("kept").metadata().unwrap();
    replace(folder.path(), "a", b"2", 0o600).unwrap();
    assert_eq!(fs::read(at("kept")).unwrap(), b"1");
    rename(folder.path(), "kept", "a").unwrap();
    assert_eq!(fs::read(at("a")).unwrap(), b"1");
    let after = at("a").metadata().unwrap();
    assert_eq!((after.ino(), after.mtime()), (before.ino(), before.mtime()));
    assert_eq!(names(folder.path()), ["a"]);
}

#[test]
fn a_link_is_kept_as_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("target"), "1").unwrap();
    symlink("target", at("a")).unwrap();
    link(folder.path(), "a", "kept").unwrap();
    replace(folder.path(), "a", b"2", 0o600).unwrap();
    rename(folder.path(), "kept", "a").unwrap();
    assert_eq!(fs::read_link(at("a")).unwrap(), Path::new("target"));
    assert_eq!(fs::read(at("target")).unwrap(), b"1");
}

#[test]
fn what_is_not_there_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    remove(folder.path(), "a").unwrap();
    fs::create_dir_all(folder.path().join("sandboxes/below")).unwrap();
    remove(folder.path(), "sandboxes").unwrap();
    assert!(names(folder.path()).is_empty());
}

#[test]
fn leftovers_of_ours_and_istios_are_known_and_those_of_others_left() {
    for (name, ours) in [
        ("istio-cni.tmp.123456", true),
        ("istio-cni.tmp.istio-cni-aB3dE6", true),
        ("10-calico.conflist.tmp.istio-cni-aB3dE6", true),
        ("02-istio-cni.conflist.tmp.77", true),
        ("10-calico.conflist.tmp.77", false),
        ("istio-cni", false),
        ("10-calico.conflist", false),
        ("tmp.istio-cni", false),
    ] {
        assert_eq!(is_leftover(name), ours, "{name}");
    }
}

#[test]
fn what_is_being_made_has_a_name_that_no_runtime_reads_and_that_counts_as_a_leftover() {
    // The name that a killed process leaves: taken while a file is being made.
    let folder = tempfile::tempdir().unwrap();
    let prefix = format!("10-a.conflist{UNFINISHED}{OURS}");
    let file = Builder::new()
        .prefix(&prefix)
        .tempfile_in(folder.path())
        .unwrap();
    let name = file.path().file_name().unwrap().to_str().unwrap();
    assert!(is_leftover(name));
    assert_eq!(mesh_cni::conflist::Format::of(Path::new(name)), None);
}
