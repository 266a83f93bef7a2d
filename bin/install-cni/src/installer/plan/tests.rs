use std::collections::{BTreeMap, BTreeSet};

use mesh_cni::config::PLUGIN;
use proptest::{
    collection::{btree_map, vec},
    prelude::*,
    sample::select,
};

use super::*;
use crate::{
    installer::{
        Folders,
        state::{Content, File},
    },
    platform::Kind,
};

/// The shapes in which networks' installers write their configuration, and what goes wrong with them.
const CALICO: &str = r#"{
  "name": "k8s-pod-network",
  "cniVersion": "0.3.1",
  "plugins": [
    {"type": "calico", "log_level": "info", "mtu": 1440, "ipam": {"type": "calico-ipam"},
     "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"}},
    {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}
  ]
}"#;
const KINDNET: &str = r#"{"cniVersion":"0.4.0","name":"kindnet","disableCheck":true,
  "plugins":[{"type":"ptp","ipMasq":false,"ipam":{"type":"host-local"}}]}"#;
const NO_VERSION: &str =
    r#"{"name":"n","plugins":[{"type":"flannel","delegate":{"isDefaultGateway":true}}]}"#;
const BRIDGE: &str =
    r#"{"cniVersion":"0.3.1","name":"rkt.kubernetes.io","type":"bridge","bridge":"cni0"}"#;
const OTHER_BRIDGE: &str =
    r#"{"cniVersion":"1.0.0","name":"other","type":"bridge","bridge":"cni1"}"#;
const NO_TYPE: &str = r#"{"cniVersion":"0.3.1","name":"x"}"#;
const NO_NAME: &str = r#"{"cniVersion":"0.3.1","plugins":[{"type":"calico"}]}"#;
const NO_PLUGINS: &str = r#"{"cniVersion":"0.3.1","name":"x"}"#;
const EMPTY_PLUGINS: &str = r#"{"cniVersion":"0.3.1","name":"x","plugins":[]}"#;
const TYPE_IS_NUMBER: &str = r#"{"cniVersion":"0.3.1","name":"x","plugins":[{"type":7}]}"#;
const NOT_JSON: &str = "kubernetes: is not here\n";
const INVALID: [&str; 6] = [
    NO_TYPE,
    NO_NAME,
    NO_PLUGINS,
    EMPTY_PLUGINS,
    TYPE_IS_NUMBER,
    NOT_JSON,
];

fn mk_config(mode: Mode) -> Config {
    Config {
        folders: Folders {
            plugin: "/image/istio-cni".into(),
            bin: "/bin".into(),
            conf: "/conf".into(),
            run: "/run".into(),
        },
        mode,
        entry: PluginConfig {
            pod_namespace: "istio-system".to_owned(),
            ..PluginConfig::default()
        },
        group_read: false,
        identity: "istio-cni-node-abcde".to_owned(),
        platform: Kind::Other,
    }
}

fn chained() -> Config {
    mk_config(Mode::Chained { file: None })
}

fn forced(name: &str) -> Config {
    mk_config(Mode::Chained {
        file: Some(name.to_owned()),
    })
}

fn owned() -> Config {
    mk_config(Mode::Owned {
        file: "02-istio-cni.conflist".to_owned(),
        primary: None,
    })
}

fn standalone() -> Config {
    mk_config(Mode::Standalone {
        file: "YYY-istio-cni.conf".to_owned(),
    })
}

fn mk_file(text: &str) -> File {
    File {
        content: Content::Bytes(text.as_bytes().into()),
        mode: 0o644,
    }
}

fn mk_state(files: &[(&str, &str)]) -> State {
    State {
        conf: files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), mk_file(text)))
            .collect(),
        ..State::default()
    }
}

/// The folders after a plan, which must leave nothing to do.
fn installed(state: &State, config: &Config) -> State {
    let mut after = state.clone();
    for action in install(state, config).actions {
        after.apply(&action);
    }
    let again = install(&after, config);
    assert_eq!(again.actions, [], "a second look finds nothing to do");
    after
}

fn removed(state: &State, config: &Config) -> State {
    let mut after = state.clone();
    for action in remove(state, config) {
        after.apply(&action);
    }
    assert_eq!(
        remove(&after, config),
        [],
        "a second look finds nothing to do"
    );
    after
}

