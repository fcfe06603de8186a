//! Who may do what, over real certificates and tokens: each fault has an error of its own, and each refusal says which
//! right was missing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use quipu_client::{
    CallError, Client, ClientConfig, ConnectError, Identity, Lost, OutgoingMessage, PublishError, PublisherOptions,
    Reconnect, Refusal, Subscribe, SubscribeError, Trust,
};
use quipu_protocol::ALPN;
use quipu_protocol::code::Code;
use quipu_tests::{RawClient, TestServer, output_of, quipu, soon};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PublicKeyData, SigningKey};
use rsa::pkcs1::EncodeRsaPublicKey as _;
use rsa::pkcs1v15::SigningKey as RsaSigningKey;
use rsa::pkcs8::{EncodePrivateKey as _, LineEnding};
use rsa::sha2::Sha256;
use rsa::signature::{SignatureEncoding as _, Signer as _};
use serde_json::json;
use tempfile::TempDir;

use crate::QUIPU;

/// One that vouches for routers and clients.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("made"))
    }

    /// Writes `NAME.pem` and `NAME.key`, a certificate for these names, and gives both paths.
    fn issue(&self, directory: &Path, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().expect("a key");
        self.issue_for(directory, name, &key, key.serialize_pem(), change)
    }

    fn issue_for(
        &self,
        directory: &Path,
        name: &str,
        key: &impl SigningKey,
        key_pem: String,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).expect("params");
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let certificate = params.signed_by(key, &self.0).expect("signed");
        let identity = named(directory, name);
        std::fs::write(&identity.certificate, certificate.pem()).expect("written");
        std::fs::write(&identity.key, key_pem).expect("written");
        identity
    }
}

fn named(directory: &Path, name: &str) -> Identity {
    let file = |end: &str| directory.join(format!("{name}.{end}"));
    Identity { certificate: file("pem"), key: file("key") }
}

fn expired(params: &mut CertificateParams) {
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
}

fn not_yet_valid(params: &mut CertificateParams) {
    params.not_before = rcgen::date_time_ymd(2090, 1, 1);
    params.not_after = rcgen::date_time_ymd(2091, 1, 1);
}

/// What `[user.NAME]` has of a token.
fn hash_of(token: &str) -> String {
    format!("blake3:{}", blake3::hash(token.as_bytes()).to_hex())
}

/// A directory with an authority (`certificate.pem`, where tests look for what to trust) and a router's certificate.
fn files() -> (TempDir, Authority) {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new("Test authority");
    std::fs::write(directory.path().join("certificate.pem"), authority.0.pem()).expect("written");
    authority.issue(directory.path(), "router", |_| {});
    (directory, authority)
}

const TLS: &str = "[tls]\ncertificate = \"router.pem\"\nkey = \"router.key\"\nclient_ca = \"certificate.pem\"\n";

fn config(server: &TestServer) -> ClientConfig {
    ClientConfig {
        server: server.address().to_owned(),
        trust: Trust::CertificateFile(server.certificate()),
        name: "test".into(),
        reconnect: Reconnect { delay_max: Duration::from_millis(200), ..Reconnect::default() },
        ..ClientConfig::default()
    }
}

async fn connect(config: ClientConfig) -> Result<Client, ConnectError> {
    soon("connecting", Client::connect(config)).await
}

async fn with_token(server: &TestServer, token: &str) -> Result<Client, ConnectError> {
    connect(ClientConfig { token: Some(token.into()), ..config(server) }).await
}

async fn with_identity(server: &TestServer, identity: Identity) -> Result<Client, ConnectError> {
    connect(ClientConfig { identity: Some(identity), ..config(server) }).await
}

/// The text of why there is no connection.
#[track_caller]
fn failure(connected: Result<Client, ConnectError>) -> String {
    match connected {
        Err(e) => e.to_string(),
        Ok(_) => panic!("connected"),
    }
}

