//! Finds what looks like personal data in a text: by form, and by check digits where a form has them. One pass, with no
//! look further ahead than the longest thing there is to find.

use quipu_plugin::prelude::Deserialize;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

const LOCAL_PART_BYTES_MAX: usize = 64;
const DOMAIN_BYTES_MAX: usize = 255;
/// E.164 has numbers of no more digits.
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 8..=15;
/// ISO/IEC 7812.
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;
/// The shortest IBAN of a country has 15 characters, and ISO 13616 allows 34.
const IBAN_CHARS: std::ops::RangeInclusive<usize> = 15..=34;
const IPV6_BYTES_MAX: usize = 45;

/// What can be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Email,
    Phone,
    CreditCard,
    Iban,
    Ipv4,
    Ipv6,
    UsSsn,
}

impl Kind {
    /// As in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Phone => "phone",
            Self::CreditCard => "credit-card",
            Self::Iban => "iban",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::UsSsn => "us-ssn",
        }
    }

    /// How many bytes at the start of a text are one of these; a letter or a digit is not before it.
    fn length(self, before: Option<u8>, text: &[u8]) -> Option<usize> {
        let goes_on_from = |signs: &[u8]| before.is_some_and(|before| signs.contains(&before));
        match self {
            Self::Email => None, // found by its `@`
            Self::Phone if !goes_on_from(b"-.") => phone(text),
            Self::CreditCard => credit_card(text),
            Self::Iban => iban(text),
            Self::Ipv4 if !goes_on_from(b".") => ipv4(text),
            Self::Ipv6 if !goes_on_from(b":.") => ipv6(text),
            Self::UsSsn if !goes_on_from(b"-") => us_ssn(text),
            Self::Phone | Self::Ipv4 | Self::Ipv6 | Self::UsSsn => None,
        }
    }
}

/// Where in the text these kinds are, in order and apart from each other. Of kinds that fit one place, the first of
/// `kinds` counts, and an e-mail address before all.
pub(crate) fn find(text: &str, kinds: &[Kind]) -> Vec<(Range<usize>, Kind)> {
    let mut found = Vec::new();
    let emails = if kinds.contains(&Kind::Email) { emails(text) } else { Vec::new() };
    let mut from = 0;
    for email in emails {
        numbers(text, from..email.start, kinds, &mut found);
        from = email.end;
        found.push((email, Kind::Email));
    }
    numbers(text, from..text.len(), kinds, &mut found);
    found
}

/// Everything but e-mail addresses. A find begins where no letter or digit is before it, and its own rule says where it
/// may end; what is between two addresses is looked at as if it were alone.
fn numbers(text: &str, within: Range<usize>, kinds: &[Kind], found: &mut Vec<(Range<usize>, Kind)>) {
    let bytes = &text.as_bytes()[within.clone()];
    let mut at = 0;
    while at < bytes.len() {
        let before = at.checked_sub(1).map(|before| bytes[before]);
        let begins = starts(bytes[at]) && !before.is_some_and(|before| before.is_ascii_alphanumeric());
        let length = |kind: &Kind| Some((kind.length(before, &bytes[at..])?, *kind));
        if let Some((length, kind)) = begins.then(|| kinds.iter().find_map(length)).flatten() {
            let start = within.start + at;
            found.push((start..start + length, kind));
            at += length;
        } else {
            at += 1;
        }
    }
}

fn starts(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'(' | b':')
}

/// Whether a find of so many bytes ends with a word.
fn ends(text: &[u8], length: usize) -> bool {
    !text.get(length).is_some_and(u8::is_ascii_alphanumeric)
}

fn emails(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found: Vec<Range<usize>> = Vec::new();
    for (at, _) in text.match_indices('@') {
        let floor = found.last().map_or(0, |last| last.end).max(at.saturating_sub(LOCAL_PART_BYTES_MAX));
        let mut start = at;
        while start > floor && is_local(bytes[start - 1]) {
            start -= 1;
        }
        // The limit may have cut a character in two.
        while !text.is_char_boundary(start) {
            start += 1;
        }
        if let Some(length) = (start < at).then(|| domain(&text[at + 1..])).flatten() {
            found.push(start..at + 1 + length);
        }
    }
    found
}

fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii() || b"!#$%&'*+-/=?^_`{|}~.".contains(&byte)
}

/// The length of a name with a dot in it, whose last part is no number.
fn domain(text: &str) -> Option<usize> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || !byte.is_ascii() || matches!(byte, b'-' | b'.');
    let mut length = text.bytes().take(DOMAIN_BYTES_MAX).take_while(is_part).count();
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    let name = text[..length].trim_end_matches(['.', '-']);
    let (_, last) = name.rsplit_once('.')?;
    let is_domain = !name.starts_with('.') && last.len() > 1 && !last.bytes().all(|byte| byte.is_ascii_digit());
    is_domain.then_some(name.len())
}

/// `+49 30 1234567`: a plus and 8 to 15 digits, in groups; or a North American one, `(212) 555-0100`.
fn phone(text: &[u8]) -> Option<usize> {
    if text.first() != Some(&b'+') {
        return north_american(text);
    }
    if !text.get(1).is_some_and(|digit| (b'1'..=b'9').contains(digit)) {
        return None;
    }
    let (mut at, mut digits, mut end) = (1, 0, 0);
    while digits <= *PHONE_DIGITS.end() {
        let group = text[at..].iter().take_while(|byte| byte.is_ascii_digit()).take(16).count();
        digits += group;
        at += group;
        if group == 0 || digits > *PHONE_DIGITS.end() || !ends(text, at) {
            break;
        }
        if PHONE_DIGITS.contains(&digits) {
            end = at;
        }
        // Up to two signs between groups, as in `+1 (212) 555-0100`.
        at += text[at..].iter().take(2).take_while(|byte| b" -./()".contains(byte)).count();
    }
    (end > 0).then_some(end)
}

fn north_american(text: &[u8]) -> Option<usize> {
    let digits = |at: usize, count: usize| {
        let group = text.get(at..at + count)?;
        group.iter().all(u8::is_ascii_digit).then_some(at + count)
    };
    // Area code and exchange begin with 2 to 9.
    let code = |at: usize| text.get(at).filter(|digit| (b'2'..=b'9').contains(digit)).and_then(|_| digits(at, 3));
    let separator = |at: usize| text.get(at).filter(|byte| b" -.".contains(byte)).map(|_| at + 1);
    let at = if text.starts_with(b"1") { separator(1)? } else { 0 };
    let at = if text.get(at) == Some(&b'(') {
        let closed = code(at + 1).filter(|at| text.get(*at) == Some(&b')'))? + 1;
        separator(closed).unwrap_or(closed)
    } else {
        separator(code(at)?)?
    };
    let end = digits(separator(code(at)?)?, 4)?;
    ends(text, end).then_some(end)
}

/// 13 to 19 digits with a right check digit, together or in groups of which the first has four.
fn credit_card(text: &[u8]) -> Option<usize> {
    // The first digit of the networks that issue cards for payment.
    text.first().filter(|digit| (b'2'..=b'6').contains(digit))?;
    let mut digits = Vec::with_capacity(*CARD_DIGITS.end());
    let mut separator = None;
    let (mut at, mut end) = (0, None);
    loop {
        let group = text[at..].iter().take_while(|byte| byte.is_ascii_digit()).take(CARD_DIGITS.end() + 1).count();
        if group == 0 || digits.len() + group > *CARD_DIGITS.end() {
            break;
        }
        digits.extend(text[at..at + group].iter().map(|digit| digit - b'0'));
        at += group;
        if CARD_DIGITS.contains(&digits.len()) && ends(text, at) && luhn(&digits) {
            end = Some(at);
        }
        let is_first = separator.is_none();
        let next = text.get(at).copied().filter(|byte| matches!(byte, b' ' | b'-'));
        if next.is_none() || (is_first && group != 4) || (!is_first && next != separator) {
            break;
        }
        separator = next;
        at += 1;
    }
    end
}

/// The check digit of ISO/IEC 7812, annex B.
fn luhn(digits: &[u8]) -> bool {
    let weighed = digits.iter().rev().enumerate().map(|(n, digit)| match (n % 2, digit * 2) {
        (0, _) => u32::from(*digit),
        (_, doubled) => u32::from(doubled / 10 + doubled % 10),
    });
    weighed.sum::<u32>() % 10 == 0
}