fn text<'a>(state: &'a State, name: &str) -> &'a str {
    std::str::from_utf8(state.conf[name].bytes().unwrap()).unwrap()
}

fn names(state: &State) -> Vec<&str> {
    state.conf.keys().map(String::as_str).collect()
}

/// The types of the plugins that a runtime calls that takes the first configuration.
fn called(state: &State) -> Vec<String> {
    let listing = Listing::of(state);
    let plugins = listing.valid.first().map(|listed| listed.list.plugins());
    let plugins = plugins.into_iter().flatten();
    plugins.map(|plugin| plugin.kind().to_owned()).collect()
}

fn is_installed(state: &State, config: &Config) -> bool {
    matches!(install(state, config).outcome, Outcome::Installed { .. })
}

#[test]
fn our_entry_becomes_the_last_of_the_first_valid_list() {
    for (text, plugins) in [
        (CALICO, vec!["calico", "portmap", PLUGIN]),
        (KINDNET, vec!["ptp", PLUGIN]),
        (NO_VERSION, vec!["flannel", PLUGIN]),
    ] {
        let state = mk_state(&[
            ("05-broken.conflist", NO_NAME),
            ("10-net.conflist", text),
            ("99-later.conflist", KINDNET),
            ("calico-kubeconfig", "secret"),
        ]);
        let after = installed(&state, &chained());
        assert_eq!(called(&after), plugins);
        let mut expected = state.conf.clone();
        let saved = expected["10-net.conflist"].clone();
        expected.insert("10-net.conflist.before-istio-cni".to_owned(), saved);
        expected.insert(
            "10-net.conflist".to_owned(),
            after.conf["10-net.conflist"].clone(),
        );
        assert_eq!(after.conf, expected, "nothing else is touched");
        assert_eq!(after.conf["10-net.conflist"].mode, 0o644, "as it was");
    }
}

#[test]
fn the_network_keeps_all_that_is_said_of_it() {
    let state = mk_state(&[("10-kindnet.conflist", KINDNET)]);
    let after = installed(&state, &chained());
    let found: serde_json::Value =
        serde_json::from_str(text(&after, "10-kindnet.conflist")).unwrap();
    let mut wanted: serde_json::Value = serde_json::from_str(KINDNET).unwrap();
    let entry = serde_json::to_value(chained().entry).unwrap();
    wanted["plugins"].as_array_mut().unwrap().push(entry);
    assert_eq!(found, wanted);
}

#[test]
fn a_single_plugin_becomes_a_list_and_is_itself_again_afterwards() {
    for name in ["10-bridge.conf", "10-bridge.json"] {
        let state = mk_state(&[(name, BRIDGE)]);
        let after = installed(&state, &chained());
        let saved = format!("{name}.before-istio-cni");
        let found: BTreeSet<_> = names(&after).into_iter().collect();
        assert_eq!(
            found,
            BTreeSet::from(["10-bridge.conflist", saved.as_str()])
        );
        assert_eq!(called(&after), ["bridge", PLUGIN]);
        assert_eq!(text(&after, &saved), BRIDGE);
        assert_eq!(removed(&after, &chained()).conf, state.conf);
    }
}

#[test]
fn a_forced_name_or_its_sibling_is_taken_and_nothing_else() {
    let state = mk_state(&[("10-a.conflist", KINDNET), ("20-b.conf", BRIDGE)]);
    for name in ["20-b.conf", "20-b.conflist"] {
        let after = installed(&state, &forced(name));
        assert_eq!(text(&after, "10-a.conflist"), KINDNET);
        let listing = Listing::of(&after);
        assert!(listing.get("20-b.conflist").unwrap().has_ours, "{name}");
        assert_eq!(installed(&after, &forced("20-b.conf")).conf, after.conf);
    }
    let plan = install(&state, &forced("30-c.conflist"));
    assert_eq!(
        plan.outcome.to_string(),
        "waiting for the CNI configuration 30-c.conflist"
    );
}

