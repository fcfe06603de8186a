//! Python, JavaScript, TypeScript and Go by their own tools: a new project passes its cases, and mistakes are told with the
//! author's own file and line: those that show when a plugin is built, and in Python and JavaScript those that show when
//! it runs. Where a tool is missing the test says which, and passes.

use std::fs;
use std::os::unix::fs::symlink;

use crate::languages::Language;
use crate::mistakes::{LATER, for_contract, says};

#[tokio::test]
async fn python() {
    let Some(language) = a_project("python").await else { return };
    let mistakes = [
        (
            "import requests\n",
            &["File \"app.py\", line 1", "ModuleNotFoundError: No module named 'requests'", "the project's folder"][..],
        ),
        (
            "from quipu import log\n\nlog.info(\"x\")\n",
            &["File \"app.py\", line 3", "log.info was used while the module loads"],
        ),
        ("def process(message config):\n    pass\n", &["File \"app.py\", line 1", "SyntaxError"]),
        ("def process(message, config):\n    pass\n", &["no function has @plugin"]),
    ];
    for (text, expected) in mistakes {
        does_not_build(&language, "app.py", text, expected).await;
    }
    let missing = ["app.py:9 in process", "KeyError: 'properties'"];
    at_run_time(&language, "app.py", PYTHON, [missing, ["app.py:11 in process", "no place"]]).await;

    // What a link leads to goes in; a virtual environment does not, nor a link that leads nowhere.
    let write = |path: &str, text: &str| {
        let path = language.path(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    };
    write("tried/env/pyvenv.cfg", "home = /usr/bin\n");
    fs::File::create(language.path("tried/env/large")).and_then(|file| file.set_len(64 << 20)).expect("made");
    write("elsewhere/helper.py", "from quipu import forward\n\nVERDICT = forward\n");
    symlink(language.path("elsewhere"), language.path("tried/shared")).expect("linked");
    symlink("nowhere", language.path("tried/dangling.py")).expect("linked");
    let linked = "from quipu import plugin\nfrom shared.helper import VERDICT\n\n\n@plugin\ndef process(message, config):\n    \
                  return VERDICT()\n";
    write("tried/app.py", linked);
    language.good(&["plugin", "build", "tried"], "").await;
}

#[tokio::test]
async fn javascript() {
    let Some(language) = a_project("js").await else { return };
    let mistakes = [
        ("import fs from \"node:fs\";\n", &["plugin.js:1:", "\"node:fs\" is not there for plugins"][..]),
        ("import tcp from \"wasi:sockets/tcp@0.2.0\";\n", &["plugin.js:1:", "no network"]),
        ("import axios from \"axios\";\n", &["plugin.js:1:", "Could not resolve \"axios\"", "npm install"]),
        (
            "import { log } from \"quipu\";\n\nlog.info(\"x\");\nexport function process() {}\n",
            &["plugin.js:3:", "log.info was used while the module loads"],
        ),
        ("export function process(message config) {}\n", &["plugin.js:1:32", "Expected"]),
        ("export function proces() {}\n", &["exports no function `process`"]),
    ];
    for (text, expected) in mistakes {
        does_not_build(&language, "plugin.js", text, expected).await;
    }
    let missing = ["plugin.js:9:", "cannot read property 'mag' of undefined"];
    at_run_time(&language, "plugin.js", JAVASCRIPT, [missing, ["plugin.js:11:", "no place"]]).await;
}

#[tokio::test]
async fn typescript() {
    let Some(language) = a_project("ts").await else { return };
    let text = fs::read_to_string(language.path("tried/plugin.ts")).expect("a template");
    let expected = ["plugin.ts(7,", "error TS2551: Property 'at_leest' does not exist"];
    does_not_build(&language, "plugin.ts", &text.replace("config.at_least", "config.at_leest"), &expected).await;
}

#[tokio::test]
async fn go() {
    let Some(language) = a_project("go").await else { return };
    let text = fs::read_to_string(language.path("tried/main.go")).expect("a template");
    let expected = ["main.go:", "undefined: small"];
    does_not_build(&language, "main.go", &text.replace("\"small\"", "small"), &expected).await;

    // Null is no number, and `sort` a package of Go's own.
    language.good(&["plugin", "new", "sort", "--lang", "go"], "").await;
    language.good(&["plugin", "build", "sort"], "").await;
    let (code, _, said) = language.said(&["plugin", "run", "sort/.quipu/sort.wasm", "-c", "at_least=null"], "").await;
    assert_eq!(code, Some(1));
    says(&said, &["plugin `sort` refuses its configuration: at_least: found null, expected float64"]);
}

/// A plugin that does what its message asks for: line 9 reads what is not there, line 11 raises.
pub(crate) const PYTHON: &str = r#"from quipu import plugin, forward


@plugin(at_least=float)
def process(message, config):
    message.json_at("id", str)
    match message.json["do"]:
        case "missing":
            return message.json["properties"]["mag"]
        case "exception":
            raise RuntimeError("no place")
        case "loop":
            while True:
                pass
        case "flood":
            message.set_payload(bytes(5 << 20))
    return forward()
"#;

/// The same in JavaScript.
pub(crate) const JAVASCRIPT: &str = r#"import { forward } from "quipu";

export const schema = { at_least: Number };

export function process(message, config) {
  message.jsonAt("id", String);
  switch (message.json.do) {
    case "missing":
      return message.json.properties.mag;
    case "exception":
      throw new Error("no place");
    case "loop":
      for (;;);
    case "flood":
      message.setPayload(new Uint8Array(5 << 20));
  }
  return forward();
}
"#;

const MESSAGES: &str = r#"{"id":"a","do":"missing"}
{"id":"b","do":"exception"}
{"id":"c","do":"loop"}
{"id":"d","do":"flood"}
{"do":"nothing"}
"#;

/// Mistakes of a plugin that builds. `faults` are the place and the text of a field that is not there, and of an exception.
async fn at_run_time(language: &Language, file: &str, text: &str, faults: [[&str; 2]; 2]) {
    fs::write(language.path("tried").join(file), text).expect("written");
    language.good(&["plugin", "build", "tried"], "").await;

    // A wrong type in the configuration, and a key too many.
    for (key, said_of_it) in [("at_least=big", "at_least"), ("at_leest=4.5", "at_leest")] {
        let (code, _, said) = language.said(&["plugin", "run", "tried", "-c", key], MESSAGES).await;
        assert_eq!(code, Some(1));
        says(&said, &["plugin `tried` refuses its configuration: ", said_of_it, "-c KEY=VALUE, --config FILE"]);
    }

    let (code, lines, said) = language.said(&["plugin", "run", "tried"], MESSAGES).await;
    let lines: Vec<&str> = lines.lines().collect();
    assert!(code == Some(1) && lines.len() == 5, "{lines:?} {said}");
    for (line, [place, what]) in lines.iter().zip(faults) {
        says(line, &["\"verdict\":\"fault\"", "\"kind\":\"fault\"", place, what]);
        says(&said, &[place, what]);
    }
    says(lines[2], &["\"kind\":\"deadline\""]);
    says(
        &said,
        &["plugin ran over 3000 ms", "an endless loop, or more work than `deadline` allows: [limits] in plugin.toml"],
    );
    says(lines[3], &["\"kind\":\"output\""]);
    says(&said, &["output limit of 4 MiB reached", "more than `output` allows: [limits] in plugin.toml"]);
    says(lines[4], &["\"verdict\":\"reject\"", "id: absent"]);
    says(&said, &["plugin tried@", "a route tries it again", "json_at", "again     quipu plugin run"]);

    // The same file, made for a contract of later.
    let built = fs::read(language.path("tried/.quipu/tried.wasm")).expect("built");
    fs::write(language.path("later.wasm"), for_contract(&built, "0.2.0")).expect("written");
    let (code, _, said) = language.said(&["plugin", "run", "later.wasm"], "").await;
    assert_eq!(code, Some(1));
    says(&said, &LATER);
}

/// A new project `tried` that passes its cases; None where a tool of its language is missing.
pub(crate) async fn a_project(name: &'static str) -> Option<Language> {
    let language = Language::at_hand(name).await?;
    language.good(&["plugin", "new", "tried", "--lang", name], "").await;
    language.give_time("tried", "3s");
    let tested = language.good(&["plugin", "test", "tried"], "").await;
    assert!(tested.contains("3 passed, 0 failed"), "{tested}");
    Some(language)
}

async fn does_not_build(language: &Language, file: &str, text: &str, expected: &[&str]) {
    fs::write(language.path("tried").join(file), text).expect("written");
    let (code, lines, said) = language.said(&["plugin", "build", "tried"], "").await;
    let said = lines + &said;
    assert_eq!(code, Some(1), "{text}: {said}");
    says(&said, expected);
    let elsewhere = language.path("").display().to_string();
    assert!(!said.contains(&elsewhere), "paths are those of the project: {said}");
}
