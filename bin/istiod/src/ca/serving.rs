//! Istiod's own certificate, by which proxies know that they talk to their control plane.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_identity::{
    control::{self, ServerTls, mutual_server_config},
    issuer::{self, Issuer},
    provider::Versions,
};
use mesh_kube::error::Explained;
use tokio::{sync::watch, time::sleep};

/// What the certificate is to say.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its DNS names; see [`dns_names`].
    pub names: Vec<String>,
    /// How long it lives. It is renewed at half of that.
    pub ttl: Duration,
    /// The TLS versions that are spoken with it.
    pub versions: Versions,
}

/// Renews the certificate for as long as it runs.
#[derive(Debug)]
pub struct Renewal {
    settings: Settings,
    issuers: watch::Receiver<Arc<Issuer>>,
    tls: ServerTls,
}

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The authority does not sign it: the names are no DNS names, or its own certificate has run out.
    #[error("signing the serving certificate")]
    Signing(#[source] issuer::Error),
    /// It was signed and cannot be used. That is our defect.
    #[error("serving with a new certificate")]
    Configuration(#[source] control::Error),
}

/// How long to wait after a failure. The former certificate serves meanwhile.
const RETRY: Duration = Duration::from_secs(10);

/// The names under which proxies of `namespace` look for istiod of `revision` (empty for the default
/// one), and `further` ones.
pub fn dns_names(namespace: &str, revision: &str, further: &[String]) -> Vec<String> {
    let mut services = vec![
        "istiod".to_owned(),
        "istiod-remote".into(),
        "istio-pilot".into(),
    ];
    if !revision.is_empty() && revision != "default" {
        services.insert(0, format!("istiod-{revision}"));
    }
    let mut names: Vec<String> = Vec::new();
    let services = services
        .iter()
        .map(|service| format!("{service}.{namespace}.svc"));
    for name in services.chain(further.iter().cloned()) {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The settings of a server with a certificate by the issuer in force, whose callers may present
/// certificates by it, and what keeps them up to date.
pub fn serve(
    settings: Settings,
    mut issuers: watch::Receiver<Arc<Issuer>>,
) -> Result<(ServerTls, Renewal), Error> {
    let issuer = Arc::clone(&issuers.borrow_and_update());
    let tls = ServerTls::new(settings.configure(&issuer)?);
    let renewal = Renewal {
        settings,
        issuers,
        tls: tls.clone(),
    };
    Ok((tls, renewal))
}

// === impl Renewal ===

impl Renewal {
    /// Renews at half the certificate's life and when authority or roots change. Ends when the authority
    /// does.
    pub async fn run(mut self) {
        let mut pause = self.half_life();
        loop {
            tokio::select! {
                () = sleep(pause) => {}
                changed = self.issuers.changed() => if changed.is_err() { return },
            }
            pause = self.renew();
        }
    }

    /// Renews now and says how long that is good for.
    fn renew(&mut self) -> Duration {
        let issuer = Arc::clone(&self.issuers.borrow_and_update());
        match self.settings.configure(&issuer) {
            Ok(config) => {
                self.tls.replace(config);
                tracing::info!("the serving certificate is renewed");
                self.half_life()
            }
            Err(error) => {
                tracing::error!(error = %Explained(&error), "the serving certificate is not renewed");
                RETRY
            }
        }
    }

    /// Half of what a certificate signed now gets.
    fn half_life(&self) -> Duration {
        let left = self
            .issuers
            .borrow()
            .not_after()
            .duration_since(SystemTime::now());
        let life = self.settings.ttl.min(left.unwrap_or_default());
        (life / 2).max(RETRY)
    }
}

// === impl Settings ===

impl Settings {
    fn configure(&self, issuer: &Issuer) -> Result<Arc<rustls::ServerConfig>, Error> {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let certificate = issuer.server_certificate(&names, self.ttl);
        let certificate = certificate.map_err(Error::Signing)?;
        mutual_server_config(&certificate, self.versions, issuer.roots())
            .map_err(Error::Configuration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_by_which_proxies_look_for_it() {
        let plain = [
            "istiod.mesh.svc",
            "istiod-remote.mesh.svc",
            "istio-pilot.mesh.svc",
        ];
        assert_eq!(dns_names("mesh", "", &[]), plain);
        assert_eq!(dns_names("mesh", "default", &[]), plain);
        let further = [
            "istiod.example.com".into(),
            String::new(),
            "istiod.mesh.svc".into(),
        ];
        assert_eq!(
            dns_names("mesh", "1-30", &further),
            [
                &["istiod-1-30.mesh.svc"][..],
                &plain,
                &["istiod.example.com"]
            ]
            .concat()
        );
    }
}
