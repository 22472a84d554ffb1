//! HTTP/1.1 as far as one client needs it: the head of an answer and the framing of its body.
//!
//! Pure decoders over the bytes of a socket read. They are our own so that the bytes of one read
//! go from the socket's buffer to the event splitter in one pass, without a copy, a channel or a
//! task in between: that hop is most of what a general client costs at a thousand tokens a second.

/// Longest head that is accepted, bytes.
pub(crate) const HEAD_BYTES: usize = 16 * 1024;

const HEADERS: usize = 64;

/// How the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Chunked,
    Length(u64),
    /// It ends with the connection.
    UntilClose,
}

/// What matters of an answer's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
    pub(crate) event_stream: bool,
}

/// Reads a head; `None` while it is not whole. Returns it with its length in bytes.
pub(crate) fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes).map_err(|error| error.to_string())? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial if bytes.len() >= HEAD_BYTES => {
            return Err(format!("the head is longer than {HEAD_BYTES} bytes"));
        }
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.ok_or("no status")?;
    let mut head = Head {
        status,
        framing: Framing::UntilClose,
        keep_alive: response.version == Some(1),
        event_stream: false,
    };
    for header in response.headers.iter() {
        let value = String::from_utf8_lossy(header.value);
        let value = value.trim();
        match header.name {
            name if name.eq_ignore_ascii_case("transfer-encoding") && has_chunked(value) => {
                head.framing = Framing::Chunked;
            }
            name if name.eq_ignore_ascii_case("content-length") => {
                let length = value
                    .parse()
                    .map_err(|_| format!("content-length is `{value}`"))?;
                if head.framing != Framing::Chunked {
                    head.framing = Framing::Length(length);
                }
            }
            name if name.eq_ignore_ascii_case("connection") => {
                if value.eq_ignore_ascii_case("close") {
                    head.keep_alive = false;
                } else if value.eq_ignore_ascii_case("keep-alive") {
                    head.keep_alive = true;
                }
            }
            name if name.eq_ignore_ascii_case("content-type") => {
                head.event_stream = value.to_ascii_lowercase().starts_with("text/event-stream");
            }
            _ => {}
        }
    }
    if matches!(status, 204 | 304) || (100..200).contains(&status) {
        head.framing = Framing::Length(0);
    }
    Ok(Some((head, length)))
}

