//! Who may do what: the users of the configuration, what clients show of themselves, and the rights that follow.
//!
//! All of it can be replaced while sessions are open: rights are those of now, and who is no user any more is told so.

mod client;
mod refusals;
mod rights;
mod users;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::config::Config;
use crate::tls::{self, CertificateInfo, ClientCertificates, Facts, Reloadable, Shown, TlsError};
pub(crate) use client::{Client, Publishing};
use refusals::{Reason, Refusals};
use users::Users;

/// A certificate that ends within this time is worth a warning.
const ENDS_SOON: Duration = Duration::from_hours(14 * 24);

/// The users of a running router, and what it shows and asks of clients.
pub(crate) struct Access {
    listen: SocketAddr,
    tls: Arc<Reloadable>,
    users: watch::Sender<Arc<Users>>,
    refusals: Arc<Refusals>,
}

/// What was read and checked, and is not in force yet.
pub(crate) struct Prepared {
    /// The certificate that will be shown.
    pub(crate) certificate: CertificateInfo,
    /// What is worth knowing about it.
    pub(crate) notes: Vec<String>,
    shown: Shown,
    users: Users,
}

impl Prepared {
    /// Reads the files of `[tls]` for a router that listens there.
    ///
    /// Blocks on files.
    ///
    /// # Errors
    ///
    /// [`TlsError`] says what to change.
    pub(crate) fn new(listen: SocketAddr, config: &Config) -> Result<Self, TlsError> {
        let files = config.tls.as_ref();
        let (key, certificate) = tls::certificate(listen, files)?;
        if config.users.is_empty() && !tls::is_loopback(listen) {
            return Err(TlsError::OpenToAll(listen));
        }
        let pinned: HashSet<_> = config.users.iter().filter_map(|user| user.certificate).collect();
        let authorities = files.and_then(|files| files.client_ca.as_deref());
        let clients = Arc::new(ClientCertificates::new(authorities, pinned)?);
        let facts = key.cert.first().and_then(Facts::of);
        let notes = facts.and_then(|facts| facts.note(SystemTime::now(), ENDS_SOON)).into_iter().collect();
        let users = Users::new(&config.users, clients.clone());
        Ok(Self { certificate, notes, shown: Shown { key: Arc::new(key), clients }, users })
    }
}

impl Access {
    /// In force from the start.
    pub(crate) fn new(listen: SocketAddr, prepared: Prepared) -> Arc<Self> {
        let refusals = Arc::new(Refusals::default());
        let counting = refusals.clone();
        let on_refused = move |error: &rustls::Error| counting.note(Reason::Certificate, &error.to_string());
        Arc::new(Self {
            listen,
            tls: Arc::new(Reloadable::new(prepared.shown, Box::new(on_refused))),
            users: watch::Sender::new(Arc::new(prepared.users)),
            refusals,
        })
    }

    /// For a router on loopback where everyone may do everything, with a development certificate of its own.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    pub(crate) fn development(listen: SocketAddr, path: &Path) -> Result<Arc<Self>, TlsError> {
        let clients = Arc::new(ClientCertificates::none());
        let users = Users::new(&[], clients.clone());
        let shown = Shown { key: Arc::new(tls::development(path)?), clients };
        let certificate = CertificateInfo::Development { path: path.into() };
        Ok(Self::new(listen, Prepared { certificate, notes: Vec::new(), shown, users }))
    }

    /// What QUIC needs to serve TLS.
    ///
    /// # Errors
    ///
    /// Where the library does not know TLS 1.3.
    pub(crate) fn server_config(&self) -> Result<rustls::ServerConfig, rustls::Error> {
        tls::server_config(self.tls.clone())
    }

    /// Reads what would replace all this, for the address that the router really listens on.
    ///
    /// Blocks on files.
    ///
    /// # Errors
    ///
    /// [`TlsError`] says what to change; nothing has changed.
    pub(crate) fn prepare(&self, config: &Config) -> Result<Prepared, TlsError> {
        Prepared::new(self.listen, config)
    }

    /// From now on: new connections see the new certificates, and open sessions have the new rights. Those whose user is
    /// gone or revoked are closed.
    pub(crate) fn replace(&self, prepared: Prepared) {
        self.tls.replace(prepared.shown);
        self.users.send_replace(Arc::new(prepared.users));
    }

    /// For `status`.
    pub(crate) fn listing(&self) -> Value {
        let users = self.users.borrow().count();
        json!({ "users": users, "refusals": self.refusals.total(), "refusals_by_reason": self.refusals.by_reason() })
    }
}

/// What is wrong with certificates and keys, for a configuration that is only checked.
///
/// # Errors
///
/// [`TlsError`] says what to change.
pub(crate) fn check(config: &Config) -> Result<Vec<String>, TlsError> {
    // Without files there is nothing to find out, and nothing should be made.
    if config.tls.is_none() { Ok(Vec::new()) } else { Ok(Prepared::new(config.listen.quic, config)?.notes) }
}

/// The admin methods.
pub(crate) fn methods() -> impl Iterator<Item = &'static str> {
    rights::METHODS.iter().map(|(method, _)| *method)
}

#[cfg(test)]
mod tests;
