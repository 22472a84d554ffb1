//! JSON values of whatever type, without a tree: a reader takes what it knows and passes over the
//! rest. A value of an unexpected type is passed over, and `null` never replaces what is known.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A place that one JSON value is read into.
pub(crate) trait Take<'de>: Sized {
    fn text(&mut self, _text: Cow<'de, str>) {}

    fn number(&mut self, _number: f64) {}

    fn truth(&mut self, _truth: bool) {}

    fn object<A: MapAccess<'de>>(&mut self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn array<A: SeqAccess<'de>>(&mut self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    /// Takes the value of the key that was read last.
    fn take_value<A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        map.next_value_seed(Into(self))
    }

    /// Takes the next item; false at the end of the array.
    fn take_item<A: SeqAccess<'de>>(&mut self, items: &mut A) -> Result<bool, A::Error> {
        items
            .next_element_seed(Into(self))
            .map(|item| item.is_some())
    }
}

/// Reads `data`, which must hold one JSON value and nothing else, into `place`.
pub(crate) fn take_json<'de>(
    data: &'de [u8],
    place: &mut impl Take<'de>,
) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(data);
    Into(place).deserialize(&mut deserializer)?;
    deserializer.end()
}

struct Into<'t, T>(&'t mut T);

impl<'de, T: Take<'de>> DeserializeSeed<'de> for Into<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Take<'de>> Visitor<'de> for Into<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<(), E> {
        self.0.truth(truth);
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.0.number(number);
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.text(Cow::Owned(text.to_owned()));
        Ok(())
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
        self.0.text(Cow::Borrowed(text));
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<(), A::Error> {
        self.0.array(items)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.0.object(map)
    }
}

/// The name of a member. A newtype, because serde borrows a `Cow` only where it is a field.
#[derive(Deserialize)]
pub(crate) struct Key<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// Whether a value has any content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Filled {
    /// `null`, `false`, 0, an empty string, or a list or an object of nothing but these.
    #[default]
    Empty,
    Filled,
}

impl Filled {
    fn set_if(&mut self, filled: bool) {
        if filled {
            *self = Self::Filled;
        }
    }
}

impl<'de> Take<'de> for Filled {
    fn text(&mut self, text: Cow<'de, str>) {
        self.set_if(!text.is_empty());
    }

    fn number(&mut self, number: f64) {
        self.set_if(number != 0.0);
    }

    fn truth(&mut self, truth: bool) {
        self.set_if(truth);
    }

    fn object<A: MapAccess<'de>>(&mut self, mut map: A) -> Result<(), A::Error> {
        while map.next_key::<IgnoredAny>()?.is_some() {
            self.take_value(&mut map)?;
        }
        Ok(())
    }

    fn array<A: SeqAccess<'de>>(&mut self, mut items: A) -> Result<(), A::Error> {
        while self.take_item(&mut items)? {}
        Ok(())
    }
}

/// An error that may be there: anything but `null`, `false` and 0.
impl<'de> Take<'de> for Option<Filled> {
    fn text(&mut self, text: Cow<'de, str>) {
        self.get_or_insert_default().text(text);
    }

    fn number(&mut self, number: f64) {
        if number != 0.0 {
            *self = Some(Filled::Filled);
        }
    }

    fn truth(&mut self, truth: bool) {
        if truth {
            *self = Some(Filled::Filled);
        }
    }

    fn object<A: MapAccess<'de>>(&mut self, map: A) -> Result<(), A::Error> {
        self.get_or_insert_default().object(map)
    }

    fn array<A: SeqAccess<'de>>(&mut self, items: A) -> Result<(), A::Error> {
        self.get_or_insert_default().array(items)
    }
}

/// A count, also where it is written as 16.0 or "16".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) Option<u32>);

impl<'de> Take<'de> for Count {
    fn text(&mut self, text: Cow<'de, str>) {
        if let Ok(count) = text.trim().parse() {
            self.0 = Some(count);
        }
    }

    fn number(&mut self, number: f64) {
        if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
            self.0 = Some(number as u32);
        }
    }
}

/// Repairs what is nearly JSON: bytes that are not UTF-8, half a surrogate pair, control characters in
/// strings, `NaN` and `Infinity` (as `null`), Python's literals, a comma before a closing bracket.
/// Other errors stay.
pub(crate) fn repaired(data: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(data);
    let mut rest = text.as_ref();
    let mut out = String::with_capacity(rest.len() + 16);
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '"' => repair_string(rest, &mut out),
            '}' | ']' => {
                let length = out.trim_end().strip_suffix(',').map(str::len);
                out.truncate(length.unwrap_or(out.len()));
                out.push(next);
                1
            }
            _ => repair_word(rest, next, &mut out),
        };
        rest = &rest[length..];
    }
    out.into_bytes()
}

