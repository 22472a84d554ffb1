//! Splits a byte stream into server-sent events.
//!
//! A pure decoder: bytes in, `data` payloads out, however the bytes were cut. Only the data is
//! kept; event names, ids and retry times mean nothing to completions. Payloads are handed out as
//! slices of the input where an event lies in it whole, which is the common case; nothing is
//! copied then.
//!
//! It takes bytes, not text: a payload that is not UTF-8 is the JSON reader's to refuse, at the
//! event where it stands.

use memchr::memchr2;

/// An event grew past the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTooLarge {
    /// The limit, bytes.
    pub limit_bytes: usize,
}

/// The decoder of one stream.
#[derive(Debug)]
pub struct Splitter {
    /// The beginning of a line that the input so far did not end.
    line: Vec<u8>,
    /// The data of the event so far, as far as it was copied.
    data: Vec<u8>,
    /// Data lines of the event so far.
    data_lines: usize,
    /// The last byte was CR: an LF that follows belongs to it.
    skip_lf: bool,
    /// No line was read yet, so a byte order mark may stand here.
    at_start: bool,
    comments: u64,
    limit_bytes: usize,
}

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

impl Splitter {
    /// A decoder that refuses events longer than `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            line: Vec::new(),
            data: Vec::new(),
            data_lines: 0,
            skip_lf: false,
            at_start: true,
            comments: 0,
            limit_bytes,
        }
    }

    /// Comment lines seen, which servers send to keep a connection alive.
    pub fn comments(&self) -> u64 {
        self.comments
    }

    /// Decodes the next bytes; `sink` gets the data of each event that they complete.
    pub fn feed(&mut self, input: &[u8], mut sink: impl FnMut(&[u8])) -> Result<(), EventTooLarge> {
        let mut rest = input;
        // The event's only data line so far, where it lies in `input` and was not copied.
        let mut pending: Option<&[u8]> = None;
        loop {
            if self.skip_lf && !rest.is_empty() {
                self.skip_lf = false;
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            let Some(end) = memchr2(b'\n', b'\r', rest) else {
                break;
            };
            self.skip_lf = rest[end] == b'\r';
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if self.line.is_empty() {
                self.take_line(line, &mut pending, &mut sink);
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                let mut copied = None;
                if let Some(first) = pending.take() {
                    self.data.extend_from_slice(first);
                }
                self.take_line(&whole, &mut copied, &mut sink);
                if let Some(value) = copied {
                    self.data.extend_from_slice(value);
                }
                whole.clear();
                self.line = whole;
            }
            self.check_size()?;
        }
        if let Some(value) = pending {
            self.data.extend_from_slice(value);
        }
        self.line.extend_from_slice(rest);
        self.check_size()
    }

    /// Takes one whole line. `pending` holds what need not be copied as long as `line` lives.
    fn take_line<'l>(
        &mut self,
        mut line: &'l [u8],
        pending: &mut Option<&'l [u8]>,
        sink: &mut impl FnMut(&[u8]),
    ) {
        if self.at_start {
            self.at_start = false;
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        match line.first() {
            None if self.data_lines > 0 => {
                sink(pending.take().unwrap_or(&self.data));
                self.data.clear();
                self.data_lines = 0;
            }
            None => {}
            Some(b':') => self.comments += 1,
            Some(_) => {
                let Some(value) = data_of(line) else { return };
                self.data_lines += 1;
                if self.data_lines == 1 {
                    *pending = Some(value);
                    return;
                }
                if let Some(first) = pending.take() {
                    self.data.extend_from_slice(first);
                }
                self.data.push(b'\n');
                self.data.extend_from_slice(value);
            }
        }
    }

    fn check_size(&self) -> Result<(), EventTooLarge> {
        if self.line.len() + self.data.len() > self.limit_bytes {
            return Err(EventTooLarge {
                limit_bytes: self.limit_bytes,
            });
        }
        Ok(())
    }
}

