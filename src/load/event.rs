//! Reads one event of a completion stream, without a JSON tree.
//!
//! It reads the fields that it knows, whatever their JSON type, and skips the rest: servers, gateways and
//! middlewares add, repeat and omit fields. Data that is not JSON is repaired once and read again.
//!
//! Which events are tokens follows what servers send. A chunk of text, of reasoning or of tool calls
//! is one. One that only names the role is none. An empty text is a token where the server's own
//! count has room for it: vLLM writes one for a special token or a part of a character, gateways
//! write one to keep a connection alive.

use std::borrow::Cow;

use serde::de::{IgnoredAny, MapAccess, SeqAccess};

use super::record::Score;
use super::take::{Count, Filled, Key, Take, take_json};
use super::usage::Usage;
use code::{Code, CodeOf, IsError, IsFalse};
use scores::Logprobs;

mod code;
mod scores;

/// One event of the stream, as far as it matters.
#[derive(Debug, Default)]
pub(crate) struct Event<'a> {
    pub(crate) choice: Option<Choice<'a>>,
    usage: Option<Usage>,
    /// It has `choices`, as every chunk has.
    has_choices: bool,
    /// Its `error`. This and the next two mark a failure whatever other fields it has.
    error: Option<Filled>,
    error_code: Filled,
    is_error_object: bool,
    /// Its `success` is false.
    is_unsuccessful: bool,
    /// This and the next two mark a failure in an event without choices.
    detail: Filled,
    message: Filled,
    code: Code,
}

/// The first choice of an event: requests ask for one.
#[derive(Debug, Default)]
pub(crate) struct Choice<'a> {
    text: Option<Text<'a>>,
    delta: Delta<'a>,
    token_ids: Option<Vec<u32>>,
    logprobs: Logprobs,
    finish_reason: Option<Cow<'a, str>>,
    usage: Option<Usage>,
    error: Filled,
}

#[derive(Debug, Default)]
struct Delta<'a> {
    has_role: bool,
    content: Option<Text<'a>>,
    reasoning_content: Option<Text<'a>>,
    reasoning: Option<Text<'a>>,
    /// Tokens without text: tool calls, and reasoning in another shape.
    other: Filled,
}

/// What an event brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Brings {
    /// At least one token.
    Token,
    /// An empty text: a token that has no text of its own, or none.
    EmptyText,
    /// Neither a token nor text.
    Nothing,
}

/// Pieces of text, which stay in the input unless they hold escapes.
#[derive(Debug, Default)]
struct Text<'a> {
    first: Cow<'a, str>,
    /// Of a list of parts, the others.
    more: Vec<Cow<'a, str>>,
    /// Content of a part besides text.
    other: Filled,
}

impl<'a> Text<'a> {
    fn of(text: Cow<'a, str>) -> Self {
        Self {
            first: text,
            ..Self::default()
        }
    }

    fn push(&mut self, piece: Cow<'a, str>) {
        if self.first.is_empty() {
            self.first = piece;
        } else if !piece.is_empty() {
            self.more.push(piece);
        }
    }

    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.other == Filled::Empty
    }
}

/// Parts of the finish reasons of an answer that the server gave up, in lower case.
const BROKEN_OFF: [&str; 13] = [
    "error",
    "abort",
    "cancel",
    "fail",
    "timeout",
    "timed_out",
    "insufficient_system_resource",
    "out_of_memory",
    "reject",
    "preempt",
    "overload",
    "interrupt",
    "exception",
];

impl Event<'_> {
    /// Whether it reports that the request failed.
    pub(crate) fn is_failure(&self) -> bool {
        // A list of choices that is there and empty is no answer.
        let alone = self.choice.is_none() && self.usage.is_none();
        let error = match self.error {
            // Fixed schemas write an empty error where there is none, beside the content.
            Some(Filled::Empty) => alone && !self.has_choices,
            Some(Filled::Filled) => true,
            None => false,
        };
        let words = self.message == Filled::Filled && self.code != Code::Fine;
        error
            || self.is_error_object
            || self.error_code == Filled::Filled
            || alone
                && (self.detail == Filled::Filled
                    || words
                    || self.code == Code::Error
                    || self.is_unsuccessful)
            || self
                .choice
                .as_ref()
                .is_some_and(|choice| choice.error == Filled::Filled || choice.is_broken_off())
    }

    /// Whether it is none of the events of an answer.
    pub(crate) fn is_foreign(&self) -> bool {
        !self.has_choices && self.usage.is_none()
    }

    /// The usage, of the event or of its choice.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.usage
            .or_else(|| self.choice.as_ref().and_then(|choice| choice.usage))
    }
}

