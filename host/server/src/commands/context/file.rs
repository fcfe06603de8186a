//! The file of contexts: which routers there are, whom to trust there and who one is.
//!
//! Read by every command that connects; written by `quipu context` alone, whole or not at all, and with what else somebody
//! wrote into it kept, comments too.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde::Deserialize;
use toml::Spanned;

use super::secret::{Secret, TokenSource};
use crate::config::{ConfigError, Problem, read_toml};
use crate::nearest::did_you_mean;

/// Longest file, in bytes. A context takes some hundred.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Longest name of a context, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Who may read and write the file: its owner.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// Bits of a mode that let others read.
const OTHERS_READ: u32 = 0o044;

/// One router as somebody reaches it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::commands) struct Saved {
    /// `HOST:PORT`.
    pub(in crate::commands) server: String,
    /// Certificates to trust, a PEM file. None: as without a context.
    pub(in crate::commands) ca: Option<PathBuf>,
    /// None: no token is shown.
    pub(in crate::commands) token: Option<TokenSource>,
    /// A certificate to show, a PEM file; with `key`, or neither.
    pub(in crate::commands) cert: Option<PathBuf>,
    /// Its key, a PEM file.
    pub(in crate::commands) key: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    current: Option<String>,
    context: BTreeMap<String, Spanned<Saved>>,
}

/// What the file holds.
#[derive(Debug)]
pub(in crate::commands) struct Contexts {
    path: PathBuf,
    is_there: bool,
    /// As it is written, comments too.
    text: String,
    current: Option<String>,
    saved: BTreeMap<String, Saved>,
}

/// `$XDG_CONFIG_HOME/quipu/contexts.toml`, else `$HOME/.config/quipu/contexts.toml`; none where neither is set.
fn path_by(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let given = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || given("HOME").map(|home| home.join(".config"));
    given("XDG_CONFIG_HOME").or_else(home).map(|directory| directory.join("quipu/contexts.toml"))
}

/// There is no home.
#[derive(Debug, thiserror::Error)]
#[error("nowhere to keep contexts: set HOME or XDG_CONFIG_HOME")]
pub(in crate::commands) struct NoPlace;

fn path() -> Result<PathBuf> {
    Ok(path_by(|name| std::env::var_os(name)).ok_or(NoPlace)?)
}

impl Contexts {
    /// The user's file. One that is not there is empty.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] where it cannot be read or something in it is wrong, with the place.
    pub(in crate::commands) fn load() -> Result<Self> {
        Self::read(path()?)
    }

    /// As [`Contexts::load`], of this file.
    pub(in crate::commands) fn read(path: PathBuf) -> Result<Self> {
        let failed = |source| ConfigError::Read { path: path.clone(), source };
        let (text, mode) = match File::open(&path) {
            Ok(file) => {
                let metadata = file.metadata().map_err(failed)?;
                ensure!(metadata.len() <= FILE_BYTES_MAX, "{} has {} bytes", path.display(), metadata.len());
                let mut text = String::new();
                file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
                (Some(text), metadata.mode())
            }
            Err(e) if e.kind() == ErrorKind::NotFound => (None, FILE_MODE),
            Err(e) => return Err(failed(e).into()),
        };
        let (is_there, text) = (text.is_some(), text.unwrap_or_default());
        let (current, saved) = parsed(&text, &path)?;
        let holds_token = saved.values().any(|saved| matches!(saved.token, Some(TokenSource::Text(_))));
        ensure!(
            !holds_token || mode & OTHERS_READ == 0,
            "{0} holds a token and others may read it: chmod 600 {0}",
            path.display()
        );
        Ok(Self { path, is_there, text, current, saved })
    }

    pub(in crate::commands) fn path(&self) -> &Path {
        &self.path
    }

    /// The one that is used where none is named.
    pub(in crate::commands) fn current(&self) -> Option<&str> {
        self.current.as_deref()
    }

    pub(in crate::commands) fn all(&self) -> impl Iterator<Item = (&str, &Saved)> {
        self.saved.iter().map(|(name, saved)| (name.as_str(), saved))
    }

