//! `[user.NAME]`: who clients may be, how they show it, and what they may do.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::Range;

use quipu_protocol::SubjectPattern;
use toml::Value;

use super::TlsFiles;
use super::check::Checker;
use super::problem::join;
use super::raw::{self, Given, Hidden, Named, Table};
use crate::tls::{Fingerprint, is_loopback};

/// The user that clients are which show nothing.
pub(crate) const ANONYMOUS: &str = "anonymous";
const USERS_MAX: usize = 4_096;
const PATTERNS_MAX: usize = 256;
/// Longest name in a certificate that is looked for, in bytes.
const CERTIFICATE_NAME_BYTES_MAX: usize = 255;
const TOKEN_PREFIX: &str = "blake3:";

/// One user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserConfig {
    /// The name.
    pub(crate) name: String,
    /// `token`: the BLAKE3 hash of the token that shows who it is.
    pub(crate) token: Option<blake3::Hash>,
    /// `certificate`: the fingerprint of the certificate that shows who it is, whoever made that.
    pub(crate) certificate: Option<Fingerprint>,
    /// `certificate_name`: a subject alternative name or common name in a certificate that an authority of
    /// `tls.client_ca` vouches for.
    pub(crate) certificate_name: Option<String>,
    /// `revoked`: may not connect. Default false.
    pub(crate) revoked: bool,
    /// `publish`: subjects that it may publish to. Default none.
    pub(crate) publish: Vec<SubjectPattern>,
    /// `consume`: queues that it may take messages from. Default none.
    pub(crate) consume: Vec<SubjectPattern>,
    /// `read`: what it may look at. Default nothing.
    pub(crate) read: Read,
    /// `admin`: whether it may change what the router does, and look at everything. Default false.
    pub(crate) admin: bool,
}

/// What a user may look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    /// Everything: `true`.
    All,
    /// These queues; none where it is `false`.
    Queues(Vec<SubjectPattern>),
}

/// The users that are as they should be; what is wrong with others is reported.
pub(super) fn check(checker: &mut Checker<'_>, raw: Named<raw::User>, tls: Option<&TlsFiles>) -> Vec<UserConfig> {
    checker.at_most(raw.len(), USERS_MAX, "users", &(0..0), "user");
    let has_authority = tls.is_some_and(|files| files.client_ca.is_some());
    let mut taken = Taken::default();
    let mut users = Vec::new();
    for (name, user) in raw {
        let (key, span) = (join("user", &name), user.span());
        checker.name(&name, &span, &key);
        let Table(raw) = user.into_inner();
        users.push(one(checker, name, raw, Place { key, span, has_authority }, &mut taken));
    }
    users
}

/// Without users everyone may do everything, which is for those on this machine. Without `[tls]` it is the certificate
/// that says so.
pub(super) fn check_listening(
    checker: &mut Checker<'_>,
    listen: SocketAddr,
    span: &Range<usize>,
    has_tls: bool,
    users: &[UserConfig],
) {
    if has_tls && users.is_empty() && !is_loopback(listen) {
        let message = "without any [user.NAME] whoever connects may do everything: say who may do what \
                       ([user.anonymous] is for clients that show nothing), or listen on loopback";
        checker.report(span, "listen.quic", message);
    }
}

struct Place {
    key: String,
    span: Range<usize>,
    has_authority: bool,
}

/// What shows who somebody is, which no two users share; and whose it is.
#[derive(Default)]
struct Taken(HashMap<String, String>);

impl Taken {
    /// The user who has it already.
    fn take(&mut self, what: String, user: &str) -> Option<String> {
        match self.0.entry(what) {
            Entry::Occupied(other) => Some(other.get().clone()),
            Entry::Vacant(place) => {
                place.insert(user.to_owned());
                None
            }
        }
    }
}