/// Literals that are not JSON, and their replacements.
const WORDS: [(&str, &str); 10] = [
    ("-Infinity", "null"),
    ("Infinity", "null"),
    ("-inf", "null"),
    ("inf", "null"),
    ("NaN", "null"),
    ("nan", "null"),
    ("None", "null"),
    ("undefined", "null"),
    ("True", "true"),
    ("False", "false"),
];

/// Copies what stands outside of strings; returns the length that was read.
fn repair_word(rest: &str, next: char, out: &mut String) -> usize {
    for (word, json) in WORDS {
        if rest.starts_with(word) {
            out.push_str(json);
            return word.len();
        }
    }
    out.push(next);
    next.len_utf8()
}

/// Copies the string that `rest` begins with; returns the length that was read.
fn repair_string(rest: &str, out: &mut String) -> usize {
    out.push('"');
    let mut at = 1;
    while let Some(next) = rest[at..].chars().next() {
        let length = match next {
            '"' => {
                out.push('"');
                return at + 1;
            }
            '\\' => repair_escape(&rest[at..], out),
            _ if u32::from(next) < 0x20 => {
                out.push_str(&format!("\\u{:04x}", u32::from(next)));
                1
            }
            _ => {
                out.push(next);
                next.len_utf8()
            }
        };
        at += length;
    }
    at
}

/// Copies the escape that `rest` begins with; returns the length that was read.
fn repair_escape(rest: &str, out: &mut String) -> usize {
    match rest[1..].chars().next() {
        Some('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => {
            out.push_str(&rest[..2]);
            2
        }
        Some('u') => {
            let units = (escaped_unit(rest), rest.get(6..).and_then(escaped_unit));
            match units {
                (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => {
                    out.push_str(&rest[..12]);
                    12
                }
                (Some(0xD800..=0xDFFF), _) => {
                    out.push('\u{fffd}');
                    6
                }
                (Some(_), _) => {
                    out.push_str(&rest[..6]);
                    6
                }
                (None, _) => 1,
            }
        }
        _ => 1,
    }
}

/// The code unit of `\uNNNN` at the beginning of `rest`.
fn escaped_unit(rest: &str) -> Option<u16> {
    let digits = rest.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn read(data: &[u8]) -> Option<Value> {
        serde_json::from_slice(&repaired(data)).ok()
    }

    #[test]
    fn what_is_nearly_json_is_read() {
        for (data, json) in [
            (
                &b"[NaN, -Infinity, Infinity, None, True]"[..],
                "[null,null,null,null,true]",
            ),
            (b"{\"a\":\"x\xffy\"}", "{\"a\":\"x\u{fffd}y\"}"),
            (b"\"\\ud800\"", "\"\u{fffd}\""),
            (b"\"\\udc00\\ud83d\\ude42\"", "\"\u{fffd}\u{1f642}\""),
            (b"\"a\tb\nc\"", "\"a\\tb\\nc\""),
            (b"[1,]", "[1]"),
            (b"{\"a\":1 , }", "{\"a\":1}"),
            (b"\"it\\'s NaN, ]\"", "\"it's NaN, ]\""),
            (b"\"\\u12\"", "\"u12\""),
        ] {
            let expected: Value = serde_json::from_str(json).unwrap();
            assert_eq!(read(data), Some(expected), "{}", data.escape_ascii());
        }
        for broken in [
            &b"{"[..],
            b"nonsense",
            b"{\"a\":",
            b"\"open",
            b"\"\\",
            b"\"\\u",
        ] {
            assert_eq!(read(broken), None, "{}", broken.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn json_stays_what_it_is(text in "[ -~äß🙂]{0,40}", number in any::<i64>()) {
            let value = serde_json::json!({"a": [text, number, null, true], "b": {}});
            prop_assert_eq!(read(value.to_string().as_bytes()), Some(value));
        }

        #[test]
        fn any_bytes_are_repaired_without_a_panic(
            bytes in prop::collection::vec(
                prop_oneof![Just(b'"'), Just(b'\\'), Just(b'u'), Just(b'd'), Just(b','), Just(b']'), any::<u8>()],
                0..60),
        ) {
            repaired(&bytes);
        }
    }
}
