//! The server's side of TLS: certificates from files, or a development certificate for loopback.
//!
//! TLS 1.3 only, on ring, without 0-RTT and without resumption. Whether a client's certificate is good is decided here
//! ([`ClientCertificates`]); who it is and what it may do, after the handshake ([`crate::access`]).

mod clients;
mod facts;
mod reloadable;

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::config::TlsFiles;
pub(crate) use clients::ClientCertificates;
pub(crate) use facts::{Facts, Fingerprint};
pub(crate) use reloadable::{Reloadable, Shown};

/// The variable that says where the development certificate is kept.
pub(crate) const DEV_CERTIFICATE_VARIABLE: &str = "QUIPU_DEV_CERTIFICATE";

/// How long a development certificate is valid.
const DEV_VALIDITY: Duration = Duration::from_hours(365 * 24);
/// A development certificate with less than this left is replaced.
const DEV_RENEWAL: Duration = Duration::from_hours(30 * 24);
/// First line of a development certificate's file, so that no other file is ever overwritten.
const DEV_FIRST_LINE: &str = "# A development certificate for localhost, made by quipu: do not use it elsewhere.";
/// Begins the line that says when it ends, in seconds of Unix time. It repeats what is in the certificate, which is
/// never parsed here.
const DEV_NOT_AFTER: &str = "# Not after: ";

/// Which certificate a server shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CertificateInfo {
    /// The one of `[tls]`.
    Files {
        /// `tls.certificate`.
        certificate: PathBuf,
    },
    /// The development certificate, which local clients trust by this file.
    Development {
        /// Certificate and key.
        path: PathBuf,
    },
}

impl fmt::Display for CertificateInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files { certificate } => write!(f, "{}", certificate.display()),
            Self::Development { path } => write!(f, "{} (for development, on loopback)", path.display()),
        }
    }
}

