//! How a program finds its server, and what it is told when it may not use it.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use mesh_kube::{
    client::{Error, Options, configure, connect},
    error::{Explained, Fault},
};
use testkit_kube::auth::User;

use super::support::{options, start, watch_all};

fn mk_options(kubeconfig: PathBuf) -> Options {
    Options {
        kubeconfig: Some(kubeconfig),
        context: None,
        user_agent: "istiod/1.0".into(),
    }
}

#[tokio::test]
async fn a_named_kubeconfig_is_used_and_the_program_introduces_itself() {
    let (server, _client) = start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), server.kubeconfig(&User::admin()).unwrap()).unwrap();
    let options = mk_options(file.path().to_owned());
    let client = connect(&options).await.unwrap();
    Api::<Namespace>::all(client).get("default").await.unwrap();
    let config = configure(&options).await.unwrap();
    let agent = config.headers.iter().find(|(name, _)| name == "user-agent");
    assert_eq!(agent.unwrap().1, "istiod/1.0");
    assert!(config.connect_timeout.is_some() && config.read_timeout.is_some());
}

#[tokio::test]
async fn a_kubeconfig_that_is_not_there_is_an_error_with_its_path() {
    let options = mk_options("/nowhere/kubeconfig".into());
    let error = connect(&options).await.err().unwrap();
    assert!(matches!(error, Error::Kubeconfig { .. }), "{error:?}");
    let text = Explained(&error).to_string();
    assert!(text.contains("/nowhere/kubeconfig"), "{text}");
    assert!(text.contains("No such file"), "{text}");
}

#[tokio::test]
async fn who_may_not_watch_is_told_what_to_allow() {
    let (server, _admin) = start().await;
    let nobody = server.client(&User::new("nobody")).await.unwrap();
    let denied = Api::<ConfigMap>::namespaced(nobody.clone(), "default")
        .get("x")
        .await;
    assert_eq!(Fault::of(&denied.unwrap_err()), Fault::Denied);
    let mut watched = watch_all::<ConfigMap>(nobody, options());
    let state = watched.state(|state| state.trouble.is_some()).await;
    let trouble = state.trouble.unwrap();
    assert!(trouble.contains("nobody"), "{trouble}");
    assert!(
        trouble.ends_with("allow our service account to list and watch configmaps"),
        "{trouble}"
    );
    assert!(!state.synced);
}
