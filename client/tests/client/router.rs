//! A router that does nothing by itself: tests read its frames and say its answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{Connection, Endpoint, ReadError, RecvStream, SendStream, VarInt};
use quipu_client::{
    Client, ClientConfig, Message, Publisher, PublisherOptions, Reconnect, Subscribe, Subscriber, Trust,
};
use quipu_protocol::code::Code;
use quipu_protocol::frame::{Body, Frame, split};
use quipu_protocol::{ALPN, MessageId, VERSION, proto};
use rcgen::{CertificateParams, CertifiedKey, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// No test hangs for longer.
pub(crate) async fn timely<F: Future>(test: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), test).await.expect("within 30 s")
}

/// What a router shows of itself in the handshake.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// As a router makes it for development.
    pub(crate) fn self_signed() -> Self {
        let params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).expect("params");
        Self::from_params(&params)
    }

    pub(crate) fn from_params(params: &CertificateParams) -> Self {
        let signing_key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&signing_key).expect("a certificate");
        CertifiedKey { cert, signing_key }.into()
    }
}

impl From<CertifiedKey<KeyPair>> for Identity {
    fn from(made: CertifiedKey<KeyPair>) -> Self {
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        Self { chain: vec![made.cert.der().clone()], key }
    }
}

pub(crate) struct FakeRouter {
    endpoint: Endpoint,
    certificate: Vec<u8>,
}

impl FakeRouter {
    pub(crate) fn start() -> Self {
        Self::start_as(Identity::self_signed(), ALPN, 32)
    }

    pub(crate) fn start_as(identity: Identity, alpn: &[u8], streams: u32) -> Self {
        let certificate = identity.chain[0].to_vec();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(identity.chain, identity.key)
            .expect("a certificate and its key");
        tls.alpn_protocols = vec![alpn.to_vec()];
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).expect("QUIC's cipher suites");
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let mut transport = quinn::TransportConfig::default();
        transport.max_concurrent_bidi_streams(streams.into());
        config.transport_config(Arc::new(transport));
        let mut path = quinn::EndpointConfig::default();
        path.max_udp_payload_size(6_000).expect("a size");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let endpoint = Endpoint::new(path, Some(config), socket, Arc::new(quinn::TokioRuntime)).expect("a port");
        Self { endpoint, certificate }
    }

    /// For a client that trusts this router, and loses no time.
    pub(crate) fn client_config(&self) -> ClientConfig {
        let moment = Duration::from_millis(1);
        ClientConfig {
            server: self.endpoint.local_addr().expect("bound").to_string(),
            trust: Trust::Certificate(self.certificate.clone()),
            name: "test".into(),
            reconnect: Reconnect { delay_min: moment, delay_max: moment, ..Reconnect::default() },
            ..ClientConfig::default()
        }
    }

    pub(crate) async fn accept(&self) -> Connection {
        self.endpoint.accept().await.expect("open").await.expect("a handshake")
    }

    /// The next client, up to its `Hello`.
    pub(crate) async fn hello(&self) -> Peer {
        let connection = self.accept().await;
        let mut control = Duplex::accept(&connection).await;
        let Body::Hello(hello) = control.next().await.body else { panic!("Hello comes first") };
        assert_eq!((hello.versions, hello.client.as_str()), (vec![VERSION], "test"));
        Peer { connection, control }
    }

    /// The next client, welcomed.
    pub(crate) async fn welcome(&self) -> Peer {
        let mut peer = self.hello().await;
        let limits =
            proto::Limits { payload_bytes: 1 << 20, headers: 64, bidirectional_streams: 32, settle_tokens: 1024 };
        let (session, router) = ("s1".into(), "fake".into());
        peer.control.send(proto::Welcome { version: VERSION, session, limits: Some(limits), router }).await;
        peer
    }

    pub(crate) async fn client(&self) -> (Client, Peer) {
        self.client_with(self.client_config()).await
    }

    pub(crate) async fn client_with(&self, config: ClientConfig) -> (Client, Peer) {
        let (client, peer) = tokio::join!(Client::connect(config), self.welcome());
        (client.expect("connected"), peer)
    }
}

/// A client's connection, seen from the router.
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    pub(crate) control: Duplex,
}

impl Peer {
    /// Loses the connection, as when the router is killed and started again.
    pub(crate) fn vanish(self) {
        self.connection.close(VarInt::from_u32(0), b"");
    }

    /// Accepts a publisher and grants it so many messages.
    pub(crate) async fn accept_publisher(&self, messages: u64) -> Duplex {
        let mut stream = Duplex::accept(&self.connection).await;
        assert_eq!(stream.next().await.body, Body::OpenPublisher(proto::OpenPublisher::default()));
        let credit = Some(proto::Credit { messages, bytes: 1 << 30 });
        stream.send(proto::Opened { last_sequence: 0, credit, epoch: 0 }).await;
        stream
    }

    /// Accepts a publisher of the name `till` that asks for this epoch, and answers that.
    pub(crate) async fn accept_named(&self, epoch: u64, opened: proto::Opened) -> Duplex {
        let mut stream = Duplex::accept(&self.connection).await;
        stream.expect(proto::OpenPublisher { name: "till".into(), epoch, stop_on_error: false }).await;
        stream.send(proto::Opened { credit: Some(proto::Credit { messages: 100, bytes: 1 << 30 }), ..opened }).await;
        stream
    }

    /// Accepts a subscription and reads its first credit.
    pub(crate) async fn accept_subscriber(&self) -> (Duplex, proto::Subscribe) {
        let subscribed = proto::Subscribed { created: true, credit_max: 1000, ..Default::default() };
        self.accept_subscriber_with(subscribed).await
    }