fn has_chunked(codings: &str) -> bool {
    codings
        .split(',')
        .any(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
}

/// Takes the framing off a body.
#[derive(Debug)]
pub(crate) struct BodyDecoder(State);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    UntilClose,
    Data {
        left: u64,
        then: AfterData,
    },
    /// The line with a chunk's size; `digits` of it were read.
    Size {
        value: u64,
        digits: u8,
    },
    /// Behind the size: an extension, up to LF.
    SizeEnd {
        value: u64,
    },
    /// CR LF behind a chunk's data, up to LF.
    DataEnd,
    /// Trailers; `length` bytes of the line were read.
    Trailer {
        length: u32,
    },
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterData {
    Chunk,
    End,
}

impl BodyDecoder {
    pub(crate) fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Chunked => State::Size {
                value: 0,
                digits: 0,
            },
            Framing::Length(0) => State::Done,
            Framing::Length(left) => State::Data {
                left,
                then: AfterData::End,
            },
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// Whether the body came to its end.
    pub(crate) fn is_done(&self) -> bool {
        self.0 == State::Done
    }

    /// Whether the end of the connection is the end of the body, not a cut.
    pub(crate) fn may_end_with_connection(&self) -> bool {
        matches!(self.0, State::UntilClose | State::Done)
    }

    /// Decodes `input`; `sink` gets the body's bytes. Returns how many bytes were taken: all of
    /// them, unless the body ended.
    pub(crate) fn decode<E: From<String>>(
        &mut self,
        input: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut at = 0;
        while at < input.len() {
            match self.0 {
                State::Done => break,
                State::UntilClose => {
                    sink(&input[at..])?;
                    at = input.len();
                }
                // The usual end of a chunk, and the next one's size, at once: byte by byte they
                // would cost as much as the chunk.
                State::DataEnd if input[at..].starts_with(b"\r\n") => {
                    self.0 = State::Size {
                        value: 0,
                        digits: 0,
                    };
                    at += 2;
                }
                State::Data { left, then } => {
                    let available = input.len() - at;
                    let taken = usize::try_from(left).map_or(available, |left| left.min(available));
                    sink(&input[at..at + taken])?;
                    at += taken;
                    let left = left - taken as u64;
                    self.0 = match then {
                        _ if left > 0 => State::Data { left, then },
                        AfterData::Chunk => State::DataEnd,
                        AfterData::End => State::Done,
                    };
                }
                state => {
                    let (next, length) = match whole_size(state, &input[at..]) {
                        Some((next, length)) => (next, length),
                        None => (state.step(input[at])?, 1),
                    };
                    self.0 = next;
                    at += length;
                }
            }
        }
        Ok(at)
    }
}

/// What follows a size line of up to six digits without extension, if it stands here whole, and
/// the line's length. Anything else is read byte by byte.
fn whole_size(state: State, input: &[u8]) -> Option<(State, usize)> {
    if !matches!(state, State::Size { digits: 0, .. }) {
        return None;
    }
    let mut value = 0;
    for (at, byte) in input.iter().take(7).enumerate() {
        match (char::from(*byte).to_digit(16), at) {
            (Some(digit), 0..6) => value = value << 4 | u64::from(digit),
            (None, 1..) if input[at..].starts_with(b"\r\n") => {
                return Some((State::after_size(value), at + 2));
            }
            _ => return None,
        }
    }
    None
}

impl State {
    /// What a chunk of this size begins with.
    fn after_size(value: u64) -> State {
        match value {
            0 => State::Trailer { length: 0 },
            left => State::Data {
                left,
                then: AfterData::Chunk,
            },
        }
    }

    /// The state after one byte of chunk framing.
    fn step(self, byte: u8) -> Result<State, String> {
        Ok(match (self, byte) {
            (State::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                if digits >= 15 {
                    return Err("a chunk's size is too large".to_owned());
                }
                State::Size {
                    value: value << 4 | u64::from(digit),
                    digits: digits + 1,
                }
            }
            (State::Size { digits: 0, .. }, _) => {
                return Err(format!("a chunk begins with byte {byte:#04x}"));
            }
            (State::Size { value, .. } | State::SizeEnd { value }, b'\n') => {
                State::after_size(value)
            }
            (State::Size { value, .. }, b'\r' | b';' | b' ' | b'\t')
            | (State::SizeEnd { value }, _) => State::SizeEnd { value },
            (State::Size { .. }, _) => {
                return Err(format!("byte {byte:#04x} in a chunk's size"));
            }
            (State::DataEnd, b'\n') => State::Size {
                value: 0,
                digits: 0,
            },
            (State::DataEnd, b'\r') => State::DataEnd,
            (State::DataEnd, _) => return Err("a chunk is longer than its size".to_owned()),
            (State::Trailer { length: 0 }, b'\n') => State::Done,
            (State::Trailer { .. }, b'\n') => State::Trailer { length: 0 },
            (State::Trailer { length }, b'\r') => State::Trailer { length },
            (State::Trailer { length }, _) => State::Trailer {
                length: length.saturating_add(1),
            },
            (state @ (State::UntilClose | State::Data { .. } | State::Done), _) => state,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(framing: Framing, parts: &[&[u8]]) -> Result<(Vec<u8>, bool), String> {
        let mut decoder = BodyDecoder::new(framing);
        let mut body = Vec::new();
        for part in parts {
            decoder.decode::<String>(part, |bytes| {
                body.extend_from_slice(bytes);
                Ok(())
            })?;
        }
        Ok((body, decoder.is_done()))
    }

    #[test]
    fn heads_of_vllm_are_read() {
        let text = b"HTTP/1.1 200 OK\r\ndate: Tue\r\ncontent-type: text/event-stream; \
                     charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\nrest";
        let (head, length) = parse_head(text).unwrap().unwrap();
        assert_eq!(length, text.len() - 4);
        assert_eq!(
            head,
            Head {
                status: 200,
                framing: Framing::Chunked,
                keep_alive: true,
                event_stream: true
            }
        );
        assert_eq!(parse_head(&text[..40]), Ok(None));
        let (head, _) = parse_head(b"HTTP/1.1 404 Not Found\r\nContent-Length: 22\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!((head.status, head.framing), (404, Framing::Length(22)));
        let (head, _) = parse_head(b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(
            (head.keep_alive, head.framing),
            (false, Framing::UntilClose)
        );
    }

    #[test]
    fn what_is_not_http_is_refused() {
        assert!(parse_head(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
        assert!(parse_head(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n").is_err());
        let endless = [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &[b'y'; HEAD_BYTES]].concat();
        assert!(parse_head(&endless).is_err());
    }

    #[test]
    fn chunks_extensions_and_trailers() {
        let text = b"5;x=1\r\nhello\r\n6\r\n world\r\n0\r\ntrailer: 1\r\n\r\nnext";
        let mut decoder = BodyDecoder::new(Framing::Chunked);
        let mut body = Vec::new();
        let taken = decoder
            .decode::<String>(text, |bytes| {
                body.extend_from_slice(bytes);
                Ok(())
            })
            .unwrap();
        assert_eq!(body, b"hello world");
        assert!(decoder.is_done());
        assert_eq!(&text[taken..], b"next");
    }

    #[test]
    fn broken_chunks_are_refused() {
        for text in [
            &b"zz\r\n"[..],
            b"3\r\nabcd\r\n",
            b"\r\n",
            b"fffffffffffffffff\r\n",
            b"1!\r\n",
        ] {
            assert!(decode(Framing::Chunked, &[text]).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_cut_is_told_from_an_end() {
        let mut decoder = BodyDecoder::new(Framing::Length(10));
        decoder.decode::<String>(b"12345", |_| Ok(())).unwrap();
        assert!(!decoder.may_end_with_connection());
        assert!(BodyDecoder::new(Framing::UntilClose).may_end_with_connection());
    }

    proptest! {
        #[test]
        fn any_chunking_and_any_cut_give_the_body(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..10),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut % wire.len()).collect();
            places.sort_unstable();
            places.push(wire.len());
            let mut from = 0;
            let mut parts = Vec::new();
            for place in places {
                parts.push(&wire[from..place]);
                from = place;
            }
            prop_assert_eq!(decode(Framing::Chunked, &parts), Ok((chunks.concat(), true)));
        }
    }
}
