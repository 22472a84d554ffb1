//! Answers, byte for byte as vLLM writes them, streamed or whole.

use std::{borrow::Cow, fmt::Write as _};

use super::{
    driver::ChoiceToken,
    protocol::{Logprobs, StreamUsage, TokenIds},
};
use crate::sim::{stats::FinishReason, tokenizer::Vocabulary};

/// The API that a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    Completions,
    Chat,
}

impl Api {
    pub(super) const fn id_prefix(self) -> &'static str {
        match self {
            Self::Completions => "cmpl-",
            Self::Chat => "chatcmpl-",
        }
    }
}

/// What all answers of a request share.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) api: Api,
    pub(super) vocabulary: Vocabulary,
    /// `"id":"…"`, quoted and escaped.
    pub(super) id: String,
    pub(super) created_s: u64,
    /// The served model's name, quoted and escaped.
    pub(super) model: String,
    pub(super) fingerprint: String,
    pub(super) usage: StreamUsage,
    pub(super) token_ids: TokenIds,
    pub(super) logprobs: Logprobs,
    pub(super) stream_interval: u32,
}

/// One choice on its way.
#[derive(Debug)]
pub(super) struct Choice {
    /// Empty unless the ids are asked for.
    prompt: Vec<u32>,
    prompt_tokens: usize,
    head: String,
    text: String,
    new_ids: Vec<u32>,
    /// Tokens since the last chunk, and what their log-probabilities follow from.
    new_scores: Vec<(u32, u64)>,
    ids: Vec<u32>,
    tokens: u32,
    finish: Option<FinishReason>,
}

/// A request's answer as it grows.
#[derive(Debug)]
pub(super) struct Answer {
    shape: Shape,
    choices: Vec<Choice>,
    prompt_tokens: usize,
    cached_tokens: u32,
    unfinished: usize,
}

impl Answer {
    /// An answer for `prompts`, each of which has `copies` choices.
    pub(super) fn new(shape: Shape, prompts: &[Vec<u32>], copies: usize) -> Self {
        let object = match shape.api {
            Api::Completions => "text_completion",
            Api::Chat => "chat.completion.chunk",
        };
        let of_prompts = prompts
            .iter()
            .flat_map(|prompt| std::iter::repeat_n(prompt, copies));
        let choices: Vec<Choice> = of_prompts
            .enumerate()
            .map(|(index, prompt)| Choice {
                prompt: match shape.token_ids {
                    TokenIds::Return => prompt.clone(),
                    TokenIds::Omit => Vec::new(),
                },
                prompt_tokens: prompt.len(),
                head: format!(
                    r#"data: {{"id":{},"object":"{object}","created":{},"model":{},"choices":[{{"index":{index},"#,
                    shape.id, shape.created_s, shape.model
                ),
                text: String::new(),
                new_ids: Vec::new(),
                new_scores: Vec::new(),
                ids: Vec::new(),
                tokens: 0,
                finish: None,
            })
            .collect();
        Self {
            prompt_tokens: prompts.iter().map(Vec::len).sum(),
            cached_tokens: 0,
            unfinished: choices.len(),
            shape,
            choices,
        }
    }

    /// Choices that still get tokens.
    pub(super) fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Takes a token; returns the bytes to send now, if any.
    pub(super) fn push(&mut self, token: &ChoiceToken) -> Option<String> {
        let shape = &self.shape;
        let choice = &mut self.choices[token.choice];
        if token.token < shape.vocabulary.words() {
            let _ = write!(choice.text, " t{}", token.token);
        }
        choice.tokens += 1;
        if shape.token_ids == TokenIds::Return {
            choice.new_ids.push(token.token);
        }
        if shape.logprobs != Logprobs::Omit {
            choice.new_scores.push((token.token, token.state));
        }
        let first = choice.tokens == 1;
        if first {
            self.cached_tokens += token.cached_tokens;
        }
        choice.finish = token.finish;
        self.unfinished -= usize::from(token.finish.is_some());
        // The first token goes out at once, the rest in groups of `stream_interval`.
        let due = (choice.tokens - 1).is_multiple_of(shape.stream_interval);
        (due || token.finish.is_some()).then(|| choice.chunk(shape, first))
    }

    /// Takes a token of an answer that is sent whole.
    pub(super) fn collect(&mut self, token: &ChoiceToken) {
        let choice = &mut self.choices[token.choice];
        if token.token < self.shape.vocabulary.words() {
            let _ = write!(choice.text, " t{}", token.token);
        }
        choice.tokens += 1;
        choice.ids.push(token.token);
        if self.shape.logprobs != Logprobs::Omit {
            choice.new_scores.push((token.token, token.state));
        }
        if choice.tokens == 1 {
            self.cached_tokens += token.cached_tokens;
        }
        choice.finish = token.finish;
        self.unfinished -= usize::from(token.finish.is_some());
    }

