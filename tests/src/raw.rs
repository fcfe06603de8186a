//! A peer that speaks QUIC and frames, and keeps no rule that it is not made to keep.

use std::sync::Arc;

use bytes::BytesMut;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use quipu_protocol::frame::{self, Body, Frame};
use quipu_protocol::{ALPN, proto};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::{TestServer, soon};

/// A connection.
pub struct RawClient {
    /// To open streams, and to see how it ends.
    pub connection: Connection,
    _endpoint: Endpoint,
}

/// A stream, for frames and for bytes that are none.
pub struct RawStream {
    /// The sending side.
    pub send: SendStream,
    /// The receiving side.
    pub recv: RecvStream,
    buffer: BytesMut,
}

impl RawClient {
    /// Connects with these protocols offered; says nothing yet.
    ///
    /// # Errors
    ///
    /// As the handshake.
    ///
    /// # Panics
    ///
    /// Where the machine has no loopback, or the server no certificate.
    pub async fn handshake(server: &TestServer, alpn: &[u8]) -> Result<Self, quinn::ConnectionError> {
        let mut roots = RootCertStore::empty();
        let pem = std::fs::read(server.certificate()).expect("a certificate");
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.expect("PEM")).expect("a certificate");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider);
        let tls = tls.with_protocol_versions(&[&rustls::version::TLS13]).expect("TLS 1.3");
        let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("a cipher suite")));
        let mut endpoint = Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket");
        endpoint.set_default_client_config(config);
        let address = server.address().parse().expect("an address");
        let connection = endpoint.connect(address, "localhost").expect("valid").await?;
        Ok(Self { connection, _endpoint: endpoint })
    }

    /// Connects and says `Hello`; also the control stream, which must be kept.
    ///
    /// # Panics
    ///
    /// Where it is not welcome.
    pub async fn connect(server: &TestServer) -> (Self, RawStream) {
        let client = soon("a handshake", Self::handshake(server, ALPN)).await.expect("connected");
        let mut control = client.open().await;
        let hello = proto::Hello { versions: vec![1], client: "raw".into(), credential: String::new() };
        control.put(hello).await;
        assert!(matches!(control.next().await.expect("an answer").body, Body::Welcome(_)));
        (client, control)
    }

    /// A new stream.
    ///
    /// # Panics
    ///
    /// Where there is none.
    pub async fn open(&self) -> RawStream {
        let (send, recv) = soon("a stream", self.connection.open_bi()).await.expect("a stream");
        RawStream { send, recv, buffer: BytesMut::new() }
    }
}

impl RawStream {
    /// Writes a frame.
    ///
    /// # Panics
    ///
    /// Where the stream is closed, or nobody reads for a long time.
    pub async fn put(&mut self, frame: impl Into<Frame>) {
        let mut bytes = BytesMut::new();
        frame.into().encode(&mut bytes);
        soon("writing", self.send.write_all(&bytes)).await.expect("an open stream");
    }

    /// The next frame; none where the stream is over.
    ///
    /// # Panics
    ///
    /// Where what came is no frame, or nothing comes for a long time.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(raw) = frame::split(&mut self.buffer).expect("a frame") {
                return Some(Frame::decode(raw).expect("a frame").expect("a known type"));
            }
            let mut chunk = [0; 16 << 10];
            match soon("a frame", self.recv.read(&mut chunk)).await {
                Ok(Some(n)) => self.buffer.extend_from_slice(&chunk[..n]),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The error that the stream ends with.
    ///
    /// # Panics
    ///
    /// Where something else comes first.
    pub async fn error(&mut self) -> proto::Error {
        match self.next().await {
            Some(Frame { body: Body::Error(error), .. }) => error,
            other => panic!("{other:?} where an error should be"),
        }
    }
}
