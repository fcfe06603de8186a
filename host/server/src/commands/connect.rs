//! How commands reach a router.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, Result};
use clap::Args;
use quipu_client::{Client, ClientConfig, Identity, Trust};

/// Where the router is, whom to trust, and who one is.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// The router's address.
    #[arg(long, env = "QUIPU_SERVER", default_value = "127.0.0.1:4433", value_name = "HOST:PORT")]
    server: String,
    /// Certificates to trust, a PEM file; by default the development certificate on loopback, else the system's.
    #[arg(long, env = "QUIPU_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A token that says who you are. Better in the variable than here, where other users of the machine see it.
    #[arg(long, env = "QUIPU_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<Secret>,
    /// A certificate that says who you are, a PEM file.
    #[arg(long, env = "QUIPU_CERT", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key, a PEM file.
    #[arg(long, env = "QUIPU_KEY", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// What the router calls this client.
    #[arg(long, default_value = "quipu-cli", value_name = "NAME")]
    client: String,
}

/// A text that is not shown.
#[derive(Clone)]
struct Secret(String);

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl ServerArgs {
    /// Connects.
    pub(crate) async fn connect(&self) -> Result<Client> {
        let development = || is_loopback(&self.server).then(crate::tls::dev_certificate).flatten();
        let trust = self.ca.clone().or_else(development).map_or(Trust::System, Trust::CertificateFile);
        let config = ClientConfig {
            server: self.server.clone(),
            trust,
            name: self.client.clone(),
            token: self.token.as_ref().map(|Secret(token)| token.trim().to_owned()),
            identity: self.cert.clone().zip(self.key.clone()).map(|(certificate, key)| Identity { certificate, key }),
            ..ClientConfig::default()
        };
        Client::connect(config).await.with_context(|| format!("cannot connect to {}", self.server))
    }
}

fn is_loopback(server: &str) -> bool {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_not_shown() {
        let secret: Secret = "hunter2".parse().expect("anything is one");
        assert_eq!(format!("{secret:?}"), "…");
    }

    #[test]
    fn loopback_is_told_from_the_rest() {
        for here in ["localhost:1", "127.0.0.1:4433", "127.9.9.9:1", "[::1]:4433"] {
            assert!(is_loopback(here), "{here}");
        }
        for there in ["example.org:4433", "10.0.0.1:4433", "[2001:db8::1]:1", "localhost.example.org:1"] {
            assert!(!is_loopback(there), "{there}");
        }
    }
}
