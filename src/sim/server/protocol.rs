//! Request bodies: what vLLM reads from them and what it refuses.

use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    error::{ApiError, python},
    prompt::{PromptInput, chat_prompt},
};
use crate::sim::{
    hash::mix_text,
    request::{EndToken, Sampling, Save},
    tokenizer::Vocabulary,
};

/// A body: the prompt apart (it is large), everything else as it came.
#[derive(Debug, Deserialize)]
pub(super) struct RequestBody {
    #[serde(default)]
    prompt: Option<PromptInput>,
    #[serde(flatten)]
    pub(super) fields: Map<String, Value>,
}

/// Whether the answer comes token by token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Whole,
    Stream(StreamUsage),
}

/// Usage in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamUsage {
    Omit,
    Last,
    Every,
}

/// Whether token ids are in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenIds {
    Omit,
    Return,
}

/// Whether log-probabilities are in the answer, and how many tokens each place lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logprobs {
    Omit,
    Top(u32),
}

/// A request that vLLM would take.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) prompts: Vec<Vec<u32>>,
    pub(super) copies: usize,
    pub(super) request_id: Option<String>,
    pub(super) delivery: Delivery,
    pub(super) stream_interval: u32,
    pub(super) token_ids: TokenIds,
    pub(super) logprobs: Logprobs,
    pub(super) max_tokens: Option<u32>,
    pub(super) min_tokens: u32,
    pub(super) end_token: EndToken,
    /// Greedy, or seeded with the request's own seed if it has one.
    pub(super) sampling: SamplingChoice,
    pub(super) cache_salt: u64,
    pub(super) tier_namespace: u64,
    pub(super) save: Save,
}

/// How tokens are chosen, as far as the body specifies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SamplingChoice {
    Fixed(Sampling),
    AnySeed,
}

/// What the server knows when it reads a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) served_model: &'a str,
    pub(super) max_model_len: u32,
    pub(super) vocabulary: Vocabulary,
}

