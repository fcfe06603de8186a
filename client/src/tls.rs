//! The TLS side of a connection: TLS 1.3, the protocol's ALPN, and the chosen roots.
//!
//! A self-signed certificate that is given as a root is accepted as the router's own, as long as it does not call
//! itself an authority: a path of one certificate whose issuer is the root of the same name and key.

use std::path::PathBuf;
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{Identity, Trust};
use crate::connect::ConnectError;

/// Why there is nobody to trust.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read, or is no PEM.
    #[error("cannot read certificates from {}: {why}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No certificate in the file.
    #[error("no certificate in {}", .0.display())]
    Empty(PathBuf),
    /// A certificate that cannot be a root.
    #[error("unusable certificate: {0}")]
    Certificate(String),
    /// The system's authorities cannot be had.
    #[error("the system has no certificate authorities: {0}")]
    System(String),
}

/// Why a client cannot show who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read, or is no PEM.
    #[error("cannot read the client's {what} from {}: {why}", .path.display())]
    File {
        /// Certificate or key.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file holds something else.
    #[error("no {what} in {}", .path.display())]
    Nothing {
        /// Certificate or key.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Both are there, but each for something else.
    #[error("the key in {} is not that of the first certificate in {}", .0.key.display(), .0.certificate.display())]
    Mismatch(Identity),
    /// A kind of certificate or key that is not supported.
    #[error(
        "cannot use the certificate in {} with the key in {}: {why}; keys are ECDSA (P-256, P-384), Ed25519, or RSA of \
         2048 bits at least",
        .identity.certificate.display(), .identity.key.display()
    )]
    Unusable {
        /// The files.
        identity: Identity,
        /// What rustls said.
        why: String,
    },
}

/// Reads the roots and the client's certificate, from disk too.
pub(crate) fn crypto(trust: &Trust, identity: Option<&Identity>) -> Result<QuicClientConfig, ConnectError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |e: rustls::Error| TrustError::Certificate(e.to_string());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_root_certificates(roots(trust)?);
    let mut crypto = match identity {
        Some(identity) => {
            let (chain, key) = (chain(identity)?, key(identity)?);
            builder.with_client_auth_cert(chain, key).map_err(|e| unusable_identity(identity, &e))?
        }
        None => builder.with_no_client_auth(),
    };
    crypto.alpn_protocols = vec![quipu_protocol::ALPN.to_vec()];
    Ok(QuicClientConfig::try_from(crypto).map_err(|e| TrustError::Certificate(e.to_string()))?)
}

fn chain(identity: &Identity) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let (what, path) = ("certificate", &identity.certificate);
    let wrong = |e: pem::Error| IdentityError::File { what, path: path.clone(), why: e.to_string() };
    let chain = CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if chain.is_empty() { Err(IdentityError::Nothing { what, path: path.clone() }) } else { Ok(chain) }
}

fn key(identity: &Identity) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let (what, path) = ("private key", &identity.key);
    PrivateKeyDer::from_pem_file(path).map_err(|e| match e {
        pem::Error::NoItemsFound => IdentityError::Nothing { what, path: path.clone() },
        e => IdentityError::File { what, path: path.clone(), why: e.to_string() },
    })
}

fn unusable_identity(identity: &Identity, error: &rustls::Error) -> IdentityError {
    match error {
        rustls::Error::InconsistentKeys(_) => IdentityError::Mismatch(identity.clone()),
        error => {
            let mut why = error.to_string();
            if why.contains("UnsupportedCertVersion") {
                why = "the certificate is of X.509 version 1, and 3 is needed (one with extensions)".into();
            }
            IdentityError::Unusable { identity: identity.clone(), why }
        }
    }
}

fn roots(trust: &Trust) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::System => {
            let found = rustls_native_certs::load_native_certs();
            // A system's store may hold what webpki does not take; the rest of it is still good.
            let (taken, _ignored) = roots.add_parsable_certificates(found.certs);
            if taken == 0 {
                let why = found.errors.first().map_or_else(|| "none found".into(), ToString::to_string);
                return Err(TrustError::System(why));
            }
        }
        Trust::CertificateFile(path) => {
            let file = |e: rustls::pki_types::pem::Error| TrustError::File { path: path.clone(), why: e.to_string() };
            for certificate in CertificateDer::pem_file_iter(path).map_err(file)? {
                add(&mut roots, certificate.map_err(file)?)?;
            }
            if roots.is_empty() {
                return Err(TrustError::Empty(path.clone()));
            }
        }
        Trust::Certificate(der) => add(&mut roots, CertificateDer::from(der.clone()))?,
    }
    Ok(roots)
}

fn add(roots: &mut RootCertStore, certificate: CertificateDer<'static>) -> Result<(), TrustError> {
    roots.add(certificate).map_err(|e| TrustError::Certificate(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_file_is_wrong_and_how() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = |path: PathBuf| crypto(&Trust::CertificateFile(path), None).err().expect("refused").to_string();
        assert!(text(folder.path().join("absent.pem")).contains("absent.pem"));
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "nothing here").expect("written");
        assert!(text(empty).starts_with("no certificate in"));
        assert!(matches!(
            crypto(&Trust::Certificate(b"no DER".to_vec()), None),
            Err(ConnectError::Trust(TrustError::Certificate(_)))
        ));
    }
}
