//! Frames survive a round trip; no bytes make the decoder panic, nor allocate more than was received.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use quipu_protocol::frame::{Frame, FrameError, RawFrame, split};
use quipu_protocol::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES_MAX};
use quipu_protocol::{Message, MessageId, proto};

/// What decoding may allocate beside what it received: room for the structures of 2,048 elements.
const STRUCTURES_BYTES: u64 = 64 << 10;

fn bytes_any(most: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..most).prop_map(Bytes::from)
}

fn error_any() -> impl Strategy<Value = proto::Error> {
    (any::<u32>(), any::<bool>(), any::<u64>(), ".{0,40}").prop_map(|(code, retryable, after_ms, text)| proto::Error {
        code,
        retryable,
        after_ms,
        text,
    })
}

fn stored_any() -> impl Strategy<Value = proto::Stored> {
    prop::collection::vec(("[a-z.]{1,20}", any::<u64>()), 0..4).prop_map(|positions| proto::Stored {
        positions: positions.into_iter().map(|(queue, offset)| proto::Position { queue, offset }).collect(),
    })
}

fn result_any() -> impl Strategy<Value = proto::Result> {
    use proto::result::Kind;
    let kind = prop_oneof![
        stored_any().prop_map(Kind::Stored),
        stored_any().prop_map(Kind::Duplicate),
        Just(Kind::Routed(proto::Routed {})),
        error_any().prop_map(Kind::Error),
    ];
    kind.prop_map(|kind| proto::Result { kind: Some(kind) })
}

fn control_any() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (prop::collection::vec(any::<u32>(), 0..5), ".{0,20}", ".{0,20}")
            .prop_map(|(versions, client, credential)| proto::Hello { versions, client, credential }.into()),
        (any::<u32>(), ".{0,20}", any::<u64>()).prop_map(|(version, session, payload_bytes)| {
            let limits = proto::Limits { payload_bytes, ..proto::Limits::default() };
            proto::Welcome { version, session, limits: Some(limits), router: "quipu".into() }.into()
        }),
        (any::<u64>(), any::<bool>()).prop_map(|(nonce, answer)| proto::Ping { nonce, answer }.into()),
        (".{0,40}", any::<u64>()).prop_map(|(reason, grace_ms)| proto::Goaway { reason, grace_ms }.into()),
        Just(proto::Goodbye {}.into()),
        error_any().prop_map(Frame::from),
        Just(proto::End {}.into()),
        (any::<u64>(), any::<u64>()).prop_map(|(messages, bytes)| proto::Credit { messages, bytes }.into()),
    ]
}

fn publisher_any() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (".{0,20}", any::<u64>(), any::<bool>())
            .prop_map(|(name, epoch, stop_on_error)| { proto::OpenPublisher { name, epoch, stop_on_error }.into() }),
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(last_sequence, messages, epoch)| {
            proto::Opened { last_sequence, credit: Some(proto::Credit { messages, bytes: 9 }), epoch }.into()
        }),
        (any::<u64>(), bytes_any(300), any::<bool>(), bytes_any(2000)).prop_map(
            |(sequence, message, resume, payload)| {
                Frame::with_payload(proto::Publish { sequence, message, resume }, payload)
            }
        ),
        (any::<u64>(), any::<u64>(), prop::collection::vec(result_any(), 0..20))
            .prop_map(|(first, last, results)| proto::Receipt { first, last, results }.into()),
    ]
}

