//! Prompts as they come in a body.

use serde::{
    Deserialize,
    de::{self, SeqAccess, Visitor},
};
use serde_json::Value;

use crate::sim::tokenizer::Vocabulary;

/// Tokens that the chat template puts around a message, and in front of the answer.
const CHAT_TOKENS_PER_MESSAGE: u32 = 4;
const CHAT_ANSWER_TOKENS: u32 = 3;

/// A prompt in one of its four shapes.
#[derive(Debug, PartialEq)]
pub(super) enum PromptInput {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PromptItem {
    Id(u32),
    Text(String),
    Ids(Vec<u32>),
}

impl<'de> Deserialize<'de> for PromptInput {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PromptVisitor)
    }
}

struct PromptVisitor;

impl<'de> Visitor<'de> for PromptVisitor {
    type Value = PromptInput;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a prompt")
    }

    fn visit_str<E>(self, text: &str) -> Result<PromptInput, E> {
        Ok(PromptInput::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<PromptInput, A::Error> {
        Ok(match items.next_element()? {
            None => PromptInput::Tokens(Vec::new()),
            Some(PromptItem::Id(first)) => PromptInput::Tokens(rest(first, items)?),
            Some(PromptItem::Text(first)) => PromptInput::Texts(rest(first, items)?),
            Some(PromptItem::Ids(first)) => PromptInput::TokenLists(rest(first, items)?),
        })
    }
}

fn rest<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
    first: T,
    mut items: A,
) -> Result<Vec<T>, A::Error> {
    let mut all = vec![first];
    while let Some(item) = items.next_element()? {
        all.push(item);
    }
    Ok(all)
}

/// The tokens of a chat, with a template around it.
pub(super) fn chat_prompt(messages: &Value, vocabulary: Vocabulary) -> Vec<u32> {
    let special = vocabulary.bos();
    let mut ids = vec![special];
    for message in messages.as_array().into_iter().flatten() {
        let role = message
            .get("role")
            .and_then(Value::as_str)
            .unwrap_or("user");
        ids.extend(vocabulary.encode(role));
        ids.extend((1..CHAT_TOKENS_PER_MESSAGE).map(|_| special));
        match message.get("content") {
            Some(Value::String(text)) => ids.extend(vocabulary.encode(text)),
            Some(Value::Array(parts)) => {
                let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
                texts.for_each(|text| ids.extend(vocabulary.encode(text)));
            }
            _ => {}
        }
    }
    ids.extend((0..CHAT_ANSWER_TOKENS).map(|_| special));
    ids
}
