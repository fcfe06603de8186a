//! Every limit of the protocol, in one place. A router may grant less in `Welcome`, never more.

/// Longest payload of a message, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 8 << 20;
/// Most headers that a publisher or a plugin may put on a message.
pub const HEADERS_MAX: usize = 64;
/// Room beyond [`HEADERS_MAX`] for the headers that the router adds (`quipu-…`).
pub const ROUTER_HEADERS_MAX: usize = 16;
/// Longest header name, in bytes.
pub const HEADER_NAME_BYTES_MAX: usize = 128;
/// Longest header value, in bytes of UTF-8.
pub const HEADER_VALUE_BYTES_MAX: usize = 4 << 10;
/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// Longest message id, in bytes.
pub const ID_BYTES_MAX: usize = 128;
/// Longest subject or pattern, in bytes.
pub const SUBJECT_BYTES_MAX: usize = 255;
/// Most tokens in a subject or pattern.
pub const SUBJECT_TOKENS_MAX: usize = 16;
/// Highest priority; 0 is the ordinary one.
pub const PRIORITY_MAX: u8 = 9;
/// Most hops through routes; a message that would make one more is dead-lettered.
pub const HOPS_MAX: u8 = 16;

/// Longest header of a frame: a message with every header at its longest, and some room for unknown fields.
pub const FRAME_HEADER_BYTES_MAX: usize = 384 << 10;
/// Longest frame after its length field: type, header length, header and payload.
pub const FRAME_BYTES_MAX: usize = 1 + 4 + FRAME_HEADER_BYTES_MAX + PAYLOAD_BYTES_MAX;
/// Most repeated elements in the header of one frame, nested ones included, so that a few bytes cannot ask for many
/// structures.
pub const FRAME_ELEMENTS_MAX: usize = 2_048;
/// Most results in one receipt.
pub const RECEIPT_RESULTS_MAX: usize = 512;
/// Most tokens in one `Settle`.
pub const SETTLE_TOKENS_MAX: usize = 1_024;
/// Longest reason in a `Settle`, error text or notice, in bytes.
pub const TEXT_BYTES_MAX: usize = 4 << 10;
/// Longest name of a named publisher, in bytes.
pub const PUBLISHER_NAME_BYTES_MAX: usize = 255;
/// Most sequences before a named publisher's last one of which the router remembers that they were refused; hence the
/// most that it lets be under way.
pub const PUBLISHER_REFUSED_MAX: usize = 4_096;
/// Most replies that one request may ask for.
pub const REPLIES_MAX: u32 = 1_024;
/// Longest time that a request may wait for replies, in milliseconds: 1 hour.
pub const REQUEST_MS_MAX: u64 = 60 * 60 * 1_000;
/// Longest time to settle that an extension may ask for, in milliseconds: 12 hours.
pub const EXTEND_MS_MAX: u64 = 12 * 60 * 60 * 1_000;