/// The value of a `data` field; `None` for any other.
fn data_of(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(b"data")? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use eventsource_stream::EventStream;
    use futures::StreamExt as _;
    use futures::executor::block_on;
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 8 << 20;

    fn split<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::new(LIMIT);
        let mut events = Vec::new();
        for part in parts {
            splitter
                .feed(part, |data| events.push(data.to_vec()))
                .unwrap();
        }
        events
    }

    /// What the reference crate makes of the whole text, but for a byte order mark: it panics there.
    fn oracle(text: &str) -> Vec<Vec<u8>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let stream = futures::stream::iter([Ok::<_, ()>(text.to_owned())]);
        block_on(
            EventStream::new(stream)
                .map(|event| event.unwrap().data.into_bytes())
                .collect(),
        )
    }

    /// Cuts `bytes` at each of `cuts`, taken modulo its length.
    fn cut<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        places.sort_unstable();
        let mut parts = Vec::new();
        let mut from = 0;
        for place in places {
            parts.push(&bytes[from..place]);
            from = place;
        }
        parts.push(&bytes[from..]);
        parts
    }

    fn a_line() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => "[ -~äß€🙂]{0,40}".prop_map(|value| format!("data: {value}")),
            2 => "[ -~]{0,20}".prop_map(|value| format!("data:{value}")),
            1 => Just("data".to_owned()),
            1 => Just("data: {\"choices\":[{\"index\":0,\"text\":\"x\"}]}".to_owned()),
            1 => Just("data: [DONE]".to_owned()),
            1 => Just(": keep-alive".to_owned()),
            1 => "[a-z]{1,8}".prop_map(|name| format!("{name}: value")),
            1 => "datax?[ ]?[:]?[ ]{0,2}".prop_map(|line| line),
            5 => Just(String::new()),
        ]
    }

    fn a_stream() -> impl Strategy<Value = String> {
        let ends = prop_oneof![4 => Just("\n"), 2 => Just("\r\n"), 1 => Just("\r")];
        (
            any::<bool>(),
            prop::collection::vec((a_line(), ends), 0..40),
        )
            .prop_map(|(bom, lines)| {
                let mut text = String::from(if bom { "\u{feff}" } else { "" });
                for (line, end) in lines {
                    text.push_str(&line);
                    text.push_str(end);
                }
                // The oracle waits for what may follow a last CR; a comment settles it for both.
                text.push_str(":end\n");
                text
            })
    }

    proptest! {
        #[test]
        fn equals_the_oracle_however_cut(
            text in a_stream(),
            cuts in prop::collection::vec(any::<usize>(), 0..60),
        ) {
            prop_assert_eq!(split(cut(text.as_bytes(), &cuts)), oracle(&text));
        }

        #[test]
        fn one_byte_at_a_time_is_the_same(text in a_stream()) {
            prop_assert_eq!(split(text.as_bytes().chunks(1)), oracle(&text));
        }

        #[test]
        fn any_bytes_give_the_same_events_whole_and_cut(
            bytes in prop::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b'd'), any::<u8>()], 0..200),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            prop_assert_eq!(split(cut(&bytes, &cuts)), split([bytes.as_slice()]));
        }
    }

    #[test]
    fn only_a_first_byte_order_mark_is_skipped() {
        let text = "\u{feff}data: a\n\n\u{feff}data: b\n\ndata: c\n\n";
        assert_eq!(split(text.as_bytes().chunks(1)), [b"a", b"c"]);
        assert_eq!(split([text.as_bytes()]), [b"a", b"c"]);
    }

    #[test]
    fn a_megabyte_event_arrives_whole() {
        let text = format!("data: {}\n\ndata: b\n\n", "x".repeat(1 << 20));
        let events = split(text.as_bytes().chunks(4096));
        assert_eq!(events, oracle(&text));
        assert_eq!(events[0].len(), 1 << 20);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut splitter = Splitter::new(1000);
        let mut result = Ok(());
        for _ in 0..100 {
            result = result.and_then(|()| splitter.feed(b"data: xxxxxxxxxxxxxxxxxxx", |_| {}));
        }
        assert_eq!(result, Err(EventTooLarge { limit_bytes: 1000 }));
        let mut splitter = Splitter::new(1000);
        let mut result = Ok(());
        for _ in 0..100 {
            result = result.and_then(|()| splitter.feed(b"data: xxxxxxxxxxxxxxxxxxx\n", |_| {}));
        }
        assert_eq!(
            result,
            Err(EventTooLarge { limit_bytes: 1000 }),
            "also over many lines"
        );
    }

    #[test]
    fn invalid_utf8_stays_where_it_stands() {
        let events = split([&b"data: a\n\ndata: \xff\xfe\n\ndata: c\n\n"[..]]);
        assert_eq!(events, [b"a".to_vec(), b"\xff\xfe".to_vec(), b"c".to_vec()]);
    }

    #[test]
    fn comments_are_counted_and_an_unfinished_event_is_not_an_event() {
        let mut splitter = Splitter::new(LIMIT);
        let mut events = 0;
        splitter
            .feed(b": keep-alive\n\n:\r\ndata: [DONE]\n", |_| events += 1)
            .unwrap();
        assert_eq!((events, splitter.comments()), (0, 2));
    }
}
