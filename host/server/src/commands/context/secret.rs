//! Tokens: where one comes from, and that it is not shown.

use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, Result, ensure};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Longest token, in bytes; routers take none that is longer.
pub(super) const TOKEN_BYTES_MAX: u64 = 1_024;

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::commands) struct Secret(pub(in crate::commands) String);

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Where a context has its token from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) enum TokenSource {
    /// It is in the file of contexts itself.
    Text(Secret),
    /// It is in this variable of the environment.
    Env(String),
    /// It is in this file, which may end with a line break.
    File(PathBuf),
}

impl TokenSource {
    /// The token.
    ///
    /// # Errors
    ///
    /// A text that says where it was looked for.
    pub(in crate::commands) fn token(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Secret> {
        let token = match self {
            Self::Text(Secret(token)) => token.clone(),
            Self::Env(name) => {
                let token = variable(name).filter(|token| !token.is_empty());
                token.with_context(|| format!("its token is in the variable {name}, which is not set"))?
            }
            Self::File(path) => {
                let failed = || format!("its token is in {}, which cannot be read", path.display());
                read(File::open(path).with_context(failed)?).with_context(failed)?
            }
        };
        Ok(Secret(token.trim().to_owned()))
    }
}

/// A token, without what is around it.
///
/// # Errors
///
/// Where there is none, or more than a token may be.
pub(super) fn read(from: impl std::io::Read) -> Result<String> {
    let mut token = String::new();
    from.take(TOKEN_BYTES_MAX + 2).read_to_string(&mut token)?;
    let token = token.trim();
    ensure!(!token.is_empty(), "no token");
    ensure!(token.len() as u64 <= TOKEN_BYTES_MAX, "more than {TOKEN_BYTES_MAX} bytes");
    Ok(token.to_owned())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Elsewhere {
    env: Option<String>,
    file: Option<PathBuf>,
}

impl<'de> Deserialize<'de> for TokenSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = TokenSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, { env = \"NAME\" } or { file = \"PATH\" }")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<TokenSource, E> {
        Ok(TokenSource::Text(Secret(text.to_owned())))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TokenSource, A::Error> {
        let Elsewhere { env, file } = Elsewhere::deserialize(MapAccessDeserializer::new(map))?;
        match (env, file) {
            (Some(name), None) => Ok(TokenSource::Env(name)),
            (None, Some(path)) => Ok(TokenSource::File(path)),
            _ => Err(A::Error::custom("expected either `env` or `file`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_not_shown() {
        let secret: Secret = "hunter2".parse().expect("anything is one");
        assert_eq!(format!("{secret:?}"), "…");
        assert_eq!(format!("{:?}", TokenSource::Text(secret)), "Text(…)");
    }

    #[test]
    fn tokens_are_trimmed_and_limited() {
        assert_eq!(read(&b" quipu_abc\n"[..]).expect("a token"), "quipu_abc");
        assert_eq!(read(&b"\n"[..]).expect_err("none").to_string(), "no token");
        assert!(read(&[b'a'; 1_024][..]).is_ok());
        assert_eq!(read(&[b'a'; 1_025][..]).expect_err("too long").to_string(), "more than 1024 bytes");
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let source = TokenSource::Env("PROD_TOKEN".into());
        let error = source.token(|_| None).expect_err("not set").to_string();
        assert_eq!(error, "its token is in the variable PROD_TOKEN, which is not set");
        assert_eq!(source.token(|name| Some(format!("{name}!"))).expect("set"), Secret("PROD_TOKEN!".into()));
    }
}
