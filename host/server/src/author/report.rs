//! Reports of a test run for other programs: JUnit's XML, and JSON.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};
use quipu_runtime::{Component, Limits};
use serde_json::{Value, json};

use super::trial::Outcome;
use crate::plugins::cases::file::CaseFile;
use crate::plugins::cases::found;

/// `junit=FILE` or `json=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    kind: Kind,
    pub(crate) file: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Junit,
    Json,
}

/// What was tried, and what it came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) component: &'a Component,
    pub(crate) limits: &'a Limits,
    pub(crate) files: &'a [CaseFile],
    pub(crate) outcomes: &'a [Outcome],
}

impl FromStr for Report {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected junit=FILE or json=FILE".to_owned();
        let (kind, file) = text.split_once('=').filter(|(_, file)| !file.is_empty()).ok_or_else(expected)?;
        let kind = match kind {
            "junit" => Kind::Junit,
            "json" => Kind::Json,
            _ => return Err(expected()),
        };
        Ok(Self { kind, file: file.into() })
    }
}

impl Report {
    /// Writes the report.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn write(&self, run: Run<'_>) -> Result<()> {
        let bytes = match self.kind {
            Kind::Junit => junit(run)?,
            Kind::Json => format!("{:#}\n", to_json(run)).into_bytes(),
        };
        std::fs::write(&self.file, bytes).with_context(|| format!("cannot write {}", self.file.display()))
    }
}

/// The whole run as one object.
pub(crate) fn to_json(run: Run<'_>) -> Value {
    let Run { component, limits, outcomes, .. } = run;
    let failed = outcomes.iter().filter(|outcome| !outcome.passed()).count();
    json!({
        "plugin": component.name(),
        "digest": component.digest(),
        "passed": outcomes.len() - failed,
        "failed": failed,
        "limits": {
            "deadline_ms": limits.deadline.as_secs_f64() * 1e3,
            "memory_bytes": limits.memory_bytes,
            "output_bytes": limits.output_bytes,
        },
        "cases": outcomes.iter().map(|outcome| case(run, outcome)).collect::<Vec<_>>(),
    })
}

fn case(run: Run<'_>, outcome: &Outcome) -> Value {
    let tried = &outcome.tried;
    let mut case = json!({
        "name": outcome.case.name,
        "file": run.files[outcome.file].path,
        "line": outcome.line,
        "passed": outcome.passed(),
    });
    if let Some(attempt) = &tried.attempt {
        case["ns"] = u64::try_from(attempt.time.as_nanos()).unwrap_or(u64::MAX).into();
        case["found"] = found(attempt).into();
        if !attempt.logs.is_empty() {
            let line = |(level, text): &(_, String)| json!({ "level": level, "text": text });
            case["logs"] = attempt.logs.iter().map(line).collect();
        }
    }
    if let Some(refused) = &tried.refused {
        case["error"] = refused.to_string().into();
    }
    if !tried.differences.is_empty() {
        case["differences"] = json!(tried.differences);
        case["capsule"] = json!(outcome.capsule);
    }
    case
}

fn junit(run: Run<'_>) -> Result<Vec<u8>> {
    let Run { component, files, outcomes, .. } = run;
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let counts = |outcomes: &[&Outcome]| {
        let failed = outcomes.iter().filter(|outcome| !outcome.passed()).count();
        let time: Duration = outcomes.iter().map(|outcome| time(outcome)).sum();
        (outcomes.len().to_string(), failed.to_string(), seconds(time))
    };
    let (tests, failures, time) = counts(&outcomes.iter().collect::<Vec<_>>());
    let all = attributes(component.name(), &tests, &failures, &time);
    writer.create_element("testsuites").with_attributes(all).write_inner_content(|writer| {
        for (n, file) in files.iter().enumerate() {
            let of_file: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.file == n).collect();
            let (tests, failures, time) = counts(&of_file);
            let path = file.path.display().to_string();
            let suite = attributes(&path, &tests, &failures, &time);
            writer.create_element("testsuite").with_attributes(suite).write_inner_content(|writer| {
                of_file.iter().try_for_each(|outcome| junit_case(writer, component.name(), &path, outcome))
            })?;
        }
        Ok(())
    })?;
    let mut bytes = writer.into_inner();
    bytes.push(b'\n');
    Ok(bytes)
}

fn attributes<'a>(name: &'a str, tests: &'a str, failures: &'a str, time: &'a str) -> [(&'a str, &'a str); 4] {
    [("name", name), ("tests", tests), ("failures", failures), ("time", time)]
}

fn junit_case(writer: &mut Writer<Vec<u8>>, plugin: &str, file: &str, outcome: &Outcome) -> std::io::Result<()> {
    let (line, time) = (outcome.line.to_string(), seconds(time(outcome)));
    let name = visible(&outcome.case.name);
    let attributes = [
        ("name", name.as_str()),
        ("classname", plugin),
        ("file", file),
        ("line", line.as_str()),
        ("time", time.as_str()),
    ];
    let element = writer.create_element("testcase").with_attributes(attributes);
    if outcome.passed() {
        element.write_empty()?;
        return Ok(());
    }
    let differences: Vec<String> =
        outcome.tried.differences.iter().map(|difference| visible(&difference.to_string())).collect();
    element.write_inner_content(|writer| {
        let first = differences.first().map(String::as_str).unwrap_or_default();
        let failure = writer.create_element("failure").with_attribute(("message", first));
        failure.write_text_content(BytesText::new(&differences.join("\n")))?;
        Ok(())
    })?;
    Ok(())
}

/// XML has no place for control characters, however they are escaped.
fn visible(text: &str) -> String {
    let shown = |c: char| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

fn time(outcome: &Outcome) -> Duration {
    outcome.tried.attempt.as_ref().map(|attempt| attempt.time).unwrap_or_default()
}

fn seconds(time: Duration) -> String {
    format!("{:.6}", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_a_kind_and_a_file() {
        assert_eq!("json=a=b".parse(), Ok(Report { kind: Kind::Json, file: "a=b".into() }));
        for bad in ["json", "json=", "xml=f"] {
            assert_eq!(bad.parse::<Report>(), Err("expected junit=FILE or json=FILE".to_owned()), "{bad}");
        }
    }

    #[test]
    fn control_characters_do_not_break_xml() {
        assert_eq!(visible("a\u{0}b\u{1b}\n"), "a\u{fffd}b\u{fffd}\n");
    }
}
