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
