use super::ConvertCsv;
use quipu_plugin::prelude::*;
use quipu_plugin::testing::{Harness, MockMessage, Outcome, run, survives};

fn convert(config: Value, payload: impl Into<Vec<u8>>) -> Outcome {
    run::<ConvertCsv>(config, MockMessage::new("a").key("k").payload(payload))
}

#[track_caller]
fn gives(config: Value, payload: &str, expected: &str) {
    let outcome = convert(config, payload);
    assert_eq!((outcome.verdict.clone(), outcome.payload_text().as_str()), (forward(), expected));
}

#[track_caller]
fn rejected(config: Value, payload: impl Into<Vec<u8>>, expected: &str) {
    assert_eq!(convert(config, payload).verdict, reject(expected));
}

#[track_caller]
fn refused(config: Value, expected: &str) {
    assert_eq!(Harness::<ConvertCsv>::new(config).err().as_deref(), Some(expected));
}

fn json() -> Value {
    json!({ "to": "json" })
}

#[test]
fn reads_rows() {
    gives(json(), "id,n\na,1\nb,2\n", r#"[{"id":"a","n":1},{"id":"b","n":2}]"#);
    gives(json(), "id,n\r\n\"a,\"\"b\"\"\r\nc\",\r\n", r#"[{"id":"a,\"b\"\r\nc","n":null}]"#);
    gives(json(), "\u{feff}id\nü\n", r#"[{"id":"ü"}]"#);
    gives(json(), "id\n", "[]");
    gives(json!({ "to": "json", "delimiter": ";" }), "a;b\n1,5;2\n", r#"[{"a":"1,5","b":2}]"#);
    gives(json!({ "to": "json", "delimiter": "\t", "header": false }), "a\t1\nb\t2", r#"[["a",1],["b",2]]"#);
    let named = json!({ "to": "json", "header": false, "columns": ["x", "y"] });
    gives(named, "1,2\n", r#"[{"x":1,"y":2}]"#);
    gives(json!({ "to": "json", "header": false }), "", "[]");
}

#[test]
fn guesses_what_json_writes_the_same() {
    let none = |types: &str| json!({ "to": "json", "header": false, "types": types });
    let line = "1,-2.5,1e3,true,,007,+1,1.,.5,0x1,18446744073709551615,18446744073709551616,1e999,NaN, 1";
    gives(
        none("guess"),
        line,
        r#"[[1,-2.5,1000.0,true,null,"007","+1","1.",".5","0x1",18446744073709551615,"18446744073709551616","1e999","NaN"," 1"]]"#,
    );
    gives(none("text"), "1,true,,a", r#"[["1","true","","a"]]"#);
}

#[test]
fn splits_rows() {
    let config = json!({ "to": "json", "split": true, "subject": "rows" });
    let outcome = convert(config, "id,n\na,1\nb,2\n");
    assert_eq!(outcome.verdict, drop("split"));
    let emitted: Vec<_> = outcome.emitted.iter().map(|row| String::from_utf8_lossy(&row.payload)).collect();
    assert_eq!(emitted, [r#"{"id":"a","n":1}"#, r#"{"id":"b","n":2}"#]);
    assert!(outcome.emitted.iter().all(|row| row.subject == "rows" && row.key.as_deref() == Some(b"k")));
    let many = format!("id\n{}", "x\n".repeat(1_025));
    let config = json!({ "to": "json", "split": true, "subject": "rows" });
    rejected(config, many, "part 1025 to rows: past the limit of emitted messages");
}

#[test]
fn writes_rows() {
    let csv = || json!({ "to": "csv" });
    gives(csv(), r#"[{"n":1,"id":"a"},{"id":"b,\"c\"","ok":true}]"#, "id,n,ok\na,1,\n\"b,\"\"c\"\"\",,true\n");
    gives(csv(), r#"{"id":"a"}"#, "id\na\n");
    gives(csv(), r#"[["a",1],["b",null]]"#, "a,1\nb,\n");
    gives(csv(), "[]", "");
    let chosen = json!({ "to": "csv", "columns": ["n", "id"], "header": false, "delimiter": "|" });
    gives(chosen, r#"[{"n":1.50,"id":"a|b","more":[1]}]"#, "1.5|\"a|b\"\n");
}

#[test]
fn comes_back() {
    let rows = r#"[{"a":1,"b":"x\ny","c":null},{"a":-2.5,"b":"\"","c":true}]"#;
    let csv = convert(json!({ "to": "csv" }), rows).message.payload;
    assert_eq!(convert(json(), csv).payload_text(), rows);
}

#[test]
fn says_where_it_fails() {
    rejected(json(), "", "the payload has no header row");
    rejected(json(), "a,b\n1,2\n3\n", "line 3: 1 fields, where 2 are expected");
    rejected(json(), "a,b\n1,2\n3,\"4\n", "line 3: a quote that nothing closes");
    rejected(json(), b"a,b\n1,\xff\n".to_vec(), "line 2, field 2: text that is not UTF-8");
    rejected(json(), "a,a\n", "line 1, field 2: the name \"a\" for the second time");
    rejected(json(), "a,\n", "line 1, field 2: a column without a name");
    let csv = || json!({ "to": "csv" });
    rejected(csv(), "7", "the payload is a number, expected rows: objects or arrays");
    rejected(csv(), r#"[{"a":1},7]"#, "row 2: a number, expected an object or an array");
    rejected(csv(), r#"[{"a":{"b":1}}]"#, "row 1, \"a\": an object, which a field cannot hold");
    rejected(csv(), r#"[["a",[1]]]"#, "row 1, [1]: an array, which a field cannot hold");
    rejected(json!({ "to": "csv", "columns": ["a", "b"] }), "[[1]]", "row 1: 1 values, where 2 columns are named");
    rejected(csv(), "[{", "the payload is no JSON: EOF while parsing an object at line 1 column 2");
}

#[test]
fn survives_hostile_payloads() {
    survives::<ConvertCsv>(json!({ "to": "json" }));
    survives::<ConvertCsv>(json!({ "to": "csv" }));
    survives::<ConvertCsv>(json!({ "to": "json", "header": false, "split": true, "subject": "rows" }));
}

#[test]
fn names_what_is_wrong_with_a_configuration() {
    refused(json!({}), "missing field `to`");
    refused(json!({ "to": "json", "delimiter": "::" }), "delimiter: expected one character of ASCII");
    refused(json!({ "to": "json", "delimiter": "\"" }), "delimiter: a quote or a line end cannot separate fields");
    refused(json!({ "to": "csv", "columns": ["a", "a"] }), "columns[1]: \"a\" for the second time");
    refused(
        json!({ "to": "json", "columns": ["a"] }),
        "columns: the header row names them; header = false says that there is none",
    );
    refused(json!({ "to": "csv", "split": true }), "split: goes with to = \"json\" alone");
    refused(json!({ "to": "json", "split": true }), "subject: required where split is true");
    refused(json!({ "to": "json", "subject": "a" }), "subject: goes with split = true alone");
}
