//! What makes the shell comfortable: completions in real shells, manual pages, contexts, and errors that name the nearest.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};

use quipu_tests::{TestServer, output_of, quipu, soon};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::QUIPU;

const CONFIG: &str = "[queue.quakes]\n[queue.alerts]\n[[route]]\nname = \"regions\"\nfrom = \"quakes\"\n\
    plugins = [{ name = \"filter-json\", config = { field = \"n\", at_least = 5 } }]\nto = [\"alerts\"]\n";
/// How bash is asked what it would offer behind the words in `$@`: as readline does, by the function that is registered.
const BASH: &str = r#"
    source ./script || exit 3
    function=$(complete -p quipu | sed 's/.* -F \([^ ]*\) .*/\1/')
    COMP_LINE="$*" COMP_POINT=$(IFS=' '; line="$*"; echo ${#line})
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
    "$function" quipu "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    printf '%s\n' "${COMPREPLY[@]}"
"#;
/// The same in zsh, with a stand-in for the menu that shows what there is.
const ZSH: &str = r#"
    compdef() { registered=$1 }
    _describe() { print -rl -- "${(@P)3}" }
    fpath=($PWD/functions $fpath)
    words=("$@") CURRENT=$#
    autoload -U _quipu && _quipu
    [[ $registered == _clap_dynamic_completer_quipu ]] || exit 3
"#;
const FISH: &str = "source ./script; complete --do-complete \"$argv\"";

/// Whether this program is there; it is said where it is not.
fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !is_there {
        eprintln!("skipped: needs {program}");
    }
    is_there
}

/// A shell in a directory, with the script of `quipu completions` in it.
struct Shell<'a> {
    name: &'static str,
    directory: &'a Path,
    server: &'a str,
}

impl Shell<'_> {
    async fn new<'a>(name: &'static str, directory: &'a Path, server: &'a str) -> Shell<'a> {
        let (code, script, errors) = output_of(QUIPU, directory, &["completions", name]).await;
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        std::fs::create_dir_all(directory.join("functions")).expect("made");
        for file in ["script", "functions/_quipu"] {
            std::fs::write(directory.join(file), &script).expect("written");
        }
        Shell { name, directory, server }
    }

    /// What is offered for the last of these words.
    async fn offered(&self, words: &[&str]) -> Vec<String> {
        let mut command = self.command();
        match self.name {
            "bash" => command.args(["--norc", "--noprofile", "-c", BASH, "bash", "quipu"]).args(words),
            "zsh" => command.args(["-f", "-c", ZSH, "zsh", "quipu"]).args(words),
            _ => command.args(["--no-config", "-c", FISH]).arg(format!("quipu {}", words.join(" "))),
        };
        let Output { status, stdout, stderr } = soon("a shell", command.output()).await.expect("it runs");
        let (text, errors) =
            (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned());
        assert!(status.success() && errors.is_empty(), "{} {words:?}: {status} {text} {errors}", self.name);
        // Without what zsh and fish say beside it: behind a colon, where others have a backslash, and behind a tab.
        let beside = if self.name == "zsh" { ':' } else { '\t' };
        let word = |line: &str| {
            let line = line.replace("\\:", "\0");
            line.split(beside).next().unwrap_or_default().replace('\0', ":")
        };
        text.lines().filter(|line| !line.is_empty()).map(word).collect()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.name);
        command.current_dir(self.directory).stdin(Stdio::null()).kill_on_drop(true);
        command.env("HOME", self.directory).env("XDG_CONFIG_HOME", self.directory.join("config"));
        command.env("QUIPU_DEV_CERTIFICATE", self.directory.join("certificate.pem")).env("QUIPU_SERVER", self.server);
        command.env_remove("QUIPU_CONTEXT");
        command
    }
}

