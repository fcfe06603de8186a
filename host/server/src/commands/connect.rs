//! How commands reach a router: where it is, whom to trust, and who one is.
//!
//! Each of the three comes from the first that says it: options, the environment, a context, the development's defaults.
//! A context that `--context` names comes before the environment, as what is typed here and now.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use quipu_client::{Client, ClientConfig, Identity, Trust};

use super::context::VARIABLE as CONTEXT_VARIABLE;
use super::context::file::{Contexts, Saved};
use super::context::secret::Secret;

/// Where a router listens unless its configuration says otherwise.
const DEFAULT_SERVER: &str = "127.0.0.1:4433";
const HEADING: &str = "Connection";

/// Where the router is, whom to trust, and who one is.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// The context to use: a router of `quipu context add` [env: QUIPU_CONTEXT] [default: that of `quipu context use`].
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    context: Option<String>,
    /// The router's address [env: QUIPU_SERVER] [default: the context's, else 127.0.0.1:4433].
    #[arg(long, value_name = "HOST:PORT", help_heading = HEADING)]
    server: Option<String>,
    /// Certificates to trust, a PEM file [env: QUIPU_CA] [default: the context's, else the development certificate on
    /// loopback, else the system's].
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    ca: Option<PathBuf>,
    /// A token that says who you are. Better in a context or in the variable than here, where other users of the machine
    /// see it [env: QUIPU_TOKEN].
    #[arg(long, value_name = "TOKEN", help_heading = HEADING)]
    token: Option<Secret>,
    /// A certificate that says who you are, a PEM file [env: QUIPU_CERT].
    #[arg(long, value_name = "FILE", requires = "key", help_heading = HEADING)]
    cert: Option<PathBuf>,
    /// Its key, a PEM file [env: QUIPU_KEY].
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = HEADING)]
    key: Option<PathBuf>,
    /// What the router calls this client.
    #[arg(long, default_value = "quipu-cli", value_name = "NAME", help_heading = HEADING)]
    client: String,
}

/// What one place says of a router.
#[derive(Debug, Default)]
struct Said {
    server: Option<String>,
    ca: Option<PathBuf>,
    who: Option<Who>,
}

/// Who one is. It comes from one place as a whole: of two, a router would see two people.
#[derive(Debug, Default, PartialEq, Eq)]
struct Who {
    token: Option<Secret>,
    identity: Option<(PathBuf, PathBuf)>,
}

/// What it comes to.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    server: String,
    ca: Option<PathBuf>,
    who: Who,
    /// The context that has a part in it.
    context: Option<String>,
}

impl ServerArgs {
    /// Connects.
    pub(crate) async fn connect(&self) -> Result<Client> {
        let target = self.target(&|name| std::env::var(name).ok(), Contexts::load)?;
        let config = target.config(self.client.clone());
        Client::connect(config).await.with_context(|| match &target.context {
            Some(name) => format!("cannot connect to {} (context {name:?})", target.server),
            None => format!("cannot connect to {}", target.server),
        })
    }

    fn target(
        &self,
        variable: &impl Fn(&str) -> Option<String>,
        load: impl FnOnce() -> Result<Contexts>,
    ) -> Result<Target> {
        // An empty variable is how a shell takes one back.
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let options = self.options();
        let variables = variables(&given)?;
        let server = options.server.as_ref().or(variables.server.as_ref());
        let (name, saved) = match self.context.clone().or_else(|| given(CONTEXT_VARIABLE)) {
            Some(name) => {
                let saved = load()?.find(&name)?.clone();
                (Some(name), Some(saved))
            }
            None => current(load, server.is_some())?,
        };
        let is_typed = self.context.is_some();
        // What a context holds is for its router alone: no other is shown its token, unless somebody types both.
        let saved = saved.filter(|saved| is_typed || server.is_none_or(|server| *server == saved.server));
        let context = name.filter(|_| saved.is_some());
        let of_context = match saved {
            Some(saved) => {
                let is_needed = options.who.is_none() && (is_typed || variables.who.is_none());
                said_by(saved, is_needed, variable)
                    .with_context(|| format!("context {:?}", context.as_deref().unwrap_or_default()))?
            }
            None => Said::default(),
        };
        let [second, third] = if is_typed { [of_context, variables] } else { [variables, of_context] };
        Ok(Target {
            server: options.server.or(second.server).or(third.server).unwrap_or_else(|| DEFAULT_SERVER.into()),
            ca: options.ca.or(second.ca).or(third.ca),
            who: options.who.or(second.who).or(third.who).unwrap_or_default(),
            context,
        })
    }