    /// The end of a stream.
    pub(super) fn stream_end(&self) -> String {
        let mut end = String::new();
        if self.shape.usage != StreamUsage::Omit {
            let object = match self.shape.api {
                Api::Completions => "text_completion",
                Api::Chat => "chat.completion.chunk",
            };
            let shape = &self.shape;
            let created_cache = match shape.api {
                Api::Completions => "",
                Api::Chat => r#","created_cache_tokens":0"#,
            };
            let details = format!(
                r#","prompt_tokens_details":{{"cached_tokens":{}{created_cache}}}"#,
                self.cached_tokens
            );
            let _ = write!(
                end,
                r#"data: {{"id":{},"object":"{object}","created":{},"model":{},"choices":[],"usage":{{{}{details}}},"system_fingerprint":"{}"}}"#,
                shape.id,
                shape.created_s,
                shape.model,
                counts(self.prompt_tokens, self.tokens()),
                shape.fingerprint,
            );
            end.push_str("\n\n");
        }
        end.push_str("data: [DONE]\n\n");
        end
    }

    pub(super) fn whole(&self) -> String {
        let shape = &self.shape;
        let choices = self.choices.iter().enumerate();
        let choices: Vec<String> = choices
            .map(|(index, choice)| choice.whole(shape, index))
            .collect();
        let created_cache = match shape.api {
            Api::Completions => "null",
            Api::Chat => "0",
        };
        let details = format!(
            r#"{{"cached_tokens":{},"created_cache_tokens":{created_cache},"multimodal_tokens":null}}"#,
            self.cached_tokens
        );
        let usage = counts(self.prompt_tokens, self.tokens());
        let (object, before_transfer) = match shape.api {
            Api::Completions => ("text_completion", String::new()),
            Api::Chat => {
                let ids = id_list(&self.choices[0].prompt, shape.token_ids);
                let extra = format!(
                    r#""prompt_logprobs":null,"prompt_token_ids":{ids},"prompt_text":null,"#
                );
                ("chat.completion", extra)
            }
        };
        format!(
            r#"{{"id":{},"object":"{object}","created":{},"model":{},"choices":[{}],"service_tier":null,"system_fingerprint":"{}","usage":{{{usage},"prompt_tokens_details":{details},"completion_tokens_details":null}},{before_transfer}"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}}"#,
            shape.id,
            shape.created_s,
            shape.model,
            choices.join(","),
            shape.fingerprint,
        )
    }

    fn tokens(&self) -> u32 {
        self.choices.iter().map(|choice| choice.tokens).sum()
    }
}