async fn completes(shell: &'static str) {
    if !has(shell) {
        return;
    }
    let server = TestServer::start(QUIPU, CONFIG).await;
    server.cli(&["subscription", "create", "quakes", "desk"]).await;
    server.cli(&["context", "add", "prod", "--server", "prod:1"]).await;
    let at = Shell::new(shell, server.directory(), server.address()).await;
    let check = async |words: &[&str], expected: &[&str]| {
        assert_eq!(at.offered(words).await, expected, "{shell}: {words:?}");
    };
    check(&["que"], &["queue"]).await;
    check(&["queue", "redr"], &["redrive"]).await;
    check(&["queue", "redrive", "--fil"], &["--filter"]).await;
    check(&["sub", "q", "--mode", "key"], &["key-shared"]).await;
    // Names of the router that runs.
    check(&["queue", "show", "qu"], &["quakes"]).await;
    check(&["queue", "purge", "al"], &["alerts"]).await;
    check(&["sub", "quakes", "--subscription", "d"], &["desk"]).await;
    check(&["route", "pause", "r"], &["regions"]).await;
    check(&["plugin", "show", "f"], &["filter-json"]).await;
    check(&["plugin", "deploy", "filter-j"], &["filter-json@stock"]).await;
    // To bash, a word ends at these, and only the rest of it is replaced.
    let whole = |of_bash, of_others| if shell == "bash" { of_bash } else { of_others };
    check(&["plugin", "deploy", "filter-json@s"], &[whole("stock", "filter-json@stock")]).await;
    check(&["subscription", "pause", "quakes", "route:r"], &[whole("regions", "route:regions")]).await;
    check(&["queue", "list", "--context=p"], &[whole("prod", "--context=prod")]).await;
    check(&["queue", "list", "--context", ""], &["prod"]).await;
    check(&["context", "use", "p"], &["prod"]).await;
    // Files, where a file is wanted.
    std::fs::write(server.directory().join("orders.ndjson"), "").expect("written");
    check(&["pub", "orders.eu", "--file", "ord"], &["orders.ndjson"]).await;
    // Of the router that the line names, which is not there: nothing, and no error.
    check(&["queue", "show", "--server", "127.0.0.1:1", "qu"], &[]).await;
}

#[tokio::test]
async fn bash_completes_commands_and_names() {
    completes("bash").await;
}

#[tokio::test]
async fn zsh_completes_commands_and_names() {
    completes("zsh").await;
}

#[tokio::test]
async fn fish_completes_commands_and_names() {
    completes("fish").await;
}

#[tokio::test]
async fn manual_pages_are_written_and_can_be_set() {
    let directory = tempfile::tempdir().expect("a directory");
    let (code, said, errors) = output_of(QUIPU, directory.path(), &["man", "--dir", "share/man1"]).await;
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let pages: Vec<_> = std::fs::read_dir(directory.path().join("share/man1")).expect("made").flatten().collect();
    assert_eq!(said, format!("{} pages in share/man1\n", pages.len()));
    let page = std::fs::read_to_string(directory.path().join("share/man1/quipu-queue-redrive.1")).expect("there");
    assert_eq!(output_of(QUIPU, directory.path(), &["man", "queue", "redrive"]).await.1.trim(), page.trim());
    let (code, _, errors) = output_of(QUIPU, directory.path(), &["man", "queue", "redriv"]).await;
    let wrong = "quipu: there is no command `quipu queue redriv`; did you mean \"redrive\"?\n";
    assert_eq!((code, errors.as_str()), (Some(1), wrong));
    if !has("groff") {
        return;
    }
    for page in pages {
        let mut groff = Command::new("groff");
        groff.args(["-man", "-Tutf8", "-ww"]).arg(page.path()).env("GROFF_NO_SGR", "1");
        let set = soon("groff", groff.output()).await.expect("it runs");
        let (text, errors) = (String::from_utf8_lossy(&set.stdout), String::from_utf8_lossy(&set.stderr));
        assert!(set.status.success() && errors.is_empty(), "{}: {errors}", page.path().display());
        for section in ["NAME", "SYNOPSIS", "EXAMPLES", "EXIT STATUS"] {
            // Bold as typewriters made it: each letter struck twice.
            let bold: String =
                section.chars().map(|c| if c == ' ' { " ".into() } else { format!("{c}\u{8}{c}") }).collect();
            assert!(text.contains(&bold), "{}: no {section}:\n{text}", page.path().display());
        }
    }
}

/// A router that wants a token, and the token.
async fn guarded() -> (TestServer, &'static str) {
    let token = "quipu_0123456789abcdef0123456789abcdef";
    let hash = blake3::hash(token.as_bytes()).to_hex();
    let user = format!("[queue.orders]\n[user.me]\ntoken = \"blake3:{hash}\"\nadmin = true\n");
    (TestServer::start(QUIPU, &user).await, token)
}

async fn fails(directory: &Path, arguments: &[&str]) -> String {
    let (code, said, errors) = output_of(QUIPU, directory, arguments).await;
    assert_eq!((code, said.as_str()), (Some(1), ""), "{arguments:?}: {errors}");
    errors
}

async fn done(directory: &Path, arguments: &[&str]) -> String {
    let (code, said, errors) = output_of(QUIPU, directory, arguments).await;
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{arguments:?}: {said}");
    said
}

