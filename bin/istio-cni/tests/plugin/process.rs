//! The plugin as container runtimes start it.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::fake::{Node, POD, Reply};

fn run(command: &str, config: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_istio-cni"))
        .env_clear()
        .envs(POD)
        .env("CNI_COMMAND", command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn process_answers_on_standard_output_and_by_its_status() {
    let node = Node::new();
    let agent = node.agent([
        Reply::Says(200, json!({"enrolled": true})),
        Reply::Says(500, json!({"message": "no", "again": false})),
    ]);
    let previous = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5/16"}]});
    let config = node
        .config(
            "1.0.0",
            json!({"prevResult": previous, "plugin_log_level": "error"}),
        )
        .to_string();
    let output = run("ADD", config.as_bytes());
    assert!(output.status.success(), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said, previous);
    let output = run("ADD", config.as_bytes());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["msg"], "no");
    // Nobody takes the log, so that it is on standard error.
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("ADD failed: no")
    );
    assert_eq!(agent.asked().len(), 2);
}

#[test]
fn garbage_on_standard_input_is_an_error_object() {
    let deep = "[".repeat(100_000);
    for garbage in [b"".as_slice(), b"\xff\xfe", b"{", b"null", deep.as_bytes()] {
        let output = run("ADD", garbage);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["code"], 6, "{said}");
    }
}

#[test]
fn started_by_hand_it_says_what_it_is() {
    let output = Command::new(env!("CARGO_BIN_EXE_istio-cni"))
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"),
        "{text}"
    );
}
