//! Plug-in certificates that change, with a clock that a test moves.

use std::path::Path;

use mesh_identity::issuer::{Root, RootKind};
use parking_lot::Mutex;

use super::*;
use crate::ca::keeper::{Clock, MARGIN};

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Mount {
    folder: tempfile::TempDir,
    now: Arc<Mutex<SystemTime>>,
}

fn mk_root() -> Root {
    Root::generate(RootKind::EcP256, "plugin", 100 * DAY).unwrap()
}

impl Mount {
    /// Files of `signing`, in a folder that is replaced as the kubelet does.
    fn new(signing: &Root) -> (Self, Plugin) {
        let mount = Self {
            folder: tempfile::tempdir().unwrap(),
            now: Arc::new(Mutex::new(SystemTime::now())),
        };
        mount.write(signing, &signing.certificate);
        let files = Files::new(mount.folder.path());
        let pem = files.read().unwrap().unwrap();
        let plugin = Plugin::start(files, pem, mount.settings(), Metrics::default()).unwrap();
        (mount, plugin)
    }

    fn settings(&self) -> Settings {
        let now = Arc::clone(&self.now);
        Settings {
            default_ttl: DAY,
            max_ttl: 90 * DAY,
            clock: Clock::new(move || *now.lock()),
            ..crate::ca::keeper::tests::mk_settings(self.folder.path())
        }
    }

    fn write(&self, signing: &Root, roots: &str) {
        let put = |name: &str, text: &str| {
            let path: &Path = self.folder.path();
            std::fs::write(path.join(name), text).unwrap();
        };
        put("ca-cert.pem", &signing.certificate);
        put("ca-key.pem", &signing.key);
        put("root-cert.pem", roots);
    }

    fn pass(&self, time: Duration) {
        *self.now.lock() += time;
    }
}

/// Two looks: what is read twice in a row is acted upon.
fn look(plugin: &mut Plugin) {
    for _ in 0..2 {
        plugin.look();
        plugin.step();
    }
}

/// Whether `signing` signs, and with which roots.
fn stands(plugin: &Plugin, signing: &Root, roots: &[&Root]) {
    let state = plugin.held.state();
    assert_eq!(state.signing.pem.certificate, signing.certificate);
    let expected: String = roots.iter().map(|root| root.certificate.as_str()).collect();
    assert_eq!(plugin.held.current().get().roots(), expected);
}

#[test]
fn a_new_authority_under_known_roots_signs_at_once() {
    let (old, new) = (mk_root(), mk_root());
    let (mount, mut plugin) = Mount::new(&old);
    mount.write(&old, &format!("{}{}", old.certificate, new.certificate));
    look(&mut plugin);
    stands(&plugin, &old, &[&old, &new]);
    mount.pass(DAY + MARGIN);
    mount.write(&new, &format!("{}{}", old.certificate, new.certificate));
    look(&mut plugin);
    stands(&plugin, &new, &[&old, &new]);
    mount.write(&new, &new.certificate);
    look(&mut plugin);
    stands(&plugin, &new, &[&old, &new]);
    mount.pass(DAY + MARGIN);
    plugin.step();
    stands(&plugin, &new, &[&new]);
}

#[test]
fn an_authority_that_nobody_knows_yet_is_trusted_before_it_signs() {
    let (old, new) = (mk_root(), mk_root());
    let (mount, mut plugin) = Mount::new(&old);
    mount.write(&new, &new.certificate);
    look(&mut plugin);
    stands(&plugin, &old, &[&old, &new]);
    mount.pass(DAY);
    plugin.step();
    stands(&plugin, &old, &[&old, &new]);
    mount.pass(MARGIN);
    plugin.step();
    stands(&plugin, &new, &[&old, &new]);
    mount.pass(DAY + MARGIN);
    plugin.step();
    stands(&plugin, &new, &[&new]);
}

#[test]
fn a_longer_life_that_was_granted_prolongs_the_overlap() {
    let (old, new) = (mk_root(), mk_root());
    let (mount, mut plugin) = Mount::new(&old);
    plugin.held.lengthen(3 * DAY);
    mount.write(&new, &new.certificate);
    look(&mut plugin);
    mount.pass(DAY + MARGIN);
    plugin.step();
    stands(&plugin, &old, &[&old, &new]);
    mount.pass(2 * DAY);
    plugin.step();
    stands(&plugin, &new, &[&old, &new]);
}

#[test]
fn bad_files_leave_the_last_good_ones_in_force_until_they_are_repaired() {
    let (old, new) = (mk_root(), mk_root());
    let (mount, mut plugin) = Mount::new(&old);
    let mut mixed = new.clone();
    mixed.key.clone_from(&old.key);
    mount.write(&mixed, &new.certificate);
    look(&mut plugin);
    stands(&plugin, &old, &[&old]);
    std::fs::remove_file(mount.folder.path().join("root-cert.pem")).unwrap();
    look(&mut plugin);
    stands(&plugin, &old, &[&old]);
    mount.write(&new, &new.certificate);
    look(&mut plugin);
    stands(&plugin, &old, &[&old, &new]);
}

#[test]
fn files_that_are_still_being_replaced_are_not_acted_upon() {
    let (old, new) = (mk_root(), mk_root());
    let (mount, mut plugin) = Mount::new(&old);
    mount.write(&new, &new.certificate);
    plugin.look();
    stands(&plugin, &old, &[&old]);
    mount.write(&old, &old.certificate);
    plugin.look();
    stands(&plugin, &old, &[&old]);
}
