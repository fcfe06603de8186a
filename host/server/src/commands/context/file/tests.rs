use super::*;

fn place(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("contexts.toml");
    std::fs::write(&path, text).expect("written");
    std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("changed");
    (directory, path)
}

/// What is wrong with a file, without its name.
fn check(text: &str, expected: &str) {
    let (_directory, path) = place(text, FILE_MODE);
    let error = Contexts::read(path.clone()).expect_err("refused");
    assert!(error.downcast_ref::<ConfigError>().is_some(), "exit code 78");
    assert_eq!(error.to_string(), format!("{}:{expected}", path.display()));
}

fn saved(server: &str) -> Saved {
    Saved { server: server.into(), ca: None, token: None, cert: None, key: None }
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    check("curent = \"a\"", "1:1: curent: unknown key; did you mean `current`?");
    check("[context.a]\nserver = \"a:1\"\ntokn = \"x\"", "3:1: context.a.tokn: unknown key; did you mean `token`?");
    check("[context.a]\nca = \"x\"", "1:1: context.a: the key `server` is missing");
    check("[context.a]\nserver = \"a\"", "1:1: context.a: server: HOST:PORT is expected, found \"a\"");
    check("[context.a]\nserver = \"a:1\"\ncert = \"x\"", "1:1: context.a: `cert` needs `key` beside it");
    check(
        "[context.a]\nserver = \"a:1\"\ntoken = 7",
        "3:9: context.a.token: expected a text, { env = \"NAME\" } or { file = \"PATH\" }, found 7",
    );
    check("[context.a]\nserver = \"a:1\"\ntoken = {}", "3:9: context.a.token: expected either `env` or `file`");
}

#[test]
fn a_token_that_others_may_read_is_refused() {
    let text = "[context.a]\nserver = \"a:1\"\ntoken = \"quipu_x\"";
    let (_directory, path) = place(text, 0o644);
    let error = Contexts::read(path.clone()).expect_err("refused").to_string();
    assert_eq!(error, format!("{0} holds a token and others may read it: chmod 600 {0}", path.display()));
    let (_directory, path) = place("[context.a]\nserver = \"a:1\"\ntoken = { env = \"T\" }", 0o644);
    Contexts::read(path).expect("there is nothing to hide");
}

#[test]
fn relative_paths_begin_at_the_file() {
    let (directory, path) = place("[context.a]\nserver = \"a:1\"\nca = \"ca.pem\"\ntoken = { file = \"t\" }", 0o600);
    let contexts = Contexts::read(path).expect("fine");
    let found = contexts.find("a").expect("there");
    assert_eq!(found.ca, Some(directory.path().join("ca.pem")));
    assert_eq!(found.token, Some(TokenSource::File(directory.path().join("t"))));
}

#[test]
fn what_somebody_wrote_beside_it_stays() {
    let text = "# of the team\ncurrent = \"a\"\n\n# the old one\n[context.a]\nserver = \"a:1\" # here\n";
    let (directory, path) = place(text, 0o644);
    let mut contexts = Contexts::read(path.clone()).expect("fine");
    let token = Some(TokenSource::Text(Secret("quipu_x".into())));
    contexts.add("b.c", Saved { token, ..saved("b:2") }, false).expect("added");
    contexts.set_current(Some("b.c")).expect("there");
    let lock = File::open(directory.path()).expect("there");
    contexts.write(directory.path(), &lock).expect("written");
    let now = std::fs::read_to_string(&path).expect("there");
    let added = "\n[context.\"b.c\"]\nserver = \"b:2\"\ntoken = \"quipu_x\"\n";
    assert_eq!(now, text.replace("current = \"a\"", "current = \"b.c\"") + added);
    assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(directory.path()).expect("there").count(), 1, "no piece is left");
    Contexts::read(path).expect("it is read again");
}

#[test]
fn only_the_table_that_goes_is_cut() {
    let text = "current = \"a\"\n[context.a]\nserver = \"a:1\"\n# of b\n[context.'b']\nserver = \"b:1\"\n\n\
        [context.c]\nserver = \"c:1\"\n";
    let (directory, path) = place(text, 0o600);
    let mut contexts = Contexts::read(path.clone()).expect("fine");
    contexts.add("b", saved("b:2"), true).expect("replaced");
    contexts.remove("a").expect("there");
    let lock = File::open(directory.path()).expect("there");
    contexts.write(directory.path(), &lock).expect("written");
    let now = std::fs::read_to_string(&path).expect("there");
    assert_eq!(now, "# of b\n\n[context.c]\nserver = \"c:1\"\n\n[context.b]\nserver = \"b:2\"\n");
}

#[test]
fn a_file_of_another_form_is_left_to_its_writer() {
    let text = "context = { a = { server = \"a:1\" } }\n";
    let (directory, path) = place(text, 0o600);
    let mut contexts = Contexts::read(path.clone()).expect("fine");
    contexts.add("b", saved("b:2"), false).expect("taken");
    let lock = File::open(directory.path()).expect("there");
    let error = contexts.write(directory.path(), &lock).expect_err("refused").to_string();
    assert!(error.ends_with("change it by hand"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).expect("there"), text);
}

#[test]
fn texts_are_quoted() {
    let text = "a\"b\\c\nd\u{7f}é";
    let table: toml::Table = toml::from_str(&format!("t = {}", quoted(text))).expect("TOML");
    assert_eq!(table["t"].as_str(), Some(text));
}

#[test]
fn names_are_taken_once_and_checked() {
    let (_directory, path) = place("", 0o600);
    let mut contexts = Contexts::read(path).expect("fine");
    contexts.add("a", saved("a:1"), false).expect("added");
    assert!(contexts.add("a", saved("a:2"), false).expect_err("taken").to_string().contains("--replace"));
    contexts.add("a", saved("a:2"), true).expect("replaced");
    assert_eq!(contexts.find("a").expect("there").server, "a:2");
    for bad in ["", "-a", "a b", "ü", &"a".repeat(65)] {
        assert!(contexts.add(bad, saved("a:1"), false).is_err(), "{bad}");
    }
    assert!(contexts.add("b", saved(":1"), false).is_err());
}

#[test]
fn the_current_one_goes_with_its_context() {
    let (_directory, path) = place("current = \"a\"\n[context.a]\nserver = \"a:1\"\n", 0o600);
    let mut contexts = Contexts::read(path).expect("fine");
    assert!(contexts.remove("b").is_err());
    assert!(contexts.remove("a").expect("there"));
    assert_eq!((contexts.current(), contexts.text.as_str()), (None, ""));
}

#[test]
fn the_file_is_where_the_desktop_keeps_such() {
    let home = |name: &str| (name == "HOME").then(|| "/home/a".into());
    assert_eq!(path_by(home), Some("/home/a/.config/quipu/contexts.toml".into()));
    let given = |name: &str| match name {
        "XDG_CONFIG_HOME" => Some("/etc/a".into()),
        other => home(other),
    };
    assert_eq!(path_by(given), Some("/etc/a/quipu/contexts.toml".into()));
    let relative = |name: &str| match name {
        "XDG_CONFIG_HOME" => Some("config".into()),
        other => home(other),
    };
    assert_eq!(path_by(relative), Some("/home/a/.config/quipu/contexts.toml".into()));
    assert_eq!(path_by(|_| None), None);
}
