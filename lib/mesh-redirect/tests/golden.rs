//! The text of every variant, as reviewed. With `UPDATE_GOLDEN=1` the files are written anew, to be
//! reviewed in the diff.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "support/engine.rs"]
#[expect(dead_code, reason = "shared with tests that need namespaces")]
mod engine;

use std::{fs, path::Path};

use mesh_redirect::{
    Family, Options, in_pod,
    iptables::{self, Saved},
    nftables,
};

use crate::engine::variants;

fn rendered(options: &Options) -> String {
    let rules = in_pod(options);
    let mut text = format!("# nft -f -\n{}", nftables::apply(&rules));
    for (family, program) in [(Family::V4, "iptables"), (Family::V6, "ip6tables")] {
        text.extend(["\n# ", program, "-restore --noflush\n"]);
        text += &iptables::apply(&rules, family, &Saved::default());
    }
    text
}

#[test]
fn every_variant_renders_as_reviewed() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut different = Vec::new();
    for (name, options) in variants() {
        let path = directory.join(format!("{name}.golden"));
        let text = rendered(&options);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &text).unwrap();
        }
        if fs::read_to_string(&path).unwrap_or_default() != text {
            different.push(format!("--- {name}\n{text}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
