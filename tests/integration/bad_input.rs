//! Bad input of each kind: a clear error, nothing lost, and the router goes on.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use quipu_client::{
    Client, ClientConfig, ConnectError, OutgoingMessage, PublisherOptions, ReceiptError, Subscribe, SubscribeError,
    Trust,
};
use quipu_protocol::code::Code;
use quipu_protocol::frame::Body;
use quipu_protocol::{ALPN, proto};
use quipu_tests::{RawClient, RawStream, TestServer, output_of, soon};

use crate::QUIPU;

const CONFIG: &str = "[queue.q]\n";

/// After whatever was done, an honest client is served and finds nothing but its own message.
async fn still_serves(server: &mut TestServer) {
    assert!(server.is_running());
    let client = server.client().await;
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let receipt = publisher.publish(OutgoingMessage::new("q", "honest")).await.expect("published");
    soon("a receipt", receipt).await.expect("stored");
    let mut subscriber = client.subscribe(Subscribe::new("q", "honest")).await.expect("a subscriber");
    let delivery = soon("a delivery", subscriber.next()).await.expect("open").expect("a delivery");
    assert_eq!(delivery.message.payload, "honest");
    delivery.ack().await.expect("settled");
    client.close().await;
}

async fn publisher(client: &RawClient) -> RawStream {
    let mut stream = client.open().await;
    stream.put(proto::OpenPublisher::default()).await;
    assert!(matches!(stream.next().await.expect("an answer").body, Body::Opened(_)));
    stream
}

fn is(error: &proto::Error, code: Code, text: &str) {
    assert_eq!(Code::from_number(error.code), Some(code), "{error:?}");
    assert!(error.text.contains(text), "{error:?}");
}

#[tokio::test]
async fn a_frame_over_the_limit_is_refused_by_its_length_alone() {
    let mut server = TestServer::start(QUIPU, CONFIG).await;
    let (client, _control) = RawClient::connect(&server).await;
    let mut stream = publisher(&client).await;
    stream.send.write_all(&[0x7f, 0xff, 0xff, 0xff, 18]).await.expect("written");
    is(&stream.error().await, Code::TooLarge, "a frame of 2147483647 bytes; at most");
    // The other streams of the connection go on.
    publisher(&client).await;
    still_serves(&mut server).await;
}

#[tokio::test]
async fn garbage_on_a_stream_costs_that_stream() {
    let mut server = TestServer::start(QUIPU, CONFIG).await;
    let (client, _control) = RawClient::connect(&server).await;
    let mut garbage = client.open().await;
    garbage.send.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("written");
    is(&garbage.error().await, Code::TooLarge, "a frame of 1195725856 bytes");
    let mut nonsense = client.open().await;
    nonsense.send.write_all(&[0, 0, 0, 8, 18, 0, 0, 0, 3, 0xff, 0xff, 0xff]).await.expect("written");
    is(&nonsense.error().await, Code::Protocol, "malformed header of frame type 18");
    let mut cut = client.open().await;
    cut.send.write_all(&[0, 0, 0, 99, 18]).await.expect("written");
    cut.send.finish().expect("open");
    is(&cut.error().await, Code::Protocol, "ended inside a frame");
    let mut stray = client.open().await;
    stray.put(proto::Settled::default()).await;
    is(&stray.error().await, Code::Protocol, "no stream begins with Settled");
    let mut skipped = publisher(&client).await;
    is_over_a_limit(&client).await;
    skipped.put(proto::Publish { sequence: 7, ..Default::default() }).await;
    is(&skipped.error().await, Code::Protocol, "sequence 7 where 1 is next");
    still_serves(&mut server).await;
}

/// Other limits than that of a frame's length.
async fn is_over_a_limit(client: &RawClient) {
    let mut header = client.open().await;
    header.send.write_all(&[0, 7, 0, 0, 18, 0, 6, 0, 1]).await.expect("written");
    is(&header.error().await, Code::TooLarge, "a header of 393217 bytes");
    let mut elements = client.open().await;
    elements.send.write_all(&[0, 0, 0x10, 7, 35, 0, 0, 0x10, 2]).await.expect("written");
    elements.send.write_all(&[8, 1].repeat(2_049)).await.expect("written");
    is(&elements.error().await, Code::TooLarge, "more than 2048 elements");
}

#[tokio::test]
async fn a_hello_that_does_not_come_is_not_waited_for() {
    let server = TestServer::start(QUIPU, CONFIG).await;
    let client = RawClient::handshake(&server, ALPN).await.expect("connected");
    let mut control = client.open().await;
    control.send.write_all(&[0]).await.expect("written");
    is(&control.error().await, Code::Timeout, "no Hello within 5 s");
    let closed = soon("the end of the connection", client.connection.closed()).await;
    let quinn::ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed:?}") };
    assert_eq!(close.error_code.into_inner(), Code::Timeout as u64);
}