#[tokio::test]
async fn a_context_is_server_certificate_and_token() {
    let (server, token) = guarded().await;
    let (at, address) = (server.directory(), server.address());
    std::fs::write(at.join("token.txt"), format!("{token}\n")).expect("written");
    let file = at.join("config/quipu/contexts.toml");
    let added = ["context", "add", "prod", "--server", address, "--ca", "certificate.pem", "--token-file", "token.txt"];
    let said = done(at, &added).await;
    assert_eq!(said, format!("prod is in {}; next: quipu context use prod\n", file.display()));
    assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    // Named, current, in the environment.
    assert!(done(at, &["queue", "list", "--context", "prod"]).await.contains("orders"));
    assert_eq!(done(at, &["context", "use", "prod"]).await, "prod is the current context\n");
    assert!(done(at, &["queue", "list"]).await.contains("orders"));
    done(at, &["context", "use", "--none"]).await;
    let output = quipu(QUIPU, at).env("QUIPU_CONTEXT", "prod").args(["queue", "list"]).output();
    assert!(soon("a command", output).await.expect("it runs").status.success());
    // A token in the file is kept, and not shown.
    let mut piped = quipu(QUIPU, at);
    piped.args(["context", "add", "kept", "--server", address, "--ca", "certificate.pem", "--token", "-", "--use"]);
    piped.stdin(std::fs::File::open(at.join("token.txt")).expect("there"));
    assert!(soon("a command", piped.output()).await.expect("it runs").status.success());
    assert!(std::fs::read_to_string(&file).expect("there").contains(token));
    assert!(done(at, &["queue", "list"]).await.contains("orders"));
    for shown in [&["context", "show"][..], &["context", "list"], &["context", "list", "--json"]] {
        let said = done(at, shown).await;
        assert!(said.contains("in the file") && !said.contains(token), "{said}");
    }
    let shown: Value = serde_json::from_str(&done(at, &["context", "show", "--json"]).await).expect("JSON");
    let expected = json!({
        "name": "kept", "current": true, "server": address, "ca": at.join("certificate.pem"), "token": "in the file",
        "cert": null, "key": null,
    });
    assert_eq!(shown, expected);
    let gone = done(at, &["context", "rm", "kept"]).await;
    assert_eq!(gone, format!("kept is gone from {}; no context is current now\n", file.display()));
    assert!(!std::fs::read_to_string(&file).expect("there").contains(token));
}

#[tokio::test]
async fn a_context_is_not_mixed_with_another_router() {
    let (server, token) = guarded().await;
    let at = server.directory();
    let added = ["context", "add", "away", "--server", "127.0.0.1:1", "--token", token, "--use"];
    done(at, &added).await;
    let refused = server.cli_output(&["queue", "list"]).await;
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(errors.contains("a token is needed"), "the token of another router is not shown to this one: {errors}");
    let mixed = server.cli_output(&["queue", "list", "--context", "away", "--server", server.address()]).await;
    assert!(mixed.status.success(), "{}", String::from_utf8_lossy(&mixed.stderr));
}

#[tokio::test]
async fn what_is_wrong_with_contexts_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let file = at.join("config/quipu/contexts.toml");
    let none = fails(at, &["status", "--context", "prod"]).await;
    let expected = format!(
        "quipu: there is no context \"prod\": {} is not there; `quipu context add prod --server HOST:PORT` makes it\n",
        file.display()
    );
    assert_eq!(none, expected);
    done(at, &["context", "add", "prod", "--server", "prod.example:4433"]).await;
    let near = fails(at, &["status", "--context", "prd"]).await;
    assert_eq!(near, format!("quipu: there is no context \"prd\" in {}; did you mean \"prod\"?\n", file.display()));
    for command in [&["context", "use", "prd"][..], &["context", "rm", "prd"], &["context", "show", "prd"]] {
        assert_eq!(fails(at, command).await, near, "{command:?}");
    }
    let twice = fails(at, &["context", "add", "prod", "--server", "other:1"]).await;
    assert!(twice.contains("--replace"), "{twice}");
    std::fs::write(&file, "[context.prod]\nserver = \"a:1\"\ntokn = \"x\"\n").expect("written");
    let (code, _, errors) = output_of(QUIPU, at, &["status"]).await;
    let expected = format!("{}:3:1: context.prod.tokn: unknown key; did you mean `token`?\n", file.display());
    assert_eq!((code, errors), (Some(78), expected));
}

