//! Which client certificates are taken: those that an authority of `tls.client_ca` vouches for, and those that users
//! name by fingerprint.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, OtherError, RootCertStore};

use super::{Facts, Fingerprint, TlsError, chain_in, provider, read};

/// Which client certificates are taken at one time.
#[derive(Debug)]
pub(crate) struct ClientCertificates {
    authorities: Option<Arc<dyn ClientCertVerifier>>,
    pinned: HashSet<Fingerprint>,
}

/// A certificate with a weak key. `Debug` is what rustls shows.
#[derive(thiserror::Error)]
#[error("an RSA key of {0} bits is weak: 2048 are the least")]
struct WeakKey(usize);

impl fmt::Debug for WeakKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ClientCertificates {
    /// None: clients are not asked for one.
    pub(crate) fn none() -> Self {
        Self { authorities: None, pinned: HashSet::new() }
    }

    /// Reads the file of authorities.
    ///
    /// # Errors
    ///
    /// [`TlsError`] says what is wrong with the file.
    pub(crate) fn new(authorities: Option<&Path>, pinned: HashSet<Fingerprint>) -> Result<Self, TlsError> {
        Ok(Self { authorities: authorities.map(load).transpose()?, pinned })
    }

    /// Whether clients are asked for a certificate.
    pub(crate) fn are_wanted(&self) -> bool {
        self.authorities.is_some() || !self.pinned.is_empty()
    }

    /// Whether this certificate is good at this time; `others` lead from it to an authority.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn check(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let facts = Facts::of(certificate).ok_or(CertificateError::BadEncoding)?;
        if let Some(bits) = facts.weak_bits() {
            return Err(CertificateError::Other(OtherError(Arc::new(WeakKey(bits)))).into());
        }
        facts.check_time(now)?;
        if self.pinned.contains(&Fingerprint::of(certificate)) {
            return Ok(());
        }
        let authorities = self.authorities.as_ref().ok_or(CertificateError::UnknownIssuer)?;
        authorities.verify_client_cert(certificate, others, now).map(|_| ())
    }
}

fn load(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let wrong = |why: String| TlsError::Authority { path: path.into(), why };
    let mut roots = RootCertStore::empty();
    for certificate in chain_in(path, &read(path)?)? {
        roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier = verifier.allow_unauthenticated().build().map_err(|e| wrong(e.to_string()))?;
    Ok(verifier)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rcgen::{CertificateParams, KeyPair, PublicKeyData, SigningKey};

    use super::*;

    /// The public half of an RSA key of 1,024 bits. Nothing here looks at what it signs.
    struct Weak(Vec<u8>);

    impl PublicKeyData for Weak {
        fn der_bytes(&self) -> &[u8] {
            &self.0
        }

        fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
            &rcgen::PKCS_RSA_SHA256
        }
    }

    impl SigningKey for Weak {
        fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
            Ok(vec![1; 128])
        }
    }

    fn made(key: &impl SigningKey) -> CertificateDer<'static> {
        let params = CertificateParams::new(vec!["a.example".into()]).expect("params");
        params.self_signed(key).expect("a certificate").der().clone()
    }

    fn check(clients: &ClientCertificates, certificate: &CertificateDer<'_>, at: u64) -> Result<(), String> {
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
        clients.check(certificate, &[], at).map_err(|e| e.to_string())
    }

    #[test]
    fn those_known_by_fingerprint_need_no_authority_but_must_be_good() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        let (known, other) = (made(&KeyPair::generate().expect("a key")), made(&KeyPair::generate().expect("a key")));
        // SEQUENCE { INTEGER of 128 bytes and a sign, INTEGER 65537 }.
        let head = [0x30, 0x81, 0x89, 0x02, 0x81, 0x81, 0x00];
        let weak = made(&Weak([&head[..], &[0xc1; 128], &[0x02, 0x03, 0x01, 0x00, 0x01]].concat()));
        let pinned = [&known, &weak].map(Fingerprint::of).into();
        let clients = ClientCertificates::new(None, pinned).expect("no files");
        assert!(clients.are_wanted() && !ClientCertificates::none().are_wanted());
        assert_eq!(check(&clients, &known, now), Ok(()));
        let refused = |certificate, at| check(&clients, certificate, at).expect_err("refused");
        assert_eq!(refused(&other, now), "invalid peer certificate: UnknownIssuer");
        assert!(refused(&known, 0).contains("certificate not valid yet"));
        assert!(refused(&known, 100_000_000_000).contains("certificate expired"));
        let text = refused(&weak, now);
        assert!(text.contains("an RSA key of 1024 bits is weak: 2048 are the least"), "{text}");
        assert_eq!(refused(&CertificateDer::from(vec![0]), now), "invalid peer certificate: BadEncoding");
    }
}
