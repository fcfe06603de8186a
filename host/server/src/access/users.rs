//! The users at one time: who shows this, and what may they do?

use std::sync::Arc;

use quipu_protocol::{Subject, SubjectPattern};
use rustls::pki_types::{CertificateDer, UnixTime};

use super::refusals::Reason;
use crate::config::{ANONYMOUS, Read, UserConfig};
use crate::tls::{ClientCertificates, Facts, Fingerprint};

/// The users at one time.
pub(super) struct Users {
    users: Vec<Arc<UserConfig>>,
    certificates: Arc<ClientCertificates>,
}

/// What a client has shown of itself. Tokens are not kept.
#[derive(Default)]
pub(super) struct Evidence {
    pub(super) token: Option<blake3::Hash>,
    pub(super) certificate: Option<Shown>,
}

/// The certificate that a client has shown it has the key of.
pub(super) struct Shown {
    /// Its own, then those that lead to an authority.
    chain: Vec<CertificateDer<'static>>,
    fingerprint: Fingerprint,
    names: Vec<String>,
    /// When that was. A session may outlive its certificate's validity.
    at: UnixTime,
}

/// Who a client is.
#[derive(Debug, Clone)]
pub(super) enum Who {
    /// There are no users, and everyone may do everything.
    Anyone,
    User(Arc<UserConfig>),
}

/// Why a client is nobody who may be here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Denied {
    pub(super) reason: Reason,
    pub(super) text: String,
}

impl Shown {
    /// What came with the handshake, just now.
    pub(super) fn new(chain: Vec<CertificateDer<'static>>) -> Option<Self> {
        let own = chain.first()?;
        let (fingerprint, names) = (Fingerprint::of(own), Facts::of(own)?.names);
        Some(Self { chain, fingerprint, names, at: UnixTime::now() })
    }
}

impl Users {
    pub(super) fn new(users: &[UserConfig], certificates: Arc<ClientCertificates>) -> Self {
        Self { users: users.iter().cloned().map(Arc::new).collect(), certificates }
    }

    pub(super) fn count(&self) -> usize {
        self.users.len()
    }

    /// Who shows this.
    ///
    /// # Errors
    ///
    /// [`Denied`]: nobody, or one who is revoked. A credential that is wrong is never just left out.
    pub(super) fn who(&self, evidence: &Evidence) -> Result<Who, Denied> {
        if self.users.is_empty() {
            return Ok(Who::Anyone);
        }
        let by_token = evidence.token.as_ref().map(|hash| self.by_token(hash)).transpose()?;
        let by_certificate = evidence.certificate.as_ref().map(|shown| self.by_certificate(shown)).transpose()?;
        let user = match (by_token, by_certificate) {
            (Some(one), Some(other)) if one.name != other.name => {
                let text =
                    format!("the token is that of user {:?}, the certificate that of {:?}", one.name, other.name);
                return Err(Denied { reason: Reason::UnknownCertificate, text });
            }
            (Some(user), _) | (None, Some(user)) => user,
            (None, None) => self.anonymous()?,
        };
        if user.revoked {
            return Err(Denied { reason: Reason::Revoked, text: format!("user {:?} is revoked", user.name) });
        }
        Ok(Who::User(user))
    }

    fn by_token(&self, hash: &blake3::Hash) -> Result<Arc<UserConfig>, Denied> {
        // Hashes compare in constant time, and all of them are compared.
        let mut found = None;
        for user in &self.users {
            if user.token.as_ref() == Some(hash) {
                found = Some(user.clone());
            }
        }
        found.ok_or_else(|| Denied { reason: Reason::Token, text: "no user has this token".into() })
    }

    fn by_certificate(&self, shown: &Shown) -> Result<Arc<UserConfig>, Denied> {
        let pinned = self.users.iter().find(|user| user.certificate == Some(shown.fingerprint));
        if let Some(user) = pinned {
            return Ok(user.clone());
        }
        let is_named = |user: &&Arc<UserConfig>| {
            let wanted = user.certificate_name.as_deref();
            wanted.is_some_and(|wanted| shown.names.iter().any(|name| name.eq_ignore_ascii_case(wanted)))
        };
        let denied = |why: &str| {
            let names = shown.names.join(", ");
            let text = format!("no user has this client certificate ({names}; {}){why}", shown.fingerprint);
            Denied { reason: Reason::UnknownCertificate, text }
        };
        let named = self.users.iter().find(is_named).ok_or_else(|| denied(""))?;
        // The handshake has checked it by what was in force then.
        let (own, others) = shown.chain.split_first().ok_or_else(|| denied(""))?;
        match self.certificates.check(own, others, shown.at) {
            Ok(()) => Ok(named.clone()),
            Err(e) => Err(denied(&format!(": {e}"))),
        }
    }

    fn anonymous(&self) -> Result<Arc<UserConfig>, Denied> {
        let anonymous = self.users.iter().find(|user| user.name == ANONYMOUS);
        anonymous.cloned().ok_or_else(|| {
            let or = if self.certificates.are_wanted() { ", or a client certificate" } else { "" };
            let text = format!("this router asks who its clients are: a token is needed{or}");
            Denied { reason: Reason::NoCredential, text }
        })
    }
}

impl Who {
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Anyone => None,
            Self::User(user) => Some(&user.name),
        }
    }

    /// Whether it may publish to something.
    pub(super) fn publishes(&self) -> bool {
        self.user().is_none_or(|user| !user.publish.is_empty())
    }

    pub(super) fn may_publish(&self, subject: &Subject) -> bool {
        self.user().is_none_or(|user| any(&user.publish, subject))
    }

    /// Whether it may consume from something.
    pub(super) fn consumes(&self) -> bool {
        self.user().is_none_or(|user| !user.consume.is_empty())
    }

    /// Names that no queue can have are left to those who look for the queue.
    pub(super) fn may_consume(&self, queue: &str) -> bool {
        self.user().is_none_or(|user| Subject::new(queue).is_ok_and(|queue| any(&user.consume, &queue)))
    }

    pub(super) fn may_read(&self, queue: &str) -> bool {
        self.reads_all() || Subject::new(queue).is_ok_and(|queue| any(self.readable(), &queue))
    }

    pub(super) fn reads_all(&self) -> bool {
        self.user().is_none_or(|user| user.admin || user.read == Read::All)
    }

    /// Whether it may look at something.
    pub(super) fn reads(&self) -> bool {
        self.reads_all() || !self.readable().is_empty()
    }

    pub(super) fn is_admin(&self) -> bool {
        self.user().is_none_or(|user| user.admin)
    }

    fn user(&self) -> Option<&UserConfig> {
        match self {
            Self::Anyone => None,
            Self::User(user) => Some(user),
        }
    }

    fn readable(&self) -> &[SubjectPattern] {
        match self.user().map(|user| &user.read) {
            Some(Read::Queues(patterns)) => patterns,
            _ => &[],
        }
    }
}

fn any(patterns: &[SubjectPattern], subject: &Subject) -> bool {
    patterns.iter().any(|pattern| pattern.matches(subject))
}
