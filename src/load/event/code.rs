//! Names and codes by which servers mark an event as an error.

use std::borrow::Cow;

use crate::load::take::Take;

/// Whether the type of an event is that of an error, such as `server_error`.
pub(super) struct IsError<'t>(pub(super) &'t mut bool);

impl<'de> Take<'de> for IsError<'_> {
    fn text(&mut self, text: Cow<'de, str>) {
        *self.0 |= text.to_ascii_lowercase().contains("error");
    }
}

/// Whether a value is `false`.
pub(super) struct IsFalse<'t>(pub(super) &'t mut bool);

impl Take<'_> for IsFalse<'_> {
    fn truth(&mut self, truth: bool) {
        *self.0 |= !truth;
    }
}

/// Meaning of a code or a status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Code {
    /// Nothing, or that all is well.
    #[default]
    Fine,
    /// A name or a number of its own: an error if a message stands beside it.
    Named,
    /// A status of an HTTP error, or a larger number.
    Error,
}

/// A code, and whether it may be a name.
pub(super) struct CodeOf<'t>(pub(super) &'t mut Code, pub(super) bool);

impl<'de> Take<'de> for CodeOf<'_> {
    fn text(&mut self, text: Cow<'de, str>) {
        let text = text.trim();
        let well = ["", "ok", "success"];
        let bad = ["error", "failed", "failure"];
        if let Ok(number) = text.parse() {
            Take::number(self, number);
        } else if bad.iter().any(|word| text.eq_ignore_ascii_case(word)) {
            *self.0 = Code::Error;
        } else if self.1 && !well.iter().any(|word| text.eq_ignore_ascii_case(word)) {
            *self.0 = Code::Named.max(*self.0);
        }
    }

    fn number(&mut self, number: f64) {
        let code = match number {
            400.0.. => Code::Error,
            100.0..400.0 | 0.0 => Code::Fine,
            _ if self.1 => Code::Named,
            _ => Code::Fine,
        };
        *self.0 = code.max(*self.0);
    }
}
