//! Stock plugin `convert-msgpack`: payloads from MessagePack to JSON, and back.

mod pack;
mod unpack;

use quipu_plugin::prelude::*;

/// The configuration of one use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvertMsgpack {
    to: To,
    #[serde(default)]
    binary: Binary,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum To {
    Json,
    Msgpack,
}

/// What becomes of bytes, which JSON cannot say.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Binary {
    #[default]
    Base64,
    Reject,
}

impl Plugin for ConvertMsgpack {
    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        match self.to {
            To::Json => {
                let value = unpack::unpack(message.payload(), self.binary)?;
                message.set_json(&value)?;
            }
            To::Msgpack => {
                let packed = pack::pack(&message.json()?)?;
                message.set_payload(packed);
            }
        }
        Ok(forward())
    }
}
plugin!(ConvertMsgpack);

#[cfg(test)]
mod tests {
    use super::ConvertMsgpack;
    use quipu_plugin::prelude::*;
    use quipu_plugin::testing::{Harness, MockMessage, Outcome, run, survives};

    fn convert(to: &str, payload: impl Into<Vec<u8>>) -> Outcome {
        run::<ConvertMsgpack>(json!({ "to": to }), MockMessage::new("a").payload(payload))
    }

    #[track_caller]
    fn to_json(payload: &[u8], expected: &str) {
        let outcome = convert("json", payload);
        assert_eq!((outcome.verdict.clone(), outcome.payload_text().as_str()), (forward(), expected));
    }

    #[track_caller]
    fn rejected(payload: &[u8], expected: &str) {
        assert_eq!(convert("json", payload).verdict, reject(expected));
    }

    /// There and back again.
    #[track_caller]
    fn comes_back(json: &str) {
        let packed = convert("msgpack", json);
        assert_eq!(packed.verdict, forward());
        to_json(&packed.message.payload, json);
    }

    #[test]
    fn both_ways() {
        comes_back(r#"{"a":[1,-1,300,70000,-70000,5000000000,18446744073709551615,-9223372036854775808],"b":null}"#);
        comes_back(r#"[true,false,0.1,1.5e+300,"","ü"]"#);
        comes_back(&format!("[{}]", vec!["\"x\""; 70_000].join(",")));
        assert_eq!(convert("msgpack", r#"{"a":1}"#).message.payload, b"\x81\xa1a\x01");
    }

    #[test]
    fn reads_what_json_lacks() {
        to_json(b"\xc4\x03abc", "\"YWJj\"");
        to_json(b"\xca\x3f\x80\x00\x00", "1.0");
        to_json(b"\x82\x01\xa1a\xc3\xa1b", r#"{"1":"a","true":"b"}"#);
        to_json(b"\xd6\xff\x65\xe0\x74\xc0", r#"{"data":"ZeB0wA==","ext":-1}"#);
        let config = json!({ "to": "json", "binary": "reject" });
        let outcome = run::<ConvertMsgpack>(config, MockMessage::new("a").payload(b"\x91\xc4\x01a".to_vec()));
        assert_eq!(
            outcome.verdict,
            reject("byte 1 of the payload: bytes, which JSON cannot say (binary = \"base64\" would)")
        );
    }

    #[test]
    fn says_where_it_fails() {
        rejected(b"", "byte 0 of the payload: it ends within a value");
        rejected(b"\x92\x01", "byte 2 of the payload: it ends within a value");
        rejected(b"\xa5ab", "byte 3 of the payload: it ends within a value");
        rejected(b"\xdd\xff\xff\xff\xff", "byte 5 of the payload: it ends within a value");
        rejected(b"\xc6\xff\xff\xff\xff", "byte 5 of the payload: it ends within a value");
        rejected(b"\x91\xc1", "byte 1 of the payload: no value begins with 0xc1");
        rejected(b"\x01\x02", "byte 1 of the payload: it goes on after its value");
        rejected(b"\x81\xa1a\xa1\xff", "byte 3 of the payload: text that is not UTF-8");
        rejected(b"\x81\x90\x01", "byte 1 of the payload: a name that is neither text, number nor boolean");
        rejected(b"\x91\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00", "byte 1 of the payload: inf, which JSON cannot say");
        rejected(b"\x82\xa1a\x01\xa1a\x02", "byte 4 of the payload: the name \"a\" for the second time");
        rejected(&[0x91; 100_000], "byte 128 of the payload: nested deeper than 127 levels");
        let outcome = convert("msgpack", "[1");
        assert_eq!(outcome.verdict, reject("the payload is no JSON: EOF while parsing a list at line 1 column 2"));
        let outcome = convert("msgpack", "1e999");
        assert_eq!(outcome.verdict, reject("the payload is no JSON: number out of range at line 1 column 5"));
    }

    #[test]
    fn survives_hostile_payloads() {
        survives::<ConvertMsgpack>(json!({ "to": "json" }));
        survives::<ConvertMsgpack>(json!({ "to": "msgpack" }));
    }

    #[test]
    fn names_what_is_wrong_with_a_configuration() {
        let refused = |config: Value| Harness::<ConvertMsgpack>::new(config).err().unwrap();
        assert_eq!(refused(json!({})), "missing field `to`");
        assert_eq!(refused(json!({ "to": "xml" })), "to: unknown variant `xml`, expected `json` or `msgpack`");
    }
}
