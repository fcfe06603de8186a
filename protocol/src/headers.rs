//! The headers of a message: an ordered list of names and values.

use crate::limits::{HEADER_NAME_BYTES_MAX, HEADER_VALUE_BYTES_MAX, HEADERS_MAX, ROUTER_HEADERS_MAX};

/// Ordered headers; names compare without case, and a name may stand more than once.
///
/// At most 64, and 16 more for the router's own, whose names begin with `quipu-`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

/// Why a header is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Empty, too long, or with a character that names may not hold.
    #[error("invalid header name {0:?}: 1 to {HEADER_NAME_BYTES_MAX} visible ASCII characters without `:` are allowed")]
    Name(String),
    /// Too long, or with a control character.
    #[error("invalid value of header {name:?}: {why}")]
    Value {
        /// Whose value.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// One more than allowed.
    #[error("a message has at most {HEADERS_MAX} headers")]
    TooMany,
    /// A name that only the router may set.
    #[error("header {0:?}: names that begin with `quipu-` are the router's own")]
    Reserved(String),
}

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// First value of this header.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every value of this header, in order.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one after the others.
    ///
    /// # Errors
    ///
    /// [`HeaderError`] where name or value is invalid, or there is no room.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), HeaderError> {
        check(name, value)?;
        self.room(name)?;
        self.0.push((name.into(), value.into()));
        Ok(())
    }

    /// Puts this value in the place of all values of this header.
    ///
    /// # Errors
    ///
    /// [`HeaderError`] where name or value is invalid, or there is no room; nothing is changed then.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), HeaderError> {
        check(name, value)?;
        match self.0.iter().position(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some(at) => {
                let mut index = 0;
                self.0.retain(|(n, _)| {
                    index += 1;
                    index - 1 <= at || !n.eq_ignore_ascii_case(name)
                });
                self.0[at].1 = value.into();
            }
            None => {
                self.room(name)?;
                self.0.push((name.into(), value.into()));
            }
        }
        Ok(())
    }

    /// Removes every value of this header; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self.0.len() < before
    }

    /// Whether this name is the router's own.
    pub fn is_reserved(name: &str) -> bool {
        name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("quipu-"))
    }

    /// Refuses the router's own names, for headers that come from outside.
    ///
    /// # Errors
    ///
    /// [`HeaderError::Reserved`] names the first such header.
    pub fn refuse_reserved(&self) -> Result<(), HeaderError> {
        match self.0.iter().find(|(name, _)| Self::is_reserved(name)) {
            Some((name, _)) => Err(HeaderError::Reserved(name.clone())),
            None => Ok(()),
        }
    }

    fn room(&self, name: &str) -> Result<(), HeaderError> {
        let reserved = Self::is_reserved(name);
        let most = if reserved { ROUTER_HEADERS_MAX } else { HEADERS_MAX };
        let there = self.0.iter().filter(|(n, _)| Self::is_reserved(n) == reserved).count();
        if there < most { Ok(()) } else { Err(HeaderError::TooMany) }
    }
}

fn check(name: &str, value: &str) -> Result<(), HeaderError> {
    let fits = (1..=HEADER_NAME_BYTES_MAX).contains(&name.len());
    if !fits || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
        return Err(HeaderError::Name(name.chars().take(HEADER_NAME_BYTES_MAX).collect()));
    }
    if value.len() > HEADER_VALUE_BYTES_MAX {
        let why = format!("{} bytes; at most {HEADER_VALUE_BYTES_MAX} are allowed", value.len());
        return Err(HeaderError::Value { name: name.into(), why });
    }
    match value.chars().find(|c| c.is_control()) {
        Some(c) => Err(HeaderError::Value { name: name.into(), why: format!("control character {c:?}") }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(headers: &Headers) -> String {
        headers.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn set_takes_the_place_of_all_values_and_keeps_the_order() {
        let mut headers = Headers::new();
        for (name, value) in [("a", "1"), ("Trace", "2"), ("b", "3"), ("trace", "4")] {
            headers.add(name, value).expect("room");
        }
        assert_eq!(headers.all("TRACE").collect::<Vec<_>>(), ["2", "4"]);
        headers.set("trace", "5").expect("room");
        assert_eq!(text(&headers), "a=1 Trace=5 b=3");
        headers.set("c", "6").expect("room");
        assert!(headers.remove("A") && !headers.remove("a"));
        assert_eq!(text(&headers), "Trace=5 b=3 c=6");
    }

    #[test]
    fn refuses_what_could_be_injected() {
        let mut headers = Headers::new();
        for name in ["", "a b", "a:b", "a\n", "ü", &"n".repeat(129)] {
            assert!(matches!(headers.add(name, ""), Err(HeaderError::Name(_))), "{name:?}");
        }
        assert!(matches!(headers.add("a", "x\r\ny: z"), Err(HeaderError::Value { .. })));
        assert!(matches!(headers.add("a", &"v".repeat(4097)), Err(HeaderError::Value { .. })));
        assert!(headers.is_empty());
    }

    #[test]
    fn keeps_room_for_the_router() {
        let mut headers = Headers::new();
        for n in 0..64 {
            headers.add(&format!("h{n}"), "v").expect("room");
        }
        assert_eq!(headers.add("one-more", "v"), Err(HeaderError::TooMany));
        headers.add("quipu-root", "v").expect("the router's room");
        assert_eq!(headers.refuse_reserved(), Err(HeaderError::Reserved("quipu-root".into())));
    }
}