    fn options(&self) -> Said {
        let identity = self.cert.clone().zip(self.key.clone());
        Said { server: self.server.clone(), ca: self.ca.clone(), who: Who::of(self.token.clone(), identity) }
    }
}

fn variables(given: &impl Fn(&str) -> Option<String>) -> Result<Said> {
    let path = |name| given(name).map(PathBuf::from);
    let identity = match (path("QUIPU_CERT"), path("QUIPU_KEY")) {
        (Some(_), None) => bail!("QUIPU_CERT is set and QUIPU_KEY is not"),
        (None, Some(_)) => bail!("QUIPU_KEY is set and QUIPU_CERT is not"),
        (certificate, key) => certificate.zip(key),
    };
    let token = given("QUIPU_TOKEN").map(|token| Secret(token.trim().to_owned()));
    Ok(Said { server: given("QUIPU_SERVER"), ca: path("QUIPU_CA"), who: Who::of(token, identity) })
}

/// The current context. Where a server is said, one that cannot be read is left alone: nothing needs it.
fn current(load: impl FnOnce() -> Result<Contexts>, is_server_said: bool) -> Result<(Option<String>, Option<Saved>)> {
    let contexts = match load() {
        Ok(contexts) => contexts,
        Err(_) if is_server_said => return Ok((None, None)),
        // Without a place for contexts there is no current one.
        Err(e) if e.downcast_ref::<super::context::file::NoPlace>().is_some() => return Ok((None, None)),
        Err(e) => return Err(e),
    };
    let Some(name) = contexts.current() else { return Ok((None, None)) };
    let found = contexts.find(name).cloned();
    match found {
        Ok(saved) => Ok((Some(name.to_owned()), Some(saved))),
        Err(_) if is_server_said => Ok((None, None)),
        Err(e) => Err(e.context("the current context")),
    }
}

/// The token is looked for only where it will be shown: it may be kept where somebody has to be asked.
fn said_by(saved: Saved, is_needed: bool, variable: &impl Fn(&str) -> Option<String>) -> Result<Said> {
    let token = match saved.token.filter(|_| is_needed) {
        Some(source) => Some(source.token(variable)?),
        None => None,
    };
    let identity = saved.cert.zip(saved.key);
    Ok(Said { server: Some(saved.server), ca: saved.ca, who: Who::of(token, identity) })
}

impl Who {
    fn of(token: Option<Secret>, identity: Option<(PathBuf, PathBuf)>) -> Option<Self> {
        (token.is_some() || identity.is_some()).then_some(Self { token, identity })
    }
}

impl Target {
    fn config(&self, name: String) -> ClientConfig {
        let development = || is_loopback(&self.server).then(crate::tls::dev_certificate).flatten();
        let identity = self.who.identity.clone();
        ClientConfig {
            server: self.server.clone(),
            trust: self.ca.clone().or_else(development).map_or(Trust::System, Trust::CertificateFile),
            name,
            token: self.who.token.as_ref().map(|Secret(token)| token.trim().to_owned()),
            identity: identity.map(|(certificate, key)| Identity { certificate, key }),
            ..ClientConfig::default()
        }
    }
}

