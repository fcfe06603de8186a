//! `PROTOCOL.md` says what the code says: its example frame, its codes, its frame types and its limits.

use bytes::{Bytes, BytesMut};
use quipu_protocol::code::Code;
use quipu_protocol::frame::{Frame, split};
use quipu_protocol::{Key, Message, MessageId, limits, proto};

const DOCUMENT: &str = include_str!("../../../protocol/PROTOCOL.md");

/// The bytes in the block of this language: two hexadecimal digits each, up to the column of words.
fn bytes_in_block() -> Vec<u8> {
    let block = DOCUMENT.split("```hex\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    let digits = block.lines().flat_map(|line| line.split("  ").next().unwrap_or("").split_whitespace());
    digits.map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal")).collect()
}

#[test]
fn the_example_frame_is_what_the_code_writes() {
    let id = MessageId::new("m1").expect("an id");
    let mut message = Message::new(id, "orders.eu".parse().expect("a subject"), Bytes::new());
    message.key = Some(Key::new("k").expect("a key"));
    message.headers.add("type", "new").expect("a header");
    let mut header: proto::MessageHeader = prost::Message::decode(message.encode_header()).expect("a header");
    header.origin_subject.clear();
    let publish = proto::Publish { sequence: 1, message: prost::Message::encode_to_vec(&header).into(), resume: false };
    let mut wire = BytesMut::new();
    Frame::with_payload(publish, Bytes::from_static(b"{}")).encode(&mut wire);
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
    assert_eq!(hex(&bytes_in_block()), hex(&wire));
    assert!(split(&mut wire).expect("a frame").is_some() && wire.is_empty());
}

#[test]
fn every_code_is_in_the_table() {
    for code in Code::ALL {
        let retry = if code.is_retryable() { "yes" } else { "no" };
        let row = format!("| {} | `{code:?}` | {retry} |", code as u32);
        assert!(DOCUMENT.contains(&row), "{row}");
    }
}

#[test]
fn every_limit_is_in_the_table() {
    let rows = [
        ("Payload of a message, bytes", limits::PAYLOAD_BYTES_MAX),
        ("Headers of a message", limits::HEADERS_MAX),
        ("Headers that the router adds", limits::ROUTER_HEADERS_MAX),
        ("Header name, bytes", limits::HEADER_NAME_BYTES_MAX),
        ("Header value, bytes", limits::HEADER_VALUE_BYTES_MAX),
        ("Key, bytes", limits::KEY_BYTES_MAX),
        ("Message id, bytes", limits::ID_BYTES_MAX),
        ("Subject, bytes", limits::SUBJECT_BYTES_MAX),
        ("Tokens in a subject", limits::SUBJECT_TOKENS_MAX),
        ("Priority", limits::PRIORITY_MAX.into()),
        ("Hops", limits::HOPS_MAX.into()),
        ("Header of a frame, bytes", limits::FRAME_HEADER_BYTES_MAX),
        ("Length of a frame, bytes", limits::FRAME_BYTES_MAX),
        ("Elements in a frame's header", limits::FRAME_ELEMENTS_MAX),
        ("Results in a `Receipt`", limits::RECEIPT_RESULTS_MAX),
        ("Tokens in a `Settle`", limits::SETTLE_TOKENS_MAX),
        ("Replies to a request", limits::REPLIES_MAX.try_into().expect("fits")),
        ("Time that a request waits for replies, ms", limits::REQUEST_MS_MAX.try_into().expect("fits")),
        ("Error text, reason, notice, bytes", limits::TEXT_BYTES_MAX),
        ("Name of a publisher, bytes", limits::PUBLISHER_NAME_BYTES_MAX),
        ("Sequences of a named publisher under way", limits::PUBLISHER_REFUSED_MAX),
        ("Time to settle that an extension asks for, ms", limits::EXTEND_MS_MAX.try_into().expect("fits")),
    ];
    for (what, most) in rows {
        let row = format!("| {what} | {} |", grouped(most));
        assert!(DOCUMENT.contains(&row), "{row}");
    }
}

/// With a comma between thousands.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