impl Choice<'_> {
    /// What the event brings: tokens, an empty text, or neither.
    pub(crate) fn brings(&self) -> Brings {
        if let Some(ids) = &self.token_ids {
            return if ids.is_empty() {
                Brings::Nothing
            } else {
                Brings::Token
            };
        }
        let delta = &self.delta;
        let texts = [
            &self.text,
            &delta.content,
            &delta.reasoning_content,
            &delta.reasoning,
        ];
        let mut texts = texts.into_iter().flatten().peekable();
        let is_empty = texts.peek().is_some() && !delta.has_role;
        if delta.other == Filled::Filled || texts.any(|text| !text.is_empty()) {
            Brings::Token
        } else if is_empty {
            Brings::EmptyText
        } else {
            Brings::Nothing
        }
    }

    /// Token ids in the event, where they were asked for.
    pub(crate) fn token_ids(&self) -> Option<&[u32]> {
        self.token_ids.as_deref()
    }

    /// The tokens of the event with their log-probabilities, where they were asked for.
    pub(crate) fn into_scores(self) -> impl Iterator<Item = Score> {
        self.logprobs.into_scores()
    }

    /// Why the answer ended, in the event that ends it.
    pub(crate) fn finish_reason(&self) -> Option<&str> {
        self.finish_reason.as_deref()
    }

    fn is_broken_off(&self) -> bool {
        self.finish_reason().is_some_and(|reason| {
            let reason = reason.to_ascii_lowercase();
            reason == "oom" || BROKEN_OFF.iter().any(|part| reason.contains(part))
        })
    }

    /// The event's pieces of text.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        let delta = &self.delta;
        [
            &delta.reasoning_content,
            &delta.reasoning,
            &delta.content,
            &self.text,
        ]
        .into_iter()
        .flatten()
        .flat_map(|text| std::iter::once(&text.first).chain(&text.more))
        .map(AsRef::as_ref)
    }
}

impl<'de> Event<'de> {
    /// Reads an event; `None` where it is JSON of another shape than an object.
    pub(crate) fn read(data: &'de [u8]) -> Result<Option<Self>, serde_json::Error> {
        let mut root = Root(None);
        take_json(data, &mut root)?;
        Ok(root.0)
    }
}

struct Root<'a>(Option<Event<'a>>);

impl<'de> Take<'de> for Root<'de> {
    /// A list of events, as Google's servers write an error.
    fn array<A: SeqAccess<'de>>(&mut self, mut items: A) -> Result<(), A::Error> {
        while self.take_item(&mut items)? {}
        Ok(())
    }

    fn object<A: MapAccess<'de>>(&mut self, mut map: A) -> Result<(), A::Error> {
        let event = self.0.insert(Event::default());
        while let Some(Key(key)) = map.next_key()? {
            event.member(&key, &mut map)?;
        }
        Ok(())
    }
}

impl<'de> Event<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "choices" => {
                self.has_choices = true;
                Choices(&mut self.choice).take_value(map)
            }
            "usage" => self.usage.take_value(map),
            "error" => self.error.take_value(map),
            "error_code" | "errors" | "error_message" | "error_msg" | "error_type"
            | "error_description" | "errorCode" | "errorMessage" | "errorType" | "Error"
            | "err" | "exception" | "fault" => self.error_code.take_value(map),
            "success" => IsFalse(&mut self.is_unsuccessful).take_value(map),
            "object" | "type" | "event" => IsError(&mut self.is_error_object).take_value(map),
            "detail" => self.detail.take_value(map),
            "message" | "msg" => self.message.take_value(map),
            "code" => CodeOf(&mut self.code, true).take_value(map),
            "status" | "status_code" | "statusCode" => {
                CodeOf(&mut self.code, false).take_value(map)
            }
            _ => map.next_value::<IgnoredAny>().map(drop),
        }
    }
}

/// The first of the choices; what was read stays where an empty list follows.
struct Choices<'t, 'a>(&'t mut Option<Choice<'a>>);