fn one(checker: &mut Checker<'_>, name: String, raw: raw::User, place: Place, taken: &mut Taken) -> UserConfig {
    let Place { key, span, has_authority } = place;
    let given = [raw.token.is_some(), raw.certificate.is_some(), raw.certificate_name.is_some()];
    match (name == ANONYMOUS, given.contains(&true)) {
        (true, true) => {
            let message =
                "these are the clients that show nothing: no `token`, `certificate` or `certificate_name` here";
            checker.report(&span, &key, message);
        }
        (false, false) => {
            let message = "how does it show who it is? Set `token`, `certificate` or `certificate_name`";
            checker.report(&span, &key, message);
        }
        _ => {}
    }
    let (publish, consume) = (join(&key, "publish"), join(&key, "consume"));
    let patterns = |checker: &mut Checker<'_>, texts, key: &str| {
        let patterns = checker.list(texts, key, PATTERNS_MAX, SubjectPattern::new);
        patterns.into_iter().map(|pattern| pattern.value).collect()
    };
    UserConfig {
        token: token(checker, raw.token, &join(&key, "token"), &name, taken),
        certificate: certificate(checker, raw.certificate, &join(&key, "certificate"), &name, taken),
        certificate_name: {
            let key = join(&key, "certificate_name");
            if let Some(given) = raw.certificate_name.as_ref().filter(|_| !has_authority) {
                let message = "a name alone proves nothing: set `tls.client_ca` to the authority of these certificates";
                checker.report(&given.span(), &key, message);
            }
            certificate_name(checker, raw.certificate_name, &key, &name, taken)
        },
        revoked: raw.revoked,
        publish: patterns(checker, raw.publish, &publish),
        consume: patterns(checker, raw.consume, &consume),
        read: read(checker, raw.read, &join(&key, "read")),
        admin: raw.admin,
        name,
    }
}

fn token(
    checker: &mut Checker<'_>,
    given: Given<Hidden>,
    key: &str,
    user: &str,
    taken: &mut Taken,
) -> Option<blake3::Hash> {
    let given = given?;
    let span = given.span();
    let Hidden(text) = given.into_inner();
    let Some(hash) = text.strip_prefix(TOKEN_PREFIX).and_then(|hex| blake3::Hash::from_hex(hex).ok()) else {
        // What is there is not said: it may be a token.
        let message = "expected \"blake3:\" and 64 hexadecimal digits, as `quipu user token` prints; \
                       the token itself never stands in this file";
        checker.report(&span, key, message);
        return None;
    };
    if let Some(other) = taken.take(format!("{TOKEN_PREFIX}{}", hash.to_hex()), user) {
        checker.report(&span, key, format!("that is how user `{other}` is known already"));
    }
    Some(hash)
}

fn certificate(
    checker: &mut Checker<'_>,
    given: Given<String>,
    key: &str,
    user: &str,
    taken: &mut Taken,
) -> Option<Fingerprint> {
    let given = given?;
    let fingerprint = match given.as_ref().parse::<Fingerprint>() {
        Ok(fingerprint) => fingerprint,
        Err(e) => {
            checker.report(&given.span(), key, e.to_string());
            return None;
        }
    };
    if let Some(other) = taken.take(fingerprint.to_string(), user) {
        checker.report(&given.span(), key, format!("that is how user `{other}` is known already"));
    }
    Some(fingerprint)
}

fn certificate_name(
    checker: &mut Checker<'_>,
    given: Given<String>,
    key: &str,
    user: &str,
    taken: &mut Taken,
) -> Option<String> {
    let given = given?;
    let (span, name) = (given.span(), given.into_inner());
    if name.is_empty() || name.len() > CERTIFICATE_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let most = CERTIFICATE_NAME_BYTES_MAX;
        checker.report(&span, key, format!("expected a name of 1 to {most} bytes, found {name:?}"));
    }
    if let Some(other) = taken.take(format!("name:{}", name.to_ascii_lowercase()), user) {
        checker.report(&span, key, format!("that is how user `{other}` is known already"));
    }
    Some(name)
}

fn read(checker: &mut Checker<'_>, given: Given<Value>, key: &str) -> Read {
    let nothing = || Read::Queues(Vec::new());
    let Some(given) = given else { return nothing() };
    let span = given.span();
    let texts = match given.into_inner() {
        Value::Boolean(true) => return Read::All,
        Value::Boolean(false) => return nothing(),
        Value::Array(texts) => texts,
        other => {
            let message = format!("expected true, false or an array of patterns of queues, found {}", kind(&other));
            checker.report(&span, key, message);
            return nothing();
        }
    };
    checker.at_most(texts.len(), PATTERNS_MAX, "patterns", &span, key);
    let pattern = |(n, text): (usize, Value)| {
        let mut wrong = |why: &dyn Display| checker.report(&span, &format!("{key}[{n}]"), why.to_string());
        match text.as_str().map(SubjectPattern::new) {
            Some(Ok(pattern)) => Some(pattern),
            Some(Err(e)) => {
                wrong(&e);
                None
            }
            None => {
                wrong(&format_args!("expected a string, found {}", kind(&text)));
                None
            }
        }
    };
    Read::Queues(texts.into_iter().enumerate().filter_map(pattern).collect())
}