impl RequestBody {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(body).map_err(|error| match serde_json::from_slice(body) {
            Err(syntax) => ApiError::bad_json(body, &syntax),
            Ok(Value::Object(fields)) => {
                let input = fields
                    .get("prompt")
                    .map_or_else(|| "None".to_owned(), python);
                let message = "Input should be a valid string";
                ApiError::invalid("string_type", "prompt.str", message, &input)
            }
            Ok(other) => {
                let message = format!("Input should be a valid dictionary: {error}");
                ApiError::invalid("model_attributes_type", "", &message, &python(&other))
            }
        })
    }

    /// Reads a completion request.
    pub(super) fn completion(
        mut self,
        headers: &HeaderMap,
        context: Context<'_>,
    ) -> Result<Generation, ApiError> {
        let mut generation = self.generation(headers)?;
        self.check_model(context)?;
        generation.max_tokens = Some(self.count("max_tokens", 1)?.unwrap_or(16));
        let prompts = self.prompts(context.vocabulary)?;
        generation.prompts = check_prompts(prompts, context)?;
        Ok(generation)
    }

    /// Reads a chat request.
    pub(super) fn chat(
        self,
        headers: &HeaderMap,
        context: Context<'_>,
    ) -> Result<Generation, ApiError> {
        let mut generation = self.generation(headers)?;
        let Some(messages) = self.fields.get("messages") else {
            let input = format!("'<dict of {} items>'", self.fields.len());
            return Err(ApiError::invalid(
                "missing",
                "messages",
                "Field required",
                &input,
            ));
        };
        self.check_model(context)?;
        generation.max_tokens = self
            .count("max_completion_tokens", 1)?
            .or(self.count("max_tokens", 1)?);
        let prompt = chat_prompt(messages, context.vocabulary);
        generation.prompts = check_prompts(vec![prompt], context)?;
        Ok(generation)
    }

    /// Reads what `/tokenize` takes.
    pub(super) fn tokenize(mut self, context: Context<'_>) -> Result<Vec<u32>, ApiError> {
        self.check_model(context)?;
        if let Some(messages) = self.fields.get("messages") {
            return Ok(chat_prompt(messages, context.vocabulary));
        }
        match self.prompt.take() {
            Some(PromptInput::Text(text)) => Ok(self.encode(&text, context.vocabulary)?),
            _ => Err(ApiError::invalid(
                "missing",
                "prompt",
                "Field required",
                "None",
            )),
        }
    }

    /// Reads what `/detokenize` takes.
    pub(super) fn detokenize(&self, context: Context<'_>) -> Result<Vec<u32>, ApiError> {
        self.check_model(context)?;
        let ids = self.fields.get("tokens").and_then(Value::as_array);
        let Some(ids) = ids else {
            return Err(ApiError::invalid(
                "missing",
                "tokens",
                "Field required",
                "None",
            ));
        };
        let ids: Option<Vec<u32>> = ids
            .iter()
            .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()))
            .collect();
        let message = "Input should be a valid integer";
        ids.ok_or_else(|| ApiError::invalid("int_type", "tokens", message, "'<list>'"))
    }

    fn generation(&self, headers: &HeaderMap) -> Result<Generation, ApiError> {
        let temperature = self.number("temperature")?.unwrap_or(1.0);
        if temperature < 0.0 {
            let message = format!("temperature must be non-negative, got {temperature:?}.");
            let value = format!("{temperature:?}");
            return Err(ApiError::parameter(&message, "temperature", Some(&value)));
        }
        let seed = self.integer("seed")?;
        let sampling = match (temperature == 0.0, seed) {
            (true, _) => SamplingChoice::Fixed(Sampling::Greedy),
            (false, Some(seed)) => SamplingChoice::Fixed(Sampling::Seeded(seed as u64)),
            (false, None) => SamplingChoice::AnySeed,
        };
        let header = headers.get("x-request-id").and_then(|id| id.to_str().ok());
        let body_id = self.fields.get("request_id").and_then(Value::as_str);
        let transfer = self
            .fields
            .get("kv_transfer_params")
            .and_then(Value::as_object);
        let (tier_namespace, save) = transfer.map_or((0, Save::Store), tier_controls);
        let return_ids = self.flag("return_token_ids")?;
        let ignore_end = self.flag("ignore_eos")?;
        let salt = self.fields.get("cache_salt").and_then(Value::as_str);
        Ok(Generation {
            prompts: Vec::new(),
            copies: self.count("n", 1)?.unwrap_or(1) as usize,
            request_id: header.or(body_id).map(str::to_owned),
            delivery: self.delivery()?,
            stream_interval: self.count("stream_interval", 1)?.unwrap_or(1),
            token_ids: if return_ids {
                TokenIds::Return
            } else {
                TokenIds::Omit
            },
            logprobs: self.logprobs()?,
            max_tokens: None,
            min_tokens: self.count("min_tokens", 0)?.unwrap_or(0),
            end_token: if ignore_end {
                EndToken::Ignore
            } else {
                EndToken::Stop
            },
            sampling,
            cache_salt: salt.map_or(0, |salt| mix_text(1, salt)),
            tier_namespace,
            save,
        })
    }

    /// Completions ask for a number of tokens, chat says whether and then how many.
    fn logprobs(&self) -> Result<Logprobs, ApiError> {
        Ok(match self.fields.get("logprobs") {
            Some(Value::Bool(true)) => Logprobs::Top(self.count("top_logprobs", 0)?.unwrap_or(0)),
            None | Some(Value::Null | Value::Bool(false)) => Logprobs::Omit,
            Some(_) => self
                .count("logprobs", 0)?
                .map_or(Logprobs::Omit, Logprobs::Top),
        })
    }

    fn delivery(&self) -> Result<Delivery, ApiError> {
        let stream = self.flag("stream")?;
        let options = self.fields.get("stream_options").and_then(Value::as_object);
        let Some(options) = options else {
            return Ok(if stream {
                Delivery::Stream(StreamUsage::Omit)
            } else {
                Delivery::Whole
            });
        };
        if !stream {
            let message = "Stream options can only be defined when `stream=True`.";
            return Err(ApiError::parameter(message, "stream_options", None));
        }
        let is_set = |name: &str| options.get(name).and_then(Value::as_bool).unwrap_or(false);
        Ok(Delivery::Stream(
            match (is_set("include_usage"), is_set("continuous_usage_stats")) {
                (true, true) => StreamUsage::Every,
                (true, false) => StreamUsage::Last,
                (false, _) => StreamUsage::Omit,
            },
        ))
    }

    fn check_model(&self, context: Context<'_>) -> Result<(), ApiError> {
        match self.fields.get("model") {
            Some(Value::String(model)) if model != context.served_model => {
                Err(ApiError::unknown_model(model, context.served_model))
            }
            _ => Ok(()),
        }
    }

    fn prompts(&mut self, vocabulary: Vocabulary) -> Result<Vec<Vec<u32>>, ApiError> {
        let prompts = match self.prompt.take() {
            None => Vec::new(),
            Some(PromptInput::Text(text)) if text.is_empty() => Vec::new(),
            Some(PromptInput::Text(text)) => vec![self.encode(&text, vocabulary)?],
            Some(PromptInput::Texts(texts)) => texts
                .iter()
                .map(|text| self.encode(text, vocabulary))
                .collect::<Result<_, _>>()?,
            Some(PromptInput::Tokens(ids)) => vec![ids],
            Some(PromptInput::TokenLists(lists)) => lists,
        };
        if prompts.is_empty() || prompts.iter().any(Vec::is_empty) {
            let message = "Either prompt or prompt_embeds must be provided and non-empty.";
            return Err(ApiError::parameter(message, "prompt", None));
        }
        Ok(prompts)
    }

    fn encode(&self, text: &str, vocabulary: Vocabulary) -> Result<Vec<u32>, ApiError> {
        let mut ids = Vec::new();
        if self.fields.get("add_special_tokens").is_none() || self.flag("add_special_tokens")? {
            ids.push(vocabulary.bos());
        }
        ids.extend(vocabulary.encode(text));
        Ok(ids)
    }
}

/// `lmcache.*` keys of `kv_transfer_params`.
fn tier_controls(params: &Map<String, Value>) -> (u64, Save) {
    let mut namespace = 0;
    for (key, value) in params
        .iter()
        .filter(|(key, _)| key.starts_with("lmcache.tag."))
    {
        namespace = mix_text(mix_text(namespace, key), &value.to_string());
    }
    let skip = params
        .get("lmcache.skip_save")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    (namespace, if skip { Save::Skip } else { Save::Store })
}

fn check_prompts(prompts: Vec<Vec<u32>>, context: Context<'_>) -> Result<Vec<Vec<u32>>, ApiError> {
    let size = context.vocabulary.size();
    for prompt in &prompts {
        if let Some(id) = prompt.iter().find(|id| **id >= size) {
            let message = format!("Token id {id} is out of vocabulary");
            return Err(ApiError::bad_request(message, None));
        }
        let (length, limit) = (prompt.len(), context.max_model_len);
        if length >= limit as usize {
            let message = format!(
                "This model's maximum context length is {limit} tokens. However, your prompt \
                 contains {length} input tokens, which exceeds this limit even without any \
                 output tokens. Please reduce the length of the input prompt."
            );
            let value = length.to_string();
            return Err(ApiError::parameter(&message, "input_tokens", Some(&value)));
        }
    }
    Ok(prompts)
}