fn subscription_any() -> impl Strategy<Value = Frame> {
    let tokens = || prop::collection::vec(any::<u64>(), 0..50);
    prop_oneof![
        (".{0,20}", ".{0,20}", 0..4i32, 0..5i32, any::<u64>(), any::<u64>()).prop_map(
            |(queue, subscription, mode, start, start_offset, start_ms)| {
                proto::Subscribe { queue, subscription, mode, start, start_offset, start_ms }.into()
            }
        ),
        (any::<bool>(), any::<u64>(), any::<u32>(), any::<u64>(), 0..4i32).prop_map(
            |(created, floor, credit_max, ack_deadline_ms, mode)| {
                proto::Subscribed { created, floor, credit_max, ack_deadline_ms, mode }.into()
            }
        ),
        (any::<u64>(), any::<u64>(), any::<u32>(), 0..6i32, bytes_any(300), any::<u32>(), bytes_any(2000)).prop_map(
            |(token, offset, attempt, why, message, crashes, payload)| {
                Frame::with_payload(proto::Deliver { token, offset, attempt, why, message, crashes }, payload)
            }
        ),
        (0..6i32, tokens(), any::<u64>(), ".{0,20}").prop_map(|(verb, tokens, delay_ms, reason)| proto::Settle {
            verb,
            tokens,
            delay_ms,
            reason
        }
        .into()),
        (tokens(), tokens(), tokens(), prop::option::of(error_any()))
            .prop_map(|(committed, stale, refused, error)| proto::Settled { committed, stale, refused, error }.into()),
        any::<u64>().prop_map(|offset| proto::Seek { offset }.into()),
        (0..4i32, ".{0,20}").prop_map(|(kind, text)| proto::Notice { kind, text }.into()),
        (".{0,20}", bytes_any(200))
            .prop_map(|(method, payload)| Frame::with_payload(proto::AdminCall { method }, payload)),
        bytes_any(200).prop_map(|payload| Frame::with_payload(proto::AdminAnswer {}, payload)),
    ]
}

fn request_any() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (bytes_any(300), any::<u64>(), any::<u32>(), bytes_any(2000)).prop_map(
            |(message, timeout_ms, replies_max, payload)| {
                Frame::with_payload(proto::Request { message, timeout_ms, replies_max }, payload)
            }
        ),
        (prop::option::of(result_any()), ".{0,40}")
            .prop_map(|(result, inbox)| proto::Requested { result, inbox }.into()),
        (bytes_any(300), bytes_any(2000))
            .prop_map(|(message, payload)| Frame::with_payload(proto::Reply { message }, payload)),
    ]
}

fn frame_any() -> impl Strategy<Value = Frame> {
    prop_oneof![control_any(), publisher_any(), subscription_any(), request_any()]
}

/// Decodes all frames in the bytes, with messages and what they carry; asserts the bound on what that allocates.
fn decode_bounded(received: &[u8]) {
    let mut buffer = BytesMut::from(received);
    let info = allocation_counter::measure(|| {
        while let Ok(Some(raw)) = split(&mut buffer) {
            if let Ok(Some(frame)) = Frame::decode(raw)
                && let quipu_protocol::frame::Body::Publish(publish) = &frame.body
            {
                let assigned = || MessageId::new("assigned").expect("an id");
                drop(Message::decode_published(&publish.message, frame.payload.clone(), 1, assigned));
            }
        }
    });
    // A message's texts are there twice while it is taken out of its frame.
    assert!(
        info.bytes_max <= 2 * received.len() as u64 + STRUCTURES_BYTES,
        "{} bytes for {} received",
        info.bytes_max,
        received.len()
    );
}

proptest! {
    #[test]
    fn any_frame_survives_a_round_trip_in_any_pieces(
        frames in prop::collection::vec(frame_any(), 1..5),
        piece in 1..64usize,
    ) {
        let mut wire = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut wire));
        let mut buffer = BytesMut::new();
        let mut read = Vec::new();
        for bytes in wire.chunks(piece) {
            buffer.extend_from_slice(bytes);
            while let Some(raw) = split(&mut buffer).expect("a frame") {
                read.push(Frame::decode(raw).expect("a frame").expect("a known type"));
            }
        }
        prop_assert_eq!(read, frames);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        decode_bounded(&bytes);
    }

    #[test]
    fn any_header_of_any_type_is_survived(kind: u8, header in bytes_any(600), payload in bytes_any(20)) {
        let length = u32::try_from(5 + header.len() + payload.len()).expect("short");
        let mut wire = length.to_be_bytes().to_vec();
        wire.push(kind);
        wire.extend(u32::try_from(header.len()).expect("short").to_be_bytes());
        wire.extend_from_slice(&header);
        wire.extend_from_slice(&payload);
        decode_bounded(&wire);
    }

    #[test]
    fn a_flipped_byte_is_survived(frame in frame_any(), at: prop::sample::Index, flip in 1..=255u8) {
        let mut wire = BytesMut::new();
        frame.encode(&mut wire);
        let at = at.index(wire.len());
        wire[at] ^= flip;
        decode_bounded(&wire);
    }
}

