//! Request bodies as JSON, written straight into bytes.

use std::io::Write as _;
use std::ops::Range;

use bytes::Bytes;
use serde_json::{Value, json};

use super::prompt::{Draft, Prompt};
use super::{Keep, PlannedRequest, Workload};
use crate::plan::workload_spec::EndpointKind;

/// The request of a draft whose segments go as token ids.
pub(crate) fn render_ids(workload: &Workload<'_>, draft: &Draft) -> PlannedRequest {
    match &draft.prompt {
        Prompt::Segments(segments) => {
            let tokens: u32 = segments.iter().map(|segment| segment.len).sum();
            let mut body = Vec::with_capacity(tokens as usize * 7 + 256);
            open(&mut body, workload.model);
            body.extend_from_slice(b"\"prompt\":[");
            let altered = draft.altered.clone().unwrap_or_default();
            let mut place = 0;
            for segment in segments {
                segment.for_each_id(&workload.vocab, |id| {
                    let id = if altered.contains(&place) {
                        other_id(id, &workload.vocab)
                    } else {
                        id
                    };
                    place += 1;
                    write_number(&mut body, id);
                    body.push(b',');
                });
            }
            if body.last() == Some(&b',') {
                body.pop();
            }
            body.push(b']');
            close(&mut body, workload, draft, EndpointKind::Completions);
            planned(EndpointKind::Completions, body, Some(tokens), draft)
        }
        Prompt::Text(text) => render_text(workload, draft, text, None),
        Prompt::Messages(messages) => {
            let mut body = Vec::new();
            open(&mut body, workload.model);
            write_member(&mut body, "messages", messages);
            close(&mut body, workload, draft, EndpointKind::Chat);
            planned(EndpointKind::Chat, body, None, draft)
        }
    }
}

/// Another token of the vocabulary than `id`.
fn other_id(id: u32, vocab: &Range<u32>) -> u32 {
    let size = vocab.end - vocab.start;
    vocab.start + (id - vocab.start + size / 2) % size
}

/// The request of a draft whose prompt is `text`, `tokens` long.
pub(crate) fn render_text(
    workload: &Workload<'_>,
    draft: &Draft,
    text: &str,
    tokens: Option<u32>,
) -> PlannedRequest {
    let mut body = Vec::with_capacity(text.len() + 256);
    open(&mut body, workload.model);
    let endpoint = workload.spec.endpoint;
    let (name, value) = prompt_member(endpoint, text);
    write_member(&mut body, name, &value);
    close(&mut body, workload, draft, endpoint);
    planned(endpoint, body, tokens, draft)
}

/// The body that asks `/tokenize` how long a prompt of `text` is, with all that the server adds.
pub(super) fn tokenize_body(model: &str, endpoint: EndpointKind, text: &str) -> Bytes {
    let (name, value) = prompt_member(endpoint, text);
    tokenize_member(model, name, &value)
}

/// The body that asks `/tokenize` for the tokens of a dataset's prompt.
pub(crate) fn tokenize_prompt(model: &str, prompt: &Prompt) -> Bytes {
    match prompt {
        Prompt::Text(text) => tokenize_body(model, EndpointKind::Completions, text),
        Prompt::Messages(messages) => tokenize_member(model, "messages", messages),
        Prompt::Segments(_) => Bytes::new(),
    }
}

fn tokenize_member(model: &str, name: &str, value: &Value) -> Bytes {
    let mut body = Vec::new();
    open(&mut body, model);
    write_member(&mut body, name, value);
    body.push(b'}');
    Bytes::from(body)
}

fn prompt_member(endpoint: EndpointKind, text: &str) -> (&'static str, Value) {
    match endpoint {
        EndpointKind::Completions => ("prompt", Value::from(text)),
        EndpointKind::Chat => ("messages", json!([{"role": "user", "content": text}])),
    }
}

fn planned(
    endpoint: EndpointKind,
    body: Vec<u8>,
    prompt_tokens: Option<u32>,
    draft: &Draft,
) -> PlannedRequest {
    PlannedRequest {
        path: endpoint.path(),
        body: Bytes::from(body),
        prompt_tokens,
        shared_tokens: draft.shared_tokens,
        repeated_tokens: draft.repeated_tokens,
        gen_len: draft.gen_len,
        start: draft.start,
        keep: draft.keep,
        document: draft.document,
        is_canary: false,
    }
}

fn open(body: &mut Vec<u8>, model: &str) {
    body.push(b'{');
    write_member(body, "model", &Value::from(model));
    body.push(b',');
}

/// Greedy, of exact length, streamed, with the server's own count of tokens at the end.
fn close(body: &mut Vec<u8>, workload: &Workload<'_>, draft: &Draft, endpoint: EndpointKind) {
    // 53 bits: JSON readers that take numbers for doubles keep it.
    let seed = workload.seed.derive("sampling").0 >> 11;
    let gen_len = draft.gen_len;
    // Writing to a vector cannot fail.
    let _infallible = write!(
        body,
        ",\"max_tokens\":{gen_len},\"temperature\":0,\"ignore_eos\":true,\"stream\":true,\
         \"stream_options\":{{\"include_usage\":true}},\"seed\":{seed}"
    );
    if draft.keep != Keep::Hash {
        body.extend_from_slice(b",\"return_token_ids\":true");
    }
    if draft.keep == Keep::Scores {
        body.extend_from_slice(scores_members(endpoint).as_bytes());
    }
    body.push(b'}');
}

/// What asks for the log-probability of each token and of the likeliest others, by token id: two tokens
/// may have the same text. Five are as many as every server of these APIs gives.
fn scores_members(endpoint: EndpointKind) -> &'static str {
    match endpoint {
        EndpointKind::Completions => ",\"logprobs\":5,\"return_tokens_as_token_ids\":true",
        EndpointKind::Chat => {
            ",\"logprobs\":true,\"top_logprobs\":5,\"return_tokens_as_token_ids\":true"
        }
    }
}

/// The same request without the members that ask for log-probabilities.
pub(crate) fn without_scores(request: &PlannedRequest) -> PlannedRequest {
    let mut request = request.clone();
    if request.keep != Keep::Scores {
        return request;
    }
    for endpoint in [EndpointKind::Completions, EndpointKind::Chat] {
        let end = format!("{}}}", scores_members(endpoint));
        if let Some(front) = request.body.strip_suffix(end.as_bytes()) {
            request.body = Bytes::from([front, b"}"].concat());
            break;
        }
    }
    request.keep = Keep::Text;
    request
}

fn write_member(body: &mut Vec<u8>, name: &str, value: &Value) {
    // Names are ours and need no escapes; writing a value to a vector cannot fail.
    let _infallible = write!(body, "\"{name}\":{value}");
}

/// Decimal digits, without the formatting machinery: prompts are millions of them.
fn write_number(body: &mut Vec<u8>, mut number: u32) {
    let mut digits = [0_u8; 10];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    body.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 7, 10, 99, 100, 4_294_967_295] {
            let mut body = Vec::new();
            write_number(&mut body, number);
            assert_eq!(String::from_utf8(body).unwrap(), number.to_string());
        }
    }

    #[test]
    fn text_is_escaped_and_chat_is_a_message() {
        let body = tokenize_body("m\"", EndpointKind::Chat, "a\n\"b\"");
        let value: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["model"], "m\"");
        assert_eq!(value["messages"][0]["content"], "a\n\"b\"");
    }
}
