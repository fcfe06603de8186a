//! One attempt at a connection: resolve, handshake, `Hello`, `Welcome`.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{ConnectionError, Endpoint, TransportErrorCode};
use quipu_protocol::frame::{Body, Frame};
use quipu_protocol::{VERSION, proto};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::config::ClientConfig;
use crate::error::Refusal;
use crate::link::Session;
use crate::stream::{FrameWriter, Frames};
use crate::tls::{self, IdentityError, TrustError};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// How much later than the one before it an address is tried, as in RFC 8305 (Happy Eyeballs).
const ADDRESS_STAGGER: Duration = Duration::from_millis(250);

/// Largest packet that is tried on a path, and taken from it. Where it carries more than Ethernet does (loopback, jumbo
/// frames), fewer packets do the same for a third less time. Ten, which quinn hands to the system at once, must stay
/// below the 65,507 bytes that UDP has.
const UDP_PAYLOAD_BYTES_MAX: u16 = 6_000;

/// TLS alert `no_application_protocol` (RFC 7301).
const ALERT_NO_APPLICATION_PROTOCOL: u8 = 120;
/// TLS alerts that say what is wrong with a certificate (RFC 8446, 6.2).
const ALERTS_OF_CERTIFICATES: [u8; 10] = [42, 43, 44, 45, 46, 47, 48, 49, 51, 116];

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The certificates to trust cannot be read.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The client's own certificate or key cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The host has no address.
    #[error("cannot resolve {server}: {source}")]
    Resolve {
        /// As configured.
        server: String,
        /// The system's words.
        source: io::Error,
    },
    /// No local socket, or an address that cannot be used.
    #[error("cannot use the network: {0}")]
    Network(String),
    /// Silence.
    #[error("no answer from {server} within {} ms; is the router running there?", .after.as_millis())]
    TimedOut {
        /// As configured.
        server: String,
        /// The configured time.
        after: Duration,
    },
    /// The TLS handshake failed: mostly a certificate of the router that is not trusted, or for another name.
    #[error("the TLS handshake with {server} failed: {why}")]
    Tls {
        /// As configured.
        server: String,
        /// What is wrong.
        why: String,
    },
    /// The router does not take the client's certificate ([`ClientConfig::identity`]).
    #[error("{server} does not accept this client's certificate: {why}")]
    CertificateRefused {
        /// As configured.
        server: String,
        /// What is wrong with it.
        why: String,
    },
    /// Something else listens there.
    #[error("{server} speaks QUIC, but not quipu/1")]
    Alpn {
        /// As configured.
        server: String,
    },
    /// The router does not want this client.
    #[error("the router refuses this client: {0}")]
    Refused(Refusal),
    /// The router's answer is not a welcome.
    #[error("the router broke the protocol: {0}")]
    Protocol(String),
    /// The connection was lost before the welcome.
    #[error("lost the connection to {server}: {source}")]
    Disconnected {
        /// As configured.
        server: String,
        /// How.
        source: ConnectionError,
    },
}

impl ConnectError {
    /// Whether another attempt may do better without anyone changing anything.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.retryable,
            Self::Protocol(_) => false,
            _ => true,
        }
    }
}

/// A welcomed connection and its control stream.
pub(crate) struct Connected {
    pub(crate) session: Session,
    pub(crate) writer: FrameWriter,
    pub(crate) frames: Frames,
}

/// Tries once, for at most the configured time.
pub(crate) async fn connect(config: &ClientConfig) -> Result<Connected, ConnectError> {
    let after = config.connect_timeout;
    let timed_out = || ConnectError::TimedOut { server: config.server.clone(), after };
    tokio::time::timeout(after, attempt(config)).await.unwrap_or_else(|_| Err(timed_out()))
}

async fn attempt(config: &ClientConfig) -> Result<Connected, ConnectError> {
    let (trust, identity) = (config.trust.clone(), config.identity.clone());
    let crypto = tokio::task::spawn_blocking(move || tls::crypto(&trust, identity.as_ref())).await;
    let crypto = crypto.map_err(|e| ConnectError::Network(e.to_string()))??;
    let mut quic = quinn::ClientConfig::new(Arc::new(crypto));
    quic.transport_config(Arc::new(transport()));
    let (endpoint, connection) = first_to_answer(config, quic, resolve(config).await?).await?;
    hello(config, endpoint, connection).await
}

fn transport() -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(10)));
    transport.max_idle_timeout(Some(quinn::VarInt::from_u32(30_000).into()));
    let mut path = quinn::MtuDiscoveryConfig::default();
    path.upper_bound(UDP_PAYLOAD_BYTES_MAX);
    transport.mtu_discovery_config(Some(path));
    // Routers open no streams.
    transport.max_concurrent_bidi_streams(0_u8.into()).max_concurrent_uni_streams(0_u8.into());
    transport
}

async fn resolve(config: &ClientConfig) -> Result<Vec<SocketAddr>, ConnectError> {
    let failed = |source| ConnectError::Resolve { server: config.server.clone(), source };
    let found = tokio::net::lookup_host(&config.server).await.map_err(failed)?;
    let addresses: Vec<_> = found.take(ADDRESSES_MAX).collect();
    if addresses.is_empty() { Err(failed(io::ErrorKind::NotFound.into())) } else { Ok(addresses) }
}

