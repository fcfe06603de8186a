//! A plugin's project: a folder with a `plugin.toml`.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail};
use quipu_runtime::Limits;
use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Spanned;

use super::languages::Language;
use super::languages::rust::RUST;
use crate::config::{
    ByteSize, ConfigError, HumanDuration, PluginConfig, Problem, Table, has_secret, read_toml, to_json,
};
use crate::plugins::version::check_tag;

/// The file that makes a folder a project.
pub(crate) const MANIFEST: &str = "plugin.toml";
/// The folder of what this binary and compilers write. Not kept by authors.
pub(crate) const WORK_DIR: &str = ".quipu";
/// Largest `plugin.toml`, in bytes.
const MANIFEST_BYTES_MAX: u64 = 256 << 10;
/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// A folder with a plugin's source, and what its `plugin.toml` says.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    /// Absolute.
    pub(crate) dir: PathBuf,
    pub(crate) name: ProjectName,
    /// The tag that it is pushed with.
    pub(crate) version: String,
    pub(crate) language: &'static Language,
    /// `source`, where it is given; relative to the folder.
    pub(crate) given_source: Option<PathBuf>,
    /// `[config]`: what the plugin is given unless a command or a case says otherwise.
    config: Map<String, Value>,
    /// What it takes in from files and variables and what is not there. It takes a plugin that runs to miss it.
    not_there: Vec<Problem>,
    /// Whether environment variables are in it, which are where secrets are.
    pub(crate) has_secret: bool,
    /// How errors call its `plugin.toml`.
    manifest: String,
    /// `[limits]`, and the router's defaults for what it does not say.
    pub(crate) limits: Limits,
}

/// What a project is called: words of small letters and digits with `-` between them, as `big-quakes`. 1 to 64 bytes; no
/// word that a language has for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProjectName(String);

/// Why something cannot be a project's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProjectNameError {
    /// Other characters, or none.
    #[error("expected a name of at most {NAME_BYTES_MAX} small letters, digits and `-`, as in big-quakes, found {0:?}")]
    Malformed(String),
    /// `match`, `class` and the like.
    #[error("{0:?} is a word of some programming language; take a name of two words, as in {0}-messages")]
    Keyword(String),
}

/// Words that some compiler would not take as the name of a module, a package or a crate.
const KEYWORDS: &str = "abstract alloc and as async await break case class const continue core crate def default defer do \
    dyn else enum export extern false fn for func go if impl import in interface internal let loop main match mod move mut \
    package pub quipu quipu-plugin ref return self static std struct super switch test trait true type use var";

impl Project {
    /// Reads a folder's `plugin.toml`.
    ///
    /// # Errors
    ///
    /// There is none, or a [`ConfigError`] says everything that is wrong in it, with line and key.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let file = dir.join(MANIFEST);
        let shown = file.strip_prefix("./").unwrap_or(&file).to_owned();
        let text = match read(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => bail!(
                "{} is not there: a plugin's project has one; `quipu plugin new NAME --lang LANG` makes a project",
                shown.display()
            ),
            Err(source) => return Err(ConfigError::Read { path: shown, source }.into()),
        };
        let shown = shown.display().to_string();
        let dir = std::fs::canonicalize(dir).map_err(|source| ConfigError::Read { path: dir.into(), source })?;
        match Self::parse(&text, dir) {
            Ok(project) => Ok(Self { manifest: shown, ..project }),
            Err(problems) => Err(ConfigError::Invalid { file: shown, problems }.into()),
        }
    }

    /// Of a text; files that the configuration names are looked for in the folder.
    fn parse(text: &str, dir: PathBuf) -> Result<Self, Vec<Problem>> {
        let Raw { plugin: Table(plugin), config, limits: Table(limits) } = read_toml(text)?;
        let mut problems = Vec::new();
        let (name, language) = (plugin.name.as_ref().parse(), plugin.language.as_ref().parse::<&'static Language>());
        if let Err(e) = &name {
            problems.push(Problem::at(text, &plugin.name.span(), "plugin.name", ProjectNameError::to_string(e)));
        }
        if let Err(e) = &language {
            let said = <&Language as FromStr>::Err::to_string(e);
            problems.push(Problem::at(text, &plugin.language.span(), "plugin.language", said));
        }
        if let (Ok(language), Some(source)) = (&language, &plugin.source)
            && language.name == RUST.name
        {
            let said = "Cargo says where the source of a crate is: `[lib] path` of Cargo.toml".to_owned();
            problems.push(Problem::at(text, &source.span(), "plugin.source", said));
        }
        if let Err(e) = check_tag(plugin.version.as_ref()) {
            problems.push(Problem::at(text, &plugin.version.span(), "plugin.version", e.to_string()));
        }
        let (at, table) = config.map_or((0..0, toml::Table::new()), |table| (table.span(), table.into_inner()));
        let mut not_there = Vec::new();
        let mut report = |key: String, message: String| not_there.push(Problem::at(text, &at, key, message));
        let has_secret = table.values().any(has_secret);
        // An empty path, or a whole configuration of one key `file` would be taken for a file's text.
        let config = table.into_iter().map(|(key, value)| {
            let path = format!("config.{key}");
            (key, to_json(value, &path, &dir, &mut report))
        });
        let config = config.collect();
        let limits = limits.check(text, &mut problems);
        problems.sort();
        match (name, language) {
            (Ok(name), Ok(language)) if problems.is_empty() => Ok(Self {
                dir,
                name,
                version: plugin.version.into_inner(),
                language,
                given_source: plugin.source.map(Spanned::into_inner),
                config,
                not_there,
                has_secret,
                manifest: MANIFEST.into(),
                limits,
            }),
            _ => Err(problems),
        }
    }

    /// `[config]`, with what it takes in.
    ///
    /// # Errors
    ///
    /// A file or a variable that it takes in is not there, which matters to nobody but a plugin that runs.
    pub(crate) fn config(&self) -> Result<&Map<String, Value>, ConfigError> {
        match self.not_there.as_slice() {
            [] => Ok(&self.config),
            problems => Err(ConfigError::Invalid { file: self.manifest.clone(), problems: problems.to_vec() }),
        }
    }

    /// The file that is built.
    pub(crate) fn source(&self) -> PathBuf {
        self.dir.join(self.given_source.as_deref().unwrap_or(Path::new(self.language.source)))
    }

    /// `.quipu` of the project.
    pub(crate) fn work_dir(&self) -> PathBuf {
        self.dir.join(WORK_DIR)
    }

    /// What a build gives: `.quipu/NAME.wasm`.
    pub(crate) fn output(&self) -> PathBuf {
        self.work_dir().join(format!("{}.wasm", self.name))
    }

    /// Whether a file is what its build gives.
    pub(crate) fn gives(&self, file: &Path) -> bool {
        file.canonicalize().is_ok_and(|file| file == self.output())
    }
}

