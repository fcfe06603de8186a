//! `quipu user`: what a configuration says of users in place of their secrets. Needs no router.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Subcommand;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::output::say;
use crate::tls::{Facts, Fingerprint, chain_in};

/// Tells a token from other secrets, also to those who look for leaked ones.
const TOKEN_PREFIX: &str = "quipu_";
const TOKEN_BYTES: usize = 32;
/// What a token that was made elsewhere has at least: 32 characters, and 10 different ones.
const GIVEN_CHARS_MIN: usize = 32;
const GIVEN_DIFFERENT_MIN: usize = 10;
const GIVEN_BYTES_MAX: u64 = 1_024;

/// Tokens and fingerprints for `[user.NAME]`.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Makes a token, and the line that the configuration has of it.
    #[command(after_help = "Examples:\n  quipu user token\n  quipu user token --stdin < token.txt")]
    Token(TokenArgs),
    /// Prints the line that the configuration has of a certificate, and the names in that.
    #[command(after_help = "Example:\n  quipu user fingerprint till-7.pem")]
    Fingerprint(FingerprintArgs),
}

/// The token is said once, here, and kept nowhere.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    /// Takes a token that was made elsewhere from standard input, and prints the line alone.
    #[arg(long)]
    stdin: bool,
    /// Prints JSON, one object.
    #[arg(long)]
    json: bool,
}

/// Prints the SHA-256 of a certificate.
#[derive(Debug, clap::Args)]
pub(crate) struct FingerprintArgs {
    /// The certificate, a PEM file; the first one where there are several.
    file: PathBuf,
    /// Prints JSON, one object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(command: UserCommand) -> Result<ExitCode> {
    match command {
        UserCommand::Token(args) if args.stdin => given(&args)?,
        UserCommand::Token(args) => new(&args)?,
        UserCommand::Fingerprint(args) => fingerprint(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn new(args: &TokenArgs) -> Result<()> {
    let mut secret = [0; TOKEN_BYTES];
    SystemRandom::new().fill(&mut secret).map_err(|_| anyhow!("the system has no randomness"))?;
    let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let token = format!("{TOKEN_PREFIX}{digits}");
    let hash = hash_of(&token);
    if args.json {
        say!("{}", serde_json::json!({ "token": token, "hash": hash }))?;
    } else {
        say!("{token}")?;
        say!("")?;
        say!("For the client, and nowhere else: it is not said again. For [user.NAME] in the configuration:")?;
        say!("")?;
        say!("token = \"{hash}\"")?;
    }
    Ok(())
}

fn given(args: &TokenArgs) -> Result<()> {
    let mut token = String::new();
    std::io::stdin().take(GIVEN_BYTES_MAX + 2).read_to_string(&mut token).context("standard input")?;
    let token = token.trim();
    check(token)?;
    let hash = hash_of(token);
    if args.json {
        say!("{}", serde_json::json!({ "hash": hash }))?;
    } else {
        say!("token = \"{hash}\"")?;
    }
    Ok(())
}

/// Refuses what somebody thought of. Who has the hash of such a token soon has the token.
fn check(token: &str) -> Result<()> {
    let most = usize::try_from(GIVEN_BYTES_MAX).unwrap_or(usize::MAX);
    ensure!(token.len() <= most, "a token of more than {most} bytes");
    let is_visible = token.chars().all(|c| c.is_ascii_graphic());
    ensure!(is_visible, "a token is made of visible ASCII characters");
    let mut different: Vec<char> = token.chars().collect();
    different.sort_unstable();
    different.dedup();
    let is_strong = token.len() >= GIVEN_CHARS_MIN && different.len() >= GIVEN_DIFFERENT_MIN;
    ensure!(
        is_strong,
        "this token is weak: it needs {GIVEN_CHARS_MIN} random characters or more, at least {GIVEN_DIFFERENT_MIN} of them \
         different; `quipu user token` makes one"
    );
    Ok(())
}

fn hash_of(token: &str) -> String {
    format!("blake3:{}", blake3::hash(token.as_bytes()).to_hex())
}

fn fingerprint(args: &FingerprintArgs) -> Result<()> {
    let pem = std::fs::read(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let chain = chain_in(&args.file, &pem)?;
    let own = chain.first().context("no certificate")?;
    let facts = Facts::of(own).with_context(|| format!("{} holds no certificate", args.file.display()))?;
    if args.json {
        let found = serde_json::json!({ "certificate": Fingerprint::of(own).to_string(), "names": facts.names });
        return Ok(say!("{found}")?);
    }
    say!("certificate = \"{}\"", Fingerprint::of(own))?;
    for name in facts.names {
        say!("# or, with its authority in tls.client_ca: certificate_name = {name:?}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_thought_of_is_refused() {
        for weak in [
            "",
            "hunter2",
            "correct-horse-battery",
            &"a".repeat(64),
            &"abcabcabc".repeat(9),
            "with space".repeat(9).as_str(),
        ] {
            assert!(check(weak).is_err(), "{weak}");
        }
        check(&format!("quipu_{}", "0123456789abcdef".repeat(4))).expect("what is made here");
    }

    #[test]
    fn the_hash_is_what_other_tools_make_of_the_token() {
        // As `printf %s abc | b3sum` has it.
        let expected = "blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
        assert_eq!(hash_of("abc"), expected);
    }
}
