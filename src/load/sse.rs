//! Splits a byte stream into server-sent events.
//!
//! A pure decoder: bytes in, payloads out, however the bytes were cut. Of an event's name it matters
//! only whether it is `error`; ids and retry times mean nothing to completions. Payloads are handed
//! out as slices of the input where an event lies in it whole, which is the common case; nothing is
//! copied then.
//!
//! Two forms of others are read too: a line that begins with `{` is data, and llama.cpp's `error:` is
//! the data of an event named `error`.
//!
//! It takes bytes, not text: a payload that is not UTF-8 is the JSON reader's to repair, at the
//! event where it stands.

use memchr::memchr2;

/// An event grew past the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventTooLarge {
    /// Longest event that is accepted, bytes.
    pub limit_bytes: usize,
}

/// What an event hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload<'a> {
    /// The data of an ordinary event.
    Data(&'a [u8]),
    /// The data of an event that is named `error`; where it has none, its comment.
    Error(&'a [u8]),
}

/// Bytes of a comment that are stored for an event named `error`.
const COMMENT_BYTES: usize = 500;

/// The decoder of one stream.
#[derive(Debug)]
pub(super) struct Splitter {
    /// The beginning of a line that the input so far did not end.
    line: Vec<u8>,
    /// The data of the event so far, as far as it was copied.
    data: Vec<u8>,
    /// Data lines of the event so far.
    data_lines: usize,
    /// The event is named `error`.
    is_error: bool,
    /// The last comment since the end of the event before.
    comment: Vec<u8>,
    /// The last byte was CR: an LF that follows belongs to it.
    skip_lf: bool,
    /// No line was read yet, so a byte order mark may stand here.
    at_start: bool,
    limit_bytes: usize,
}

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

impl Splitter {
    /// A decoder that refuses events longer than `limit_bytes`.
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            line: Vec::new(),
            data: Vec::new(),
            data_lines: 0,
            is_error: false,
            comment: Vec::new(),
            skip_lf: false,
            at_start: true,
            limit_bytes,
        }
    }

    /// Decodes the next bytes; `sink` gets the payload of each event that they complete.
    pub(super) fn feed(
        &mut self,
        input: &[u8],
        mut sink: impl FnMut(Payload<'_>),
    ) -> Result<(), EventTooLarge> {
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
        sink: &mut impl FnMut(Payload<'_>),
    ) {
        if self.at_start {
            self.at_start = false;
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        match line.first() {
            None => self.dispatch(pending.take(), sink),
            Some(b':') => {
                let comment = line[1..].trim_ascii();
                self.comment.clear();
                let stored = comment.len().min(COMMENT_BYTES);
                self.comment.extend_from_slice(&comment[..stored]);
            }
            // An object without a field before it, such as the error of a server that gave up.
            Some(b'{') if self.data_lines == 0 => {
                sink(if self.is_error {
                    Payload::Error(line)
                } else {
                    Payload::Data(line)
                });
                self.is_error = false;
            }
            Some(_) => {
                let error = value_of(line, b"error");
                self.is_error |= error.is_some();
                let Some(value) = error.or_else(|| value_of(line, b"data")) else {
                    if let Some(name) = value_of(line, b"event") {
                        self.is_error = is_error_name(name);
                    }
                    return;
                };
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

    /// Ends the event. One named `error` is handed out even without data.
    fn dispatch(&mut self, pending: Option<&[u8]>, sink: &mut impl FnMut(Payload<'_>)) {
        let data = pending.unwrap_or(&self.data);
        match (self.is_error, self.data_lines) {
            (true, 0) => sink(Payload::Error(&self.comment)),
            (true, _) => sink(Payload::Error(data)),
            (false, 0) => {}
            (false, _) => sink(Payload::Data(data)),
        }
        self.data.clear();
        self.comment.clear();
        self.data_lines = 0;
        self.is_error = false;
    }

    /// Whether the event that has begun is `mark` and nothing else so far, whatever white space
    /// stands around it.
    pub(super) fn awaits_only_the_end_of(&self, mark: &[u8]) -> bool {
        let value = match (self.data_lines, self.line.as_slice()) {
            (1, []) => self.data.as_slice(),
            (0, line) => value_of(line, b"data").unwrap_or_default(),
            _ => return false,
        };
        value.trim_ascii() == mark
    }

    /// The stream has ended: hands out the event that it ended in.
    pub(super) fn end(&mut self, mut sink: impl FnMut(Payload<'_>)) {
        let line = std::mem::take(&mut self.line);
        let mut pending = None;
        if !line.is_empty() {
            self.take_line(&line, &mut pending, &mut sink);
        }
        self.dispatch(pending, &mut sink);
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

/// Whether an event of this name reports a failure.
fn is_error_name(name: &[u8]) -> bool {
    [&b"error"[..], b"exception"]
        .iter()
        .any(|known| name.trim_ascii().eq_ignore_ascii_case(known))
}

/// The value of the field `name`; `None` for any other.
fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    match line.strip_prefix(name)? {
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

    fn data(payload: Payload<'_>) -> Option<Vec<u8>> {
        match payload {
            Payload::Data(data) => Some(data.to_vec()),
            Payload::Error(_) => None,
        }
    }

    fn split<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::new(LIMIT);
        let mut events = Vec::new();
        for part in parts {
            splitter
                .feed(part, |payload| events.extend(data(payload)))
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
    fn a_comment_and_an_unfinished_event_are_not_events() {
        let mut splitter = Splitter::new(LIMIT);
        let mut events = 0;
        splitter
            .feed(b": keep-alive\n\n:\r\ndata: [DONE]\n", |_| events += 1)
            .unwrap();
        assert_eq!(events, 0);
    }

    #[test]
    fn an_event_named_error_has_its_data_or_its_comment() {
        for (text, words) in [
            ("event: error\ndata: no\n\n", "no"),
            ("data: no\nevent:Error \n\n", "no"),
            ("event: error\n: no\n\n", "no"),
            (": no\nevent: error\n\n", "no"),
            (": keep-alive\n\nevent: error\n\n", ""),
            ("event: exception\ndata: no\n\n", "no"),
            ("error: {\"code\":500}\n\n", "{\"code\":500}"),
            ("event: error\n{\"code\":500}\n", "{\"code\":500}"),
        ] {
            for piece in [1, text.len()] {
                let mut splitter = Splitter::new(LIMIT);
                let mut seen = Vec::new();
                for part in text.as_bytes().chunks(piece) {
                    let sink = |payload: Payload<'_>| seen.push(format!("{payload:?}"));
                    splitter.feed(part, sink).unwrap();
                }
                assert_eq!(
                    seen,
                    [format!("{:?}", Payload::Error(words.as_bytes()))],
                    "{text:?}"
                );
            }
        }
        assert_eq!(
            split([&b"event: ping\ndata: a\n\nevent: error\n\ndata: b\n\n"[..]]),
            [b"a", b"b"]
        );
    }

    #[test]
    fn an_object_without_a_field_is_an_event_of_its_own() {
        let text = "{\"a\":1}\n{\"b\":2}\r\n\ndata: c\n\n";
        for piece in [1, text.len()] {
            let events = split(text.as_bytes().chunks(piece));
            assert_eq!(events, [&b"{\"a\":1}"[..], b"{\"b\":2}", b"c"]);
        }
    }

    #[test]
    fn a_mark_is_seen_before_its_blank_line_and_at_the_end() {
        for text in ["data: [DONE]", "data:[DONE] \r\n", "x: y\ndata: [DONE]\n"] {
            let mut splitter = Splitter::new(LIMIT);
            splitter
                .feed(text.as_bytes(), |_| panic!("not yet"))
                .unwrap();
            assert!(splitter.awaits_only_the_end_of(b"[DONE]"), "{text:?}");
            let mut events = Vec::new();
            splitter.end(|payload| events.extend(data(payload)));
            assert_eq!(events.len(), 1);
            assert!(events[0].starts_with(b"[DONE]"), "{text:?}");
        }
        for text in [
            "data: [DONE",
            "data: a\ndata: [DONE]\n",
            "data: [DONE]\n\n",
            "",
        ] {
            let mut splitter = Splitter::new(LIMIT);
            splitter.feed(text.as_bytes(), |_| {}).unwrap();
            assert!(!splitter.awaits_only_the_end_of(b"[DONE]"), "{text:?}");
        }
    }
}