impl ProjectName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// `big_quakes`.
    pub(crate) fn snake_case(&self) -> String {
        self.0.replace('-', "_")
    }

    /// `BigQuakes`.
    pub(crate) fn camel_case(&self) -> String {
        let capital = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
        self.0.split('-').map(capital).collect()
    }
}

impl fmt::Display for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ProjectName {
    type Err = ProjectNameError;

    fn from_str(name: &str) -> Result<Self, ProjectNameError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let words = |name: &str| name.split('-').all(|word| !word.is_empty() && word.chars().all(allowed));
        let fine = name.len() <= NAME_BYTES_MAX && name.starts_with(|c: char| c.is_ascii_lowercase()) && words(name);
        if !fine {
            return Err(ProjectNameError::Malformed(name.into()));
        }
        if KEYWORDS.split(' ').any(|word| word == name) {
            Err(ProjectNameError::Keyword(name.into()))
        } else {
            Ok(Self(name.into()))
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    plugin: Table<RawPlugin>,
    config: Option<Spanned<toml::Table>>,
    #[serde(default)]
    limits: Table<RawLimits>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlugin {
    name: Spanned<String>,
    version: Spanned<String>,
    language: Spanned<String>,
    source: Option<Spanned<PathBuf>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    deadline: Option<Spanned<HumanDuration>>,
    memory: Option<Spanned<ByteSize>>,
    output: Option<Spanned<ByteSize>>,
}

impl RawLimits {
    fn check(self, text: &str, problems: &mut Vec<Problem>) -> Limits {
        let default = PluginConfig::default();
        let deadline = HumanDuration(default.deadline);
        let range = HumanDuration(Duration::from_millis(1))..=HumanDuration(Duration::from_mins(1));
        let deadline = within(text, self.deadline, "limits.deadline", range, problems).unwrap_or(deadline);
        let sizes = ByteSize(1 << 20)..=ByteSize(4 << 30);
        let memory = within(text, self.memory, "limits.memory", sizes, problems);
        let output = within(text, self.output, "limits.output", ByteSize(0)..=ByteSize(64 << 20), problems);
        let bytes = |size: Option<ByteSize>, default| {
            size.map_or(default, |ByteSize(bytes)| usize::try_from(bytes).unwrap_or(usize::MAX))
        };
        Limits {
            deadline: deadline.0,
            memory_bytes: bytes(memory, default.memory_bytes),
            output_bytes: bytes(output, default.output_bytes),
            ..Limits::default()
        }
    }
}

fn within<T: PartialOrd + fmt::Display>(
    text: &str,
    given: Option<Spanned<T>>,
    key: &str,
    range: std::ops::RangeInclusive<T>,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let given = given?;
    if !range.contains(given.as_ref()) {
        let (least, most, found) = (range.start(), range.end(), given.as_ref());
        problems.push(Problem::at(text, &given.span(), key, format!("expected {least} to {most}, found {found}")));
    }
    Some(given.into_inner())
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(MANIFEST_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {} KiB", MANIFEST_BYTES_MAX >> 10)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLUGIN: &str = "[plugin]\nname = \"big-quakes\"\nversion = \"0.1.0\"\nlanguage = \"rust\"\n";

    fn parse(text: &str) -> Result<Project, String> {
        let lines = |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n");
        Project::parse(text, PathBuf::from("/p")).map_err(lines)
    }

    #[test]
    fn a_project_is_read() {
        let rest = "[config]\nat_least = 4.5\nnets = [\"ak\"]\n[limits]\ndeadline = \"20ms\"\nmemory = \"8MiB\"\n";
        let project = parse(&format!("{PLUGIN}{rest}")).expect("a project");
        assert_eq!((project.name.as_str(), project.version.as_str()), ("big-quakes", "0.1.0"));
        let config = Value::Object(project.config().expect("all is there").clone());
        assert_eq!((config, project.has_secret), (serde_json::json!({ "at_least": 4.5, "nets": ["ak"] }), false));
        let limits = (project.limits.deadline, project.limits.memory_bytes, project.limits.output_bytes);
        assert_eq!(limits, (Duration::from_millis(20), 8 << 20, 4 << 20));
        assert_eq!(project.source(), Path::new("/p/src/lib.rs"));
        assert_eq!(project.output(), Path::new("/p/.quipu/big-quakes.wasm"));
        let elsewhere = PLUGIN.replace("rust", "c") + "source = \"lib/plugin.c\"\n";
        assert_eq!(parse(&elsewhere).expect("a project").source(), Path::new("/p/lib/plugin.c"));
    }

    #[test]
    fn what_is_wrong_has_a_line_and_a_key() {
        let wrong = |text: &str, expected: &str| assert_eq!(parse(text).map(drop), Err(expected.to_owned()));
        wrong("", "1:1: the key `plugin` is missing");
        wrong("[plugin]\nname = \"a\"\n", "1:1: plugin: the key `version` is missing");
        wrong(&format!("{PLUGIN}sauce = \"x\"\n"), "5:1: plugin.sauce: unknown key; did you mean `source`?");
        wrong(
            &format!("{PLUGIN}source = \"lib/plugin.rs\"\n"),
            "5:10: plugin.source: Cargo says where the source of a crate is: `[lib] path` of Cargo.toml",
        );
        wrong(&format!("{PLUGIN}[limit]\n"), "5:2: limit: unknown key; did you mean `limits`?");
        wrong(
            &format!("{PLUGIN}[limits]\ndeadline = 50\nmemory = \"1KiB\"\n"),
            "6:12: limits.deadline: expected a duration such as \"50ms\", found 50",
        );
        wrong(
            &format!("{PLUGIN}[limits]\nmemory = \"1KiB\"\n"),
            "6:10: limits.memory: expected 1MiB to 4GiB, found 1KiB",
        );
        let all = "[plugin]\nname = \"Big\"\nversion = \"0 1\"\nlanguage = \"rusty\"\n";
        let error = parse(all).expect_err("three problems");
        let lines: Vec<&str> = error.lines().collect();
        assert!(lines[0].starts_with("2:8: plugin.name: expected a name of at most 64 small letters"), "{error}");
        assert!(lines[1].starts_with("3:11: plugin.version: expected a version"), "{error}");
        assert!(lines[2].starts_with("4:12: plugin.language: no language \"rusty\"; there are rust"), "{error}");
    }

    #[test]
    fn a_variable_that_is_not_set_is_missed_by_a_plugin_that_runs() {
        let text = format!("{PLUGIN}[config]\nkey = {{ env = \"QUIPU_TEST_IS_NOT_SET\" }}\n");
        let project = parse(&text).expect("a project");
        assert!(project.has_secret);
        let error = project.config().expect_err("it is not there").to_string();
        assert!(error.ends_with("config.key: the environment variable QUIPU_TEST_IS_NOT_SET is not set"), "{error}");
        assert!(error.starts_with("plugin.toml:5:"), "{error}");
    }

    #[test]
    fn names_are_kebab_case() {
        let name = |text: &str| text.parse::<ProjectName>();
        for bad in ["", "Big", "big_quakes", "3d", "a--b", "-a", "a-", "a b", "ä", "a/b", &"a".repeat(65)] {
            assert_eq!(name(bad), Err(ProjectNameError::Malformed(bad.into())), "{bad}");
        }
        for word in ["match", "class", "test"] {
            assert_eq!(name(word), Err(ProjectNameError::Keyword(word.into())));
        }
        let good = name("big-3-quakes").expect("a name");
        assert_eq!((good.snake_case().as_str(), good.camel_case().as_str()), ("big_3_quakes", "Big3Quakes"));
    }
}