fn kind(value: &Value) -> String {
    match value {
        Value::Table(_) => "a table".into(),
        Value::Array(_) => "an array".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    const HASH: &str = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";

    fn parse(text: &str) -> Result<Vec<UserConfig>, String> {
        Config::parse(text, "quipu.toml", Path::new("")).map(|config| config.users).map_err(|e| e.to_string())
    }

    /// Refused with this one line, after the file's name.
    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(parse(text).expect_err("refused"), format!("quipu.toml:{expected}"));
    }

    #[test]
    fn takes_what_may_be_said() {
        let users = format!(
            "[tls]\ncertificate = \"c\"\nkey = \"k\"\nclient_ca = \"ca\"\n\
             [user.anonymous]\nread = [\"region.*\"]\n\
             [user.root]\ncertificate = \"sha256:{HASH}\"\ntoken = \"blake3:{HASH}\"\nadmin = true\nread = true\n\
             [user.shop]\ncertificate_name = \"shop.example\"\npublish = [\"orders.>\"]\nconsume = [\"a\", \"b.*\"]\n\
             revoked = true"
        );
        let users = parse(&users).expect("a configuration");
        let [anonymous, root, shop] = &users[..] else { panic!("three users") };
        let pattern = |text| SubjectPattern::new(text).expect("a pattern");
        assert_eq!(anonymous.read, Read::Queues(vec![pattern("region.*")]));
        assert_eq!((root.token, &root.read, root.admin), (blake3::Hash::from_hex(HASH).ok(), &Read::All, true));
        assert_eq!(root.certificate.map(|fingerprint| fingerprint.to_string()), Some(format!("sha256:{HASH}")));
        assert_eq!((&shop.read, shop.revoked, shop.admin), (&Read::Queues(vec![]), true, false));
        assert_eq!((&shop.publish, &shop.consume), (&vec![pattern("orders.>")], &vec![pattern("a"), pattern("b.*")]));
    }

    #[test]
    fn what_is_wrong_is_said_by_key_and_no_token_is_repeated() {
        let hash = format!("token = \"blake3:{HASH}\"");
        check("[user.a]", "1:1: user.a: how does it show who it is? Set `token`, `certificate` or `certificate_name`");
        check(
            "[user.a]\ntoken = \"my-secret\"",
            "2:9: user.a.token: expected \"blake3:\" and 64 hexadecimal digits, as `quipu user token` prints; \
             the token itself never stands in this file",
        );
        check(
            "[user.a]\ncertificate = \"AB:CD\"",
            "2:15: user.a.certificate: expected \"sha256:\" and 64 hexadecimal digits, as `quipu user fingerprint FILE` \
             prints",
        );
        check(
            "[user.a]\ncertificate_name = \"a\"",
            "2:20: user.a.certificate_name: a name alone proves nothing: set `tls.client_ca` to the authority of these \
             certificates",
        );
        check(
            &format!("[user.anonymous]\n{hash}"),
            "1:1: user.anonymous: these are the clients that show nothing: no `token`, `certificate` or \
             `certificate_name` here",
        );
        check(
            &format!("[user.a]\n{hash}\n[user.b]\n{hash}"),
            "4:9: user.b.token: that is how user `a` is known already",
        );
        check(
            "[user.anonymous]\npublish = [\"a\", \"b..c\"]",
            "2:17: user.anonymous.publish[1]: subject \"b..c\" has an empty token; join tokens with single dots, as in \
             `orders.eu`",
        );
        check(
            "[user.anonymous]\nread = \"all\"",
            "2:8: user.anonymous.read: expected true, false or an array of patterns of queues, found \"all\"",
        );
        check("[user.anonymous]\nread = [\"a\", 1]", "2:8: user.anonymous.read[1]: expected a string, found 1");
        check("[user.anonymous]\nadmins = true", "2:1: user.anonymous.admins: unknown key; did you mean `admin`?");
        check("[user.\"a b\"]\nadmin = \"yes\"", "2:9: user.\"a b\".admin: expected a boolean, found \"yes\"");
    }

    #[test]
    fn beyond_loopback_somebody_is_named() {
        let listening = |users: &str| {
            format!("[listen]\nquic = \"0.0.0.0:4433\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n{users}")
        };
        check(
            &listening(""),
            "2:8: listen.quic: without any [user.NAME] whoever connects may do everything: say who may do what \
             ([user.anonymous] is for clients that show nothing), or listen on loopback",
        );
        parse(&listening("[user.anonymous]\nadmin = true")).expect("as it says");
        parse(&listening("").replace("0.0.0.0", "127.0.0.1")).expect("loopback");
    }
}