/// Why a server has no certificate to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// No `[tls]`, and others than this machine could connect.
    #[error(
        "refusing to listen on {0} without [tls]: a development certificate is for loopback only; \
         set tls.certificate and tls.key"
    )]
    NotLoopback(SocketAddr),
    /// No `[user.NAME]`, and others than this machine can connect.
    #[error(
        "without any [user.NAME] whoever connects may do everything, and the router listens on {0}: \
         say who may do what, or listen on loopback"
    )]
    OpenToAll(SocketAddr),
    /// A file of `[tls]`.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("no {what} in {path}: expected PEM, with a line \"{line}\"")]
    Nothing {
        /// Certificate or private key.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// How it would begin.
        line: &'static str,
    },
    /// The file has PEM in it that cannot be decoded.
    #[error("{path} is damaged: {source}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// Both are there, but each for something else.
    #[error("the key in {key} is not that of the first certificate in {certificate}")]
    Mismatch {
        /// `tls.certificate`.
        certificate: PathBuf,
        /// `tls.key`.
        key: PathBuf,
    },
    /// A key that can be guessed.
    #[error("the certificate in {path} has an RSA key of {bits} bits, which is weak: 2048 are the least")]
    Weak {
        /// The certificate.
        path: PathBuf,
        /// Of its key.
        bits: usize,
    },
    /// What should be an authority is none.
    #[error("cannot use the authorities of client certificates in {path}: {why}")]
    Authority {
        /// `tls.client_ca`.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A kind of certificate or key that is not supported.
    #[error("cannot use the certificate in {certificate} with the key in {key}: {source}")]
    Unusable {
        /// `tls.certificate`.
        certificate: PathBuf,
        /// `tls.key`.
        key: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
    /// No place for a development certificate.
    #[error(
        "nowhere to keep a development certificate: set HOME, XDG_DATA_HOME or {DEV_CERTIFICATE_VARIABLE}, \
         or tls.certificate and tls.key"
    )]
    NoHome,
    /// Another file is where the development certificate should be.
    #[error("{0} is no development certificate made by quipu, and is left alone; move it away")]
    NotOurs(PathBuf),
    /// It could not be read, made or written.
    #[error("development certificate {path}: {source}")]
    Development {
        /// Where.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// The certificate to show on this address, with its key: the files of `[tls]`, or else the development certificate, made
/// or renewed where needed.
///
/// Blocks on files.
///
/// # Errors
///
/// [`TlsError`] says what to change.
pub(crate) fn certificate(
    listen: SocketAddr,
    tls: Option<&TlsFiles>,
) -> Result<(CertifiedKey, CertificateInfo), TlsError> {
    if let Some(files) = tls {
        let info = CertificateInfo::Files { certificate: files.certificate.clone() };
        return Ok((with_files(files)?, info));
    }
    if !is_loopback(listen) {
        return Err(TlsError::NotLoopback(listen));
    }
    let path = dev_certificate_path().ok_or(TlsError::NoHome)?;
    let certificate = development(&path)?;
    Ok((certificate, CertificateInfo::Development { path }))
}

/// Whether only this machine can connect there.
pub(crate) fn is_loopback(listen: SocketAddr) -> bool {
    listen.ip().to_canonical().is_loopback()
}

/// The development certificate in this file, made or renewed where needed.
///
/// # Errors
///
/// [`TlsError`].
pub(crate) fn development(path: &Path) -> Result<CertifiedKey, TlsError> {
    with_development(path, SystemTime::now())
}

/// What QUIC needs to serve TLS: certificates are shown and asked for as `reloadable` says at the time.
///
/// # Errors
///
/// Where the library does not know TLS 1.3.
pub(crate) fn server_config(reloadable: Arc<Reloadable>) -> Result<rustls::ServerConfig, rustls::Error> {
    let builder = rustls::ServerConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = builder.with_client_cert_verifier(reloadable.clone()).with_cert_resolver(reloadable);
    config.alpn_protocols = vec![quipu_protocol::ALPN.to_vec()];
    // No 0-RTT: what is published in it could be replayed.
    config.max_early_data_size = 0;
    // A session that is resumed would not show its certificate again, and so would outlive what revokes it.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Where the development certificate is or would be kept: `$QUIPU_DEV_CERTIFICATE`, or `quipu/dev-certificate.pem` in
/// `$XDG_DATA_HOME` or `$HOME/.local/share`. None where none of these is set.
pub(crate) fn dev_certificate_path() -> Option<PathBuf> {
    dev_path_from(|name| std::env::var_os(name).map(PathBuf::from))
}

/// The development certificate, if there is one: clients on this machine may trust what is in it.
pub(crate) fn dev_certificate() -> Option<PathBuf> {
    dev_certificate_path().filter(|path| path.is_file())
}

fn dev_path_from(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let given = |name| variable(name).filter(|path| !path.as_os_str().is_empty());
    let data = || given("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let home = || given("HOME").map(|home| home.join(".local/share"));
    given(DEV_CERTIFICATE_VARIABLE)
        .or_else(|| data().or_else(home).map(|directory| directory.join("quipu/dev-certificate.pem")))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.into(), source })
}

fn with_files(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let TlsFiles { certificate, key, .. } = files.clone();
    let chain = chain_in(&certificate, &read(&certificate)?)?;
    let private_key = key_in(&key, &read(&key)?)?;
    // First, since what loads keys only says that it takes none like this.
    if let Some(bits) = chain.first().and_then(|first| Facts::of(first)?.weak_bits()) {
        return Err(TlsError::Weak { path: certificate, bits });
    }
    CertifiedKey::from_der(chain, private_key, &provider()).map_err(|source| match source {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch { certificate, key },
        source => TlsError::Unusable { certificate, key, source },
    })
}

fn with_development(path: &Path, now: SystemTime) -> Result<CertifiedKey, TlsError> {
    let pem = dev_pem(path, now)?;
    let unusable = |source| TlsError::Unusable { certificate: path.into(), key: path.into(), source };
    CertifiedKey::from_der(chain_in(path, &pem)?, key_in(path, &pem)?, &provider()).map_err(unusable)
}

/// The certificates in a PEM file, at least one.
pub(crate) fn chain_in(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let damaged = |source| TlsError::Pem { path: path.into(), source };
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(damaged)?;
    if chain.is_empty() {
        let line = "-----BEGIN CERTIFICATE-----";
        return Err(TlsError::Nothing { what: "certificate", path: path.into(), line });
    }
    Ok(chain)
}

fn key_in(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|source| match source {
        pem::Error::NoItemsFound => {
            TlsError::Nothing { what: "private key", path: path.into(), line: "-----BEGIN PRIVATE KEY-----" }
        }
        source => TlsError::Pem { path: path.into(), source },
    })
}

