//! What a client is told before it connects.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where to connect, whom to trust, and how long to wait.
#[derive(Clone)]
pub struct ClientConfig {
    /// `host:port` of the router; an IPv6 address stands in brackets. Default `127.0.0.1:4433`.
    pub server: String,
    /// The name in the router's certificate. Default: the host in `server`.
    pub server_name: Option<String>,
    /// Whose certificates are accepted. Default [`Trust::System`].
    pub trust: Trust,
    /// What the router calls this client in its log and listings. Default `quipu-client`.
    pub name: String,
    /// Says who the client is, where the router asks for that. Default none. Not shown by `Debug`.
    pub token: Option<String>,
    /// Says who the client is by a certificate, where the router asks for that. Default none.
    pub identity: Option<Identity>,
    /// For resolving, handshake and welcome together. Default 5 s.
    pub connect_timeout: Duration,
    /// For opening one publisher or subscription: a free stream, and the router's answer. Default 5 s.
    pub open_timeout: Duration,
    /// What to do when the connection is lost.
    pub reconnect: Reconnect,
}

/// Whose certificates are accepted.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The operating system's certificate authorities.
    System,
    /// The certificates in this PEM file, one or more: authorities, or the router's own self-signed certificate. Read
    /// anew at each connect.
    CertificateFile(PathBuf),
    /// This certificate, in DER: an authority's, or the router's own self-signed one.
    Certificate(Vec<u8>),
}

/// A certificate of the client and its key, in PEM files, which may be one. Read anew at each connect, so that they can
/// be replaced while the client runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The client's own certificate first, then those that lead to an authority.
    pub certificate: PathBuf,
    /// PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// When to try again after a lost connection, and when to stop trying.
///
/// The n-th pause is between half of `delay_min` · 2ⁿ and the whole of it, chosen at random, and at most `delay_max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconnect {
    /// The first pause. Default 50 ms.
    pub delay_min: Duration,
    /// The longest pause. Default 5 s.
    pub delay_max: Duration,
    /// From the loss on; everything pending then fails. Default 60 s. Keep it below the router's dedup window (2 min
    /// by default), so that what is sent again is still known; [named publishers](crate::PublisherOptions::name) are
    /// known at any time.
    pub give_up_after: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            server: "127.0.0.1:4433".into(),
            server_name: None,
            trust: Trust::System,
            name: "quipu-client".into(),
            token: None,
            identity: None,
            connect_timeout: Duration::from_secs(5),
            open_timeout: Duration::from_secs(5),
            reconnect: Reconnect::default(),
        }
    }
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            delay_min: Duration::from_millis(50),
            delay_max: Duration::from_secs(5),
            give_up_after: Duration::from_secs(60),
        }
    }
}

impl ClientConfig {
    /// The name that the certificate must be for.
    pub(crate) fn certificate_name(&self) -> &str {
        if let Some(name) = &self.server_name {
            return name;
        }
        let host = self.server.rsplit_once(':').map_or(self.server.as_str(), |(host, _port)| host);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("server", &self.server)
            .field("server_name", &self.server_name)
            .field("trust", &self.trust)
            .field("name", &self.name)
            .field("identity", &self.identity)
            .field("reconnect", &self.reconnect)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_is_for_the_host() {
        for (server, name) in [("a.example:1", "a.example"), ("127.0.0.1:1", "127.0.0.1"), ("[::1]:1", "::1")] {
            let config = ClientConfig { server: server.into(), ..ClientConfig::default() };
            assert_eq!(config.certificate_name(), name);
        }
    }

    #[test]
    fn debug_keeps_the_token_to_itself() {
        let config = ClientConfig { token: Some("hunter2".into()), ..ClientConfig::default() };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