/// A frame of this type whose header is this element, as often as fits.
fn full_of(kind: u8, element: &[u8]) -> Vec<u8> {
    let header: Vec<u8> =
        element.iter().copied().cycle().take(element.len() * (FRAME_HEADER_BYTES_MAX / element.len())).collect();
    let mut wire = u32::try_from(5 + header.len()).expect("short").to_be_bytes().to_vec();
    wire.push(kind);
    wire.extend(u32::try_from(header.len()).expect("short").to_be_bytes());
    wire.extend(header);
    wire
}

#[test]
fn two_bytes_cannot_ask_for_a_structure_each() {
    // Empty results in a receipt; results with empty positions; empty headers in a published message.
    let position = [0x1a, 6, 0x0a, 4, 0x0a, 0, 0x0a, 0];
    for wire in [full_of(19, &[0x1a, 0]), full_of(19, &position)] {
        decode_bounded(&wire);
        let raw = split(&mut BytesMut::from(&wire[..])).expect("lengths fit").expect("whole");
        assert_eq!(Frame::decode(raw), Err(FrameError::TooMany(19)));
    }
    // Versions of one byte each, packed in one field of 390,000 bytes.
    let mut versions = vec![0x0a, 0xf0, 0xe6, 0x17];
    versions.resize(4 + 390_000, 1);
    let wire = full_of(1, &versions);
    decode_bounded(&wire);
    let raw = split(&mut BytesMut::from(&wire[..])).expect("lengths fit").expect("whole");
    assert_eq!(Frame::decode(raw), Err(FrameError::TooMany(1)));
    let headers: Bytes = [0x2a, 0].repeat(100_000).into();
    let refused = Message::decode_published(&headers, Bytes::new(), 0, || MessageId::new("a").expect("an id"));
    assert!(refused.expect_err("too many").to_string().contains("at most 64 headers"));
}

#[test]
fn a_receipt_of_as_many_results_as_are_allowed_fits() {
    use proto::result::Kind;
    let last = u64::try_from(quipu_protocol::limits::RECEIPT_RESULTS_MAX).expect("fits");
    let position = |offset| proto::Position { queue: "orders".into(), offset };
    let result =
        |offset| proto::Result { kind: Some(Kind::Stored(proto::Stored { positions: vec![position(offset)] })) };
    let receipt = Frame::from(proto::Receipt { first: 1, last, results: (1..=last).map(result).collect() });
    let mut wire = BytesMut::new();
    receipt.encode(&mut wire);
    let raw = split(&mut wire).expect("lengths fit").expect("whole");
    assert_eq!(Frame::decode(raw), Ok(Some(receipt)));
}

#[test]
fn lengths_are_judged_as_soon_as_they_are_there() {
    let over = u32::try_from(FRAME_BYTES_MAX + 1).expect("fits");
    let refused = |bytes: &[u8]| split(&mut BytesMut::from(bytes)).expect_err("refused");
    assert_eq!(refused(&over.to_be_bytes()), FrameError::TooLarge { length: over });
    assert_eq!(refused(&u32::MAX.to_be_bytes()), FrameError::TooLarge { length: u32::MAX });
    assert_eq!(refused(&[0, 0, 0, 4]), FrameError::TooShort { length: 4 });
    assert_eq!(refused(&[0, 0, 0, 9, 1, 0, 0, 0, 5]), FrameError::Header { header: 5, length: 9 });
    assert_eq!(split(&mut BytesMut::from(&[0, 0, 0][..])), Ok(None));
}

#[test]
fn unknown_types_are_ignored_from_128_up_and_refused_below() {
    let raw = |kind| RawFrame { kind, header: Bytes::new(), payload: Bytes::new() };
    assert_eq!(Frame::decode(raw(128)), Ok(None));
    assert_eq!(Frame::decode(raw(255)), Ok(None));
    for reserved in [0, 9, 20, 51, 80, 127] {
        assert_eq!(Frame::decode(raw(reserved)), Err(FrameError::UnknownType(reserved)));
    }
    let ping = RawFrame { kind: 3, header: Bytes::new(), payload: Bytes::from_static(b"x") };
    assert_eq!(Frame::decode(ping), Err(FrameError::Payload(3)));
}
