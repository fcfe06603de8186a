//! What TLS shows and asks for, which can be replaced while connections are open: they keep what they have, and new ones
//! get what is new.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::{ClientCertificates, provider};

/// What is shown and asked for at one time.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    /// The router's certificates and their key.
    pub(crate) key: Arc<CertifiedKey>,
    /// Whose certificates are taken.
    pub(crate) clients: Arc<ClientCertificates>,
}

/// Is told of client certificates that are refused.
pub(crate) type OnRefused = Box<dyn Fn(&Error) + Send + Sync>;

/// What is shown and asked for now.
pub(crate) struct Reloadable {
    now: RwLock<Shown>,
    algorithms: WebPkiSupportedAlgorithms,
    on_refused: OnRefused,
}

impl Reloadable {
    pub(crate) fn new(shown: Shown, on_refused: OnRefused) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        Self { now: RwLock::new(shown), algorithms, on_refused }
    }

    /// From now on, for new connections.
    pub(crate) fn replace(&self, shown: Shown) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    fn shown(&self) -> Shown {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Reloadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloadable").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Reloadable {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown().key)
    }
}

impl ClientCertVerifier for Reloadable {
    fn offer_client_auth(&self) -> bool {
        self.shown().clients.are_wanted()
    }

    /// A client may have a token instead, and that is looked at later.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None, so that a client shows what it has: certificates that are known by fingerprint have no authority.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let checked = self.shown().clients.check(certificate, others, now);
        checked.inspect_err(|error| (self.on_refused)(error)).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
