//! `.proto` sources to the type of one message. Errors say the key, line and column.

use prost_reflect::MessageDescriptor;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use protox::{Compiler, Error};
use std::collections::BTreeMap;

/// What the file of the configuration is called, as its key is.
const MAIN: &str = "proto";

pub(crate) fn compile(
    source: &str,
    imports: &BTreeMap<String, String>,
    message: Option<&str>,
) -> Result<MessageDescriptor, String> {
    let mut sources = imports.clone();
    sources.insert(MAIN.into(), source.into());
    let mut resolver = ChainFileResolver::new();
    resolver.add(Sources(sources));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    // For the lines of errors.
    compiler.include_source_info(true).open_file(MAIN).map_err(|error| explain(&error))?;
    let pool = compiler.descriptor_pool();
    if let Some(name) = message {
        let found = pool.get_message_by_name(name.trim_start_matches('.'));
        return found.ok_or_else(|| {
            let all: Vec<_> = pool.all_messages().map(|message| message.full_name().to_owned()).collect();
            let ours = all.iter().filter(|name| !name.starts_with("google.protobuf."));
            format!("message: there is no {name:?}; there are {}", names(ours.map(String::as_str)))
        });
    }
    let main = pool.get_file_by_name(MAIN).ok_or("proto: it has no file")?;
    let mut messages: Vec<_> = main.messages().collect();
    match (messages.pop(), messages.as_slice()) {
        (Some(only), []) => Ok(only),
        (None, _) => Err("proto: it has no message".into()),
        (Some(last), others) => {
            let all = others.iter().chain([&last]);
            Err(format!(
                "message: required where the file has several: {}",
                names(all.map(MessageDescriptor::full_name))
            ))
        }
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// The sources of the configuration; there are no files.
struct Sources(BTreeMap<String, String>);

impl FileResolver for Sources {
    fn open_file(&self, name: &str) -> Result<File, Error> {
        let source = self.0.get(name).ok_or_else(|| Error::file_not_found(name))?;
        File::from_source(name, source)
    }
}

/// The compiler has the place in its text for debugging alone: `FILE:LINE:COLUMN: problem`.
fn explain(error: &Error) -> String {
    let (said, file) = (format!("{error:?}"), error.file().unwrap_or(MAIN));
    let key = if file == MAIN { MAIN.to_owned() } else { format!("imports.{file}") };
    let rest = said.strip_prefix(file).and_then(|rest| rest.strip_prefix(':')).unwrap_or(&said);
    let mut parts = rest.splitn(3, ':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(line), Some(column), Some(problem)) if is_number(line) && is_number(column) => {
            format!("{key}: line {line}, column {column}: {}", problem.trim())
        }
        _ => format!("{key}: {}", rest.trim()),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