/// Tries the addresses, each a little later than the one before; the others are given up for the first that answers.
async fn first_to_answer(
    config: &ClientConfig,
    quic: quinn::ClientConfig,
    addresses: Vec<SocketAddr>,
) -> Result<(Endpoint, quinn::Connection), ConnectError> {
    let mut attempts = JoinSet::new();
    for (delay, address) in (0_u32..).map(|n| ADDRESS_STAGGER * n).zip(addresses) {
        let (config, quic) = (config.clone(), quic.clone());
        attempts.spawn(async move {
            tokio::time::sleep(delay).await;
            handshake(&config, quic, address).await
        });
    }
    let mut failure = None;
    while let Some(done) = attempts.join_next().await {
        match done.map_err(|e| ConnectError::Network(e.to_string())).flatten() {
            Ok(connected) => return Ok(connected),
            Err(e) => failure = Some(failure.unwrap_or(e)),
        }
    }
    Err(failure.unwrap_or_else(|| ConnectError::Network("no address".into())))
}

async fn handshake(
    config: &ClientConfig,
    quic: quinn::ClientConfig,
    address: SocketAddr,
) -> Result<(Endpoint, quinn::Connection), ConnectError> {
    let network = |e: &dyn std::fmt::Display| ConnectError::Network(e.to_string());
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let mut quic_endpoint = quinn::EndpointConfig::default();
    quic_endpoint.max_udp_payload_size(UDP_PAYLOAD_BYTES_MAX).map_err(|e| network(&e))?;
    let socket = std::net::UdpSocket::bind(any).map_err(|e| network(&e))?;
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = Endpoint::new(quic_endpoint, None, socket, runtime).map_err(|e| network(&e))?;
    let connecting = endpoint.connect_with(quic, address, config.certificate_name()).map_err(|e| network(&e))?;
    let connection = connecting.await.map_err(|e| disconnected(config, e))?;
    Ok((endpoint, connection))
}

async fn hello(
    config: &ClientConfig,
    endpoint: Endpoint,
    connection: quinn::Connection,
) -> Result<Connected, ConnectError> {
    let lost = |e| disconnected(config, e);
    let (send, receive) = connection.open_bi().await.map_err(lost)?;
    let (mut writer, mut frames) = (FrameWriter::new(send), Frames::new(receive));
    writer.push(proto::Hello {
        versions: vec![VERSION],
        client: config.name.clone(),
        credential: config.token.clone().unwrap_or_default(),
    });
    // Where this fails the connection is gone, and reading says how.
    writer.write_all().await.ok();
    let welcome = match frames.next().await {
        Some(Ok(Frame { body: Body::Welcome(welcome), .. })) => welcome,
        Some(Ok(Frame { body: Body::Error(error), .. })) => return Err(ConnectError::Refused(error.into())),
        Some(Ok(other)) => return Err(ConnectError::Protocol(format!("{} in answer to Hello", other.body.name()))),
        Some(Err(e)) => return Err(unwelcome(config, &connection, &e.to_string())),
        None => return Err(unwelcome(config, &connection, "the control stream ended before Welcome")),
    };
    if welcome.version != VERSION {
        return Err(ConnectError::Protocol(format!("version {} chosen, {VERSION} offered", welcome.version)));
    }
    tracing::debug!(router = welcome.router, session = welcome.session, "connected");
    let limits = welcome.limits.unwrap_or_default().into();
    let session = Session { connection, endpoint, limits, name: welcome.session, streams: TaskTracker::new() };
    Ok(Connected { session, writer, frames })
}

fn unwelcome(config: &ClientConfig, connection: &quinn::Connection, why: &str) -> ConnectError {
    match connection.close_reason() {
        Some(reason) => disconnected(config, reason),
        None => ConnectError::Protocol(why.into()),
    }
}

fn disconnected(config: &ClientConfig, reason: ConnectionError) -> ConnectError {
    let server = config.server.clone();
    let alert = |code: TransportErrorCode| u8::try_from(u64::from(code).wrapping_sub(0x100)).ok();
    let (alert, why, is_ours) = match &reason {
        ConnectionError::TransportError(e) => (alert(e.code), e.reason.clone(), true),
        ConnectionError::ConnectionClosed(e) => {
            (alert(e.error_code), String::from_utf8_lossy(&e.reason).into_owned(), false)
        }
        ConnectionError::ApplicationClosed(close) => {
            let text = String::from_utf8_lossy(&close.reason).into_owned();
            return ConnectError::Refused(Refusal::from_close(close.error_code.into_inner(), text));
        }
        ConnectionError::TimedOut => return ConnectError::TimedOut { server, after: config.connect_timeout },
        _ => (None, String::new(), true),
    };
    match alert {
        Some(ALERT_NO_APPLICATION_PROTOCOL) => ConnectError::Alpn { server },
        Some(alert) if !is_ours && config.identity.is_some() && ALERTS_OF_CERTIFICATES.contains(&alert) => {
            ConnectError::CertificateRefused { server, why: about_certificate(&why).unwrap_or(why) }
        }
        Some(_) => {
            let about = about_certificate(&why).filter(|_| is_ours);
            ConnectError::Tls { server, why: about.map_or(why, |about| format!("the router's certificate: {about}")) }
        }
        None => ConnectError::Disconnected { server, source: reason },
    }
}

/// What rustls says of a certificate, in plain words where it has none.
fn about_certificate(why: &str) -> Option<String> {
    let about = why.strip_prefix("invalid peer certificate: ")?;
    Some(match about {
        "UnknownIssuer" => "it is from an unknown authority, none that is trusted here (UnknownIssuer)".into(),
        "BadSignature" => {
            "its signature is not that of the authority it names, or its key is weak (BadSignature)".into()
        }
        about => about.into(),
    })
}