/// The development certificate that is kept there, with its key, after making or renewing it where needed.
fn dev_pem(path: &Path, now: SystemTime) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Development { path: path.into(), source };
    if let Kept::Usable(pem) = Kept::read(path, now)? {
        return Ok(pem);
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(failed)?;
    // Of several that renew at once, one does and the others find it done. Where directories cannot be locked, only
    // the first making is safe from races.
    let lock = File::open(directory).map_err(failed)?;
    match lock.lock() {
        Err(e) if e.kind() != io::ErrorKind::Unsupported => return Err(failed(e)),
        Ok(()) | Err(_) => {}
    }
    let kept = Kept::read(path, now)?;
    if let Kept::Usable(pem) = kept {
        return Ok(pem);
    }
    let pem = make_dev_pem(now).map_err(|e| failed(io::Error::other(e)))?;
    // Readable by its owner alone from the start; never there in part.
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    file.write_all(&pem).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    let persisted = match kept {
        Kept::Stale => file.persist(path),
        _ => file.persist_noclobber(path),
    };
    match persisted {
        Ok(_) => Ok(pem),
        Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => match Kept::read(path, now)? {
            Kept::Usable(theirs) => Ok(theirs),
            Kept::Absent | Kept::Stale => Err(failed(e.error)),
        },
        Err(e) => Err(failed(e.error)),
    }
}

/// What is where the development certificate should be.
enum Kept {
    Absent,
    /// Ours, but at or near its end, or cut short.
    Stale,
    Usable(Vec<u8>),
}

impl Kept {
    fn read(path: &Path, now: SystemTime) -> Result<Self, TlsError> {
        let pem = match std::fs::read(path) {
            Ok(pem) => pem,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::Absent),
            Err(source) => return Err(TlsError::Development { path: path.into(), source }),
        };
        let text = String::from_utf8_lossy(&pem);
        if !text.is_empty() && !text.starts_with(DEV_FIRST_LINE) {
            return Err(TlsError::NotOurs(path.into()));
        }
        let not_after = text.lines().find_map(|line| line.strip_prefix(DEV_NOT_AFTER)?.parse().ok());
        let left = not_after.and_then(|seconds: u64| Duration::from_secs(seconds).checked_sub(since_epoch(now)));
        let readable = || chain_in(path, &pem).and_then(|_| key_in(path, &pem)).is_ok();
        let usable = left.is_some_and(|left| left >= DEV_RENEWAL) && readable();
        Ok(if usable { Self::Usable(pem) } else { Self::Stale })
    }
}