/// Country, check digits and account, together or in groups; the longest end with a right check.
fn iban(text: &[u8]) -> Option<usize> {
    let head = text.get(..4)?;
    if !(head[..2].iter().all(u8::is_ascii_uppercase) && head[2..].iter().all(u8::is_ascii_digit)) {
        return None;
    }
    let mut compact = Vec::with_capacity(*IBAN_CHARS.end());
    let mut end = None;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'A'..=b'Z' | b'0'..=b'9' if compact.len() < *IBAN_CHARS.end() => compact.push(*byte),
            b' ' if at > 0 && text[at - 1] != b' ' => continue,
            _ => break,
        }
        if IBAN_CHARS.contains(&compact.len()) && ends(text, at + 1) && mod_97(&compact) == 1 {
            end = Some(at + 1);
        }
    }
    end
}

/// The remainder of ISO 7064, with the first four characters behind the rest, and letters as 10 to 35.
fn mod_97(iban: &[u8]) -> u32 {
    let (head, account) = iban.split_at(4);
    account.iter().chain(head).fold(0, |remainder, byte| match byte {
        b'0'..=b'9' => (remainder * 10 + u32::from(byte - b'0')) % 97,
        _ => (remainder * 100 + u32::from(byte - b'A') + 10) % 97,
    })
}

fn ipv4(text: &[u8]) -> Option<usize> {
    let run = text.iter().take(16).take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
    address::<Ipv4Addr>(text, run, |byte| byte == b'.')
}

fn ipv6(text: &[u8]) -> Option<usize> {
    let is_part = |byte: &&u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let run = text.iter().take(IPV6_BYTES_MAX + 1).take_while(is_part).count();
    // `::` alone is an address as well, and nobody's.
    let has_digits = text[..run].iter().any(u8::is_ascii_hexdigit);
    has_digits.then(|| address::<Ipv6Addr>(text, run, |byte| matches!(byte, b'.' | b':'))).flatten()
}

/// What of a run is an address; a sign at its end may belong to the sentence.
fn address<A: std::str::FromStr>(text: &[u8], run: usize, is_sign: impl Fn(u8) -> bool) -> Option<usize> {
    let shorter = run.checked_sub(1).filter(|last| is_sign(text[*last]));
    let parses = |length: &usize| str::from_utf8(&text[..*length]).is_ok_and(|run| run.parse::<A>().is_ok());
    [Some(run), shorter].into_iter().flatten().filter(|length| ends(text, *length)).find(parses)
}

/// `123-45-6789`, without numbers that are never given.
fn us_ssn(text: &[u8]) -> Option<usize> {
    const LENGTH: usize = 11;
    let text_of = text.get(..LENGTH)?;
    let is_digit = |(at, byte): (usize, &u8)| matches!(at, 3 | 6) || byte.is_ascii_digit();
    let separator = text_of[3];
    let has_form =
        text_of.iter().enumerate().all(is_digit) && matches!(separator, b'-' | b' ') && text_of[6] == separator;
    let (area, group, serial) = (&text_of[..3], &text_of[4..6], &text_of[7..]);
    let is_given = area != b"000" && area != b"666" && area[0] != b'9' && group != b"00" && serial != b"0000";
    let goes_on = text.get(LENGTH).is_some_and(|byte| *byte == b'-');
    (has_form && is_given && !goes_on && ends(text, LENGTH)).then_some(LENGTH)
}

#[cfg(test)]
mod tests {
    use super::{Kind, find};

    const ALL: [Kind; 7] =
        [Kind::Email, Kind::Iban, Kind::Ipv6, Kind::Ipv4, Kind::CreditCard, Kind::UsSsn, Kind::Phone];