    /// The one of this name.
    ///
    /// # Errors
    ///
    /// A text with the file and the name that is nearest.
    pub(in crate::commands) fn find(&self, name: &str) -> Result<&Saved> {
        self.saved.get(name).ok_or_else(|| {
            let file = self.path.display();
            if self.saved.is_empty() {
                let state = if self.is_there { "has none" } else { "is not there" };
                return anyhow!(
                    "there is no context {name:?}: {file} {state}; `quipu context add {name} --server HOST:PORT` makes it"
                );
            }
            anyhow!("there is no context {name:?} in {file}{}", self.hint(name))
        })
    }

    /// The name that is nearest, or else all of them.
    fn hint(&self, name: &str) -> String {
        let near = did_you_mean(name, self.saved.keys().map(String::as_str));
        if near.is_empty() {
            let names: Vec<&str> = self.saved.keys().map(String::as_str).collect();
            return format!("; there are {}", names.join(", "));
        }
        near
    }

    /// Adds a context, or with `replace` puts it in the place of the one of this name.
    pub(super) fn add(&mut self, name: &str, saved: Saved, replace: bool) -> Result<()> {
        check_name(name).map_err(|why| anyhow!("context {name:?}: {why}"))?;
        if let Some(why) = saved.problem() {
            bail!("context {name:?}: {why}");
        }
        ensure!(
            replace || !self.saved.contains_key(name),
            "there is a context {name:?} already in {}; --replace puts this one in its place",
            self.path.display()
        );
        self.text = without(&self.text, name);
        if !self.text.is_empty() {
            self.text.push_str(if self.text.ends_with('\n') { "\n" } else { "\n\n" });
        }
        self.text.push_str(&saved.table(name)?);
        self.saved.insert(name.to_owned(), saved);
        Ok(())
    }

    /// Takes one away; whether it was the current one.
    pub(super) fn remove(&mut self, name: &str) -> Result<bool> {
        self.find(name)?;
        self.saved.remove(name);
        self.text = without(&self.text, name);
        let was_current = self.current.as_deref() == Some(name);
        if was_current {
            self.set_current(None)?;
        }
        Ok(was_current)
    }

    /// Makes one the current one, or none.
    pub(super) fn set_current(&mut self, name: Option<&str>) -> Result<()> {
        if let Some(name) = name {
            self.find(name)?;
        }
        self.text = with_current(&self.text, name);
        self.current = name.map(str::to_owned);
        Ok(())
    }

    /// Reads the user's file, changes it and writes it, while no other command does.
    ///
    /// # Errors
    ///
    /// As [`Contexts::load`] and as what `change` says, and where it cannot be written. The file is then as it was.
    pub(super) fn change<T>(change: impl FnOnce(&mut Self) -> Result<T>) -> Result<(T, PathBuf)> {
        // A link, as of those who keep such files elsewhere, stays one.
        let path = path()?;
        let path = path.canonicalize().unwrap_or(path);
        let directory = path.parent().context("no such place")?;
        let failed = || format!("cannot write {}", path.display());
        std::fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory).with_context(failed)?;
        let lock = File::open(directory).with_context(failed)?;
        lock.lock().with_context(failed)?;
        let mut contexts = Self::read(path.clone())?;
        let said = change(&mut contexts)?;
        contexts.write(directory, &lock).with_context(failed)?;
        Ok((said, path))
    }

    fn write(&self, directory: &Path, lock: &File) -> Result<()> {
        let text = &self.text;
        let bytes = text.len() as u64;
        ensure!(bytes <= FILE_BYTES_MAX, "it would have {bytes} bytes; {FILE_BYTES_MAX} are the most");
        // Lines were changed, so look whether they say what they are to say: the file may have another form than ours.
        let is_meant =
            parsed(text, &self.path).is_ok_and(|(current, saved)| current == self.current && saved == self.saved);
        ensure!(is_meant, "it is not written as this command writes it, with [context.NAME]; change it by hand");
        let permissions = Permissions::from_mode(FILE_MODE);
        let mut file = tempfile::Builder::new().prefix(".contexts").permissions(permissions).tempfile_in(directory)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        // The new name, too, is to outlive a power cut.
        lock.sync_all()?;
        Ok(())
    }
}