#[test]
fn what_is_no_configuration_is_waited_out_and_named() {
    for text in INVALID {
        let ending = if text == NO_TYPE { "conf" } else { "conflist" };
        let name = format!("10-x.{ending}");
        let plan = install(&mk_state(&[(&name, text)]), &chained());
        assert_eq!(plan.actions, [Action::InstallPlugin], "{text}");
        let told = plan.outcome.to_string();
        let expected = format!(
            "waiting for a CNI configuration of the node's network; {name} is none: read a CNI \
             configuration: "
        );
        assert!(told.starts_with(&expected), "{told}");
    }
}

#[test]
fn a_file_of_our_own_copies_the_network_and_leaves_its_file_alone() {
    let state = mk_state(&[("10-calico.conflist", CALICO)]);
    let after = installed(&state, &owned());
    assert_eq!(
        names(&after),
        ["02-istio-cni.conflist", "10-calico.conflist"]
    );
    assert_eq!(text(&after, "10-calico.conflist"), CALICO);
    assert_eq!(called(&after), ["calico", "portmap", PLUGIN]);
    assert_eq!(after.conf["02-istio-cni.conflist"].mode, 0o600);
    assert_eq!(removed(&after, &owned()).conf, state.conf);
    let group = Config {
        group_read: true,
        ..owned()
    };
    let after = installed(&after, &group);
    assert_eq!(after.conf["02-istio-cni.conflist"].mode, 0o640);
}

#[test]
fn what_changes_within_the_networks_plugins_is_carried_over() {
    let mut state = installed(&mk_state(&[("10-calico.conflist", CALICO)]), &owned());
    let changed = CALICO.replace("1440", "8951");
    state
        .conf
        .insert("10-calico.conflist".to_owned(), mk_file(&changed));
    let after = installed(&state, &owned());
    assert!(text(&after, "02-istio-cni.conflist").contains("8951"));
}

#[test]
fn an_entry_that_an_earlier_installation_left_is_taken_out() {
    let state = mk_state(&[("10-calico.conflist", CALICO)]);
    let before = installed(&state, &chained());
    let after = installed(&before, &owned());
    assert_eq!(
        names(&after),
        ["02-istio-cni.conflist", "10-calico.conflist"]
    );
    assert_eq!(text(&after, "10-calico.conflist"), CALICO, "byte for byte");
    let back = installed(&after, &chained());
    assert_eq!(back.conf, before.conf, "and the other way round");
}

#[test]
fn our_copy_serves_while_the_networks_own_file_is_away() {
    let mut state = installed(&mk_state(&[("10-calico.conflist", CALICO)]), &owned());
    state.conf.remove("10-calico.conflist");
    let plan = install(&state, &owned());
    assert_eq!(plan.actions, []);
    let Outcome::Installed { note, .. } = plan.outcome else {
        panic!("it is installed");
    };
    assert_eq!(note, Some(Note::OriginalGone));
    let nothing = install(&mk_state(&[]), &owned());
    assert!(matches!(nothing.outcome, Outcome::Waiting { .. }));
}

#[test]
fn a_name_that_sorts_behind_the_network_is_told() {
    let state = mk_state(&[("01-early.conflist", CALICO)]);
    let Outcome::Installed { note, .. } = install(&state, &owned()).outcome else {
        panic!("it is installed");
    };
    let first = "01-early.conflist".to_owned();
    assert_eq!(note, Some(Note::NotFirst { first }));
}

#[test]
fn multus_gets_a_file_with_our_plugin_alone() {
    let state = mk_state(&[("00-multus.conf", BRIDGE)]);
    let after = installed(&state, &standalone());
    assert_eq!(names(&after), ["00-multus.conf", "YYY-istio-cni.conf"]);
    assert_eq!(
        text(&after, "YYY-istio-cni.conf").as_bytes(),
        conflist::standalone(&standalone().entry)
    );
    assert_eq!(after.conf["YYY-istio-cni.conf"].mode, 0o600);
    assert_eq!(removed(&after, &standalone()).conf, state.conf);
    assert!(
        is_installed(&mk_state(&[]), &standalone()),
        "no network is needed"
    );
    let after = installed(&after, &chained());
    assert!(
        !after.conf.contains_key("YYY-istio-cni.conf"),
        "nor left by another mode"
    );
}

