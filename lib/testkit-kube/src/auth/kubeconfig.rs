//! Configuration files for clients.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{Authority, User, tls};

/// The name of cluster, user and context in the files.
const NAME: &str = "embedded";

/// Characters of a common name at most, says X.520.
const COMMON_NAME: usize = 64;

/// Bytes of randomness in a token that is made up.
const TOKEN_BYTES: usize = 24;

// === impl Authority ===

impl Authority {
    /// A kubeconfig for that user: with a client certificate where it can say everything about them,
    /// with a token that the server knows otherwise.
    pub fn kubeconfig(&self, url: &str, user: &User) -> Result<String, tls::Error> {
        let fits = user.name.len() <= COMMON_NAME
            && user.groups.iter().all(|group| group.len() <= COMMON_NAME)
            && user.uid.is_empty()
            && user.extra.is_empty();
        let credentials = if user.is_anonymous() {
            json!({})
        } else if fits {
            let identity = self.ca.user_identity(user)?;
            json!({
                "client-certificate-data": BASE64_STANDARD.encode(identity.certificate),
                "client-key-data": BASE64_STANDARD.encode(identity.key),
            })
        } else {
            let token = tls::random_hex(TOKEN_BYTES)?;
            self.agree(token.clone(), user.clone());
            json!({ "token": token })
        };
        Ok(self.file(url, &credentials))
    }

    /// A kubeconfig for whoever the token speaks of.
    pub fn kubeconfig_with_token(&self, url: &str, token: &str) -> String {
        self.file(url, &json!({ "token": token }))
    }

    fn file(&self, url: &str, credentials: &Value) -> String {
        let ca = BASE64_STANDARD.encode(self.ca_pem());
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": NAME,
                "cluster": { "server": url, "certificate-authority-data": ca },
            }],
            "users": [{ "name": NAME, "user": credentials }],
            "contexts": [{ "name": NAME, "context": { "cluster": NAME, "user": NAME } }],
            "current-context": NAME,
        });
        // JSON is YAML already, but people look into these files.
        serde_yaml_ng::to_string(&config).unwrap_or_else(|_| config.to_string())
    }
}

#[cfg(test)]
mod tests {
    use kube::config::Kubeconfig;

    use super::*;

    fn parsed(user: &User) -> (Authority, Kubeconfig) {
        let authority = Authority::generate().unwrap();
        let text = authority
            .kubeconfig("https://127.0.0.1:6443", user)
            .unwrap();
        (authority, Kubeconfig::from_yaml(&text).unwrap())
    }

    #[test]
    fn a_plain_user_gets_a_certificate() {
        let (authority, config) = parsed(&User::admin());
        let cluster = config.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:6443"));
        let ca = cluster.certificate_authority_data.as_ref().unwrap();
        assert_eq!(
            BASE64_STANDARD.decode(ca).unwrap(),
            authority.ca_pem().as_bytes()
        );
        let user = config.auth_infos[0].auth_info.as_ref().unwrap();
        assert!(user.client_certificate_data.is_some() && user.token.is_none());
    }

    #[test]
    fn a_user_whom_a_certificate_cannot_describe_gets_a_token() {
        let user = User {
            uid: "7".to_owned(),
            ..User::new("alice")
        };
        let (authority, config) = parsed(&user);
        let info = config.auth_infos[0].auth_info.as_ref().unwrap();
        assert!(info.client_certificate_data.is_none() && info.token.is_some());
        assert_eq!(authority.agreed.read().values().next(), Some(&user));
    }
}
