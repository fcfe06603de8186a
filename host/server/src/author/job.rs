//! One build: what a language is given, and how it runs its tools.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, thread};

use super::build::Options;
use super::project::Project;
use super::toolchains::{Missing, Toolbox};

/// The most of what a tool says that is kept, in bytes. The rest is read and let go.
const WORDS_BYTES_MAX: u64 = 4 << 20;

/// What a language builds from.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) project: &'a Project,
    pub(crate) toolbox: &'a Toolbox,
    /// Whether files and lines are to be found in a trace: debug information stays.
    pub(crate) debug: bool,
    /// For the language's tool, at the end of its own arguments.
    pub(crate) args: &'a [OsString],
    /// Whether what tools say is read on a terminal.
    pub(crate) colours: bool,
    /// What tools said although they did not fail.
    said: RefCell<String>,
}

/// Why a project did not become a plugin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// A tool is not there.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The source is not there.
    #[error("{} is not there; [plugin] `source` in plugin.toml names the file that is built", .0.display())]
    NoSource(PathBuf),
    /// A tool failed, most often the compiler over the source.
    #[error("{output}{command} failed")]
    Failed {
        /// The command line, shortened.
        command: String,
        /// What it said, as it said it; empty, or ends with a line break.
        output: String,
    },
    /// A file or a tool cannot be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or the tool.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A tool made something that is no plugin.
    #[error("{0}")]
    Wrong(String),
}

impl BuildError {
    /// For `map_err`, with the file or tool at fault.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

impl<'a> Job<'a> {
    pub(crate) fn new(project: &'a Project, toolbox: &'a Toolbox, options: &'a Options) -> Self {
        let Options { debug, args, colours } = options;
        Self { project, toolbox, debug: *debug, args, colours: *colours, said: RefCell::default() }
    }

    /// Where the language's `sdk` files and the contract are: `.quipu/sdk`.
    pub(crate) fn sdk(&self) -> PathBuf {
        self.project.work_dir().join("sdk")
    }

    /// A folder for whatever a build leaves behind: `.quipu/build`.
    pub(crate) fn scratch(&self) -> Result<PathBuf, BuildError> {
        let dir = self.project.work_dir().join("build");
        fs::create_dir_all(&dir).map_err(BuildError::io(&dir))?;
        Ok(dir)
    }

    /// The file that is built, which is there.
    pub(crate) fn source(&self) -> Result<PathBuf, BuildError> {
        let source = self.project.source();
        if source.is_file() { Ok(source) } else { Err(BuildError::NoSource(source)) }
    }

    /// A tool of the language, ready for its arguments, in the project's folder.
    pub(crate) fn command(&self, tool: &str) -> Result<Command, BuildError> {
        let mut command = self.toolbox.command(tool)?;
        command.current_dir(&self.project.dir);
        Ok(command)
    }

    /// Runs a tool and waits for it. What it says on either stream is for people.
    pub(crate) fn run(&self, command: &mut Command) -> Result<(), BuildError> {
        let (output, errors) = self.finish(command, true)?;
        self.note(&output);
        self.note(&errors);
        Ok(())
    }

    /// As [`Job::run`], for a tool whose standard output is an answer, given here.
    pub(crate) fn answer(&self, command: &mut Command) -> Result<Vec<u8>, BuildError> {
        let (output, errors) = self.finish(command, false)?;
        self.note(&errors);
        Ok(output)
    }

    /// What tools said although they did not fail: warnings.
    pub(crate) fn into_said(self) -> String {
        self.said.into_inner()
    }

    fn note(&self, words: &[u8]) {
        let mut said = self.said.borrow_mut();
        let room = usize::try_from(WORDS_BYTES_MAX).unwrap_or(usize::MAX).saturating_sub(said.len());
        said.push_str(&whole_lines(&words[..words.len().min(room)]));
    }

    fn finish(&self, command: &mut Command, both: bool) -> Result<(Vec<u8>, Vec<u8>), BuildError> {
        let program = PathBuf::from(command.get_program());
        let failed = |source| BuildError::Io { path: program.clone(), source };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let errors = child.stderr.take();
        let reader = thread::spawn(move || errors.map_or(Ok(Vec::new()), read_bounded));
        let output = child.stdout.take().map_or(Ok(Vec::new()), read_bounded).map_err(failed)?;
        let errors = reader.join().unwrap_or_else(|_| Ok(Vec::new())).map_err(failed)?;
        if child.wait().map_err(failed)?.success() {
            return Ok((output, errors));
        }
        let output = if both { whole_lines(&output) } else { String::new() };
        Err(BuildError::Failed { command: shortened(command), output: output + &whole_lines(&errors) })
    }
}

/// Reads to the end, so that who writes is not held up, and keeps the beginning.
fn read_bounded(mut from: impl Read) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    from.by_ref().take(WORDS_BYTES_MAX).read_to_end(&mut kept)?;
    io::copy(&mut from, &mut io::sink())?;
    Ok(kept)
}

fn whole_lines(words: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(words).into_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The program's name and its first argument: `cargo build`.
fn shortened(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let first = command.get_args().next().filter(|argument| !argument.as_encoded_bytes().starts_with(b"-"));
    let words: Vec<_> = [Some(program), first].into_iter().flatten().map(OsStr::to_string_lossy).collect();
    words.join(" ")
}
