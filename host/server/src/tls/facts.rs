//! What a certificate says, as far as the router looks at it: names, validity, and whether its key is weak.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;

/// What an RSA key has at least, in bits.
const RSA_BITS_MIN: usize = 2_048;
/// Names of one certificate that are looked at.
const NAMES_MAX: usize = 64;
const FINGERPRINT_PREFIX: &str = "sha256:";

/// The SHA-256 of a certificate in DER, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Fingerprint([u8; 32]);

/// The text is no fingerprint.
#[derive(Debug, thiserror::Error)]
#[error("expected \"sha256:\" and 64 hexadecimal digits, as `quipu user fingerprint FILE` prints")]
pub(crate) struct NoFingerprint;

impl Fingerprint {
    /// Of this certificate.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl FromStr for Fingerprint {
    type Err = NoFingerprint;

    /// Also takes capitals, and colons between the bytes, as other tools print them.
    fn from_str(text: &str) -> Result<Self, NoFingerprint> {
        let digits = text.strip_prefix(FINGERPRINT_PREFIX).ok_or(NoFingerprint)?.replace(':', "").to_ascii_lowercase();
        blake3::Hash::from_hex(&digits).map(|bytes| Self(*bytes.as_bytes())).map_err(|_| NoFingerprint)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FINGERPRINT_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a certificate says.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// Its subject's alternative names (DNS, e-mail, URI), then its common names.
    pub(crate) names: Vec<String>,
    not_before_s: u64,
    not_after_s: u64,
    /// Of an RSA key.
    rsa_bits: Option<usize>,
}

impl Facts {
    /// None where this is no certificate.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
        let validity = certificate.validity();
        let rsa_bits = match certificate.public_key().parsed() {
            Ok(PublicKey::RSA(key)) => Some(key.key_size()),
            _ => None,
        };
        Some(Self {
            names: names(&certificate),
            not_before_s: seconds(validity.not_before),
            not_after_s: seconds(validity.not_after),
            rsa_bits,
        })
    }

    /// The length of its key, where that is too short.
    pub(crate) fn weak_bits(&self) -> Option<usize> {
        self.rsa_bits.filter(|bits| *bits < RSA_BITS_MIN)
    }

    /// Whether it is valid at this time.
    pub(crate) fn check_time(&self, now: UnixTime) -> Result<(), CertificateError> {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        if now.as_secs() < self.not_before_s {
            return Err(CertificateError::NotValidYetContext { time: now, not_before: at(self.not_before_s) });
        }
        if now.as_secs() > self.not_after_s {
            return Err(CertificateError::ExpiredContext { time: now, not_after: at(self.not_after_s) });
        }
        Ok(())
    }

    /// What is wrong with it as a router's own at this time, or will soon be.
    pub(crate) fn note(&self, now: SystemTime, soon: Duration) -> Option<String> {
        let time = |seconds| humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let now_s = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        // What is beyond year 9999 cannot be printed, and is not soon.
        if self.not_before_s > now_s {
            return Some(format!("the router's certificate is not valid before {}", time(self.not_before_s)));
        }
        if self.not_after_s < now_s {
            return Some(format!("the router's certificate has expired at {}", time(self.not_after_s)));
        }
        let ends_soon = self.not_after_s - now_s < soon.as_secs();
        ends_soon.then(|| format!("the router's certificate expires at {}", time(self.not_after_s)))
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let alternative = alternative.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        _ => None,
    });
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok().map(str::to_owned));
    alternative.chain(common).take(NAMES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(change: impl FnOnce(&mut rcgen::CertificateParams)) -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).expect("a name");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "shop");
        change(&mut params);
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    #[test]
    fn names_are_the_alternative_ones_and_the_common_one() {
        let spiffe = rcgen::SanType::URI("spiffe://example/shop".try_into().expect("ASCII"));
        let certificate = made(|params| params.subject_alt_names.push(spiffe));
        let facts = Facts::of(&certificate).expect("a certificate");
        assert_eq!(facts.names, ["a.example", "spiffe://example/shop", "shop"]);
        assert_eq!(facts.weak_bits(), None);
        assert!(Facts::of(&CertificateDer::from(vec![1, 2, 3])).is_none());
    }

    #[test]
    fn validity_is_told_apart() {
        let certificate = made(|params| {
            params.not_before = rcgen::date_time_ymd(2026, 1, 1);
            params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        });
        let facts = Facts::of(&certificate).expect("a certificate");
        let (start, end) = (1_767_225_600, 1_798_761_600);
        let at = |seconds| facts.check_time(UnixTime::since_unix_epoch(Duration::from_secs(seconds)));
        assert!(matches!(at(start - 1), Err(CertificateError::NotValidYetContext { .. })));
        assert_eq!((at(start), at(end)), (Ok(()), Ok(())));
        assert!(matches!(at(end + 1), Err(CertificateError::ExpiredContext { .. })));
        let note =
            |seconds| facts.note(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), Duration::from_hours(24));
        let said = |text: &str| Some(format!("the router's certificate {text}"));
        assert_eq!(note(start - 1), said("is not valid before 2026-01-01T00:00:00Z"));
        assert_eq!(note(start), None);
        assert_eq!(note(end - 60), said("expires at 2027-01-01T00:00:00Z"));
        assert_eq!(note(end + 1), said("has expired at 2027-01-01T00:00:00Z"));
    }

    #[test]
    fn fingerprints_are_read_as_other_tools_print_them() {
        let fingerprint = Fingerprint::of(&made(|_| {}));
        let text = fingerprint.to_string();
        assert_eq!(text.parse::<Fingerprint>().ok(), Some(fingerprint));
        let digits: Vec<_> = text.as_bytes()["sha256:".len()..].chunks(2).map(String::from_utf8_lossy).collect();
        let openssl = format!("sha256:{}", digits.join(":").to_uppercase());
        assert_eq!(openssl.parse::<Fingerprint>().ok(), Some(fingerprint));
        for wrong in ["", "sha256:", &text[7..], &text[..70], "sha1:00"] {
            assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
        }
    }
}
