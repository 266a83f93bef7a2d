//! Who a workload is, proved with X.509: keys, certificates, handshakes and the authority behind them.
//!
//! Two halves share this crate because they must agree to the byte:
//!
//! * **The mesh side.** A [`WorkloadCertificate`] opens and accepts mutual TLS connections between
//!   workloads; the peer is checked inside the handshake, by SPIFFE identity and never by host name.
//!   [`CertManager`] obtains, keeps and renews one certificate per identity from a
//!   [`ca::CertificateAuthority`].
//! * **The control side.** [`control`] is ordinary server TLS between a component and its control
//!   plane; [`ca_client`] asks the control plane for certificates, [`issuer`] is what answers.
//!
//! All cryptography is OpenSSL's, linked dynamically, so that the validated module of a FIPS host is
//! the one in use; rustls speaks the protocol. See `docs/design/0001-crypto.md`.
//!
//! Nothing here spawns a task: loops are futures, and the program decides where they run.

pub mod answer;
pub mod ca;
pub mod ca_client;
pub mod certificate;
mod chain;
pub mod control;
pub mod facts;
#[cfg(test)]
mod fixture;
pub mod fuzz;
pub mod issuer;
pub mod key;
pub mod manager;
pub mod provider;
pub mod svid;
pub mod tls;
pub mod token;

pub use certificate::WorkloadCertificate;
pub use manager::CertManager;
pub use provider::provider;