#[tokio::test]
async fn a_connection_begins_with_hello() {
    let mut server = TestServer::start(QUIPU, CONFIG).await;
    for (frame, code, text) in [
        (proto::Ping::default().into(), Code::Protocol, "the first frame of a connection is Hello, not Ping"),
        (
            proto::Hello { versions: vec![9], client: "x".into(), ..Default::default() }.into(),
            Code::Version,
            "speaks version 1",
        ),
        (proto::Hello { versions: vec![1], ..Default::default() }.into(), Code::Protocol, "Hello.client"),
    ] {
        let frame: quipu_protocol::frame::Frame = frame;
        let client = RawClient::handshake(&server, ALPN).await.expect("connected");
        let mut control = client.open().await;
        control.put(frame).await;
        is(&control.error().await, code, text);
        let closed = soon("the end of the connection", client.connection.closed()).await;
        let quinn::ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed:?}") };
        assert_eq!(close.error_code.into_inner(), code as u64);
    }
    still_serves(&mut server).await;
}

#[tokio::test]
async fn an_unknown_alpn_is_refused_in_the_handshake() {
    let mut server = TestServer::start(QUIPU, CONFIG).await;
    let Err(refused) = RawClient::handshake(&server, b"h3").await else { panic!("h3 is not refused") };
    assert!(refused.to_string().contains("application protocol") || refused.to_string().contains("120"), "{refused}");
    still_serves(&mut server).await;
}

#[tokio::test]
async fn an_unknown_queue_and_an_invalid_subject_are_named() {
    let mut server = TestServer::start(QUIPU, CONFIG).await;
    let client = server.client().await;
    let refused = client.subscribe(Subscribe::new("nothing", "s")).await.expect_err("refused");
    let SubscribeError::Refused(refusal) = refused else { panic!("{refused:?}") };
    assert_eq!((refusal.code(), refusal.text.as_str()), (Some(Code::UnknownQueue), "there is no queue \"nothing\""));
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let nowhere = publisher.publish(OutgoingMessage::new("no.where", "x")).await.expect("sent");
    let refused = soon("a receipt", nowhere).await.expect_err("refused");
    let ReceiptError::Refused(refusal) = refused else { panic!("{refused:?}") };
    assert_eq!((refusal.code(), refusal.text.as_str()), (Some(Code::NoQueue), "no queue or route takes `no.where`"));
    client.close().await;
    for (subject, text) in [("a..b", "empty token"), ("a b", "' '"), ("", "cannot be empty")] {
        let output = server.cli_output(&["pub", subject, "--message", "x"]).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(text), "{subject:?}: {error}");
        assert_eq!(output.status.code(), Some(1));
    }
    // A client that does not check is told by the router.
    let (raw, _control) = RawClient::connect(&server).await;
    let mut stream = publisher_of(&raw, &[0x12, 4, b'a', b'.', b'.', b'b']).await;
    let Body::Receipt(receipt) = stream.next().await.expect("a receipt").body else { panic!("no receipt") };
    let Some(proto::result::Kind::Error(error)) = &receipt.results[0].kind else { panic!("{receipt:?}") };
    is(error, Code::InvalidMessage, "invalid subject: subject \"a..b\" has an empty token");
    // What this router would not act upon it does not take either.
    let mut stream = publisher_of(&raw, &[0x12, 1, b'q', 0x40, 9]).await;
    let Body::Receipt(receipt) = stream.next().await.expect("a receipt").body else { panic!("no receipt") };
    let Some(proto::result::Kind::Error(error)) = &receipt.results[0].kind else { panic!("{receipt:?}") };
    is(error, Code::Unsupported, "deliver_at_ms is not offered by this router");
    still_serves(&mut server).await;
}

/// A publisher that has sent one message with this header.
async fn publisher_of(client: &RawClient, header: &'static [u8]) -> RawStream {
    let mut stream = publisher(client).await;
    stream.put(proto::Publish { sequence: 1, message: bytes::Bytes::from_static(header), resume: false }).await;
    stream
}

#[tokio::test]
async fn an_untrusted_certificate_and_an_absent_router_are_told_apart() {
    let server = TestServer::start(QUIPU, CONFIG).await;
    let other = TestServer::start(QUIPU, CONFIG).await;
    let config = |address: &str, certificate| ClientConfig {
        server: address.to_owned(),
        trust: Trust::CertificateFile(certificate),
        ..ClientConfig::default()
    };
    let refused = Client::connect(config(server.address(), other.certificate())).await.expect_err("refused");
    assert!(matches!(refused, ConnectError::Tls { .. }), "{refused:?}");
    let output = output_of(QUIPU, server.directory(), &["queue", "list", "--server", "127.0.0.1:9"]).await;
    assert_eq!(output.0, Some(1));
    assert!(output.2.contains("cannot connect to 127.0.0.1:9"), "{}", output.2);
}

async fn serve(directory: &Path, config: &str) -> (Option<i32>, String) {
    std::fs::write(directory.join("quipu.toml"), config).expect("written");
    let (code, _, error) = output_of(QUIPU, directory, &["serve"]).await;
    (code, error)
}

