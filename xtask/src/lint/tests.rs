//! Each rule on a file that keeps it and one that does not.

use super::*;

fn rules(path: &str, text: &str) -> Vec<String> {
    let violations = source_file(Path::new(path), text);
    violations.iter().map(ToString::to_string).collect()
}

fn mk_source(lines: usize) -> String {
    format!("//! Doc.\n{}", "fn f() {}\n".repeat(lines - 1))
}

#[test]
fn a_file_that_keeps_the_rules_is_clean() {
    let text =
        "//! Doc.\n\nfn f() {}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn t() {}\n}\n";
    assert_eq!(rules("lib/a/src/lib.rs", text), [""; 0]);
}

#[test]
fn sizes_are_bounded() {
    let file = "lib/a/src/b.rs";
    assert_eq!(rules(file, &mk_source(600)), [""; 0]);
    assert_eq!(
        rules(file, &mk_source(601)),
        ["lib/a/src/b.rs:1: a file of 601 lines, 600 at most: split it"]
    );
    assert_eq!(rules("bin/a/src/main.rs", &mk_source(60)), [""; 0]);
    assert_eq!(rules("bin/a/src/main.rs", &mk_source(61)).len(), 1);
    assert_eq!(rules("lib/a/src/b/tests.rs", &mk_source(800)), [""; 0]);
    assert_eq!(rules("lib/a/tests/inproc_b.rs", &mk_source(801)).len(), 1);

    let module = format!(
        "#[cfg(test)]\nmod tests {{\n{}}}\n",
        "fn f() {}\n".repeat(148)
    );
    assert_eq!(
        rules(file, &(mk_source(600) + &module)),
        ["lib/a/src/b.rs:1: an inline test module of 151 lines, 150 at most: split it"]
    );
}

#[test]
fn files_say_what_they_are_for_and_are_named_after_it() {
    assert_eq!(rules("lib/a/src/lib.rs", "fn f() {}\n").len(), 1);
    assert_eq!(rules("lib/a/src/b/mod.rs", "//! Doc.\n").len(), 1);
}

#[test]
fn unsafe_code_has_its_place() {
    let text = "//! Doc.\nfn f() { unsafe { g() } }\n";
    assert_eq!(rules("lib/mesh-net/src/a.rs", text), [""; 0]);
    assert_eq!(
        rules("lib/mesh-core/src/a.rs", text),
        ["lib/mesh-core/src/a.rs:2: unsafe code outside of lib/mesh-net and lib/testkit-net"]
    );
    assert_eq!(rules("lib/mesh-network/src/a.rs", text).len(), 1);
}

#[test]
fn unfinished_work_is_found() {
    let ignored = "//! Doc.\n#[test]\n#[ignore]\nfn t() {}\n";
    assert_eq!(rules("lib/a/tests/b.rs", ignored).len(), 1);
    assert_eq!(
        rules("lib/a/src/b.rs", "//! Doc.\nfn f() { todo!() }\n").len(),
        1
    );
    for word in UNFINISHED {
        let text = format!("//! Doc.\n// {word}: later\n// not{word}\n");
        assert_eq!(
            rules("lib/a/src/b.rs", &text),
            ["lib/a/src/b.rs:2: marks unfinished work: finish it or open an issue"]
        );
    }
}

#[test]
fn scripts_are_short() {
    let script = |lines: usize| format!("#!/bin/bash\n{}", "true\n".repeat(lines - 1));
    let rules = |path: &str, text: &str| super::script(Path::new(path), text).len();
    assert_eq!(rules("hack/x", &script(60)), 0);
    assert_eq!(rules("hack/x", &script(61)), 1);
    assert_eq!(rules("hack/x.sh", &"true\n".repeat(61)), 1);
    assert_eq!(rules("hack/x", &"a note\n".repeat(100)), 0);
}