#[tokio::test]
async fn unknown_names_are_told_with_the_nearest() {
    let server = TestServer::start(QUIPU, CONFIG).await;
    server.cli(&["subscription", "create", "quakes", "desk"]).await;
    let check = async |arguments: &[&str], expected: &str| {
        let output = server.cli_output(arguments).await;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
    };
    let queue = "there is no queue \"qakes\"; did you mean \"quakes\"?";
    for arguments in [
        &["queue", "show", "qakes"][..],
        &["queue", "purge", "qakes"],
        &["queue", "delete", "qakes"],
        &["queue", "redrive", "qakes"],
        &["queue", "change", "qakes", "max_attempts=3"],
        &["ledger", "qakes"],
        &["sub", "qakes", "--subscription", "s"],
        &["subscription", "create", "qakes", "s"],
        &["subscription", "pause", "qakes", "desk"],
        &["message", "capsule", "qakes", "0"],
    ] {
        check(arguments, queue).await;
    }
    let far = server.cli_output(&["queue", "show", "nothing"]).await;
    let far = String::from_utf8_lossy(&far.stderr).into_owned();
    assert!(far.contains("there is no queue \"nothing\"") && !far.contains("did you mean"), "{far}");
    let subscription = "queue \"quakes\" has no subscription \"dsk\"; did you mean \"desk\"?";
    check(&["subscription", "pause", "quakes", "dsk"], subscription).await;
    check(&["subscription", "delete", "quakes", "dsk"], subscription).await;
    let route = "there is no route \"region\"; did you mean \"regions\"?";
    for arguments in [
        &["route", "pause", "region"][..],
        &["route", "seek", "region", "--to", "first"],
        &["route", "delete", "region", "--keep-subscription"],
        &["route", "change", "region", "parallel=2"],
        &["plugin", "deploy", "filter-json@stock", "--route", "region"],
        &["plugin", "logs", "filter-json", "--route", "region"],
    ] {
        check(arguments, route).await;
    }
    let plugin = "plugin \"filtr-json\" is not in the store; did you mean \"filter-json\"?";
    for arguments in [
        &["plugin", "show", "filtr-json"][..],
        &["plugin", "rm", "filtr-json@stock"],
        &["plugin", "logs", "filtr-json"],
        &["plugin", "traps", "filtr-json"],
    ] {
        check(arguments, plugin).await;
    }
    check(&["plugin", "rm", "filter-json@stok"], "there is no filter-json@stok; did you mean \"stock\"? There are")
        .await;
    check(&["queue", "create", "more", "subject=[\"a\"]"], "unknown key; did you mean `subjects`?").await;
}

#[tokio::test]
async fn names_that_one_may_not_see_are_not_told() {
    let token = "quipu_0123456789abcdef0123456789abcdef";
    let hash = blake3::hash(token.as_bytes()).to_hex();
    let config = format!(
        "[queue.\"eu.orders\"]\n[queue.\"eu.order-secrets\"]\n[user.me]\ntoken = \"blake3:{hash}\"\n\
         read = [\"eu.ordrs\", \"eu.order-secret\", \"eu.orders\"]\nconsume = [\"eu.ordrs\", \"eu.order-secret\", \"eu.orders\"]\n"
    );
    let server = TestServer::start(QUIPU, &config).await;
    for command in [&["queue", "show"][..], &["sub", "--subscription", "s"]] {
        let error = async |queue| {
            let output = server.cli_output(&[command, &["--token", token, queue]].concat()).await;
            String::from_utf8_lossy(&output.stderr).into_owned()
        };
        let near = error("eu.ordrs").await;
        assert!(near.contains("there is no queue \"eu.ordrs\"; did you mean \"eu.orders\"?"), "{near}");
        let hidden = error("eu.order-secret").await;
        assert!(hidden.contains("there is no queue \"eu.order-secret\""), "{hidden}");
        assert!(!hidden.contains("secrets"), "{hidden}");
    }
}

#[tokio::test]
async fn help_fits_120_columns() {
    let directory: TempDir = tempfile::tempdir().expect("a directory");
    for arguments in [&["--help"][..], &["queue", "redrive", "--help"], &["context", "add", "--help"]] {
        let output = quipu(QUIPU, directory.path()).env("COLUMNS", "300").args(arguments).output();
        let text = String::from_utf8(soon("a command", output).await.expect("it runs").stdout).expect("text");
        assert!(text.contains("Examples:\n  quipu "), "{text}");
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(120), "{widest:?}: {text}");
    }
    let (code, _, errors) = output_of(QUIPU, directory.path(), &["qeue", "list"]).await;
    assert_eq!(code, Some(2));
    assert!(errors.contains("similar subcommand") && errors.contains("'queue'"), "{errors}");
}