    pub(crate) async fn accept_subscriber_with(&self, answer: proto::Subscribed) -> (Duplex, proto::Subscribe) {
        let mut stream = Duplex::accept(&self.connection).await;
        let Body::Subscribe(subscribe) = stream.next().await.body else { panic!("a Subscribe") };
        stream.send(answer).await;
        let Body::Credit(_) = stream.next().await.body else { panic!("a Credit") };
        (stream, subscribe)
    }

    pub(crate) async fn publisher(&self, client: &Client, options: PublisherOptions) -> (Publisher, Duplex) {
        let (publisher, stream) = tokio::join!(client.publisher(options), self.accept_publisher(1 << 20));
        (publisher.expect("opened"), stream)
    }

    pub(crate) async fn subscriber(&self, client: &Client) -> (Subscriber, Duplex) {
        let (subscriber, (stream, subscribe)) =
            tokio::join!(client.subscribe(Subscribe::new("orders", "billing")), self.accept_subscriber());
        assert_eq!((subscribe.queue.as_str(), subscribe.subscription.as_str()), ("orders", "billing"));
        (subscriber.expect("subscribed"), stream)
    }
}

/// A stream of frames in both directions.
pub(crate) struct Duplex {
    pub(crate) send: SendStream,
    receive: RecvStream,
    buffer: BytesMut,
}

impl Duplex {
    pub(crate) async fn accept(connection: &Connection) -> Self {
        let (send, receive) = connection.accept_bi().await.expect("a stream");
        Self { send, receive, buffer: BytesMut::new() }
    }

    /// The next frame; none at the end.
    pub(crate) async fn read(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            if let Some(raw) = split(&mut self.buffer).expect("a frame") {
                return Ok(Some(Frame::decode(raw).expect("a frame").expect("known")));
            }
            match self.receive.read_chunk(1 << 16, true).await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.bytes),
                None => {
                    assert!(self.buffer.is_empty(), "ends inside a frame");
                    return Ok(None);
                }
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Frame {
        self.read().await.expect("readable").expect("a frame")
    }

    /// The next frame, a publish: its sequence and message.
    pub(crate) async fn publish(&mut self) -> (u64, Message) {
        let frame = self.next().await;
        let Body::Publish(publish) = frame.body else { panic!("a Publish, not {}", frame.body.name()) };
        let assigned = || MessageId::new("none").expect("an id");
        let (message, _) = Message::decode_published(&publish.message, frame.payload, 1, assigned).expect("a message");
        (publish.sequence, message)
    }

    /// The next frame, a settle: its verb and how many tokens, sorted.
    pub(crate) async fn settle(&mut self) -> proto::Settle {
        let frame = self.next().await;
        let Body::Settle(settle) = frame.body else { panic!("a Settle, not {}", frame.body.name()) };
        settle
    }

    pub(crate) async fn expect(&mut self, expected: impl Into<Frame>) {
        assert_eq!(self.next().await, expected.into());
    }

    /// Reads the client's FIN.
    pub(crate) async fn expect_fin(&mut self) {
        assert_eq!(self.read().await, Ok(None));
    }

    pub(crate) async fn send(&mut self, frame: impl Into<Frame>) {
        let mut bytes = BytesMut::new();
        frame.into().encode(&mut bytes);
        self.send.write_all(&bytes).await.expect("written");
    }

    /// Says that these are stored at the offsets of their sequences.
    pub(crate) async fn stored(&mut self, first: u64, last: u64) {
        let kinds = (first..=last).map(|sequence| proto::result::Kind::Stored(position(sequence)));
        self.receipt(first, kinds.collect()).await;
    }

    pub(crate) async fn receipt(&mut self, first: u64, kinds: Vec<proto::result::Kind>) {
        let last = first + kinds.len() as u64 - 1;
        let results = kinds.into_iter().map(|kind| proto::Result { kind: Some(kind) }).collect();
        self.send(proto::Receipt { first, last, results }).await;
    }

    pub(crate) async fn deliver(&mut self, token: u64, attempt: u32) {
        self.deliver_as(proto::Deliver { token, offset: token, attempt, why: 1, ..Default::default() }).await;
    }

    /// With a message made for its token.
    pub(crate) async fn deliver_as(&mut self, deliver: proto::Deliver) {
        let id = MessageId::new(&format!("m{}", deliver.token)).expect("an id");
        let message = Message::new(id, "orders.eu".parse().expect("a subject"), Bytes::new()).encode_header();
        let deliver = proto::Deliver { message, ..deliver };
        self.send(Frame::with_payload(deliver, Bytes::from_static(b"{}"))).await;
    }

    pub(crate) async fn committed(&mut self, tokens: &[u64]) {
        self.send(proto::Settled { committed: tokens.into(), ..Default::default() }).await;
    }

    /// Reads the client's end, and says the router's.
    pub(crate) async fn end(&mut self) {
        self.expect(proto::End {}).await;
        self.expect_fin().await;
        self.send(proto::End {}).await;
        self.send.finish().expect("open");
    }

    /// Fails the stream, as a router does.
    pub(crate) async fn fail(&mut self, code: Code, text: &str) {
        self.send(code.error(text)).await;
        self.send.finish().expect("open");
    }
}

pub(crate) fn position(offset: u64) -> proto::Stored {
    proto::Stored { positions: vec![proto::Position { queue: "orders".into(), offset }] }
}

/// Whether a future waits, after one look at it.
pub(crate) async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())).await
}