/// The text of a router's `Forbidden` at `Hello`.
#[track_caller]
fn refused(connected: Result<Client, ConnectError>) -> String {
    match connected {
        Err(ConnectError::Refused(refusal)) => forbidden(&refusal),
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("connected"),
    }
}

#[track_caller]
fn forbidden(refusal: &Refusal) -> String {
    assert_eq!((refusal.code(), refusal.retryable), (Some(Code::Forbidden), false), "{refusal}");
    refusal.text.clone()
}

/// Waits until the router's log has this text.
async fn logged(server: &TestServer, text: &str) {
    let log = server.directory().join("log");
    soon(text, async {
        while !tokio::fs::read_to_string(&log).await.expect("a log").contains(text) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// What `serve` says that does not start.
async fn not_started(directory: &Path, config: &str) -> String {
    std::fs::write(directory.join("other.toml"), format!("[listen]\nquic = \"127.0.0.1:0\"\n{config}"))
        .expect("written");
    let (code, _, error) = output_of(QUIPU, directory, &["serve", "--config", "other.toml"]).await;
    assert_eq!(code, Some(1), "{error}");
    error
}

/// An RSA key that is too short for the library that makes the others.
struct WeakKey(RsaSigningKey<Sha256>, Vec<u8>);

impl WeakKey {
    fn new() -> (Self, String) {
        let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 1_024).expect("a key");
        let pem = key.to_pkcs8_pem(LineEnding::LF).expect("PEM").to_string();
        let public = key.to_public_key().to_pkcs1_der().expect("DER").into_vec();
        (Self(RsaSigningKey::new(key), public), pem)
    }
}

impl PublicKeyData for WeakKey {
    fn der_bytes(&self) -> &[u8] {
        &self.1
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_RSA_SHA256
    }
}

impl SigningKey for WeakKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.0.sign(message).to_vec())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_of_a_client_has_its_error() {
    let (directory, authority) = files();
    let path = directory.path().to_owned();
    let good = authority.issue(&path, "shop", |_| {});
    let users = format!(
        "{TLS}[queue.q]\n[user.shop]\ncertificate_name = \"SHOP\"\n\
         [user.old]\ntoken = \"{}\"\nrevoked = true\n[user.till]\ntoken = \"{}\"\nread = true\n",
        hash_of("the-old-one"),
        hash_of("the-till")
    );
    let server = TestServer::start_in(QUIPU, &users, directory).await;
    with_identity(&server, good.clone()).await.expect("a good certificate");
    let till = with_token(&server, "the-till").await.expect("a good token");

    // No client certificate, bad token, revoked user.
    assert_eq!(
        refused(connect(config(&server)).await),
        "this router asks who its clients are: a token is needed, or a client certificate"
    );
    assert_eq!(refused(with_token(&server, "the-tilt").await), "no user has this token");
    assert_eq!(refused(with_token(&server, "the-old-one").await), "user \"old\" is revoked");
    // A wrong name.
    let stranger = authority.issue(&path, "stranger", |_| {});
    let text = refused(with_identity(&server, stranger.clone()).await);
    assert!(text.starts_with("no user has this client certificate (localhost, stranger; sha256:"), "{text}");
    // Two that do not belong together.
    let both = ClientConfig { identity: Some(good.clone()), token: Some("the-till".into()), ..config(&server) };
    let text = refused(connect(both).await);
    assert_eq!(text, "the token is that of user \"till\", the certificate that of \"shop\"");

    let refused = |why: &str| format!("{} does not accept this client's certificate: {why}", server.address());
    let late = authority.issue(&path, "late", expired);
    let text = failure(with_identity(&server, late).await);
    assert!(text.starts_with(&refused("certificate expired: ")), "{text}");
    let early = authority.issue(&path, "early", not_yet_valid);
    let text = failure(with_identity(&server, early).await);
    assert!(text.starts_with(&refused("certificate not valid yet: ")), "{text}");
    let foreign = Authority::new("Another authority").issue(&path, "foreign", |params| {
        params.distinguished_name.push(DnType::CommonName, "shop");
    });
    let text = failure(with_identity(&server, foreign).await);
    assert!(text.starts_with(&refused("it is from an unknown authority, none that is trusted")), "{text}");

    // What the client finds by itself.
    let mixed = Identity { key: stranger.key, ..good.clone() };
    let text = failure(with_identity(&server, mixed).await);
    let of = path.display();
    assert_eq!(text, format!("the key in {of}/stranger.key is not that of the first certificate in {of}/shop.pem"));
    let absent = Identity { key: path.join("absent.key"), ..good.clone() };
    let text = failure(with_identity(&server, absent).await);
    assert!(text.starts_with(&format!("cannot read the client's private key from {of}/absent.key: ")), "{text}");
    let (weak, pem) = WeakKey::new();
    let weak = authority.issue_for(&path, "weak", &weak, pem, |_| {});
    let text = failure(with_identity(&server, weak).await);
    assert!(text.contains("weak.key") && text.contains("RSA of 2048 bits at least"), "{text}");

    // Another protocol.
    let handshake = soon("a handshake", RawClient::handshake(&server, b"h3")).await;
    let error = handshake.err().expect("refused").to_string();
    assert!(error.contains("peer doesn't support any known protocol"), "{error}");
    soon("a handshake", RawClient::handshake(&server, ALPN)).await.expect("with the right one");

    let status = till.call("status", json!({})).await.expect("an answer");
    assert_eq!(
        status["access"]["refusals_by_reason"],
        json!({ "certificate": 3, "no_credential": 1, "revoked": 1, "token": 1, "unknown_certificate": 2 })
    );
    let log = std::fs::read_to_string(server.directory().join("log")).expect("a log");
    assert!(log.contains("refused: no user has this token"), "{log}");
    for secret in ["the-tilt", "the-till", "the-old-one"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_of_a_router_has_its_error() {
    let (directory, authority) = files();
    let path = directory.path().to_owned();
    // It does not start with what cannot be used.
    let tls = |certificate: &str, key: &str| format!("[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
    authority.issue(&path, "another", |_| {});
    let error = not_started(&path, &tls("router.pem", "another.key")).await;
    assert!(error.contains("another.key is not that of the first certificate in"), "{error}");
    let error = not_started(&path, &tls("router.pem", "absent.key")).await;
    assert!(error.contains("cannot read") && error.contains("absent.key"), "{error}");
    let error = not_started(&path, &TLS.replace("certificate.pem", "absent.pem")).await;
    assert!(error.contains("cannot read") && error.contains("absent.pem"), "{error}");
    let (weak, pem) = WeakKey::new();
    authority.issue_for(&path, "weak", &weak, pem, |_| {});
    let error = not_started(&path, &tls("weak.pem", "weak.key")).await;
    assert!(error.contains("weak.pem has an RSA key of 1024 bits, which is weak: 2048 are the least"), "{error}");
    let (code, _, error) = output_of(QUIPU, &path, &["check", "--config", "other.toml"]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("weak.pem has an RSA key of 1024 bits"), "{error}");

    // What clients find: each certificate takes the place of the one before while the router runs.
    let server = TestServer::start_in(QUIPU, TLS, directory).await;
    connect(config(&server)).await.expect("a good certificate");
    let failed =
        |why: &str| format!("the TLS handshake with {} failed: the router's certificate: {why}", server.address());
    let elsewhere = ClientConfig { server_name: Some("other.example".into()), ..config(&server) };
    let error = failure(connect(elsewhere).await);
    assert!(error.starts_with(&failed("certificate not valid for name \"other.example\"")), "{error}");
    for (change, why) in
        [(expired as fn(&mut _), "certificate expired: "), (not_yet_valid, "certificate not valid yet: ")]
    {
        authority.issue(&path, "router", change);
        let error = soon("another certificate", other_failure(&server)).await;
        assert!(error.starts_with(&failed(why)), "{error}");
        authority.issue(&path, "router", |_| {});
        server.signal_reload();
        soon("the good one again", async { while connect(config(&server)).await.is_err() {} }).await;
    }
    logged(&server, "the router's certificate has expired at 2021-01-01T00:00:00Z").await;
    Authority::new("Another authority").issue(&path, "router", |_| {});
    let error = soon("another certificate", other_failure(&server)).await;
    assert!(error.starts_with(&failed("it is from an unknown authority, none that is trusted")), "{error}");
}

/// Reloads, and connects until that fails.
async fn other_failure(server: &TestServer) -> String {
    server.signal_reload();
    loop {
        if let Err(e) = connect(config(server)).await {
            return e.to_string();
        }
    }
}

/// The certificate that a router shows.
async fn shown(server: &TestServer) -> Vec<u8> {
    let client = soon("a handshake", RawClient::handshake(server, ALPN)).await.expect("connected");
    let chain = client.connection.peer_identity().expect("certificates");
    let chain = chain.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().expect("rustls");
    chain[0].to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_rotated_under_load() {
    let (directory, authority) = files();
    let path = directory.path().to_owned();
    let server = TestServer::start_in(QUIPU, &format!("{TLS}[queue.q]\n"), directory).await;
    let client = connect(config(&server)).await.expect("connected");
    let session = client.session();
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let load = tokio::spawn(async move {
        let mut published = 0_u64;
        while stopped.try_recv().is_err() {
            // The receipts are waited for in `close`.
            drop(publisher.publish(OutgoingMessage::new("q", "load")).await.expect("published"));
            published += 1;
        }
        publisher.close().await.expect("stored");
        published
    });
    let mut before = shown(&server).await;
    for _ in 0..3 {
        // Half of a rotation is refused, and nothing changes.
        let (old_key, others) = (std::fs::read(path.join("router.key")).expect("a key"), before.clone());
        authority.issue(&path, "router", |_| {});
        let new_key = std::fs::read(path.join("router.key")).expect("a key");
        std::fs::write(path.join("router.key"), old_key).expect("written");
        let log = || {
            std::fs::read_to_string(path.join("log")).expect("a log").matches("the configuration is not taken").count()
        };
        let refused = log();
        server.signal_reload();
        soon("a refusal", async {
            while log() == refused {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(shown(&server).await == others);
        std::fs::write(path.join("router.key"), new_key).expect("written");
        server.signal_reload();
        soon("another certificate", async { while shown(&server).await == before {} }).await;
        before = shown(&server).await;
    }
    // Ignored: it runs until it is told.
    stop.send(()).ok();
    let published = soon("the end of the load", load).await.expect("all stored");
    assert_eq!(client.session(), session, "the connection is the same");
    let queue = client.call("queue.show", json!({ "queue": "q" })).await.expect("an answer");
    assert_eq!(queue["queue"]["next_offset"], published);
}

/// A router with tokens alone, on its development certificate.
async fn with_users() -> TestServer {
    let user = |name: &str| format!("[user.{name}]\ntoken = \"{}\"\n", hash_of(&format!("token-of-{name}")));
    let config = format!(
        "[queue.orders]\nsubjects = [\"orders.>\"]\n[queue.\"region.us\"]\n[queue.secret]\n\
         {}publish = [\"orders.*\"]\nconsume = [\"orders\"]\n{}read = [\"region.*\"]\n{}admin = true\n\
         [user.anonymous]\npublish = [\"region.us\"]\n",
        user("shop"),
        user("eye"),
        user("root"),
    );
    TestServer::start(QUIPU, &config).await
}

async fn publish(client: &Client, subject: &str) -> Result<(), String> {
    let publisher = client.publisher(PublisherOptions::default()).await.map_err(|e| e.to_string())?;
    let receipt =
        publisher.publish(OutgoingMessage::new(subject, "x")).await.map_err(|e: PublishError| e.to_string())?;
    let said = soon("a receipt", receipt).await.map(drop).map_err(|e| {
        assert_eq!(e.code(), Some(Code::Forbidden), "{e}");
        e.to_string()
    });
    // Ignored: the one message has its answer.
    publisher.close().await.ok();
    said
}

async fn subscribe(client: &Client, queue: &str) -> Result<(), String> {
    match client.subscribe(Subscribe::new(queue, "s")).await {
        Ok(subscriber) => {
            subscriber.close().await.expect("closed");
            Ok(())
        }
        Err(e) => Err(e.to_string()),
    }
}

async fn call(client: &Client, method: &str, arguments: serde_json::Value) -> Result<serde_json::Value, String> {
    client.call(method, arguments).await.map_err(|e| match e {
        CallError::Refused(refusal) => forbidden(&refusal),
        e => panic!("{e}"),
    })
}

#[track_caller]
fn says<T: std::fmt::Debug>(result: Result<T, String>, expected: &str) {
    let text = result.expect_err("refused");
    assert!(text.contains(expected), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_by_verb_and_pattern_and_refusals_say_which_was_missing() {
    let server = with_users().await;
    let as_user = |name: &'static str| with_token(&server, name);
    let shop = as_user("token-of-shop").await.expect("a user");
    publish(&shop, "orders.eu").await.expect("allowed");
    says(publish(&shop, "orders.eu.new").await, "user \"shop\" may not publish to `orders.eu.new`: needs `publish`");
    says(publish(&shop, "secret").await, "user \"shop\" may not publish to `secret`: needs `publish`");
    subscribe(&shop, "orders").await.expect("allowed");
    says(subscribe(&shop, "secret").await, "user \"shop\" may not consume from queue `secret`: needs `consume`");
    says(call(&shop, "queue.list", json!({})).await, "user \"shop\" may not call `queue.list`: needs `read`");

    let eye = as_user("token-of-eye").await.expect("a user");
    says(publish(&eye, "orders.eu").await, "user \"eye\" may not publish: needs `publish`");
    let queues = call(&eye, "queue.list", json!({})).await.expect("allowed, in part");
    let names: Vec<_> = queues["queues"].as_array().expect("a list").iter().map(|queue| &queue["name"]).collect();
    assert_eq!(names, ["region.us"]);
    says(
        call(&eye, "queue.show", json!({ "queue": "orders" })).await,
        "user \"eye\" may not look at queue `orders`: needs `read`",
    );
    says(call(&eye, "status", json!({})).await, "user \"eye\" may not call `status`: needs `read`");
    let redrive = json!({ "queue": "region.us-dead" });
    says(call(&eye, "queue.redrive", redrive).await, "user \"eye\" may not call `queue.redrive`: needs `admin`");
    says(call(&eye, "store.compact", json!({})).await, "user \"eye\" may not call `store.compact`: needs `admin`");

    let anonymous = connect(config(&server)).await.expect("those that show nothing");
    publish(&anonymous, "region.us").await.expect("allowed");
    says(publish(&anonymous, "orders.eu").await, "user \"anonymous\" may not publish to `orders.eu`: needs `publish`");

    let root = as_user("token-of-root").await.expect("a user");
    call(&root, "store.compact", json!({})).await.expect("allowed");
    let status = call(&root, "status", json!({})).await.expect("allowed");
    assert_eq!(
        status["access"],
        json!({
            "users": 4,
            "refusals": 10,
            "refusals_by_reason": { "admin": 2, "consume": 1, "publish": 4, "read": 3 },
        })
    );
    let log = std::fs::read_to_string(server.directory().join("log")).expect("a log");
    let line = log.lines().find(|line| line.contains("user \"shop\" may not consume from queue")).expect("a line");
    assert!(line.contains("WARN") && line.contains("reason=\"consume\""), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_revoked_is_told_at_once_and_the_others_go_on() {
    let server = with_users().await;
    let shop = with_token(&server, "token-of-shop").await.expect("a user");
    let root = with_token(&server, "token-of-root").await.expect("a user");
    let mut deliveries = shop.subscribe(Subscribe::new("orders", "s")).await.expect("allowed");
    let session = root.session();
    let path = server.directory().join("quipu.toml");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    std::fs::write(&path, text.replace("[user.shop]\n", "[user.shop]\nrevoked = true\n")).expect("written");
    server.signal_reload();
    let over = soon("the end", deliveries.next()).await.expect("an error").expect_err("refused");
    let refusal = match over {
        SubscribeError::Refused(refusal) | SubscribeError::Lost(Lost::Refused(refusal)) => refusal,
        e => panic!("{e}"),
    };
    assert_eq!(forbidden(&refusal), "user \"shop\" is revoked");
    assert_eq!(refused(with_token(&server, "token-of-shop").await), "user \"shop\" is revoked");
    call(&root, "status", json!({})).await.expect("allowed");
    assert_eq!(root.session(), session, "the connection is the same");

    // A configuration with a fault changes nothing.
    let broken = text.replace("admin = true", "admin = 1");
    std::fs::write(&path, broken).expect("written");
    server.signal_reload();
    logged(&server, "user.root.admin: expected a boolean, found 1").await;
    assert_eq!(refused(with_token(&server, "token-of-shop").await), "user \"shop\" is revoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_shows_who_it_is() {
    let (directory, authority) = files();
    let path = directory.path().to_owned();
    let (code, made, _) = output_of(QUIPU, &path, &["user", "token", "--json"]).await;
    assert_eq!(code, Some(0));
    let made: serde_json::Value = serde_json::from_str(&made).expect("JSON");
    let token = made["token"].as_str().expect("a token");
    assert_eq!(made["hash"], hash_of(token));
    let own = authority.issue(&path, "own", |_| {});
    let file = own.certificate.to_str().expect("text");
    let (_, line, _) = output_of(QUIPU, &path, &["user", "fingerprint", file]).await;
    let line = line.lines().next().expect("a line");
    let users = format!("{TLS}[user.a]\ntoken = {}\nread = true\n[user.b]\n{line}\nread = true\n", made["hash"]);
    // The fingerprint is enough, whoever signed the certificate.
    let users = users.replace("client_ca = \"certificate.pem\"\n", "");
    let server = TestServer::start_in(QUIPU, &users, directory).await;
    let ca = server.certificate();
    let command = || {
        let mut command = quipu(QUIPU, server.directory());
        command.env("QUIPU_SERVER", server.address()).env("QUIPU_CA", &ca).arg("status");
        command
    };
    let run = |mut command: tokio::process::Command| async move {
        let output = soon("a command", command.output()).await.expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let mut by_token = command();
    by_token.env("QUIPU_TOKEN", token);
    assert_eq!(run(by_token).await, (true, String::new()));
    let mut by_certificate = command();
    by_certificate.args([PathBuf::from("--cert"), own.certificate, "--key".into(), own.key]);
    assert_eq!(run(by_certificate).await, (true, String::new()));
    let (done, error) = run(command()).await;
    assert!(!done && error.contains("this router asks who its clients are"), "{error}");
    let mut half = command();
    half.args(["--cert", "own.pem"]);
    assert!(run(half).await.1.contains("--key"));
    // What somebody thought of is no token.
    std::fs::write(path.join("weak"), "hunter2").expect("written");
    let mut weak = quipu(QUIPU, &path);
    weak.args(["user", "token", "--stdin"]).stdin(std::fs::File::open(path.join("weak")).expect("a file"));
    let (done, error) = run(weak).await;
    assert!(!done && error.contains("this token is weak"), "{error}");
}
