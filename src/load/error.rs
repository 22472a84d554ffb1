//! What can go wrong with one request, each under its own name.

use std::borrow::Cow;
use std::io;

use crate::foreign::one_line;
use crate::secret;

/// The kind of a failure. Its name is what records, tables and tests use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// The server refused the connection: nothing listens there.
    ConnectRefused,
    /// The connection could not be set up for another reason.
    Connect,
    /// The connection was not set up in time.
    TimeoutConnect,
    /// The first token did not come in time.
    TimeoutFirstToken,
    /// The answer did not end in time.
    TimeoutTotal,
    /// The server reset the connection.
    Reset,
    /// The stream ended before its end mark.
    CutStream,
    /// The server reported an error inside a stream that had begun with status 200.
    StreamError,
    /// A status other than 200.
    Http(u16),
    /// Status 200, but the body is not an event stream.
    NotAStream,
    /// What came is not HTTP/1.1.
    BadResponse,
    /// No event of the answer could be read as one of a completion.
    BadEvent,
    /// An event is longer than any completion's.
    EventTooLarge,
    /// The stream ended properly without a token.
    EmptyAnswer,
    /// It went on far beyond the length that was asked for.
    EndlessAnswer,
    /// labrun could open no more connections: the limit of its open files was reached.
    OpenFiles,
}

impl ErrorKind {
    /// The name in records and tables, kebab-case.
    pub fn name(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::ConnectRefused => "connect-refused",
            Self::Connect => "connect",
            Self::TimeoutConnect => "timeout-connect",
            Self::TimeoutFirstToken => "timeout-first-token",
            Self::TimeoutTotal => "timeout-total",
            Self::Reset => "reset",
            Self::CutStream => "cut-stream",
            Self::StreamError => "stream-error",
            Self::Http(status) => return Cow::Owned(format!("http-{status}")),
            Self::NotAStream => "not-a-stream",
            Self::BadResponse => "bad-response",
            Self::BadEvent => "bad-event",
            Self::EventTooLarge => "event-too-large",
            Self::EmptyAnswer => "empty-answer",
            Self::EndlessAnswer => "endless-answer",
            Self::OpenFiles => "open-files",
        })
    }
}

/// Kind and message of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: ErrorKind,
    /// What was seen: the server's message, or the system's.
    pub message: String,
}

/// Bytes of a server's message that are stored.
pub(crate) const MESSAGE_BYTES: usize = 500;

impl Failure {
    /// A failure of `kind` with this message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// A failure with the first bytes of what the server wrote.
    pub(crate) fn with_body(kind: ErrorKind, body: &[u8]) -> Self {
        Self::new(kind, visible(body, MESSAGE_BYTES))
    }

    /// An answer that is not an event stream: its status, the redirect's address, and its first bytes.
    pub(crate) fn answered(status: u16, location: Option<&str>, body: &[u8]) -> Self {
        let mut failure = match status {
            200 => Self::with_body(ErrorKind::NotAStream, body),
            status => Self::with_body(ErrorKind::Http(status), body),
        };
        let more = match (status, location) {
            (300..=399, Some(location)) => format!(
                "the server redirects to `{}`, and labrun follows no redirect: name that address",
                visible(location.as_bytes(), MESSAGE_BYTES)
            ),
            (401 | 403, _) => {
                "the server wants a key: set OPENAI_API_KEY to one that it takes".to_owned()
            }
            _ => return failure,
        };
        if !failure.message.is_empty() {
            failure.message.push_str("; ");
        }
        failure.message.push_str(&more);
        failure
    }

    /// An error that the server reported inside a stream.
    pub(crate) fn in_stream(words: &[u8]) -> Self {
        if words.trim_ascii().is_empty() {
            return Self::new(ErrorKind::StreamError, "`event: error` without a message");
        }
        Self::with_body(ErrorKind::StreamError, words)
    }

    /// What an error while connecting means.
    pub(crate) fn connecting(error: &io::Error) -> Self {
        let kind = match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::ConnectionRefused, _) => ErrorKind::ConnectRefused,
            (io::ErrorKind::TimedOut, _) => ErrorKind::TimeoutConnect,
            (_, Some(libc::EMFILE | libc::ENFILE)) => {
                let message = format!("{error}: raise labrun's limit of open files (`ulimit -n`)");
                return Self::new(ErrorKind::OpenFiles, message);
            }
            _ => ErrorKind::Connect,
        };
        Self::new(kind, error.to_string())
    }

    /// What an error on an open connection means.
    pub(crate) fn transferring(error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted => ErrorKind::Reset,
            _ => ErrorKind::CutStream,
        };
        Self::new(kind, error.to_string())
    }
}

/// The first `limit_bytes` of what a server wrote, on one line: secrets masked, and what would act on a
/// terminal written out.
pub(crate) fn visible(bytes: &[u8], limit_bytes: usize) -> String {
    let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(8 * limit_bytes)]);
    // Secrets are masked before the cut: half of one would not be recognized.
    let masked = secret::mask(begin.trim());
    let mut end = masked.len().min(limit_bytes);
    while !masked.is_char_boundary(end) {
        end -= 1;
    }
    one_line(&masked[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_text_stays() {
        assert_eq!(
            visible(b"\x1b]0;x\x07 a\nb\xff", 99),
            "\\x1b]0;x\\x07 a b\u{fffd}"
        );
        assert_eq!(visible("zu heiß".as_bytes(), 99), "zu heiß");
    }

    #[test]
    fn a_client_out_of_files_is_distinguished_from_a_server_that_refuses() {
        let failure = Failure::connecting(&io::Error::from_raw_os_error(libc::EMFILE));
        assert_eq!(failure.kind.name(), "open-files");
        assert!(failure.message.contains("ulimit -n"), "{}", failure.message);
    }

    #[test]
    fn names_are_kebab_case() {
        assert_eq!(ErrorKind::Http(503).name(), "http-503");
        assert_eq!(ErrorKind::TimeoutFirstToken.name(), "timeout-first-token");
    }

    #[test]
    fn a_long_message_is_cut() {
        let failure = Failure::with_body(ErrorKind::Http(500), &[b'x'; 2000]);
        assert_eq!(failure.message.len(), MESSAGE_BYTES);
    }
}