impl Choice {
    /// The text since the last chunk, as a chunk.
    fn chunk(&mut self, shape: &Shape, first: bool) -> String {
        let mut chunk = String::with_capacity(self.head.len() + self.text.len() + 192);
        let prompt_wanted = if first {
            shape.token_ids
        } else {
            TokenIds::Omit
        };
        let prompt_ids = id_list(&self.prompt, prompt_wanted);
        if first && shape.api == Api::Chat {
            let _ = write!(
                chunk,
                r#"{}"delta":{{"role":"assistant","content":""}},"logprobs":null,"finish_reason":null}}]"#,
                self.head
            );
            self.continuous_usage(shape, 0, &mut chunk);
            let _ = write!(
                chunk,
                r#","prompt_token_ids":{prompt_ids},"prompt_text":null}}"#
            );
            chunk.push_str("\n\n");
        }
        chunk.push_str(&self.head);
        let ids = id_list(&self.new_ids, shape.token_ids);
        let scores = scores(&self.new_scores, shape);
        let text = &self.text;
        let _ = match (shape.api, self.finish) {
            (Api::Completions, finish) => write!(
                chunk,
                r#""text":"{text}","logprobs":{scores},"finish_reason":{},"stop_reason":null,"prompt_token_ids":{prompt_ids},"token_ids":{ids}}}]"#,
                reason(finish)
            ),
            (Api::Chat, None) => write!(
                chunk,
                r#""delta":{{"content":"{text}"}},"logprobs":{scores},"finish_reason":null,"token_ids":{ids}}}]"#
            ),
            (Api::Chat, finish) => write!(
                chunk,
                r#""delta":{{"content":"{text}"}},"logprobs":{scores},"finish_reason":{},"stop_reason":null,"token_ids":{ids}}}]"#,
                reason(finish)
            ),
        };
        self.continuous_usage(shape, self.tokens, &mut chunk);
        if self.finish.is_some() && shape.usage == StreamUsage::Omit {
            let _ = write!(chunk, r#","system_fingerprint":"{}""#, shape.fingerprint);
        }
        chunk.push_str("}\n\n");
        self.text.clear();
        self.new_ids.clear();
        self.new_scores.clear();
        chunk
    }

    fn continuous_usage(&self, shape: &Shape, tokens: u32, chunk: &mut String) {
        if shape.usage == StreamUsage::Every {
            let _ = write!(
                chunk,
                r#","usage":{{{}}}"#,
                counts(self.prompt_tokens, tokens)
            );
        }
    }

    fn whole(&self, shape: &Shape, index: usize) -> String {
        let text = &self.text;
        let finish = reason(self.finish);
        let ids = id_list(&self.ids, shape.token_ids);
        let scores = scores(&self.new_scores, shape);
        match shape.api {
            Api::Completions => format!(
                r#"{{"index":{index},"text":"{text}","logprobs":{scores},"finish_reason":{finish},"stop_reason":null,"token_ids":{ids},"prompt_logprobs":null,"prompt_token_ids":{},"routed_experts":null}}"#,
                id_list(&self.prompt, shape.token_ids)
            ),
            Api::Chat => format!(
                r#"{{"index":{index},"message":{{"role":"assistant","content":"{text}","refusal":null,"annotations":null,"audio":null,"function_call":null,"reasoning":null}},"logprobs":{scores},"finish_reason":{finish},"stop_reason":null,"token_ids":{ids},"routed_experts":null}}"#
            ),
        }
    }
}

/// `logprobs` of a choice: each token, named by its id, with the likeliest ones at its place.
fn scores(tokens: &[(u32, u64)], shape: &Shape) -> Cow<'static, str> {
    let Logprobs::Top(top) = shape.logprobs else {
        return Cow::Borrowed("null");
    };
    let places = tokens.iter().map(|&(token, state)| {
        // From 0 to 2 nats, and a quarter more for each token that is less likely.
        let first = ((state >> 20) % 2_000) as f64 / -1e3;
        let next = move |rank: u32| {
            let id = (token + rank) % shape.vocabulary.size();
            (format!("token_id:{id}"), first - 0.25 * f64::from(rank))
        };
        (0..top.max(1)).map(next).collect::<Vec<_>>()
    });
    let json = match shape.api {
        Api::Completions => completion_scores(&places.collect::<Vec<_>>()),
        Api::Chat => chat_scores(&places.collect::<Vec<_>>()),
    };
    Cow::Owned(json)
}

/// The places of the tokens: at each, names and log-probabilities, the chosen one first.
type Places = [Place];
type Place = Vec<(String, f64)>;

fn completion_scores(places: &Places) -> String {
    let list = |item: &dyn Fn(&Place) -> String| {
        let items = places.iter().map(item);
        items.collect::<Vec<_>>().join(",")
    };
    let tops = |place: &Place| {
        let named = place
            .iter()
            .map(|(name, number)| format!(r#""{name}":{number}"#));
        format!("{{{}}}", named.collect::<Vec<_>>().join(","))
    };
    format!(
        r#"{{"text_offset":[{}],"token_logprobs":[{}],"tokens":[{}],"top_logprobs":[{}]}}"#,
        list(&|_| "0".to_owned()),
        list(&|place| place[0].1.to_string()),
        list(&|place| format!(r#""{}""#, place[0].0)),
        list(&tops),
    )
}

fn chat_scores(places: &Places) -> String {
    let one = |(name, number): &(String, f64)| {
        format!(r#""token":"{name}","logprob":{number},"bytes":null"#)
    };
    let content = places.iter().map(|place| {
        let tops = place.iter().map(|other| format!("{{{}}}", one(other)));
        let tops = tops.collect::<Vec<_>>().join(",");
        format!(r#"{{{},"top_logprobs":[{tops}]}}"#, one(&place[0]))
    });
    format!(
        r#"{{"content":[{}]}}"#,
        content.collect::<Vec<_>>().join(",")
    )
}

fn counts(prompt: usize, completion: u32) -> String {
    let total = prompt + completion as usize;
    format!(r#""prompt_tokens":{prompt},"total_tokens":{total},"completion_tokens":{completion}"#)
}

const fn reason(finish: Option<FinishReason>) -> &'static str {
    match finish {
        None => "null",
        Some(FinishReason::Stop) => "\"stop\"",
        Some(FinishReason::Length) => "\"length\"",
    }
}

fn id_list(ids: &[u32], wanted: TokenIds) -> Cow<'static, str> {
    if wanted == TokenIds::Omit {
        return Cow::Borrowed("null");
    }
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    Cow::Owned(format!("[{}]", ids.join(",")))
}