fn make_dev_pem(now: SystemTime) -> Result<Vec<u8>, rcgen::Error> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(["localhost", "127.0.0.1", "::1"].map(String::from))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "quipu development");
    // No authority: it can vouch for nothing but itself, whoever trusts it.
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    // A day back, for clocks that differ.
    let not_before = since_epoch(now).saturating_sub(Duration::from_hours(24)).as_secs();
    let not_after = (since_epoch(now) + DEV_VALIDITY).as_secs();
    params.not_before = epoch + Duration::from_secs(not_before);
    params.not_after = epoch + Duration::from_secs(not_after);
    let certificate = params.self_signed(&key)?.pem();
    let key = key.serialize_pem();
    Ok(format!("{DEV_FIRST_LINE}\n{DEV_NOT_AFTER}{not_after}\n{certificate}{key}").into_bytes())
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::unix::fs::PermissionsExt as _;

    use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};

    use super::*;

    fn write(directory: &tempfile::TempDir, name: &str, text: &[u8]) -> PathBuf {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    /// A client that trusts the certificates in this file and nothing else.
    fn client_config(trusted: &Path) -> quinn::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in chain_in(trusted, &std::fs::read(trusted).expect("read")).expect("certificates") {
            roots.add(certificate).expect("a root");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).expect("TLS 1.3");
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![quipu_protocol::ALPN.to_vec()];
        quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).expect("QUIC")))
    }

    /// Connects over loopback by a name; the ALPN that both agreed on.
    async fn handshake(server: CertifiedKey, trusted: &Path, name: &str) -> Result<Vec<u8>, String> {
        let shown = Shown { key: Arc::new(server), clients: Arc::new(ClientCertificates::none()) };
        let server = server_config(Arc::new(Reloadable::new(shown, Box::new(|_| {})))).expect("TLS 1.3");
        assert_eq!(server.max_early_data_size, 0);
        let server = QuicServerConfig::try_from(server).expect("QUIC");
        let server = quinn::ServerConfig::with_crypto(Arc::new(server));
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = quinn::Endpoint::server(server, loopback).expect("an endpoint");
        let address = server.local_addr().expect("an address");
        let accepting = tokio::spawn(async move { server.accept().await.expect("a client").await.map(drop) });
        let client = quinn::Endpoint::client(loopback).expect("an endpoint");
        let connecting = client.connect_with(client_config(trusted), address, name).map_err(|e| e.to_string())?;
        let connection = connecting.await.map_err(|e| e.to_string())?;
        accepting.await.expect("it ends").ok();
        let data = connection.handshake_data().expect("it is done");
        let data = data.downcast::<quinn::crypto::rustls::HandshakeData>().expect("rustls");
        Ok(data.protocol.expect("an ALPN"))
    }

    #[tokio::test]
    async fn clients_trust_the_development_certificate() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("new/dev-certificate.pem");
        for name in ["localhost", "127.0.0.1", "::1"] {
            let server = with_development(&path, SystemTime::now()).expect("a certificate");
            assert_eq!(handshake(server, &path, name).await, Ok(b"quipu/1".to_vec()), "{name}");
        }
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let server = with_development(&path, SystemTime::now()).expect("a certificate");
        let refused = handshake(server, &path, "example.com").await.expect_err("another name");
        assert!(refused.contains("not valid for name"), "{refused}");
        let other = directory.path().join("other.pem");
        with_development(&other, SystemTime::now()).expect("a certificate");
        let server = with_development(&path, SystemTime::now()).expect("a certificate");
        handshake(server, &other, "localhost").await.expect_err("another certificate");
    }

    #[test]
    fn the_development_certificate_is_kept_and_renewed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("dev.pem");
        // A whole second, as ends are.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let day = Duration::from_hours(24);
        let first = dev_pem(&path, now).expect("made");
        assert!(dev_pem(&path, now).expect("kept") == first);
        assert!(dev_pem(&path, now + 335 * day).expect("kept") == first);
        let second = dev_pem(&path, now + 335 * day + Duration::from_secs(1)).expect("renewed");
        assert!(second != first);
        assert!(dev_pem(&path, now + 600 * day).expect("kept") == second);

        for damaged in [&second[..0], &second[..DEV_FIRST_LINE.len()], &second[..second.len() - 40]] {
            write(&directory, "dev.pem", damaged);
            assert!(dev_pem(&path, now).expect("renewed") != second);
        }
        write(&directory, "dev.pem", b"# mine\n");
        let refused = dev_pem(&path, now).expect_err("not ours").to_string();
        assert!(
            refused.ends_with("dev.pem is no development certificate made by quipu, and is left alone; move it away")
        );
        assert_eq!(std::fs::read(&path).expect("read"), b"# mine\n");
        let left: Vec<_> = std::fs::read_dir(directory.path()).expect("listed").collect();
        assert_eq!(left.len(), 1, "no temporary files stay");
    }

    #[test]
    fn those_who_race_agree() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("dev.pem");
        let now = SystemTime::now();
        // At first it is absent, then all find it at its end.
        for time in [now, now + DEV_VALIDITY] {
            let race = || {
                std::thread::scope(|scope| {
                    let racers: Vec<_> =
                        (0..8).map(|_| scope.spawn(|| dev_pem(&path, time).expect("a certificate"))).collect();
                    racers.into_iter().map(|racer| racer.join().expect("it ends")).collect::<Vec<_>>()
                })
            };
            let kept = race();
            assert!(kept.iter().all(|pem| *pem == std::fs::read(&path).expect("read")));
        }
    }

    #[test]
    fn the_path_comes_from_the_environment() {
        let path = |set: &[(&str, &str)]| {
            let variable = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| PathBuf::from(value));
            dev_path_from(variable).map(|path| path.display().to_string())
        };
        let all = [("QUIPU_DEV_CERTIFICATE", "mine.pem"), ("XDG_DATA_HOME", "/data"), ("HOME", "/home/a")];
        assert_eq!(path(&all).as_deref(), Some("mine.pem"));
        assert_eq!(path(&all[1..]).as_deref(), Some("/data/quipu/dev-certificate.pem"));
        assert_eq!(path(&all[2..]).as_deref(), Some("/home/a/.local/share/quipu/dev-certificate.pem"));
        let relative = [("XDG_DATA_HOME", "data"), ("HOME", "/home/a")];
        assert_eq!(path(&relative), path(&all[2..]));
        assert_eq!(path(&[("HOME", "")]), None);
    }

    #[test]
    fn development_is_for_loopback() {
        let refused = |listen: &str| certificate(listen.parse().expect("an address"), None).expect_err("refused");
        assert_eq!(
            refused("0.0.0.0:4433").to_string(),
            "refusing to listen on 0.0.0.0:4433 without [tls]: a development certificate is for loopback only; \
             set tls.certificate and tls.key"
        );
        for listen in ["[::]:4433", "192.0.2.1:1", "[::ffff:192.0.2.1]:1"] {
            assert!(matches!(refused(listen), TlsError::NotLoopback(_)), "{listen}");
        }
    }

    #[tokio::test]
    async fn files_are_taken_from_anywhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("both.pem");
        dev_pem(&path, SystemTime::now()).expect("made");
        let files = TlsFiles { certificate: path.clone(), key: path.clone(), client_ca: None };
        let everywhere = "0.0.0.0:4433".parse().expect("an address");
        let (server, info) = certificate(everywhere, Some(&files)).expect("a configuration");
        assert_eq!(info, CertificateInfo::Files { certificate: path.clone() });
        assert_eq!(handshake(server, &path, "localhost").await, Ok(b"quipu/1".to_vec()));
    }

    #[test]
    fn wrong_files_are_told_apart() {
        let directory = tempfile::tempdir().expect("a directory");
        let one = write(&directory, "one.pem", &make_dev_pem(SystemTime::now()).expect("made"));
        let two = write(&directory, "two.pem", &make_dev_pem(SystemTime::now()).expect("made"));
        let empty = write(&directory, "empty.pem", b"# nothing\n");
        let garbage = b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n";
        let garbage = write(&directory, "garbage.pem", garbage);
        let absent = directory.path().join("absent.pem");
        let check = |certificate: &Path, key: &Path, expected: &str| {
            let files = TlsFiles { certificate: certificate.into(), key: key.into(), client_ca: None };
            let refused = with_files(&files).expect_err("refused").to_string();
            assert_eq!(refused.replace(&directory.path().display().to_string(), "DIR"), expected);
        };
        check(&absent, &one, "cannot read DIR/absent.pem: No such file or directory (os error 2)");
        check(&one, &absent, "cannot read DIR/absent.pem: No such file or directory (os error 2)");
        let line = "-----BEGIN CERTIFICATE-----";
        check(&empty, &one, &format!("no certificate in DIR/empty.pem: expected PEM, with a line \"{line}\""));
        let line = "-----BEGIN PRIVATE KEY-----";
        check(&one, &empty, &format!("no private key in DIR/empty.pem: expected PEM, with a line \"{line}\""));
        check(&one, &two, "the key in DIR/two.pem is not that of the first certificate in DIR/one.pem");
        let files = TlsFiles { certificate: garbage, key: one, client_ca: None };
        assert!(matches!(with_files(&files), Err(TlsError::Pem { .. })));
    }
}