impl Saved {
    /// What is wrong with it.
    fn problem(&self) -> Option<String> {
        if self.server.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
            return Some(format!("server: HOST:PORT is expected, found {:?}", self.server));
        }
        match (&self.cert, &self.key) {
            (Some(_), None) => Some("`cert` needs `key` beside it".to_owned()),
            (None, Some(_)) => Some("`key` needs `cert` beside it".to_owned()),
            _ => None,
        }
    }

    /// With relative paths below a directory.
    fn below(mut self, base: &Path) -> Self {
        for path in [&mut self.ca, &mut self.cert, &mut self.key].into_iter().flatten() {
            *path = base.join(&*path);
        }
        if let Some(TokenSource::File(path)) = &mut self.token {
            *path = base.join(&*path);
        }
        self
    }

    /// As a table of the file.
    fn table(&self, name: &str) -> Result<String> {
        let name = if name.contains('.') { quoted(name) } else { name.to_owned() };
        let mut table = format!("[context.{name}]\nserver = {}\n", quoted(&self.server));
        let mut add = |key: &str, value: String| table.push_str(&format!("{key} = {value}\n"));
        for (key, path) in [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)] {
            if let Some(path) = path {
                add(key, quoted(text(path)?));
            }
        }
        match &self.token {
            None => {}
            Some(TokenSource::Text(Secret(token))) => add("token", quoted(token)),
            Some(TokenSource::Env(name)) => add("token", format!("{{ env = {} }}", quoted(name))),
            Some(TokenSource::File(path)) => add("token", format!("{{ file = {} }}", quoted(text(path)?))),
        }
        Ok(table)
    }
}

/// The current context's name, and all contexts, of a text.
fn parsed(text: &str, path: &Path) -> Result<(Option<String>, BTreeMap<String, Saved>)> {
    let wrong = |problems| ConfigError::Invalid { file: path.display().to_string(), problems };
    let raw: Raw = read_toml(text).map_err(wrong)?;
    let problem = raw.context.iter().find_map(|(name, saved)| {
        let why = check_name(name).err().or_else(|| saved.get_ref().problem());
        why.map(|why| Problem::at(text, &saved.span(), format!("context.{name}"), why))
    });
    if let Some(problem) = problem {
        return Err(wrong(vec![problem]).into());
    }
    let base = path.parent().unwrap_or(Path::new(""));
    let saved = raw.context.into_iter().map(|(name, saved)| (name, saved.into_inner().below(base))).collect();
    Ok((raw.current, saved))
}

/// The text without the table of a context. Comments before the next table stay: they are about that.
fn without(text: &str, name: &str) -> String {
    let (mut kept, mut aside, mut is_cut) = (String::new(), String::new(), false);
    for line in text.split_inclusive('\n') {
        let start = line.trim_start();
        if start.starts_with('[') {
            is_cut = named_by(line).as_deref() == Some(name);
        } else if is_cut && (start.is_empty() || start.starts_with('#')) {
            aside.push_str(line);
            continue;
        }
        if is_cut {
            aside.clear();
        } else {
            kept.push_str(&std::mem::take(&mut aside));
            kept.push_str(line);
        }
    }
    // What was behind the last table is nobody's.
    if kept.trim().is_empty() { String::new() } else { kept }
}

/// The context whose table begins with this line.
fn named_by(line: &str) -> Option<String> {
    let table: toml::Table = toml::from_str(line).ok()?;
    table.get("context")?.as_table()?.keys().next().cloned()
}

/// The text with another line that says which context is current, or without one.
fn with_current(text: &str, name: Option<&str>) -> String {
    let said = name.map(|name| format!("current = {}\n", quoted(name)));
    let (mut changed, mut is_said, mut is_head) = (String::new(), false, true);
    for line in text.split_inclusive('\n') {
        is_head &= !line.trim_start().starts_with('[');
        let is_it = is_head && toml::from_str::<toml::Table>(line).is_ok_and(|table| table.contains_key("current"));
        if is_it {
            changed.push_str(said.as_deref().unwrap_or_default());
            is_said = true;
        } else {
            changed.push_str(line);
        }
    }
    match said {
        Some(said) if !is_said => {
            let between = if changed.is_empty() { "" } else { "\n" };
            format!("{said}{between}{changed}")
        }
        _ => changed,
    }
}

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{}: the path is no text", path.display()))
}

fn check_name(name: &str) -> Result<(), String> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('-') || !name.chars().all(is_fine) {
        return Err(format!(
            "a name has letters, digits, `-`, `_` and `.`, begins with no `-`, and has {NAME_BYTES_MAX} characters at most"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
