//! The QUIC listener: accepts connections, each with a task of its own.
//!
//! Accepting never waits on one peer: handshake, `Hello` and each stream's first frame have five seconds and a task.

mod admin;
mod frames;
mod hint;
mod ingest;
mod publisher;
mod request;
mod session;
mod subscription;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicServerConfig};
use quinn::{
    Endpoint, EndpointConfig, IdleTimeout, Incoming, MtuDiscoveryConfig, ServerConfig, TokioRuntime, TransportConfig,
    VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use quipu_protocol::code::Code;
use quipu_queue::Store;
use ring::hmac;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::LimitsConfig;
use crate::services::Services;
pub(crate) use admin::{CALLS_MAX, Longer, Parts};
pub(crate) use frames::READ_BYTES;
pub(crate) use ingest::Ingest;
pub(crate) use publisher::{Names, WINDOW_MESSAGES};
pub(crate) use subscription::{UNANSWERED_MAX, WINDOW_BYTES, WRITE_BYTES};

/// Bytes of one stream that wait to be read.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Streams that a client may have open.
pub(crate) const BIDIRECTIONAL_STREAMS_MAX: u32 = 32;
const UNIDIRECTIONAL_STREAMS_MAX: u32 = 16;
/// Largest packet, in bytes, where the path carries it: fewer and larger ones cost both sides less. As the client has it.
const UDP_PAYLOAD_BYTES_MAX: u16 = 6_000;
/// A connection without a packet for so long is gone.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// For the handshake with `Hello`, and for a stream's first frame.
pub(crate) const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes under way past which a peer must first show that its address is its own.
const UNVALIDATED_MAX: usize = 64;
/// For the peers to be told that the listener closes.
pub(crate) const CLOSE_WAIT: Duration = Duration::from_millis(500);
/// First packets that wait to be accepted, and their bytes.
const INCOMING_MAX: usize = 1_024;
pub(crate) const INCOMING_BYTES: u64 = 8 << 20;

/// What secret of the store makes stateless resets recognisable.
const RESET_PURPOSE: &str = "quipu 2026-11 QUIC stateless reset";

/// A bound socket that does not accept yet.
pub(crate) struct Listener {
    endpoint: Endpoint,
    sessions_max: usize,
}

/// Why the listener cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("cannot listen on {address}: {source}{hint}")]
    Bind { address: SocketAddr, source: io::Error, hint: &'static str },
    #[error("cannot use the socket: {0}")]
    Endpoint(#[source] io::Error),
    #[error("the TLS configuration has no cipher suite for QUIC's first packets: {0}")]
    Cipher(#[from] NoInitialCipherSuite),
}

/// Binds the socket, before anything that takes time.
pub(crate) fn bind(address: SocketAddr) -> Result<UdpSocket, ListenError> {
    UdpSocket::bind(address).map_err(|source| {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => "; another program has the port: stop it, or set another `listen.quic`",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege: set another `listen.quic`",
            _ => "",
        };
        ListenError::Bind { address, source, hint }
    })
}

impl Listener {
    /// Takes a socket. A router that is killed and comes back on the same address and store answers the packets of
    /// connections that it no longer knows with resets that their clients recognise (RFC 9000, 10.3): they reconnect
    /// at once, not after the idle timeout.
    pub(crate) fn new(
        socket: UdpSocket,
        tls: rustls::ServerConfig,
        store: &Store,
        limits: &LimitsConfig,
    ) -> Result<Self, ListenError> {
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        config.transport_config(Arc::new(transport(limits)));
        config.max_incoming(INCOMING_MAX).incoming_buffer_size(64 << 10).incoming_buffer_size_total(INCOMING_BYTES);
        let secret = store.secret(RESET_PURPOSE);
        let mut endpoint = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &secret)));
        let connection_ids = u64::from_le_bytes(*secret.first_chunk().expect("32 bytes have 8"));
        endpoint.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connection_ids)));
        // Below what any version of QUIC asks for it would fail; this is far above.
        endpoint.max_udp_payload_size(UDP_PAYLOAD_BYTES_MAX).expect("more than 1,200 bytes");
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new(endpoint, Some(config), socket, runtime).map_err(ListenError::Endpoint)?;
        Ok(Self { endpoint, sessions_max: limits.sessions })
    }

    /// Where it listens: the port is the real one where the configuration said 0.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Accepts until `stop` is cancelled, then lets the sessions say goodbye for `grace` and closes what is left.
    pub(crate) async fn run(self, services: Arc<Services>, stop: CancellationToken, grace: Duration) {
        let sessions = TaskTracker::new();
        let handshakes = Arc::new(AtomicUsize::new(0));
        let open = Arc::new(AtomicUsize::new(0));
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => {
                        let peer =
                            Peer { handshakes: handshakes.clone(), open: open.clone(), open_max: self.sessions_max };
                        admit(incoming, peer, &sessions, services.clone(), stop.clone(), grace);
                    }
                    None => break,
                },
            }
        }
        sessions.close();
        if tokio::time::timeout(grace, sessions.wait()).await.is_err() {
            tracing::warn!(sessions = sessions.len(), "sessions did not end in time and are closed");
        }
        self.endpoint.close(VarInt::from_u32(Code::Stopping as u32), b"the router stops");
        // What tells the peers; a peer that does not answer is not waited for.
        tokio::time::timeout(CLOSE_WAIT, self.endpoint.wait_idle()).await.ok();
    }
}

/// Counts a peer among the handshakes, then among the sessions.
struct Peer {
    handshakes: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    open_max: usize,
}

/// Takes one from a counter when dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(counter: Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::AcqRel);
        Self(counter)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn admit(
    incoming: Incoming,
    peer: Peer,
    sessions: &TaskTracker,
    services: Arc<Services>,
    stop: CancellationToken,
    grace: Duration,
) {
    if peer.open.load(Ordering::Acquire) >= peer.open_max {
        tracing::warn!(limit = peer.open_max, peer = %incoming.remote_address(), "refused: too many sessions");
        return incoming.refuse();
    }
    if peer.handshakes.load(Ordering::Acquire) >= UNVALIDATED_MAX && incoming.may_retry() {
        // Ignored: a peer that was validated meanwhile just comes again.
        incoming.retry().ok();
        return;
    }
    let handshake = Counted::new(peer.handshakes);
    let session = Counted::new(peer.open);
    sessions.spawn(async move {
        let address = incoming.remote_address();
        let connection = async { incoming.accept()?.await };
        let due = Instant::now() + FIRST_FRAME_TIMEOUT;
        let connected = tokio::time::timeout_at(due, connection).await;
        drop(handshake);
        match connected {
            Ok(Ok(connection)) => session::run(connection, due, services, stop, grace).await,
            Ok(Err(e)) => tracing::info!(peer = %address, %e, "a handshake failed"),
            Err(_) => tracing::info!(peer = %address, "a handshake took too long"),
        }
        drop(session);
    });
}

fn transport(limits: &LimitsConfig) -> TransportConfig {
    let window = limits.connection_window_bytes;
    let mut transport = TransportConfig::default();
    let mut path = MtuDiscoveryConfig::default();
    path.upper_bound(UDP_PAYLOAD_BYTES_MAX);
    transport
        .mtu_discovery_config(Some(path))
        .receive_window(VarInt::from_u32(window))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES.min(window)))
        .send_window(window.into())
        .datagram_receive_buffer_size(None)
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDIRECTIONAL_STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(UNIDIRECTIONAL_STREAMS_MAX))
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok());
    transport
}
