//! HTTP/1.1 as far as one client needs it: the head of an answer and the framing of its body.
//!
//! Pure decoders over the bytes of a socket read. With our own, the bytes of one read go
//! from the socket's buffer to the event splitter in one pass, without a copy, a channel or a task in
//! between. That hop is most of what a general client costs at a thousand tokens a second.

/// Longest head that is accepted, bytes.
pub(crate) const HEAD_BYTES: usize = 16 * 1024;

const HEADERS: usize = 128;

/// Longest extension of a chunk, and longest trailers, bytes.
const EXTRA_BYTES: u32 = 16 * 1024;

/// How the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Chunked,
    Length(u64),
    /// It ends with the connection.
    UntilClose,
}

/// What matters of an answer's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
    pub(crate) event_stream: bool,
    /// How the body is compressed; empty where it is not.
    pub(crate) coding: String,
    /// Where a redirect leads to.
    pub(crate) location: Option<String>,
}

/// Reads a head; `None` while it is not whole. Returns it with its length in bytes.
pub(crate) fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    // Heads that a browser takes, too.
    let mut parser = httparse::ParserConfig::default();
    parser
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true);
    let parsed = parser.parse_response(&mut response, bytes);
    let length = match parsed.map_err(|error| error.to_string())? {
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
        coding: String::new(),
        location: None,
    };
    for header in response.headers.iter() {
        let value = String::from_utf8_lossy(header.value);
        let value = value.trim();
        match header.name {
            name if name.eq_ignore_ascii_case("transfer-encoding") => {
                for coding in tokens(value) {
                    if coding.eq_ignore_ascii_case("chunked") {
                        head.framing = Framing::Chunked;
                    } else {
                        coding.clone_into(&mut head.coding);
                    }
                }
            }
            name if name.eq_ignore_ascii_case("content-encoding") => {
                value.clone_into(&mut head.coding);
            }
            name if name.eq_ignore_ascii_case("location") => {
                head.location = Some(value.to_owned());
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
                let names =
                    |option: &str| tokens(value).any(|one| one.eq_ignore_ascii_case(option));
                if names("close") {
                    head.keep_alive = false;
                } else if names("keep-alive") {
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

/// The items of a list in a header.
fn tokens(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
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
        length: u32,
    },
    /// CR LF behind a chunk's data, up to LF.
    DataEnd,
    /// Trailers; `length` bytes of the line were read, and `total` of all.
    Trailer {
        length: u32,
        total: u32,
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
            0 => State::Trailer {
                length: 0,
                total: 0,
            },
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
            (State::Size { value, .. } | State::SizeEnd { value, .. }, b'\n') => {
                State::after_size(value)
            }
            (State::Size { value, .. }, b'\r' | b';' | b' ' | b'\t') => {
                State::SizeEnd { value, length: 0 }
            }
            (State::SizeEnd { length, .. } | State::Trailer { total: length, .. }, _)
                if length >= EXTRA_BYTES =>
            {
                return Err(format!(
                    "a chunk's extension or the trailers are longer than {EXTRA_BYTES} bytes"
                ));
            }
            (State::SizeEnd { value, length }, _) => State::SizeEnd {
                value,
                length: length + 1,
            },
            (State::Size { .. }, _) => {
                return Err(format!("byte {byte:#04x} in a chunk's size"));
            }
            (State::DataEnd, b'\n') => State::Size {
                value: 0,
                digits: 0,
            },
            (State::DataEnd, b'\r') => State::DataEnd,
            (State::DataEnd, _) => return Err("a chunk is longer than its size".to_owned()),
            (State::Trailer { length: 0, .. }, b'\n') => State::Done,
            (State::Trailer { total, .. }, b'\n') => State::Trailer { length: 0, total },
            (State::Trailer { length, total }, b'\r') => State::Trailer { length, total },
            (State::Trailer { length, total }, _) => State::Trailer {
                length: length + 1,
                total: total + 1,
            },
            (state @ (State::UntilClose | State::Data { .. } | State::Done), _) => state,
        })
    }
}

#[cfg(test)]
mod tests;