#[tokio::test]
async fn an_invalid_configuration_is_told_with_line_and_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = "[queue.q]\nmax_attempts = \"many\"\n";
    let (code, error) = serve(directory.path(), config).await;
    assert_eq!(code, Some(78), "{error}");
    assert!(error.contains("quipu.toml:2") && error.contains("queue.q.max_attempts"), "{error}");
    let (code, error) = serve(directory.path(), "[queue.q]\nmax_atempts = 3\n").await;
    assert_eq!(code, Some(78), "{error}");
    assert!(error.contains("quipu.toml:2") && error.contains("max_attempts"), "{error}");
    let route = "[queue.q]\n[[route]]\nname = \"r\"\nfrom = \"q\"\nwhen = \"subject ==\"\nto = [\"q2\"]\n[queue.q2]\n";
    let (code, error) = serve(directory.path(), route).await;
    assert_eq!(code, Some(78), "{error}");
    assert!(error.contains("quipu.toml:5") && error.contains("route[0].when"), "{error}");
    let (code, _, error) = output_of(QUIPU, directory.path(), &["check", "--config", "absent.toml"]).await;
    assert_eq!(code, Some(78));
    assert!(error.contains("absent.toml"), "{error}");
}

fn with_plugin(file: &str, config: &str) -> String {
    format!(
        "[listen]\nquic = \"127.0.0.1:0\"\n[plugin.p]\nfile = {file:?}\n[queue.q]\n[queue.q2]\n[[route]]\nname = \"r\"\n\
         from = \"q\"\nplugins = [{{ name = \"p\", config = {config} }}]\nto = [\"q2\"]\n"
    )
}

#[tokio::test]
async fn a_corrupt_plugin_is_named_by_serve_and_check() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("p.wasm"), b"\0asm\x0d\0\x01\0 and no more").expect("written");
    let (code, error) = serve(directory.path(), &with_plugin("p.wasm", "{}")).await;
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("p.wasm"), "{error}");
    let (code, _, error) = output_of(QUIPU, directory.path(), &["check"]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("p.wasm"), "{error}");
    let (_, error) = serve(directory.path(), &with_plugin("absent.wasm", "{}")).await;
    assert!(error.contains("cannot read") && error.contains("absent.wasm"), "{error}");
    let stock = with_plugin("x", "{ field = \"a\", at_least = \"high\" }").replace("[plugin.p]\nfile = \"x\"\n", "");
    let (_, error) = serve(directory.path(), &stock.replace("name = \"p\"", "name = \"filter-json\"")).await;
    assert!(error.contains("route \"r\", plugin 1 of 1") && error.contains("at_least"), "{error}");
    std::fs::write(directory.path().join("quipu.toml"), &stock).expect("written");
    let (code, said, _) = output_of(QUIPU, directory.path(), &["check"]).await;
    assert_eq!(code, Some(0));
    assert!(said.contains("note: plugin \"p\": neither a file nor stock"), "{said}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let server = TestServer::start(QUIPU, CONFIG).await;
    let directory = tempfile::tempdir().expect("a directory");
    let (code, error) = serve(directory.path(), &format!("[listen]\nquic = {:?}\n", server.address())).await;
    assert_eq!(code, Some(1));
    assert!(error.contains(server.address()) && error.contains("another program has the port"), "{error}");
}

#[tokio::test]
async fn beyond_loopback_a_certificate_is_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let (code, error) = serve(directory.path(), "[listen]\nquic = \"0.0.0.0:0\"\n").await;
    assert_eq!(code, Some(1));
    assert!(error.contains("refusing to listen on 0.0.0.0:0 without [tls]"), "{error}");
}

#[tokio::test]
async fn a_store_in_use_is_left_alone() {
    let mut server = TestServer::start(QUIPU, CONFIG).await;
    let config = "[listen]\nquic = \"127.0.0.1:0\"\n[store]\npath = \"data\"\n[queue.q]\n";
    std::fs::write(server.directory().join("second.toml"), config).expect("written");
    let (code, _, error) = output_of(QUIPU, server.directory(), &["serve", "--config", "second.toml"]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("data is in use by another quipu process"), "{error}");
    still_serves(&mut server).await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    // A file where the directory should be: that stops even a user whom permissions do not.
    std::fs::write(directory.path().join("taken"), "").expect("written");
    let (code, error) =
        serve(directory.path(), "[listen]\nquic = \"127.0.0.1:0\"\n[store]\npath = \"taken/data\"\n").await;
    assert_eq!(code, Some(1));
    assert!(error.contains("taken/data") && error.contains("Not a directory"), "{error}");
    let sealed = directory.path().join("sealed");
    std::fs::create_dir(&sealed).expect("made");
    std::fs::set_permissions(&sealed, std::fs::Permissions::from_mode(0o500)).expect("sealed");
    if std::fs::write(sealed.join("probe"), "").is_err() {
        let (code, error) =
            serve(directory.path(), "[listen]\nquic = \"127.0.0.1:0\"\n[store]\npath = \"sealed/data\"\n").await;
        assert_eq!(code, Some(1));
        assert!(error.contains("sealed/data") && error.contains("Permission denied"), "{error}");
    }
}