#[test]
fn changed_settings_of_ours_are_written_into_what_is_there() {
    for config in [chained(), owned(), standalone()] {
        let before = installed(&mk_state(&[("10-calico.conflist", CALICO)]), &config);
        let mut changed = config.clone();
        changed.entry.plugin_log_level = "debug".to_owned();
        let after = installed(&before, &changed);
        assert_ne!(after.conf, before.conf);
        assert_eq!(
            installed(&after, &config).conf,
            before.conf,
            "byte for byte"
        );
    }
}

#[test]
fn what_differs_in_form_alone_is_not_written() {
    let mut state = installed(&mk_state(&[("10-calico.conflist", CALICO)]), &chained());
    let value: serde_json::Value =
        serde_json::from_str(text(&state, "10-calico.conflist")).unwrap();
    let compact = value.to_string();
    state
        .conf
        .insert("10-calico.conflist".to_owned(), mk_file(&compact));
    assert_eq!(install(&state, &chained()).actions, []);
}

#[test]
fn a_plugin_that_another_one_appended_stays_behind_ours() {
    let mut state = installed(&mk_state(&[("10-calico.conflist", CALICO)]), &chained());
    let mut value: serde_json::Value =
        serde_json::from_str(text(&state, "10-calico.conflist")).unwrap();
    let other = serde_json::json!({"type": "linkerd-cni"});
    value["plugins"].as_array_mut().unwrap().push(other);
    let both = value.to_string();
    state
        .conf
        .insert("10-calico.conflist".to_owned(), mk_file(&both));
    assert_eq!(
        install(&state, &chained()).actions,
        [],
        "no fight for the last place"
    );
    let after = removed(&state, &chained());
    assert_eq!(called(&after), ["calico", "portmap", "linkerd-cni"]);
    assert_eq!(names(&after), ["10-calico.conflist"]);
}

#[test]
fn what_the_network_wrote_anew_is_what_it_gets_back() {
    let mut state = installed(&mk_state(&[("10-calico.conflist", CALICO)]), &chained());
    let changed = CALICO.replace("1440", "8951");
    state
        .conf
        .insert("10-calico.conflist".to_owned(), mk_file(&changed));
    let after = installed(&state, &chained());
    assert_eq!(called(&after), ["calico", "portmap", PLUGIN]);
    let after = removed(&after, &chained());
    assert_eq!(text(&after, "10-calico.conflist"), changed);
}

#[test]
fn a_single_plugin_that_was_written_anew_replaces_its_list() {
    let mut state = installed(&mk_state(&[("10-bridge.conf", BRIDGE)]), &chained());
    let file = mk_file(OTHER_BRIDGE);
    state.conf.insert("10-bridge.conf".to_owned(), file.clone());
    let after = installed(&state, &chained());
    assert!(text(&after, "10-bridge.conflist").contains("cni1"));
    let expected = [("10-bridge.conf".to_owned(), file)];
    assert_eq!(removed(&after, &chained()).conf, expected.into());
}

#[test]
fn an_entry_that_istios_agent_wrote_is_taken_over() {
    let entry = r#"{"type":"istio-cni","name":"istio-cni","kubernetes":{"kubeconfig":"k"}}"#;
    let theirs = KINDNET.replace("}}]", &format!("}}}},{entry}]"));
    let state = mk_state(&[("10-kindnet.conflist", &theirs)]);
    let after = installed(&state, &chained());
    assert_eq!(
        names(&after),
        ["10-kindnet.conflist"],
        "theirs is nothing to give back"
    );
    assert!(!text(&after, "10-kindnet.conflist").contains("kubeconfig"));
    let after = removed(&after, &chained());
    assert_eq!(called(&after), ["ptp"]);
}

