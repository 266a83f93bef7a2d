//! A user as Kubernetes knows one: a name, and groups that others vouch for.

use std::collections::BTreeMap;

/// Further facts about a user, each with its values; keys are lower-case.
pub type Extra = BTreeMap<String, Vec<String>>;

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// The name that roles are bound to, for example `system:serviceaccount:NAMESPACE:NAME`.
    pub name: String,
    /// Distinguishes users of the same name over time; empty when nobody knows.
    pub uid: String,
    /// The groups that roles are bound to. [`group::AUTHENTICATED`] is added by the server.
    pub groups: Vec<String>,
    /// Further facts, for example the pod that a token is bound to.
    pub extra: Extra,
}

/// Groups that mean something to the server.
pub mod group {
    /// May do everything, whatever the roles say.
    pub const MASTERS: &str = "system:masters";
    /// Everyone who proved a name.
    pub const AUTHENTICATED: &str = "system:authenticated";
    /// Everyone else.
    pub const UNAUTHENTICATED: &str = "system:unauthenticated";
    /// All service accounts. Those of one namespace are in `system:serviceaccounts:NAMESPACE` too.
    pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
}

/// The user that nobody claims to be.
const ANONYMOUS: &str = "system:anonymous";

/// The further fact that tells one certificate or token of a user from another.
pub(super) const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// What the user name of a service account starts with.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

// === impl User ===

impl User {
    /// A user without groups.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// The administrator: a member of [`group::MASTERS`].
    pub fn admin() -> Self {
        Self::new("kubernetes-admin").member_of(group::MASTERS)
    }

    /// A service account, as its tokens name it.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self::new(format!("{SERVICE_ACCOUNT}{namespace}:{name}"))
            .member_of(group::SERVICE_ACCOUNTS)
            .member_of(format!("{}:{namespace}", group::SERVICE_ACCOUNTS))
    }

    /// Whoever brings no credentials.
    pub fn anonymous() -> Self {
        Self::new(ANONYMOUS).member_of(group::UNAUTHENTICATED)
    }

    /// The same user as a member of one more group.
    #[must_use]
    pub fn member_of(mut self, group: impl Into<String>) -> Self {
        let group = group.into();
        if !self.groups.contains(&group) {
            self.groups.push(group);
        }
        self
    }

    /// Whether the user is a member of a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// Whether this is [`User::anonymous`].
    pub fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    /// Namespace and name, if the user is a service account.
    pub fn as_service_account(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self.name.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')?;
        let complete = !namespace.is_empty() && !name.is_empty() && !name.contains(':');
        complete.then_some((namespace, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_is_known_by_its_name() {
        let user = User::service_account("mesh", "istiod");
        assert_eq!(user.as_service_account(), Some(("mesh", "istiod")));
        assert_eq!(
            user.groups,
            ["system:serviceaccounts", "system:serviceaccounts:mesh"]
        );
        for name in [
            "alice",
            "system:serviceaccount:",
            "system:serviceaccount:a:b:c",
        ] {
            assert_eq!(User::new(name).as_service_account(), None, "{name}");
        }
    }
}
