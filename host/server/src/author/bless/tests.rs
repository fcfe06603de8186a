use quipu_protocol::Message;
use quipu_protocol::Subject;
use quipu_runtime::{Capsule, Digest, Emitted, Fault, FaultKind, Hand, Usage, Use, Verdict};

use super::*;
use crate::plugins::cases::{Case, Difference};

/// What a plugin makes of the case's message, by this verdict and these edits.
fn check(text: &str, verdict: Result<Verdict, Fault>, edit: impl FnOnce(&mut Hand), expected: &str) {
    let cases: toml::Table = text.parse().expect("TOML");
    let case: Case = cases["case"][0].clone().try_into().expect("a case");
    let mut hand = case.message.hand(0, 0).expect("a message");
    let input: Message = hand.message.clone();
    let capsule = Capsule::of("p", Digest::of(b""), &Use::default(), &hand);
    edit(&mut hand);
    let (time, usage) = (std::time::Duration::ZERO, Usage::default());
    let attempt = Attempt { input, output: hand, verdict, time, logs: Vec::new(), usage };
    let differences = vec![Difference { what: "x".into(), place: None, expected: "x".into(), found: "x".into() }];
    let tried = Tried { name: case.name.clone(), differences, attempt: Some(attempt), refused: None, capsule };
    let outcome = Outcome { file: 0, index: 0, line: 1, case, tried, capsule: None };
    assert_eq!(blessed(text, &[&outcome]).expect("blessed"), expected);
}

fn set_payload(text: &'static str) -> impl FnOnce(&mut Hand) {
    move |hand| hand.message.payload = bytes::Bytes::from_static(text.as_bytes())
}

#[test]
fn only_what_is_wrong_is_changed() {
    let text = "# First.\n[[case]]\nname = \"a\" # a name\nmessage = { payload = { n = 1 } }\nexpect.verdict = \"forward\" # for now\n\
                expect.payload = { n = 1, x.y = [1, 2] }\n";
    let expected = "# First.\n[[case]]\nname = \"a\" # a name\nmessage = { payload = { n = 1 } }\nexpect.verdict = \"forward\" # for now\n\
                    expect.payload = { n = 1, x.y = [1, 3] }\n";
    check(text, Ok(Verdict::Forward), set_payload("{\"n\":1,\"x\":{\"y\":[1,3]},\"more\":true}"), expected);
}

#[test]
fn a_new_verdict_brings_its_reason() {
    let text =
        "[[case]]\nname = \"a\"\n[case.message]\nkey = \"k\"\n[case.expect]\n# Why?\nverdict = \"forward\" # so far\n";
    let expected = "[[case]]\nname = \"a\"\n[case.message]\nkey = \"k\"\n[case.expect]\n# Why?\nverdict = \"drop\" # so far\nreason = \"small\"\n";
    check(text, Ok(Verdict::Drop("small".into())), |_| {}, expected);
    let text = "[[case]]\nname = \"a\"\nexpect = { verdict = \"route\", subjects = [\"b\"] }\n";
    let expected = "[[case]]\nname = \"a\"\nexpect = { verdict = \"fault\", reason = \"boom\" }\n";
    let fault = Fault { kind: FaultKind::Said, text: "boom".into(), trace: Vec::new() };
    check(text, Err(fault), |_| {}, expected);
}

#[test]
fn headers_come_and_go() {
    let text = "[[case]]\nname = \"a\"\n[case.expect]\nheaders = { region = \"alaska\", net = \"ak\" }\nno_headers = [\"size\"]\n";
    let expected = "[[case]]\nname = \"a\"\n[case.expect]\nheaders = { net = \"us\", size = [\"a\", \"b\"] }\nno_headers = [\"region\"]\n";
    let edit = |hand: &mut Hand| {
        for (name, value) in [("net", "us"), ("size", "a"), ("size", "b")] {
            hand.message.headers.add(name, value).expect("a header");
        }
    };
    check(text, Ok(Verdict::Forward), edit, expected);
}

#[test]
fn of_what_a_verdict_undoes_nothing_is_expected() {
    let text = "[[case]]\nname = \"a\"\nexpect = { verdict = \"reject\", headers = { by = \"me\" }, no_headers = [\"x\"], \
                payload = { n = 1 }, priority = 3, emitted = 1, outputs = [{ subject = \"s\" }] }\n";
    let expected =
        "[[case]]\nname = \"a\"\nexpect = { verdict = \"reject\", no_headers = [\"x\"], emitted = 0, outputs = [] }\n";
    let edit = |hand: &mut Hand| hand.message.headers.add("by", "me").expect("a header");
    check(text, Ok(Verdict::Reject("bad".into())), edit, expected);
}

#[test]
fn a_case_that_expects_nothing_gets_all() {
    let text = "[[case]]\nname = \"a\"\n[case.message]\nheaders = { old = \"1\" }\n";
    let expected = "[[case]]\nname = \"a\"\nexpect = { verdict = \"route\", subjects = [\"x\"], no_headers = [\"old\"], \
                    outputs = [{ subject = \"audit\", payload_text = \"\" }], payload_text = \"done\" }\n[case.message]\nheaders = { old = \"1\" }\n";
    let edit = |hand: &mut Hand| {
        hand.message.headers = Headers::new();
        hand.message.payload = bytes::Bytes::from_static(b"done");
        let subject = Subject::new("audit").expect("a subject");
        let (key, payload, id, reply_to) = (None, None, None, None);
        let (expires_ms, deliver_at_ms, headers) = (None, None, Headers::new());
        hand.emitted =
            vec![Emitted { subject, key, headers, payload, id, reply_to, expires_ms, deliver_at_ms, priority: 0 }];
    };
    let route = Verdict::Route(vec![Subject::new("x").expect("a subject")]);
    check(text, Ok(route), edit, expected);
}