#[test]
fn credentials_of_istios_plugin_go_once_ours_is_in_place() {
    let go = Action::RemoveRun {
        name: STALE_CREDENTIALS.to_owned(),
    };
    let mut state = mk_state(&[("10-calico.conflist", CALICO)]);
    state.run = BTreeSet::from([STALE_CREDENTIALS.to_owned()]);
    let plan = install(&state, &chained());
    assert_eq!(plan.actions.last(), Some(&go), "after all else");
    let user = r#"{"name":"x","plugins":[{"type":"y","kubeconfig":"/run/istio-cni-kubeconfig"}]}"#;
    state
        .conf
        .insert("20-other.conflist".to_owned(), mk_file(user));
    assert!(
        !install(&state, &chained()).actions.contains(&go),
        "somebody else uses it"
    );
    state.conf.remove("20-other.conflist");
    state
        .conf
        .insert(OLDER_CREDENTIALS.to_owned(), mk_file("secret"));
    let after = installed(&state, &chained());
    assert!(
        !after.conf.contains_key(OLDER_CREDENTIALS),
        "those of Istio before 1.24 too"
    );
    state.conf.clear();
    assert!(
        !install(&state, &chained()).actions.contains(&go),
        "not while nothing is chained"
    );
}

#[test]
fn removal_goes_from_the_configuration_to_the_plugin_to_the_sockets() {
    let mut state = installed(&mk_state(&[("10-calico.conflist", CALICO)]), &chained());
    state.run = RUN_FILES.map(str::to_owned).into();
    let actions = remove(&state, &chained());
    let kinds: Vec<_> = actions.iter().map(Action::doing).collect();
    let mut expected = vec![
        "give the configuration back",
        "let runtimes read their configuration",
        "remove the plugin",
    ];
    expected.extend(
        [Action::RemoveRun {
            name: String::new(),
        }
        .doing(); RUN_FILES.len()],
    );
    assert_eq!(kinds, expected);
    let last = actions.last().map(Action::file);
    assert_eq!(last, Some("installer.claim"));
}

#[test]
fn what_cilium_took_away_of_ours_does_not_come_back() {
    let mut state = mk_state(&[("05-cilium.conflist", CALICO)]);
    let before = state.conf.clone();
    for name in ["02-istio-cni.conflist", "02-istio-cni.conflist.cilium_bak"] {
        state.conf.insert(name.to_owned(), mk_file(CALICO));
    }
    let after = removed(&installed(&state, &owned()), &owned());
    let mut expected = before;
    // It was there without our entry when we came.
    let foreign = mk_file(CALICO);
    expected.insert("02-istio-cni.conflist".to_owned(), foreign);
    assert_eq!(after.conf, expected);
}

/// Names without their endings, as runtimes order them.
const STEMS: [&str; 4] = ["01-early", "02-istio-cni", "10-net", "YYY-istio-cni"];

/// Configurations with and without us, whole and half-done, in a folder with few names: everything that
/// earlier agents, other installers and accidents leave.
fn arb_state() -> impl Strategy<Value = State> {
    let ours = |text: &str, format| {
        let mut list = ConfigList::parse(text.as_bytes(), format).unwrap();
        list.insert(&chained().entry);
        String::from_utf8(list.to_bytes()).unwrap()
    };
    let alone = conflist::standalone(&standalone().entry);
    let is_alone = mk_file(str::from_utf8(&alone).unwrap());
    let singles = [BRIDGE, OTHER_BRIDGE, NOT_JSON].map(str::to_owned);
    let singles = singles.into_iter().chain(String::from_utf8(alone));
    let lists = [CALICO, KINDNET, NOT_JSON].map(str::to_owned).into_iter();
    let lists = lists.chain([
        ours(CALICO, Format::List),
        ours(KINDNET, Format::List),
        ours(BRIDGE, Format::Single),
    ]);
    let file = |ending: &'static str, texts: Vec<String>| {
        let ending = select(vec![ending.to_owned(), saved(ending)]);
        (ending, select(texts).prop_map(|text| mk_file(&text)))
    };
    let single = file("conf", singles.collect());
    let list = file("conflist", lists.collect());
    let file = (select(STEMS.to_vec()), prop_oneof![single, list])
        .prop_map(|(stem, (ending, file))| (format!("{stem}.{ending}"), file));
    let plugin = select(vec![Plugin::Missing, Plugin::Different, Plugin::Right]);
    (vec(file, 0..6), plugin).prop_map(move |(conf, plugin)| {
        let mut conf: BTreeMap<_, _> = conf.into_iter().collect();
        for stem in STEMS {
            let (single, list) = (format!("{stem}.conf"), format!("{stem}.conflist"));
            // Ours alone in the place of another's, beside a list of its name, comes of two modes that no agent
            // had one after the other. What is remembered may then differ by where a plan was stopped.
            if conf.get(&single) == Some(&is_alone) && conf.contains_key(&saved(&single)) {
                conf.remove(&saved(&list));
                conf.remove(&list);
            }
        }
        State {
            plugin,
            conf,
            ..State::default()
        }
    })
}

