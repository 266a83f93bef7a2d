//! Who has asked for what, and how often: so that tests can say what a program costs an API server.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::request::Location;
use crate::auth::User;

/// Requests by the user's name, and by verb and resource.
///
/// Only what exists and may be done is counted: there are as many entries as users and resources.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<BTreeMap<String, BTreeMap<String, u64>>>);

// === impl Counts ===

impl Counts {
    /// Counts a request before it is carried out.
    pub(super) fn add(&self, user: &User, verb: &str, at: &Location) {
        let slash = if at.subresource.is_empty() { "" } else { "/" };
        // What follows the subresource's own name is the request's, and may be anything.
        let subresource = at.subresource.split('/').next().unwrap_or_default();
        let what = format!("{verb} {}{slash}{subresource}", at.plural);
        let mut users = self.0.lock();
        let counts = users.entry(user.name.clone()).or_default();
        *counts.entry(what).or_default() += 1;
    }

    /// What this user has asked for so far.
    pub(super) fn of(&self, user: &User) -> BTreeMap<String, u64> {
        self.0.lock().get(&user.name).cloned().unwrap_or_default()
    }
}
