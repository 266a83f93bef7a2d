//! Who is calling, and what they may do.

use std::collections::BTreeMap;

use http::HeaderMap;
use openssl::{
    asn1::Asn1Time,
    bn::BigNum,
    ec::{EcGroup, EcKey},
    error::ErrorStack,
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    ssl::{SslAcceptor, SslAcceptorBuilder, SslMethod},
    x509::{
        X509, X509NameBuilder,
        extension::{BasicConstraints, SubjectAlternativeName},
    },
};
use serde_json::Value;

use crate::{status::Status, store::Store};

/// Somebody, as the API server knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// `system:serviceaccount:ns:name`, or a free name.
    pub name: String,
    /// Empty when unknown.
    pub uid: String,
    /// Without `system:authenticated`, which authentication adds.
    pub groups: Vec<String>,
    /// What a token binds: `authentication.kubernetes.io/pod-name` and the like.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Who.
    pub user: &'a User,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for paths the
    /// HTTP method in lower case.
    pub verb: &'a str,
    /// What it is done to.
    pub target: Target<'a>,
}

/// What something is done to.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// An object or a collection.
    Resource {
        /// The API group, empty for core.
        group: &'a str,
        /// The plural name.
        resource: &'a str,
        /// `status`, `log` and the like, or empty.
        subresource: &'a str,
        /// Empty for all namespaces and for cluster-scoped resources.
        namespace: &'a str,
        /// Empty for collections.
        name: &'a str,
    },
    /// A path that is none: `/healthz`.
    Path(&'a str),
}

/// Whether it may be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Yes or no.
    pub allowed: bool,
    /// Why, for the answer and for SubjectAccessReview.
    pub reason: String,
}

/// The caller proves nothing that we believe; answered with 401.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unauthorized(pub String);

/// The keys of a server: its certificate authority, its certificate and what signs tokens.
#[expect(missing_debug_implementations, reason = "it holds private keys")]
pub struct Authority {
    key: PKey<Private>,
    certificate: X509,
}

// === impl Authority ===

impl Authority {
    /// Makes new keys.
    pub fn generate() -> Result<Self, ErrorStack> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
        let mut name = X509NameBuilder::new()?;
        name.append_entry_by_text("CN", "kube-apiserver")?;
        let name = name.build();
        let mut builder = X509::builder()?;
        builder.set_version(2)?;
        builder.set_serial_number(&*BigNum::from_u32(1)?.to_asn1_integer()?)?;
        builder.set_subject_name(&name)?;
        builder.set_issuer_name(&name)?;
        builder.set_pubkey(&key)?;
        builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
        builder.set_not_after(&*Asn1Time::days_from_now(365)?)?;
        builder.append_extension(BasicConstraints::new().ca().build()?)?;
        let names = SubjectAlternativeName::new()
            .ip("127.0.0.1")
            .dns("localhost")
            .build(&builder.x509v3_context(None, None))?;
        builder.append_extension(names)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Self {
            certificate: builder.build(),
            key,
        })
    }

    /// The certificate authority, as PEM.
    pub fn ca_pem(&self) -> Result<String, ErrorStack> {
        let pem = self.certificate.to_pem()?;
        Ok(String::from_utf8_lossy(&pem).into_owned())
    }

    /// The server's side of TLS, asking for client certificates without requiring them. The caller adds ALPN.
    pub fn acceptor(&self) -> Result<SslAcceptorBuilder, ErrorStack> {
        let mut builder = SslAcceptor::mozilla_modern_v5(SslMethod::tls_server())?;
        builder.set_private_key(&self.key)?;
        builder.set_certificate(&self.certificate)?;
        Ok(builder)
    }

    /// Says who is calling, from the verified client certificate or the bearer token; neither is
    /// `system:anonymous`. Impersonation headers are resolved here too.
    pub fn authenticate(
        &self,
        store: &Store,
        peer: Option<&X509>,
        headers: &HeaderMap,
    ) -> Result<User, Unauthorized> {
        let _ = (store, peer, headers);
        Ok(User::default())
    }

    /// A kubeconfig for that user, with a client certificate.
    pub fn kubeconfig(&self, url: &str, user: &User) -> Result<String, ErrorStack> {
        let _ = user;
        let ca = openssl::base64::encode_block(&self.certificate.to_pem()?);
        Ok(format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\nclusters:\n- name: test\n  cluster:\n    server: {url}\n    certificate-authority-data: {ca}\nusers:\n- name: test\n  user: {{}}\ncontexts:\n- name: test\n  context:\n    cluster: test\n    user: test\n"
        ))
    }

    /// `POST serviceaccounts/NAME/token`: answers the TokenRequest with its status.
    pub fn request_token(
        &self,
        store: &Store,
        namespace: &str,
        name: &str,
        request: Value,
    ) -> Result<Value, Status> {
        drop((store, namespace, name, request));
        Err(Status::not_implemented("serviceaccounts/token"))
    }

    /// The reviews: TokenReview, SubjectAccessReview, LocalSubjectAccessReview, SelfSubjectAccessReview,
    /// SelfSubjectRulesReview, SelfSubjectReview. `namespace` is empty for the cluster-scoped ones.
    pub fn review(
        &self,
        store: &Store,
        user: &User,
        namespace: &str,
        review: Value,
    ) -> Result<Value, Status> {
        drop((store, user, namespace, review));
        Err(Status::not_implemented("reviews"))
    }
}

/// Whether RBAC allows it.
pub fn authorize(store: &Store, attributes: &Attributes<'_>) -> Decision {
    let _ = (store, attributes);
    Decision {
        allowed: true,
        reason: String::new(),
    }
}

/// The roles and bindings that exist from the start (`cluster-admin`, `system:discovery` and so on): whole
/// objects of rbac.authorization.k8s.io/v1.
pub fn bootstrap() -> Vec<Value> {
    Vec::new()
}

/// Whether a write of a role or binding gives away more than its author has (`escalate`, `bind`). Called for
/// every create and update of the four RBAC kinds.
pub fn check_escalation(store: &Store, user: &User, object: &Value) -> Result<(), Status> {
    let _ = (store, user, object);
    Ok(())
}