fn arb_config() -> impl Strategy<Value = Config> {
    select(vec![
        chained(),
        forced("10-net.conflist"),
        forced("10-net.conf"),
        owned(),
        standalone(),
    ])
}

proptest! {
    #[test]
    fn whatever_is_there_one_plan_leads_to_the_end(state in arb_state(), config in arb_config()) {
        let after = installed(&state, &config);
        if let Outcome::Installed { file, .. } = install(&after, &config).outcome {
            let listing = Listing::of(&after);
            let ours: Vec<_> = listing.valid.iter().filter(|l| l.has_ours).collect();
            prop_assert_eq!(ours.len(), 1);
            prop_assert_eq!(&ours[0].name, &file);
        }
    }

    #[test]
    fn stopped_after_any_action_the_next_plan_leads_to_the_same_end(
        state in arb_state(),
        config in arb_config(),
    ) {
        let end = installed(&state, &config);
        let mut stopped = state.clone();
        for action in install(&state, &config).actions {
            stopped.apply(&action);
            prop_assert_eq!(&installed(&stopped, &config), &end, "after {:?}", action);
        }
    }

    #[test]
    fn the_runtime_finds_a_network_and_the_plugin_after_every_action(
        state in arb_state(),
        config in arb_config(),
    ) {
        let network = |state: &State| !called(state).is_empty();
        let had = network(&state) && is_installed(&state, &config);
        // What stands there with our entry already is called with what plugin there is.
        let was_ours = Listing::of(&state).valid.iter().any(|listed| listed.has_ours);
        let mut during = state.clone();
        for action in install(&state, &config).actions {
            during.apply(&action);
            prop_assert!(!had || network(&during), "no network after {:?}", action);
            let ours = called(&during).iter().any(|kind| kind == PLUGIN);
            let there = during.plugin != Plugin::Missing;
            prop_assert!(was_ours || !ours || there, "no plugin after {:?}", action);
        }
    }

    #[test]
    fn removal_leaves_no_entry_and_never_an_entry_without_the_plugin(
        state in arb_state(),
        config in arb_config(),
    ) {
        let mut during = state.clone();
        let had_plugin = state.plugin != Plugin::Missing;
        for action in remove(&state, &config) {
            during.apply(&action);
            let ours = Listing::of(&during).valid.iter().any(|listed| listed.has_ours);
            prop_assert!(!had_plugin || !ours || during.plugin != Plugin::Missing);
            let after = removed(&during, &config);
            let listing = Listing::of(&after);
            prop_assert!(listing.valid.iter().all(|listed| !listed.has_ours));
            prop_assert!(after.conf.keys().all(|name| original(name).is_none()));
            prop_assert_eq!(after.plugin, Plugin::Missing);
        }
    }

    #[test]
    fn what_others_wrote_is_there_again_after_an_installation_and_its_removal(
        files in btree_map(
            select(vec!["01-a.conflist", "05-b.conf", "10-c.conflist", "10-c.conf", "notes.txt"]),
            select(vec![CALICO, KINDNET, BRIDGE, OTHER_BRIDGE]),
            0..5,
        ),
        config in arb_config(),
        switched in arb_config(),
    ) {
        let files: Vec<_> = files.into_iter().collect();
        let state = mk_state(&files);
        let first = installed(&state, &config);
        prop_assert_eq!(&removed(&first, &config).conf, &state.conf);
        let second = installed(&first, &switched);
        prop_assert_eq!(&removed(&second, &switched).conf, &state.conf, "after a change of mode");
        let actions = remove(&second, &switched);
        let mut stopped = second;
        for action in actions {
            stopped.apply(&action);
            prop_assert_eq!(&removed(&stopped, &switched).conf, &state.conf, "after {:?}", action);
        }
    }
}
