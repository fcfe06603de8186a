//! Connecting, and all the ways in which it can go wrong: each is told apart.

use std::time::Duration;

use quipu_client::{Client, ClientConfig, Code, ConnectError, OpenError, OutgoingMessage, PublisherOptions, Trust};
use quipu_protocol::{ALPN, proto};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::router::{FakeRouter, Identity, timely};

async fn failure(config: ClientConfig) -> ConnectError {
    Client::connect(config).await.expect_err("no connection")
}

/// As a router does it that accepts whoever comes, until a handshake fails.
fn accept_all(router: FakeRouter) {
    tokio::spawn(async move {
        loop {
            router.welcome().await;
        }
    });
}

#[tokio::test]
async fn the_welcome_names_the_session() {
    timely(async {
        let router = FakeRouter::start();
        let (client, _peer) = router.client().await;
        assert_eq!(client.session().as_deref(), Some("s1"));
    })
    .await;
}

#[tokio::test]
async fn another_protocol_is_told_from_silence() {
    timely(async {
        let router = FakeRouter::start_as(Identity::self_signed(), b"h3", 32);
        let config = router.client_config();
        accept_all(router);
        let error = failure(config).await;
        assert!(matches!(error, ConnectError::Alpn { .. }), "{error}");
        // A port on which nothing answers.
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let server = silent.local_addr().expect("bound").to_string();
        let trust = Trust::Certificate(Identity::self_signed().chain[0].to_vec());
        let connect_timeout = Duration::from_millis(100);
        let error = failure(ClientConfig { server, trust, connect_timeout, ..ClientConfig::default() }).await;
        assert!(error.to_string().ends_with("within 100 ms; is the router running there?"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_name_without_an_address_is_told() {
    timely(async {
        let trust = Trust::Certificate(Identity::self_signed().chain[0].to_vec());
        let error = failure(ClientConfig { server: "no port".into(), trust, ..ClientConfig::default() }).await;
        assert!(matches!(error, ConnectError::Resolve { .. }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_or_for_another_name_is_refused() {
    timely(async {
        let router = FakeRouter::start();
        let config = router.client_config();
        accept_all(router);
        let stranger = Trust::Certificate(Identity::self_signed().chain[0].to_vec());
        let error = failure(ClientConfig { trust: stranger, ..config.clone() }).await;
        assert!(matches!(error, ConnectError::Tls { .. }), "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
    })
    .await;
    timely(async {
        let router = FakeRouter::start();
        let config = ClientConfig { server_name: Some("other.example".into()), ..router.client_config() };
        accept_all(router);
        let error = failure(config).await;
        assert!(error.to_string().contains("not valid for name"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_file_of_certificates_is_trusted() {
    timely(async {
        let router = FakeRouter::start();
        let Trust::Certificate(der) = router.client_config().trust else { panic!("a certificate") };
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cert.pem");
        let others = Identity::self_signed().chain[0].to_vec();
        std::fs::write(&path, pem(&others) + &pem(&der)).expect("written");
        let config = ClientConfig { trust: Trust::CertificateFile(path), ..router.client_config() };
        router.client_with(config).await;
    })
    .await;
}

fn pem(der: &[u8]) -> String {
    use std::fmt::Write;
    // Base64, by hand: 3 bytes make 4 characters.
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits =
                group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - group.len()));
            for index in 0..4 {
                let letter = char::from(ALPHABET[bits >> (18 - 6 * index) & 63]);
                text.write_char(if index <= group.len() { letter } else { '=' }).expect("written");
            }
        }
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

#[tokio::test]
async fn an_authority_vouches_for_the_router() {
    timely(async {
        let mut params = CertificateParams::new(vec![]).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("made");
        let signing_key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".into()]).expect("params");
        let cert = params.signed_by(&signing_key, &authority).expect("signed");
        let router = FakeRouter::start_as(rcgen::CertifiedKey { cert, signing_key }.into(), ALPN, 32);
        let trust = Trust::Certificate(authority.der().to_vec());
        router.client_with(ClientConfig { trust, ..router.client_config() }).await;
    })
    .await;
}

#[tokio::test]
async fn an_authoritys_certificate_is_no_routers() {
    timely(async {
        let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let router = FakeRouter::start_as(Identity::from_params(&params), ALPN, 32);
        let config = router.client_config();
        accept_all(router);
        let error = failure(config).await;
        assert!(error.to_string().contains("CaUsedAsEndEntity"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_refusal_has_a_code() {
    timely(async {
        let router = FakeRouter::start();
        let (error, _peer) = tokio::join!(failure(router.client_config()), async {
            let mut peer = router.hello().await;
            peer.control.send(Code::Forbidden.error("wrong credential")).await;
            peer
        });
        let ConnectError::Refused(refusal) = error else { panic!("refused") };
        assert_eq!((refusal.code(), refusal.text.as_str()), (Some(Code::Forbidden), "wrong credential"));
    })
    .await;
    timely(async {
        let router = FakeRouter::start();
        let (error, peer) = tokio::join!(failure(router.client_config()), async {
            let peer = router.hello().await;
            peer.connection.close((Code::Busy as u32).into(), b"full");
            peer
        });
        drop(peer);
        let ConnectError::Refused(refusal) = error else { panic!("refused") };
        assert_eq!((refusal.code(), refusal.retryable), (Some(Code::Busy), true));
    })
    .await;
}

#[tokio::test]
async fn the_stream_limit_is_named() {
    timely(async {
        let router = FakeRouter::start_as(Identity::self_signed(), ALPN, 2);
        let config = ClientConfig { open_timeout: Duration::from_millis(200), ..router.client_config() };
        let (client, peer) = router.client_with(config).await;
        let (_publisher, _stream) = peer.publisher(&client, PublisherOptions::default()).await;
        let error = client.publisher(PublisherOptions::default()).await.expect_err("no stream");
        assert!(matches!(error, OpenError::StreamLimit { limit: 32, .. }), "{error}");
        assert!(error.to_string().contains("limit is 32"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn pings_are_answered() {
    timely(async {
        let router = FakeRouter::start();
        let (_client, mut peer) = router.client().await;
        peer.control.send(proto::Ping { nonce: 7, answer: false }).await;
        peer.control.expect(proto::Ping { nonce: 7, answer: true }).await;
    })
    .await;
}

#[tokio::test]
async fn a_path_that_carries_large_packets_gets_them() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (publisher, mut stream) = peer.publisher(&client, PublisherOptions::default()).await;
        let received = || peer.connection.stats().udp_rx;
        // Larger ones are found while there is something to send; until then this goes on.
        for sequence in 1.. {
            let before = received();
            let message = OutgoingMessage::new("orders.eu", vec![0; 1 << 20]);
            let receipt = publisher.publish(message).await.expect("handed over");
            stream.publish().await;
            stream.stored(sequence, sequence).await;
            receipt.await.expect("stored");
            let after = received();
            if (after.bytes - before.bytes) / (after.datagrams - before.datagrams) > 3_000 {
                break;
            }
        }
    })
    .await;
}
