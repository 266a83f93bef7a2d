//! Debug views and log levels, on the node's or pod's loopback address alone.

use std::{future::ready, sync::Arc};

use http::StatusCode;
use mesh_runtime::{
    admin,
    http::{Response, Router, router::response, text},
    log,
    shutdown::Quit,
};
use serde::Serialize;

use crate::{
    agent,
    installer::{self, Installer},
    platform::Report,
    program::NodeAgent,
};

/// Where the views come from.
#[derive(Clone, Debug)]
pub struct Views {
    /// Pods.
    pub handle: NodeAgent,
    /// What is installed.
    pub installer: Installer,
    /// The node.
    pub report: Arc<Report>,
}

/// All views in one, as `/config_dump` shows them.
#[derive(Serialize)]
struct Dump {
    pods: agent::View,
    installation: installer::View,
    platform: Arc<Report>,
}

/// The routes of the debug port.
pub fn routes(views: Views, log: log::Handle, quit: Quit) -> Router {
    let dump = views.clone();
    let dump = move || Dump {
        pods: dump.handle.view(),
        installation: dump.installer.view().borrow().clone(),
        platform: Arc::clone(&dump.report),
    };
    let Views {
        handle,
        installer,
        report,
    } = views;
    admin::routes("install-cni", log, quit, dump)
        .get(
            "/debug/pods",
            "the node's pods, and what each waits for",
            move |_| ready(json(&handle.view())),
        )
        .get(
            "/debug/installation",
            "the plugin and its configuration",
            move |_| ready(json(&*installer.view().borrow())),
        )
        .get(
            "/debug/platform",
            "what the node is, and what will not work on it",
            move |_| ready(json(&*report)),
        )
}

fn json(view: &impl Serialize) -> Response {
    match serde_json::to_vec_pretty(view) {
        Ok(body) => response(StatusCode::OK, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}
