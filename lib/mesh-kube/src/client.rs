//! How a program finds its API server and talks to it.

use std::{env, path::PathBuf, time::Duration};

use http::{HeaderValue, header};
use kube::{
    Client, Config,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use thiserror::Error;

/// Where the API server is and who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The kubeconfig to use, as a flag or the variable `KUBECONFIG` names it: one path, or several as
    /// in `PATH`, of which the earlier win. Without it: the service account of the pod we run in, or
    /// else the user's default kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; its current one when this is not set.
    pub context: Option<String>,
    /// `<program>/<version>`, which audit logs and the API server's metrics show.
    pub user_agent: String,
}

/// Why there is no client. None of these goes away by itself.
#[derive(Debug, Error)]
pub enum Error {
    /// A kubeconfig that was named does not exist, cannot be read or is not valid. The user repairs the
    /// file or names another.
    #[error("reading the kubeconfig {}", path.display())]
    Kubeconfig {
        /// The path as it was given.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: Box<KubeconfigError>,
    },

    /// Nothing names an API server. The program runs outside a pod, or in one whose service account
    /// token is not mounted, and there is no kubeconfig.
    #[error(
        "finding the API server: there is no service account of a pod ({in_cluster}) and no default \
         kubeconfig; run in a pod with a mounted service account token or name a kubeconfig"
    )]
    Nowhere {
        /// Why the pod's service account was not used.
        in_cluster: Box<InClusterError>,
        /// What went wrong.
        #[source]
        source: Box<KubeconfigError>,
    },

    /// The user agent cannot be a header's value: a defect of the program.
    #[error("the user agent {0:?} is not a header's value")]
    UserAgent(String),

    /// The certificates, the key or the token of the configuration cannot be used.
    #[error("preparing the client of the API server at {server}")]
    Build {
        /// Address of the API server.
        server: String,
        /// What went wrong.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Longest time to wait for a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(10);

/// Longest silence on a connection that answers a request. It has to be longer than the silence after
/// which a watch asks again by itself, so that a quiet watch is not an error.
const READ: Duration = Duration::from_secs(super::watch::SILENCE.as_secs() + 20);

/// Longest time to write a piece of a request.
const WRITE: Duration = Duration::from_secs(30);

/// A client as `options` say.
///
/// Nothing is sent yet, so this works while the API server is away. The number of requests is not
/// limited: the API server's priority and fairness does that better. Requests are not repeated either;
/// whoever asks knows whether asking again makes sense.
pub async fn connect(options: &Options) -> Result<Client, Error> {
    let config = configure(options).await?;
    let server = config.cluster_url.to_string();
    Client::try_from(config).map_err(|source| Error::Build {
        server,
        source: Box::new(source),
    })
}

/// The configuration behind [`connect`], for programs that change it or need its address.
pub async fn configure(options: &Options) -> Result<Config, Error> {
    let mut config = find(options).await?;
    let agent = HeaderValue::from_str(&options.user_agent).ok();
    let agent = agent.ok_or_else(|| Error::UserAgent(options.user_agent.clone()))?;
    config.headers.push((header::USER_AGENT, agent));
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(READ);
    config.write_timeout = Some(WRITE);
    // A pooled connection may have been silent for long before it is used again.
    config.reset_reader_on_write = true;
    config.default_retry = false;
    Ok(config)
}

async fn find(options: &Options) -> Result<Config, Error> {
    let selected = KubeConfigOptions {
        context: options.context.clone(),
        ..KubeConfigOptions::default()
    };
    if let Some(path) = &options.kubeconfig {
        let loaded = async { Config::from_custom_kubeconfig(read(path)?, &selected).await };
        return loaded.await.map_err(|source| Error::Kubeconfig {
            path: path.clone(),
            source: Box::new(source),
        });
    }
    let in_cluster = match Config::incluster() {
        Ok(config) => return Ok(config),
        Err(error) => Box::new(error),
    };
    let config = Config::from_kubeconfig(&selected).await;
    config.map_err(|source| Error::Nowhere {
        in_cluster,
        source: Box::new(source),
    })
}

/// Reads one kubeconfig or several and merges them as kubectl does.
fn read(paths: &PathBuf) -> Result<Kubeconfig, KubeconfigError> {
    let mut merged = Kubeconfig::default();
    for path in env::split_paths(paths).filter(|path| !path.as_os_str().is_empty()) {
        merged = merged.merge(Kubeconfig::read_from(path)?)?;
    }
    Ok(merged)
}
