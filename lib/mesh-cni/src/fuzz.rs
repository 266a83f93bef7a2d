//! The bodies of the fuzz targets, exported so that a plain test feeds them the saved corpus too.

use serde_json::Value;

use crate::{
    config::PluginConfig,
    conflist::{ConfigList, Format, Verdict},
    enrolment::Snapshot,
    protocol::client,
    spec::{Call, NetworkConfig, Outcome, Sandbox, Version},
};

/// Feeds standard input to the plugin's decoders, for every command. Whatever it is: nothing panics, and what
/// is passed on in any version can be read again and has the same addresses, as far as the version can say.
///
/// # Panics
/// When one of these does not hold.
pub fn stdin(data: &[u8]) {
    let sandbox = Sandbox {
        container_id: "a".to_owned(),
        interface: "eth0".to_owned(),
        netns: "/x".to_owned(),
        pod: None,
    };
    for call in [Call::Check(sandbox.clone()), Call::Collect, Call::Status] {
        let _refused = NetworkConfig::parse(data, &call).is_err();
    }
    let Ok(config) = NetworkConfig::parse(data, &Call::Add(sandbox)) else {
        return;
    };
    let Some(Ok(outcome)) = config.previous.map(|p| Outcome::parse(p, config.version)) else {
        return;
    };
    for version in Version::ALL {
        let said = outcome.clone().into_version(version);
        let value: Value = serde_json::from_str(&said.to_json()).unwrap_or_default();
        let again = Outcome::parse(value, Version::LATEST);
        assert_eq!(again.as_ref(), Ok(&said), "{version}");
        let all = outcome.addresses();
        assert!(said.addresses().iter().all(|address| all.contains(address)));
    }
}

/// Feeds a file to the readers of configurations. Whatever it is: nothing panics, what is accepted survives
/// being written, our entry can be put in and taken out again, and then the rest is what it was.
///
/// # Panics
/// When one of these does not hold.
pub fn conflist(data: &[u8]) {
    let ours = PluginConfig::default();
    let _unreadable = Snapshot::parse(data).is_err();
    for format in [Format::Single, Format::List] {
        let Ok(mut list) = ConfigList::parse(data, format) else {
            continue;
        };
        let _verdict = list.verdict(&ours);
        list.remove();
        let mut with = list.owned_copy(&ours);
        assert_eq!(with.verdict(&ours), Verdict::Current);
        let again = ConfigList::parse(&with.to_bytes(), Format::List);
        assert_eq!(again.ok().as_ref(), Some(&with));
        with.remove();
        assert_eq!(with, list);
    }
}

/// Feeds the plugin an agent's answer, in two pieces. Whatever it is: nothing panics, and where it is cut makes
/// no difference.
///
/// # Panics
/// When one of these does not hold.
pub fn answer(data: &[u8]) {
    let whole = client::complete(data, false);
    if let Ok(Some(answer)) =
        client::complete(data.get(..data.len() / 2).unwrap_or_default(), false)
    {
        assert_eq!(whole.ok().flatten(), Some(answer));
    }
    let _ended = client::complete(data, true).is_err();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_corpus_is_handled() {
        for (target, body) in [
            ("stdin", stdin as fn(&[u8])),
            ("conflist", conflist),
            ("answer", answer),
        ] {
            let folder = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
            let mut files = 0;
            for file in std::fs::read_dir(folder).unwrap() {
                body(&std::fs::read(file.unwrap().path()).unwrap());
                files += 1;
            }
            assert!(files > 3, "the corpus of {target} is missing");
        }
    }
}
