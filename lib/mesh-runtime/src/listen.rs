//! The program's own ports: bound first, so that a port that cannot be had is found at the start, and
//! served later.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

/// A port is taken, or not ours. Whoever configured the program or runs another one beside it is at
/// fault.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address} for {purpose}")]
pub struct Error {
    /// What the port is for.
    pub purpose: &'static str,
    /// Where.
    pub address: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

/// A port of the program, and where it is.
pub type Bound = (TcpListener, SocketAddr);

/// Binds a port of the program, named in errors by its `purpose`. The address that comes with the
/// listener has the port that the system chose where the given one is 0.
pub async fn bind(purpose: &'static str, address: SocketAddr) -> Result<Bound, Error> {
    let failed = |source| Error {
        purpose,
        address,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Binds a port that the program may do without.
pub async fn bind_if(
    purpose: &'static str,
    address: Option<SocketAddr>,
) -> Result<Option<Bound>, Error> {
    match address {
        Some(address) => bind(purpose, address).await.map(Some),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_with_its_purpose() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (_listener, bound) = bind("probes", any).await.unwrap();
        assert_ne!(bound.port(), 0);
        let refused = bind("metrics", bound).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("listen on {bound} for metrics")
        );
        assert_eq!(refused.source.kind(), io::ErrorKind::AddrInUse);
        assert!(bind_if("metrics", Some(bound)).await.is_err());
        assert!(bind_if("metrics", None).await.unwrap().is_none());
    }
}
