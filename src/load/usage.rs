//! Token counts of an answer, as servers write them.

use serde::de::{IgnoredAny, MapAccess};

use super::take::{Count, Key, Take};

/// Token counts as the server reports them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "the unit is part of the names")]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: Option<u32>,
    /// Tokens of the answer.
    pub completion_tokens: Option<u32>,
    /// Prompt tokens that came from a cache.
    pub cached_tokens: Option<u32>,
}

impl Usage {
    /// The usage that counts once `later` has come: the last whole one, else the last that counts
    /// anything.
    pub(crate) fn followed_by(self, later: Self) -> Self {
        if later.is_whole() || (!self.is_whole() && later != Self::default()) {
            later
        } else {
            self
        }
    }

    fn is_whole(self) -> bool {
        self.prompt_tokens.is_some() && self.completion_tokens.is_some()
    }
}

/// Counts, under the names that servers give them.
impl<'de> Take<'de> for Option<Usage> {
    fn object<A: MapAccess<'de>>(&mut self, mut map: A) -> Result<(), A::Error> {
        let (mut prompt, mut completion) = (Count(None), Count(None));
        let (mut total, mut cached) = (Count(None), Count(None));
        while let Some(Key(key)) = map.next_key()? {
            match key.as_ref() {
                "prompt_tokens" | "input_tokens" => prompt.take_value(&mut map)?,
                "completion_tokens" | "output_tokens" => completion.take_value(&mut map)?,
                "total_tokens" => total.take_value(&mut map)?,
                "prompt_tokens_details" | "input_tokens_details" => {
                    Cached(&mut cached).take_value(&mut map)?;
                }
                _ => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        let rest = |one: Count| total.0?.checked_sub(one.0?);
        let usage = Usage {
            prompt_tokens: prompt.0.or_else(|| rest(completion)),
            completion_tokens: completion.0.or_else(|| rest(prompt)),
            cached_tokens: cached.0,
        };
        // Every prompt has tokens: fixed schemas write zeros where nothing was counted.
        let counts_nothing =
            usage.prompt_tokens == Some(0) && usage.completion_tokens.unwrap_or(0) == 0;
        if usage != Usage::default() && !counts_nothing {
            *self = Some(self.unwrap_or_default().followed_by(usage));
        }
        Ok(())
    }
}

/// Cached tokens in the details of a prompt.
struct Cached<'t>(&'t mut Count);

impl<'de> Take<'de> for Cached<'_> {
    fn object<A: MapAccess<'de>>(&mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            match key.as_ref() {
                "cached_tokens" => self.0.take_value(&mut map)?,
                _ => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }
}
