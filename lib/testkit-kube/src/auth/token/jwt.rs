//! Signed JSON: compact JWS with ES256, and nothing else that the standards allow.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use openssl::{
    bn::{BigNum, BigNumContext},
    ecdsa::EcdsaSig,
    error::ErrorStack,
    hash::MessageDigest,
    pkey::{PKey, Private},
    sha::sha256,
    sign::{Signer, Verifier},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::auth::tls::{self, failing, generate};

/// An EC P-256 key with a name.
pub(super) struct SigningKey {
    key: PKey<Private>,
    /// Base64 of the SHA-256 of the public key, as the real server names its keys.
    id: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

/// Bytes of each of the two numbers of a signature.
const NUMBER: usize = 32;

/// Longest token that is looked at. Real ones have about a kilobyte.
const MAX_TOKEN: usize = 16 * 1024;

/// ECDSA with P-256 and SHA-256, RFC 7518 section 3.4.
const ALGORITHM: &str = "ES256";

// === impl SigningKey ===

impl SigningKey {
    pub(super) fn generate() -> Result<Self, tls::Error> {
        Self::build().map_err(failing("make a key for tokens"))
    }

    fn build() -> Result<Self, ErrorStack> {
        let key = generate()?;
        let id = BASE64.encode(sha256(&key.public_key_to_der()?));
        Ok(Self { key, id })
    }

    /// A token that says this.
    pub(super) fn seal<T: Serialize>(&self, payload: &T) -> Result<String, tls::Error> {
        let header = Header {
            alg: ALGORITHM.to_owned(),
            kid: self.id.clone(),
        };
        let signed = format!("{}.{}", encode(&header), encode(payload));
        let signature = self
            .sign(signed.as_bytes())
            .map_err(failing("sign a token"))?;
        Ok(format!("{signed}.{}", BASE64.encode(signature)))
    }

    /// What a token says, if this key signed it.
    pub(super) fn open<T: DeserializeOwned>(&self, token: &str) -> Option<T> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let header: Header = decode(header)?;
        if header.alg != ALGORITHM || header.kid != self.id {
            return None;
        }
        let signature = BASE64.decode(signature).ok()?;
        let genuine = self.verify(signed.as_bytes(), &signature);
        genuine.unwrap_or(false).then(|| decode(payload))?
    }

    /// The public half as a set of JSON web keys.
    pub(super) fn jwks(&self) -> Value {
        let (x, y) = self.coordinates().unwrap_or_default();
        json!({ "keys": [{
            "use": "sig", "kty": "EC", "crv": "P-256", "alg": ALGORITHM, "kid": self.id,
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        }] })
    }

    fn sign(&self, data: &[u8]) -> Result<Vec<u8>, ErrorStack> {
        let mut signer = Signer::new(MessageDigest::sha256(), &self.key)?;
        let signature = EcdsaSig::from_der(&signer.sign_oneshot_to_vec(data)?)?;
        let width = i32::try_from(NUMBER).unwrap_or_default();
        let mut bytes = signature.r().to_vec_padded(width)?;
        bytes.extend(signature.s().to_vec_padded(width)?);
        Ok(bytes)
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<bool, ErrorStack> {
        let Some((r, s)) = signature.split_at_checked(NUMBER) else {
            return Ok(false);
        };
        let der =
            EcdsaSig::from_private_components(BigNum::from_slice(r)?, BigNum::from_slice(s)?)?
                .to_der()?;
        let mut verifier = Verifier::new(MessageDigest::sha256(), &self.key)?;
        verifier.verify_oneshot(&der, data)
    }

    fn coordinates(&self) -> Result<(Vec<u8>, Vec<u8>), ErrorStack> {
        let key = self.key.ec_key()?;
        let (mut x, mut y, mut context) = (BigNum::new()?, BigNum::new()?, BigNumContext::new()?);
        key.public_key()
            .affine_coordinates(key.group(), &mut x, &mut y, &mut context)?;
        let width = i32::try_from(NUMBER).unwrap_or_default();
        Ok((x.to_vec_padded(width)?, y.to_vec_padded(width)?))
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

fn encode<T: Serialize>(value: &T) -> String {
    // Structs of strings and numbers always have a JSON form.
    BASE64.encode(serde_json::to_vec(value).unwrap_or_default())
}

fn decode<T: DeserializeOwned>(text: &str) -> Option<T> {
    let bytes = BASE64.decode(text).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened() {
        let key = SigningKey::generate().unwrap();
        let token = key.seal(&json!({"sub": "a"})).unwrap();
        assert_eq!(key.open::<Value>(&token), Some(json!({"sub": "a"})));
    }

    #[test]
    fn what_another_key_sealed_stays_shut() {
        let token = SigningKey::generate().unwrap().seal(&json!({})).unwrap();
        let key = SigningKey::generate().unwrap();
        assert_eq!(key.open::<Value>(&token), None);
    }

    #[test]
    fn a_changed_token_stays_shut() {
        let key = SigningKey::generate().unwrap();
        let token = key.seal(&json!({"sub": "a"})).unwrap();
        let parts: Vec<_> = token.split('.').collect();
        let other = encode(&json!({"sub": "b"}));
        let unsigned = BASE64.encode(format!(r#"{{"alg":"none","kid":"{}"}}"#, key.id));
        for changed in [
            format!("{}.{other}.{}", parts[0], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{unsigned}.{}.", parts[1]),
            format!("{unsigned}.{}.{}", parts[1], parts[2]),
            "no token at all".to_owned(),
            String::new(),
        ] {
            assert_eq!(key.open::<Value>(&changed), None, "{changed}");
        }
    }
}
