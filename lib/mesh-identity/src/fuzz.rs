//! Entry points of the fuzz targets in `fuzz/`, replayed here on a saved corpus.
//!
//! Each takes bytes as they come from outside and must return, whatever they are.

use rustls::pki_types::CertificateDer;

use crate::{answer::Answer, facts::Facts, svid};

/// Decodes the answer of a certificate authority. Elements are separated by NUL bytes, which stand for
/// gRPC's framing.
pub fn answer(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let elements: Vec<_> = text.split('\0').collect();
    let Ok(answer) = Answer::parse(&elements) else {
        return;
    };
    for certificate in answer.chain().iter().chain(&answer.roots) {
        certificate_names_and_facts(certificate);
    }
}

/// Reads the identity in a peer's certificate.
pub fn peer(bytes: &[u8]) {
    certificate_names_and_facts(&CertificateDer::from(bytes));
}

fn certificate_names_and_facts(certificate: &CertificateDer<'_>) {
    if let Ok(identity) = svid::identity(certificate) {
        assert_eq!(identity.to_string().parse().as_ref(), Ok(&identity));
    }
    Facts::of(certificate).ok();
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::prelude::*;

    use super::*;

    fn replay(corpus: &str, target: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(corpus);
        let inputs: Vec<_> = fs::read_dir(&folder).unwrap().collect();
        assert!(inputs.len() >= 4, "{} is incomplete", folder.display());
        for input in inputs {
            let bytes = fs::read(input.unwrap().path()).unwrap();
            target(&bytes);
            // A cut anywhere is the commonest damage.
            for end in (0..bytes.len()).step_by(7) {
                target(&bytes[..end]);
            }
        }
    }

    #[test]
    fn the_saved_answers_are_survived() {
        replay("answer", answer);
    }

    #[test]
    fn the_saved_peers_are_survived() {
        replay("peer", peer);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            answer(&bytes);
            peer(&bytes);
        }

        #[test]
        fn a_certificate_with_one_wrong_byte_is_survived(at in any::<prop::sample::Index>(), xor: u8) {
            let mut bytes = include_bytes!("../fuzz/corpus/peer/mixed").to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= xor;
            peer(&bytes);
        }
    }
}
