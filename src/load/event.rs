//! Reads one event of a completion stream, without a JSON tree.
//!
//! Which events are tokens follows what servers send: a completion chunk with non-empty `choices`
//! is one, also with empty text (special tokens, parts of a character); a chat chunk that only
//! names the role is none.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

/// One event of the stream, as far as it matters.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Event<'a> {
    #[serde(borrow, default)]
    pub(crate) choices: Choices<'a>,
    #[serde(default)]
    pub(crate) usage: Option<Usage>,
    #[serde(default)]
    pub(crate) error: Option<IgnoredAny>,
}

/// Token counts as the server reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of the answer.
    #[serde(default)]
    pub completion_tokens: u32,
    /// What is known of the prompt's tokens.
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u32>,
}

impl Usage {
    /// Prompt tokens that came from a cache, where the server says so.
    pub fn cached_tokens(&self) -> Option<u32> {
        self.prompt_tokens_details
            .and_then(|details| details.cached_tokens)
    }
}

/// All choices of an event, folded into the first: requests ask for one.
#[derive(Debug, Default)]
pub(crate) struct Choices<'a> {
    pub(crate) first: Option<Choice<'a>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Choice<'a> {
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(default)]
    token_ids: Option<Count>,
    #[serde(borrow, default)]
    finish_reason: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
struct Delta<'a> {
    #[serde(default)]
    role: Option<IgnoredAny>,
    #[serde(borrow, default)]
    content: Option<Text<'a>>,
    #[serde(borrow, default)]
    reasoning_content: Option<Text<'a>>,
    #[serde(borrow, default)]
    reasoning: Option<Text<'a>>,
    #[serde(default)]
    tool_calls: Option<IgnoredAny>,
}

/// Text that stays in the input unless it holds escapes. A newtype, because serde borrows a `Cow`
/// only where it is a field of its own, not inside an `Option`.
#[derive(Debug, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The length of a JSON array.
#[derive(Clone, Copy, Debug)]
struct Count(u32);

impl Choice<'_> {
    /// Whether the event stands for tokens.
    pub(crate) fn is_token(&self) -> bool {
        if let Some(Count(ids)) = self.token_ids {
            return ids > 0;
        }
        match &self.delta {
            None => true,
            Some(delta) => {
                let texts = [&delta.content, &delta.reasoning_content, &delta.reasoning];
                let mut said = texts.into_iter().flatten().peekable();
                let role_only =
                    delta.role.is_some() && said.clone().all(|Text(text)| text.is_empty());
                delta.tool_calls.is_some() || (said.peek().is_some() && !role_only)
            }
        }
    }

    /// Token ids in the event, where they were asked for.
    pub(crate) fn token_ids(&self) -> Option<u32> {
        self.token_ids.map(|Count(ids)| ids)
    }

    /// Why the answer ended, in the event that ends it.
    pub(crate) fn finish_reason(&self) -> Option<&str> {
        self.finish_reason
            .as_ref()
            .map(|Text(reason)| reason.as_ref())
    }

    /// The event's pieces of text.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        let delta = self.delta.as_ref();
        let of_delta = delta
            .map(|delta| [&delta.reasoning_content, &delta.reasoning, &delta.content])
            .into_iter()
            .flatten();
        of_delta
            .chain([&self.text])
            .flatten()
            .map(|Text(text)| text.as_ref())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Choices<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for First<'a> {
            type Value = Choices<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of choices")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Choices<'a>, A::Error> {
                let first = items.next_element()?;
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Choices { first })
            }
        }
        deserializer.deserialize_seq(First(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of token ids")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while items.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }
        deserializer.deserialize_seq(Items)
    }
}

/// The token ids of an event, for answers that are kept.
pub(crate) fn token_ids_of(data: &[u8]) -> Vec<u32> {
    #[derive(Deserialize)]
    struct Ids {
        #[serde(default)]
        choices: Vec<ChoiceIds>,
    }
    #[derive(Deserialize)]
    struct ChoiceIds {
        #[serde(default)]
        token_ids: Option<Vec<u32>>,
    }
    let ids = serde_json::from_slice::<Ids>(data).ok();
    ids.and_then(|ids| ids.choices.into_iter().next()?.token_ids)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Event<'_> {
        serde_json::from_str(text).unwrap()
    }

    fn is_token(text: &str) -> bool {
        read(text)
            .choices
            .first
            .is_some_and(|choice| choice.is_token())
    }

    #[test]
    fn empty_text_is_a_token_and_usage_is_none() {
        assert!(is_token(
            r#"{"choices":[{"index":0,"text":"","logprobs":null,"finish_reason":null,
                "stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}"#
        ));
        let event = read(
            r#"{"choices":[],"usage":{"prompt_tokens":600,"total_tokens":610,
                "completion_tokens":10,"prompt_tokens_details":{"cached_tokens":512}}}"#,
        );
        assert!(event.choices.first.is_none());
        let usage = event.usage.unwrap();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (600, 10));
        assert_eq!(usage.cached_tokens(), Some(512));
    }

    #[test]
    fn the_role_chunk_of_chat_is_no_token() {
        assert!(!is_token(
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},
                "finish_reason":null}],"prompt_token_ids":null}"#
        ));
        assert!(is_token(
            r#"{"choices":[{"index":0,"delta":{"content":""}}]}"#
        ));
        assert!(is_token(
            r#"{"choices":[{"delta":{"role":"assistant","content":"Hi"}}]}"#
        ));
        assert!(is_token(
            r#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#
        ));
        assert!(!is_token(
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#
        ));
    }

    #[test]
    fn token_ids_settle_it() {
        assert!(is_token(r#"{"choices":[{"text":"","token_ids":[5]}]}"#));
        assert!(!is_token(r#"{"choices":[{"text":"","token_ids":[]}]}"#));
        let data = br#"{"choices":[{"text":"ab","token_ids":[5,6]}]}"#;
        assert_eq!(token_ids_of(data), [5, 6]);
    }

    #[test]
    fn escaped_text_is_decoded_and_plain_text_borrowed() {
        let event = read(r#"{"choices":[{"text":"a\n\u00e9"}]}"#);
        assert_eq!(
            event.choices.first.unwrap().texts().collect::<String>(),
            "a\né"
        );
        let plain = read(r#"{"choices":[{"text":"ab"}]}"#)
            .choices
            .first
            .unwrap();
        assert!(matches!(plain.text, Some(Text(Cow::Borrowed("ab")))));
    }

    #[test]
    fn errors_and_nonsense_are_seen() {
        assert!(
            read(r#"{"error":{"message":"out of memory","code":500}}"#)
                .error
                .is_some()
        );
        assert!(
            serde_json::from_slice::<Event<'_>>(b"{\"choices\":[{\"text\":\"\xff\"}]}").is_err()
        );
        assert!(serde_json::from_slice::<Event<'_>>(b"nonsense").is_err());
    }
}