fn is_loopback(server: &str) -> bool {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        server: ServerArgs,
    }

    const FILE: &str = "current = \"prod\"\n\
        [context.prod]\nserver = \"prod:1\"\nca = \"/prod.pem\"\ntoken = \"of-prod\"\n\
        [context.till]\nserver = \"till:2\"\ncert = \"/till.pem\"\nkey = \"/till.key\"\n\
        [context.lazy]\nserver = \"lazy:3\"\ntoken = { env = \"LAZY\" }\n";

    /// Where options and variables lead: `server ca who context`.
    fn target(options: &str, variables: &[(&str, &str)], file: &str) -> Result<String> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("contexts.toml");
        std::fs::write(&path, file)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let arguments = std::iter::once("quipu").chain(options.split_whitespace());
        let Only { server } = Only::try_parse_from(arguments)?;
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let Target { server, ca, who, context } = server.target(&variable, || Contexts::read(path))?;
        let ca = ca.map(|path| path.display().to_string());
        let token = who.token.map(|Secret(token)| token);
        let identity = who.identity.map(|(certificate, _)| certificate.display().to_string());
        let all = [Some(server), ca, token, identity, context];
        Ok(all.map(|one| one.unwrap_or_else(|| "-".into())).join(" "))
    }

    fn check(options: &str, variables: &[(&str, &str)], expected: &str) {
        assert_eq!(target(options, variables, FILE).expect("a target"), expected, "{options} {variables:?}");
    }

    #[test]
    fn options_come_first_then_the_environment_then_the_context_then_the_default() {
        assert_eq!(target("", &[], "").expect("a target"), "127.0.0.1:4433 - - - -");
        check("", &[], "prod:1 /prod.pem of-prod - prod");
        check("", &[("QUIPU_CONTEXT", "till")], "till:2 - - /till.pem till");
        check("--ca /mine.pem", &[("QUIPU_CA", "/env.pem")], "prod:1 /mine.pem of-prod - prod");
        check("", &[("QUIPU_CA", "/env.pem")], "prod:1 /env.pem of-prod - prod");
        check("--token mine", &[("QUIPU_TOKEN", "env")], "prod:1 /prod.pem mine - prod");
        check("", &[("QUIPU_TOKEN", "env")], "prod:1 /prod.pem env - prod");
        check("", &[("QUIPU_TOKEN", "")], "prod:1 /prod.pem of-prod - prod");
        check("--context till", &[("QUIPU_CONTEXT", "prod")], "till:2 - - /till.pem till");
    }

    #[test]
    fn a_context_that_is_typed_comes_before_the_environment() {
        let variables = [("QUIPU_SERVER", "env:9"), ("QUIPU_TOKEN", "env")];
        check("--context prod", &variables, "prod:1 /prod.pem of-prod - prod");
        check("--context prod --server mine:8", &variables, "mine:8 /prod.pem of-prod - prod");
    }

    #[test]
    fn what_a_context_holds_is_for_its_router_alone() {
        check("--server mine:8", &[], "mine:8 - - - -");
        check("", &[("QUIPU_SERVER", "env:9")], "env:9 - - - -");
        check("--server mine:8", &[("QUIPU_CONTEXT", "prod")], "mine:8 - - - -");
        check("--server prod:1", &[], "prod:1 /prod.pem of-prod - prod");
    }

    #[test]
    fn who_one_is_comes_from_one_place() {
        check("--context till --token mine", &[], "till:2 - mine - till");
        check("--context till", &[("QUIPU_TOKEN", "env")], "till:2 - - /till.pem till");
        let half = target("", &[("QUIPU_CERT", "/a.pem")], FILE).expect_err("half of it").to_string();
        assert_eq!(half, "QUIPU_CERT is set and QUIPU_KEY is not");
    }

    #[test]
    fn a_token_is_looked_for_only_where_it_is_shown() {
        let missing = target("--context lazy", &[], FILE).expect_err("not set");
        assert_eq!(format!("{missing:#}"), "context \"lazy\": its token is in the variable LAZY, which is not set");
        check("--context lazy", &[("LAZY", "found")], "lazy:3 - found - lazy");
        check("--context lazy --token mine", &[], "lazy:3 - mine - lazy");
    }

    #[test]
    fn a_context_that_is_not_there_is_told_with_the_nearest() {
        let error = |options: &str, variables: &[(&str, &str)], file: &str| {
            target(options, variables, file).expect_err("none").to_string()
        };
        let wrong = error("--context prd", &[], FILE);
        assert!(wrong.starts_with("there is no context \"prd\" in /"), "{wrong}");
        assert!(wrong.ends_with("contexts.toml; did you mean \"prod\"?"), "{wrong}");
        let far = error("", &[("QUIPU_CONTEXT", "elsewhere")], FILE);
        assert!(far.ends_with("contexts.toml; there are lazy, prod, till"), "{far}");
        let stale = target("", &[], "current = \"prod\"").expect_err("none");
        assert!(format!("{stale:#}").starts_with("the current context: there is no context \"prod\": /"), "{stale:#}");
        // Where the router is said, nobody needs it.
        assert!(target("--server mine:8", &[], "current = \"prod\"").is_ok());
        assert!(target("--server mine:8", &[], "nonsense").is_ok());
    }

    #[test]
    fn loopback_is_told_from_the_rest() {
        for here in ["localhost:1", "127.0.0.1:4433", "127.9.9.9:1", "[::1]:4433"] {
            assert!(is_loopback(here), "{here}");
        }
        for there in ["example.org:4433", "10.0.0.1:4433", "[2001:db8::1]:1", "localhost.example.org:1"] {
            assert!(!is_loopback(there), "{there}");
        }
    }
}