    /// What is found, in angle brackets with the first letter of its kind.
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let mut marked = text.to_owned();
        for (range, kind) in find(text, &ALL).into_iter().rev() {
            marked.insert(range.end, '>');
            marked.insert_str(range.start, &format!("<{}|", kind.name()));
        }
        assert_eq!(marked, expected);
    }

    #[test]
    fn finds_email_addresses() {
        check("mail ann.b+x@mail.example.org.", "mail <email|ann.b+x@mail.example.org>.");
        check("a@b.co,c@d.co;<e@f.co>", "<email|a@b.co>,<email|c@d.co>;<<email|e@f.co>>");
        check("jürgen@müller.de", "<email|jürgen@müller.de>");
        check("@a.b a@ a@b a@b.c a@.bc a@b.12 x@@y", "@a.b a@ a@b a@b.c a@.bc a@b.12 x@@y");
        let long = "é".repeat(40);
        check(&format!("{long}@b.co"), &format!("{}<email|{}@b.co>", "é".repeat(8), "é".repeat(32)));
    }

    #[test]
    fn finds_phone_numbers() {
        check("tel:+49 30 1234567, +4915112345678.", "tel:<phone|+49 30 1234567>, <phone|+4915112345678>.");
        check("call (212) 555-0100 or 212.555.0100", "call <phone|(212) 555-0100> or <phone|212.555.0100>");
        check("1-212-555-0100 +1 (212) 555-0100", "<phone|1-212-555-0100> <phone|+1 (212) 555-0100>");
        check("+49 30 12345678 2026-01-02", "<phone|+49 30 12345678> 2026-01-02");
        check("2125550100 112-555-0100 +0 123456789 +1234567", "2125550100 112-555-0100 +0 123456789 +1234567");
    }

    #[test]
    fn finds_cards_with_a_right_check_digit() {
        check("4111111111111111", "<credit-card|4111111111111111>");
        check(
            "4111 1111 1111 1111, 3782-822463-10005",
            "<credit-card|4111 1111 1111 1111>, <credit-card|3782-822463-10005>",
        );
        check("4111 1111 1111 1111 123", "<credit-card|4111 1111 1111 1111> 123");
        check("4111111111111112 x4111111111111111", "4111111111111112 x4111111111111111");
        check("41111111111111111111 4111-1111 1111-1111", "41111111111111111111 4111-1111 1111-1111");
    }

    #[test]
    fn finds_account_numbers_with_a_right_check() {
        check("DE89370400440532013000", "<iban|DE89370400440532013000>");
        check("to GB82 WEST 1234 5698 7654 32 THANKS", "to <iban|GB82 WEST 1234 5698 7654 32> THANKS");
        check(
            "NO9386011117947 FR1420041010050500013M02606",
            "<iban|NO9386011117947> <iban|FR1420041010050500013M02606>",
        );
        check("DE88370400440532013000 XDE89370400440532013000", "DE88370400440532013000 XDE89370400440532013000");
    }

    #[test]
    fn finds_addresses_of_machines() {
        check("from 192.168.1.10:80 and 10.0.0.1.", "from <ipv4|192.168.1.10>:80 and <ipv4|10.0.0.1>.");
        check(
            "[2001:db8::1] ::1, fe80::1: ::ffff:10.0.0.1",
            "[<ipv6|2001:db8::1>] <ipv6|::1>, <ipv6|fe80::1>: <ipv6|::ffff:10.0.0.1>",
        );
        check(
            "1.2.3 256.1.1.1 1.2.3.4.5 12:30:45 std::io :: v1.2.3.4",
            "1.2.3 256.1.1.1 1.2.3.4.5 12:30:45 std::io :: v1.2.3.4",
        );
    }

    #[test]
    fn finds_social_security_numbers() {
        check("ssn 123-45-6789, 123 45 6789", "ssn <us-ssn|123-45-6789>, <us-ssn|123 45 6789>");
        check("000-12-3456 666-12-3456 912-34-5678 123-00-6789", "000-12-3456 666-12-3456 912-34-5678 123-00-6789");
        check("123-45-67890 123-45-6789-1 123-45 6789", "123-45-67890 123-45-6789-1 123-45 6789");
    }

    #[test]
    fn finds_only_what_is_asked() {
        assert!(find("a@b.co 4111111111111111", &[Kind::Phone]).is_empty());
        assert_eq!(find("", &ALL), []);
    }

    /// Test numbers of the issuers, and of the registry of IBANs.
    #[test]
    fn finds_one_in_a_thousand_words() {
        let text = format!("{}a@b.co{}", "word 12345 ".repeat(500), " 2026-01-02T03:04:05Z 99.5".repeat(500));
        let found = find(&text, &ALL);
        assert_eq!(found, [(5_500..5_506, Kind::Email)]);
    }
}
