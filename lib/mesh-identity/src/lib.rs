//! OpenSSL-backed rustls provider, keys, CSR, chain verification, CA client, issuer, certificate rotation.
