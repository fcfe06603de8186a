use super::*;
use crate::commands::cli;

/// Commands that print what some other program takes as it is, and one that works with a person in front of it.
const WITHOUT_JSON: [&str; 5] =
    ["quipu serve", "quipu message capsule", "quipu completions", "quipu man", "quipu plugin dev"];

/// Every command that people see, the groups too, with what is typed for it.
fn commands() -> Vec<(String, Command)> {
    let mut root = cli().disable_help_subcommand(true);
    root.build();
    let (mut left, mut found) = (vec![root], Vec::new());
    while let Some(command) = left.pop() {
        left.extend(command.get_subcommands().filter(|sub| !sub.is_hide_set()).cloned());
        found.push((command.get_bin_name().unwrap_or("quipu").to_owned(), command));
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

fn has(command: &Command, option: &str) -> bool {
    command.get_arguments().any(|arg| arg.get_long() == Some(option))
}

fn check(lacking: &[String]) {
    assert!(lacking.is_empty(), "{} things are missing in --help:\n{}", lacking.len(), lacking.join("\n"));
}

/// The words of each command in a line that begins with `quipu`, as a shell would take them apart. Of redirections and pipes
/// only what goes to `quipu` is of interest.
fn calls(line: &str) -> Vec<Vec<String>> {
    let (mut calls, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let (mut chars, mut is_redirected) = (line.chars().peekable(), false);
    let end_word = |word: &mut Option<String>, words: &mut Vec<String>, is_redirected: &mut bool| {
        if let Some(word) = word.take()
            && !std::mem::take(is_redirected)
        {
            words.push(word);
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                while let Some(inner) = chars.next().filter(|inner| *inner != c) {
                    let escaped =
                        c == '"' && inner == '\\' && chars.peek().is_some_and(|next| "\"\\$`".contains(*next));
                    word.push(if escaped { chars.next().unwrap_or(inner) } else { inner });
                }
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c if c.is_whitespace() => end_word(&mut word, &mut words, &mut is_redirected),
            '<' | '>' => {
                end_word(&mut word, &mut words, &mut is_redirected);
                is_redirected = true;
            }
            '|' | '&' | ';' => {
                end_word(&mut word, &mut words, &mut is_redirected);
                calls.push(std::mem::take(&mut words));
            }
            '#' if word.is_none() => break,
            c => word.get_or_insert_default().push(c),
        }
    }
    end_word(&mut word, &mut words, &mut is_redirected);
    calls.push(words);
    calls.retain(|words| words.first().is_some_and(|first| first == "quipu"));
    calls
}

#[test]
fn the_first_page_has_every_command_once() {
    let text = cli().render_help().to_string();
    for (name, _) in commands().iter().filter(|(name, _)| name.split(' ').count() == 2) {
        let name = name.rsplit(' ').next().unwrap_or_default();
        let lines = text
            .lines()
            .filter(|line| line.strip_prefix("  ").is_some_and(|line| line.starts_with(&format!("{name} "))));
        assert_eq!(lines.count(), 1, "{name}: {text}");
    }
    assert!(!text.contains("compile-plugin"), "that is not for people: {text}");
}

#[test]
fn every_command_has_an_example_of_itself() {
    let mut lacking = Vec::new();
    for (name, command) in commands() {
        let text = examples(&command).join("\n").replace("\\\n", " ");
        let shown = text.lines().flat_map(calls).any(|words| words.join(" ").starts_with(&name));
        if !shown {
            lacking.push(format!("`{name}`: no example of it under \"Example:\" or \"Examples:\" in its after_help"));
        }
    }
    check(&lacking);
}

#[test]
fn every_example_is_taken() {
    let mut lacking = Vec::new();
    for (name, command) in commands() {
        let text = examples(&command).join("\n").replace("\\\n", " ");
        for line in text.lines() {
            for words in calls(line) {
                if let Err(e) = cli().try_get_matches_from(&words)
                    && e.exit_code() != 0
                {
                    let why = e.to_string();
                    lacking.push(format!("`{name}`: the example `{line}`: {}", why.lines().next().unwrap_or_default()));
                }
            }
        }
    }
    check(&lacking);
}

#[test]
fn every_help_fits_the_width() {
    let mut lacking = Vec::new();
    for (name, mut command) in commands() {
        for text in [command.render_help().to_string(), command.render_long_help().to_string()] {
            for line in text.lines().filter(|line| line.chars().count() > COLUMNS_MAX) {
                lacking.push(format!("`{name}`: a line of {} columns: {line}", line.chars().count()));
            }
        }
    }
    check(&lacking);
}

#[test]
fn every_command_prints_json_where_it_is_asked_to() {
    let lacks = |(name, command): &(String, Command)| {
        let prints = !command.has_subcommands() && !WITHOUT_JSON.contains(&name.as_str());
        (prints && !has(command, "json")).then(|| format!("`{name}`: no --json"))
    };
    check(&commands().iter().filter_map(lacks).collect::<Vec<_>>());
}

#[test]
fn every_command_that_connects_takes_a_context() {
    let lacks = |(name, command): &(String, Command)| {
        let connects = has(command, "server") && name != "quipu context add";
        (connects && !has(command, "context")).then(|| format!("`{name}`: --server without --context"))
    };
    check(&commands().iter().filter_map(lacks).collect::<Vec<_>>());
}

#[test]
fn every_argument_is_explained() {
    let mut lacking = Vec::new();
    for (name, command) in commands() {
        if command.get_about().is_none() {
            lacking.push(format!("`{name}`: not a word about it"));
        }
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set() && arg.get_help().is_none()) {
            lacking.push(format!("`{name}`: nothing about {arg}"));
        }
    }
    check(&lacking);
}

#[test]
fn texts_are_wrapped_with_room_for_what_comes_behind() {
    assert_eq!(wrapped("one two  three\nfour", 9, 0), "one two\nthree\nfour");
    assert_eq!(wrapped("one two three four", 10, 0), "one two\nthree four");
    assert_eq!(wrapped("one two three four", 10, 1), "one two\nthree\nfour");
    assert_eq!((wrapped("", 10, 20), wrapped("longer-than-that", 5, 9)), (String::new(), "longer-than-that".into()));
}

#[test]
fn lines_are_taken_apart_as_a_shell_does() {
    let check = |line: &str, expected: &[&[&str]]| assert_eq!(calls(line), expected, "{line}");
    check("quipu pub a --message '{\"id\":7}'", &[&["quipu", "pub", "a", "--message", "{\"id\":7}"]]);
    check("tail -f app.log | quipu pub logs  # all", &[&["quipu", "pub", "logs"]]);
    check("quipu run f < in > out && quipu status", &[&["quipu", "run", "f"], &["quipu", "status"]]);
    check("quipu x \"a \\\"b\\\" c\" d\\ e ''", &[&["quipu", "x", "a \"b\" c", "d e", ""]]);
    check("cargo run", &[]);
}