impl<'de> Take<'de> for Choices<'_, 'de> {
    fn array<A: SeqAccess<'de>>(&mut self, mut items: A) -> Result<(), A::Error> {
        let mut first = Choice::default();
        if first.take_item(&mut items)? {
            *self.0 = Some(first);
            while items.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(())
    }
}

impl<'de> Take<'de> for Choice<'de> {
    fn object<A: MapAccess<'de>>(&mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            match key.as_ref() {
                "text" => self.text.take_value(&mut map)?,
                "delta" | "message" => self.delta.take_value(&mut map)?,
                "logprobs" => self.logprobs.take_value(&mut map)?,
                "token_ids" => TokenIds(&mut self.token_ids).take_value(&mut map)?,
                "finish_reason" => Reason(&mut self.finish_reason).take_value(&mut map)?,
                "usage" => self.usage.take_value(&mut map)?,
                "error" => self.error.take_value(&mut map)?,
                _ => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }
}

impl<'de> Take<'de> for Delta<'de> {
    fn text(&mut self, text: Cow<'de, str>) {
        self.content.text(text);
    }

    fn object<A: MapAccess<'de>>(&mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            match key.as_ref() {
                "role" => {
                    let mut role = Filled::Empty;
                    role.take_value(&mut map)?;
                    self.has_role |= role == Filled::Filled;
                }
                "content" => self.content.take_value(&mut map)?,
                "reasoning_content" => self.reasoning_content.take_value(&mut map)?,
                "reasoning" | "thinking" => self.reasoning.take_value(&mut map)?,
                "tool_calls" | "function_call" | "refusal" | "reasoning_details" => {
                    self.other.take_value(&mut map)?;
                }
                _ => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }
}

/// Token ids, where they are a list.
struct TokenIds<'t>(&'t mut Option<Vec<u32>>);

impl<'de> Take<'de> for TokenIds<'_> {
    fn array<A: SeqAccess<'de>>(&mut self, mut items: A) -> Result<(), A::Error> {
        let mut ids = Vec::new();
        let mut id = Count(None);
        while id.take_item(&mut items)? {
            ids.extend(id.0.take());
        }
        *self.0 = Some(ids);
        Ok(())
    }
}

/// Why an answer ended, as a word, a number or an object that names its type.
struct Reason<'t, 'a>(&'t mut Option<Cow<'a, str>>);

impl<'de> Take<'de> for Reason<'_, 'de> {
    fn text(&mut self, text: Cow<'de, str>) {
        if !text.is_empty() && text != "null" {
            *self.0 = Some(text);
        }
    }

    fn number(&mut self, number: f64) {
        *self.0 = Some(number.to_string().into());
    }

    fn object<A: MapAccess<'de>>(&mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            match key.as_ref() {
                "type" | "reason" => self.take_value(&mut map)?,
                _ => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }
}

/// A text, a list of parts, or an object that holds either.
impl<'de> Take<'de> for Option<Text<'de>> {
    fn text(&mut self, text: Cow<'de, str>) {
        *self = Some(Text::of(text));
    }

    fn object<A: MapAccess<'de>>(&mut self, map: A) -> Result<(), A::Error> {
        Part(self.insert(Text::default())).object(map)
    }

    fn array<A: SeqAccess<'de>>(&mut self, items: A) -> Result<(), A::Error> {
        Part(self.insert(Text::default())).array(items)
    }
}

/// A part of a text.
struct Part<'t, 'a>(&'t mut Text<'a>);

impl<'de> Take<'de> for Part<'_, 'de> {
    fn text(&mut self, text: Cow<'de, str>) {
        self.0.push(text);
    }

    fn object<A: MapAccess<'de>>(&mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            match key.as_ref() {
                "text" | "content" | "thinking" | "reasoning" | "summary" => {
                    self.take_value(&mut map)?;
                }
                "type" | "id" | "index" | "format" | "status" => {
                    map.next_value::<IgnoredAny>().map(drop)?;
                }
                _ => self.0.other.take_value(&mut map)?,
            }
        }
        Ok(())
    }

    fn array<A: SeqAccess<'de>>(&mut self, mut items: A) -> Result<(), A::Error> {
        while self.take_item(&mut items)? {}
        Ok(())
    }
}

#[cfg(test)]
mod tests;
