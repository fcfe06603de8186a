use super::ConvertXml;
use quipu_plugin::prelude::*;
use quipu_plugin::testing::{Harness, MockMessage, Outcome, run, survives};

const ORDER: &str = r#"<?xml version="1.0"?>
<!-- of today -->
<order id="o-1" xmlns:x="urn:x">
  <line sku="a">two</line><line sku="b"/>
  <note><![CDATA[a < b]]> &amp; c&#33;</note>
  <x:paid>true</x:paid>
</order>"#;

fn convert(config: Value, payload: impl Into<Vec<u8>>) -> Outcome {
    run::<ConvertXml>(config, MockMessage::new("a").payload(payload))
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

fn json() -> Value {
    json!({ "to": "json" })
}

fn xml() -> Value {
    json!({ "to": "xml", "declaration": false })
}

#[test]
fn reads_elements() {
    let expected = json!({ "order": {
        "@id": "o-1",
        "@xmlns:x": "urn:x",
        "line": [{ "@sku": "a", "#text": "two" }, { "@sku": "b" }],
        "note": "a < b & c!",
        "x:paid": "true",
    }});
    assert_eq!(convert(json(), ORDER).json(), expected);
    gives(json(), "<a/>", r#"{"a":null}"#);
    gives(json(), "<a> x <b>1</b> y </a>", r##"{"a":{"#text":"x  y","b":"1"}}"##);
    gives(json!({ "to": "json", "arrays": ["b"] }), "<a><b>1</b><c>2</c></a>", r#"{"a":{"b":["1"],"c":"2"}}"#);
    gives(json!({ "to": "json", "attribute": "-" }), "<a b='&quot;1'/>", r#"{"a":{"-b":"\"1"}}"#);
    gives(json(), "\u{feff}<ä>ü</ä>\n", r#"{"ä":"ü"}"#);
}

#[test]
fn writes_elements() {
    let order =
        r##"{"order":{"@id":7,"line":[{"@sku":"a\"<","#text":2},{"@sku":"b"},null],"note":"a < b & c\r","ok":true}}"##;
    gives(
        xml(),
        order,
        "<order id=\"7\"><line sku=\"a&quot;&lt;\">2</line><line sku=\"b\"/><line/><note>a &lt; b &amp; c&#13;</note><ok>true</ok></order>",
    );
    gives(
        json!({ "to": "xml", "root": "o" }),
        r#"{"a":1,"b":[]}"#,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><o><a>1</a></o>",
    );
}

#[test]
fn comes_back() {
    let there = convert(json(), ORDER).message.payload;
    let back = convert(xml(), there.clone()).message.payload;
    assert_eq!(convert(json(), back).message.payload, there);
}

#[test]
fn says_where_it_fails() {
    rejected(json(), "", "line 1, column 1 of the payload: it ends before any element");
    rejected(json(), "<a>\n <b>", "line 2, column 5 of the payload: it ends within <b>");
    rejected(
        json(),
        "<a>\n  <b></a>",
        "line 2, column 6 of the payload: ill-formed document: expected `</b>`, but `</a>` was found",
    );
    rejected(json(), "<a/>\n<b/>", "line 2, column 1 of the payload: a second outermost element");
    rejected(json(), "a", "line 1, column 1 of the payload: text outside of every element");
    rejected(json(), "<a>&b;</a>", "line 1, column 4 of the payload: &b;: an entity that XML itself does not have");
    rejected(
        json(),
        "<!DOCTYPE a [<!ENTITY b \"c\">]>\n<a>&b;</a>",
        "line 1, column 1 of the payload: a document type, which is not read",
    );
    rejected(json(), b"<a>\n\xff</a>".to_vec(), "line 2, column 1 of the payload: text that is not UTF-8");
    rejected(
        json(),
        "<a b=1/>",
        "line 1, column 1 of the payload: position 4: attribute value must be enclosed in `\"` or `'`",
    );
    rejected(
        json(),
        "<a>".repeat(100_000),
        "line 1, column 382 of the payload: elements nested deeper than 127 levels",
    );
    rejected(
        xml(),
        "[]",
        "the payload is no object with one name, which would be the outermost element; root names one",
    );
    rejected(xml(), r#"{"a":{"b c":1}}"#, "a.b c: \"b c\" is no name of an element");
    rejected(xml(), r#"{"a":{"@b":[1]}}"#, "a.@b: text, a number or a boolean is expected");
    rejected(xml(), r#"{"a":{"b":[[1]]}}"#, "a.b[0]: an array within an array, which has no name");
    rejected(xml(), r#"{"a":[1]}"#, "a: an array, where the outermost element is one");
    rejected(xml(), r#"{"a":{"b":"\u0000"}}"#, "a.b: the character U+0000, which XML cannot say");
    let long = format!(r#"{{"a":{{"{}":[{}1]}}}}"#, "n".repeat(70_000), "1,".repeat(1_000));
    rejected(xml(), long, "the payload becomes more than 16 MiB of XML");
    rejected(xml(), "{", "the payload is no JSON: EOF while parsing an object at line 1 column 1");
}

#[test]
fn survives_hostile_payloads() {
    survives::<ConvertXml>(json!({ "to": "json" }));
    survives::<ConvertXml>(json!({ "to": "xml", "root": "a" }));
}

#[test]
fn names_what_is_wrong_with_a_configuration() {
    let refused = |config: Value| Harness::<ConvertXml>::new(config).err().unwrap();
    assert_eq!(refused(json!({})), "missing field `to`");
    assert_eq!(refused(json!({ "to": "xml", "root": "a b" })), "root: \"a b\" is no name of an element");
    assert_eq!(refused(json!({ "to": "json", "root": "a" })), "root: goes with to = \"xml\" alone");
    assert_eq!(refused(json!({ "to": "xml", "arrays": ["a"] })), "arrays: goes with to = \"json\" alone");
    assert_eq!(
        refused(json!({ "to": "xml", "attribute": "" })),
        "attribute: a text that begins the keys of attributes, and not with `#`",
    );
}
