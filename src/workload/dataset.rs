//! Prompts and conversations from a file of JSON lines.

use std::collections::hash_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;

use bytes::Bytes;
use rand::seq::SliceRandom as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::tokenize_prompt;
use super::file::{WorkloadFile, refused};
use super::prompt::{Draft, Prompt};
use super::text::words;
use super::{BuildError, Keep, Pass, PlannedRequest, Start, Tokenized, Workload};
use crate::plan::workload_spec::{EndpointKind, WorkloadKind};

/// Fields that would change what is sent, and which labrun does not send.
const REFUSED: [&str; 6] = [
    "tools",
    "tool_choice",
    "functions",
    "images",
    "system",
    "system_prompt",
];

/// A dataset that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    pub(crate) entries: Vec<Entry>,
    pub(crate) unused_fields: BTreeSet<String>,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    prompt: Prompt,
    /// Tokens to generate, where the line names a number; else the matrix does.
    gen_len: Option<u32>,
}

/// A line as it stands in the file.
#[derive(Debug, Deserialize)]
struct RawLine {
    prompt: Option<Value>,
    messages: Option<Value>,
    output_tokens: Option<u32>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

impl Dataset {
    /// Reads JSON lines of prompts, or of conversations where `endpoint` takes them.
    pub(crate) fn parse(text: &str, endpoint: EndpointKind) -> Result<Self, BuildError> {
        if text.trim_start().starts_with('[') {
            return Err(BuildError::JsonList);
        }
        let mut unused_fields = BTreeSet::new();
        let mut entries = Vec::new();
        let lines = (1..).zip(text.lines());
        for (line, text) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let bad = |why| BuildError::BadLine { line, why };
            let raw: RawLine =
                serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
            unused_fields.extend(raw.other.keys().cloned());
            entries.push(raw.entry(endpoint).map_err(bad)?);
        }
        if entries.is_empty() {
            return Err(BuildError::EmptyFile);
        }
        Ok(Self {
            entries,
            unused_fields,
        })
    }
}

impl RawLine {
    fn entry(self, endpoint: EndpointKind) -> Result<Entry, String> {
        if let Some(name) = refused(self.other.keys(), &REFUSED) {
            return Err(format!("labrun does not send `{name}`: remove the field"));
        }
        if self.output_tokens == Some(0) {
            return Err("`output_tokens` must be at least 1".to_owned());
        }
        let prompt = match (self.prompt, self.messages, endpoint) {
            (Some(Value::String(text)), None, EndpointKind::Completions) => Prompt::Text(text),
            (Some(Value::String(text)), None, EndpointKind::Chat) => {
                Prompt::Messages(json!([{"role": "user", "content": text}]))
            }
            (None, Some(Value::Array(messages)), EndpointKind::Chat) if !messages.is_empty() => {
                check_messages(&messages)?;
                Prompt::Messages(Value::Array(messages))
            }
            (None, Some(Value::Array(_)), EndpointKind::Completions) => {
                return Err("`messages` need `endpoint = \"chat\"`".to_owned());
            }
            _ => {
                let why = "it must hold `prompt` (a string) or `messages` (an array)";
                return Err(why.to_owned());
            }
        };
        Ok(Entry {
            prompt,
            gen_len: self.output_tokens,
        })
    }
}

/// Fails where a server would refuse the messages, or the last has no text that a reference number
/// could follow.
fn check_messages(messages: &[Value]) -> Result<(), String> {
    if let Some(at) = messages
        .iter()
        .position(|message| !message["role"].is_string())
    {
        return Err(format!(
            "message {} needs a `role` (a string) and `content`",
            at + 1
        ));
    }
    match messages.last().map(|message| &message["content"]) {
        Some(Value::String(_) | Value::Array(_)) => Ok(()),
        _ => Err("the last message needs `content` (a string or an array of parts)".to_owned()),
    }
}

fn entries<'a>(workload: &Workload<'a>) -> Result<&'a [Entry], BuildError> {
    match (&workload.spec.kind, workload.file) {
        (_, Some(WorkloadFile::Dataset(dataset))) => Ok(&dataset.entries),
        (WorkloadKind::Dataset { path }, _) => Err(BuildError::NoFile(path.clone())),
        _ => Ok(&[]),
    }
}

/// The requests of a dataset in seeded order, round and round if it is short.
///
/// Each prompt gets a reference number at its end that differs for every request and pass: sent
/// twice as it stands, a prompt would be in a cache whole.
pub(crate) fn drafts(workload: &Workload<'_>, pass: Pass) -> Result<Vec<Draft>, BuildError> {
    let entries = entries(workload)?;
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.shuffle(&mut workload.seed.derive("dataset").rng());
    let gen_len = |entry: &Entry| match pass {
        Pass::Fill => 1,
        _ => entry.gen_len.unwrap_or(workload.gen_len.get()),
    };
    let requests = workload.requests.get();
    Ok((0..requests)
        .zip(order.iter().cycle())
        .map(|(request, number)| {
            let entry = &entries[*number];
            let prompt = with_reference(&entry.prompt, &reference(workload, pass, request, 0));
            draft(
                prompt,
                gen_len(entry),
                u32::try_from(*number).unwrap_or(u32::MAX),
            )
        })
        .collect())
}

/// The end of a prompt. `flip` is for another that differs from its first digit on.
fn reference(workload: &Workload<'_>, pass: Pass, request: u32, flip: u64) -> String {
    let name = format!("reference/{}/{request}", pass.name());
    let number = workload.seed.derive(&name).0 ^ (flip << 60);
    format!("\n\nReference: {number:016x}")
}

/// Notes on each request of `pass`, which `drafts` are, what its prompt is in tokens: how many it
/// has, how many a cache may hold of it from another pass, and how many an earlier request of the
/// pass begins with. A server that does not tokenize leaves that unknown.
pub(crate) async fn note_tokens<C, F>(
    workload: &Workload<'_>,
    pass: Pass,
    requests: &mut [PlannedRequest],
    tokenize: C,
) -> Result<(), BuildError>
where
    C: Fn(Bytes) -> F,
    F: Future<Output = Result<Tokenized, String>>,
{
    let entries = entries(workload)?;
    let unit = workload.file_unit(pass).unwrap_or(1);
    let tokens_of = |prompt: Prompt| tokenize(tokenize_prompt(workload.model, &prompt));
    // An entry's tokens before another reference: what both have is what a cache can hold.
    let mut others: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut earlier: BTreeSet<Vec<u32>> = BTreeSet::new();
    for (request, planned) in (0..).zip(requests) {
        let entry = &entries[planned.document as usize].prompt;
        let with = |flip| with_reference(entry, &reference(workload, pass, request, flip));
        let Ok(own) = tokens_of(with(0)).await else {
            continue;
        };
        planned.prompt_tokens = Some(own.count);
        let own = own.tokens;
        if own.is_empty() {
            continue;
        }
        let other = match others.entry(planned.document) {
            Place::Occupied(known) => known.into_mut(),
            Place::Vacant(place) => {
                let other = tokens_of(with(1)).await.map(|other| other.tokens);
                place.insert(other.unwrap_or_default())
            }
        };
        planned.shared_tokens = common(&own, other) / unit * unit;
        planned.repeated_tokens = longest_common(&own, &earlier);
        earlier.insert(own);
    }
    Ok(())
}

/// Tokens that both begin with.
fn common(a: &[u32], b: &[u32]) -> u32 {
    a.iter().zip(b).take_while(|(a, b)| a == b).count() as u32
}

/// Tokens that `ids` begins with as one of `earlier` does: one beside its place in their order has
/// the most.
fn longest_common(ids: &[u32], earlier: &BTreeSet<Vec<u32>>) -> u32 {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let mut before = earlier.range::<[u32], _>((Unbounded, Included(ids)));
    let mut after = earlier.range::<[u32], _>((Excluded(ids), Unbounded));
    let beside = [before.next_back(), after.next()];
    let lengths = beside.into_iter().flatten().map(|other| common(ids, other));
    lengths.max().unwrap_or(0)
}

/// Seeded words, because a dataset's own prompts must stay unseen.
pub(crate) fn warmup(workload: &Workload<'_>, count: u32) -> Result<Vec<Draft>, BuildError> {
    let entries = entries(workload)?;
    Ok((0..count)
        .zip(entries.iter().cycle())
        .map(|(request, entry)| {
            let seed = workload.seed.derive(&format!("warmup/{request}"));
            // A word and its space are about six bytes.
            let length = text_len(&entry.prompt) / 6 + 1;
            let text: String = words(seed).take(length).collect();
            let prompt = match workload.spec.endpoint {
                EndpointKind::Completions => Prompt::Text(text),
                EndpointKind::Chat => Prompt::Messages(json!([{"role": "user", "content": text}])),
            };
            draft(prompt, workload.gen_len.get(), request)
        })
        .collect())
}

fn draft(prompt: Prompt, gen_len: u32, document: u32) -> Draft {
    Draft {
        prompt,
        shared_tokens: 0,
        repeated_tokens: 0,
        gen_len,
        start: Start::Slot,
        keep: Keep::Hash,
        document,
        altered: None,
    }
}

fn with_reference(prompt: &Prompt, reference: &str) -> Prompt {
    match prompt {
        Prompt::Text(text) => Prompt::Text(format!("{text}{reference}")),
        Prompt::Messages(messages) => {
            let mut messages = messages.clone();
            let last = messages.as_array_mut().and_then(|items| items.last_mut());
            match last.and_then(|message| message.get_mut("content")) {
                Some(Value::String(text)) => text.push_str(reference),
                Some(Value::Array(parts)) => parts.push(json!({"type": "text", "text": reference})),
                _ => {}
            }
            Prompt::Messages(messages)
        }
        Prompt::Segments(_) => prompt.clone(),
    }
}

fn text_len(prompt: &Prompt) -> usize {
    match prompt {
        Prompt::Text(text) => text.len(),
        Prompt::Messages(messages) => messages.to_string().len(),
        Prompt::Segments(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::state::CacheState;
    use crate::workload::testing::Fixture;

    fn fixture(endpoint: EndpointKind, text: &str) -> Fixture {
        let mut fixture = Fixture::new(WorkloadKind::Dataset {
            path: "d".to_owned(),
        });
        fixture.spec.endpoint = endpoint;
        fixture.spec.prompt = crate::plan::workload_spec::PromptForm::Text;
        fixture.read(text);
        fixture
    }

    fn body(fixture: &Fixture, pass: Pass, request: usize) -> Value {
        serde_json::from_slice(&fixture.build(pass).unwrap().requests[request].body).unwrap()
    }

    #[test]
    fn prompts_go_round_and_never_repeat() {
        let fixture = fixture(
            EndpointKind::Completions,
            "{\"prompt\":\"one\"}\n{\"prompt\":\"two\"}",
        );
        let cold = Pass::State(CacheState::Cold);
        let text = |pass, request| body(&fixture, pass, request)["prompt"].to_string();
        assert!(text(cold, 0).contains("one") || text(cold, 0).contains("two"));
        assert_ne!(
            text(cold, 0),
            text(cold, 2),
            "the same entry, another reference"
        );
        assert_ne!(text(cold, 0), text(Pass::State(CacheState::Tier), 0));
        assert_eq!(text(cold, 0), text(cold, 0));
        let warm = body(&fixture, Pass::Warmup(1), 0)["prompt"].to_string();
        assert!(!warm.contains("one") && !warm.contains("two"), "{warm}");
    }

    #[test]
    fn conversations_need_chat() {
        let text = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}";
        let chat = fixture(EndpointKind::Chat, text);
        let body = body(&chat, Pass::State(CacheState::Cold), 0);
        let content = body["messages"][0]["content"].as_str().unwrap();
        assert!(content.starts_with("hi\n\nReference: "), "{content}");
        let refusal = |text| Dataset::parse(text, EndpointKind::Completions).unwrap_err();
        assert_eq!(
            refusal(text).to_string(),
            "line 1: `messages` need `endpoint = \"chat\"`"
        );
    }

    /// A word is a token; its id is a hash of it.
    fn wordy(body: &Bytes) -> std::future::Ready<Result<Tokenized, String>> {
        let body: Value = serde_json::from_slice(body).unwrap();
        let text = match body["prompt"].as_str() {
            Some(text) => text.to_owned(),
            None => body["messages"].to_string(),
        };
        let ids = text.split_whitespace().map(|word| {
            let hash = blake3::hash(word.as_bytes());
            u32::from_le_bytes(hash.as_bytes()[..4].try_into().unwrap())
        });
        let tokens: Vec<u32> = ids.collect();
        let count = tokens.len() as u32;
        std::future::ready(Ok(Tokenized { count, tokens }))
    }

    fn tokens(fixture: &Fixture, pass: Pass) -> Vec<(u32, Option<u32>, u32, u32)> {
        let workload = fixture.workload();
        let schedule =
            futures::executor::block_on(workload.build_text(pass, |body| wordy(&body))).unwrap();
        let of = |r: &PlannedRequest| {
            (
                r.document,
                r.prompt_tokens,
                r.shared_tokens,
                r.repeated_tokens,
            )
        };
        schedule.requests.iter().map(of).collect()
    }

    #[test]
    fn what_a_cache_can_hold_of_a_prompt_is_known_from_its_tokens() {
        let words = |name: &str, count: usize| -> String {
            let words: Vec<_> = (0..count).map(|at| format!("{name}{at} ")).collect();
            words.concat()
        };
        let line = |text: String| json!({"prompt": text}).to_string() + "\n";
        let front = words("front", 100);
        let text =
            line(words("a", 600)) + &line(front.clone() + &words("b", 500)) + &line(front + "c");
        let fixture = fixture(EndpointKind::Completions, &text);
        // "Reference:" and its number stand behind each.
        let expected = [(602, 601), (602, 601), (103, 102)];
        let mut seen: Vec<u32> = Vec::new();
        for (document, count, shared, repeated) in tokens(&fixture, Pass::State(CacheState::Gpu)) {
            let (whole, front) = expected[document as usize];
            assert_eq!((count, shared), (Some(whole), front));
            // Six requests of three prompts, two of which begin alike.
            let again = match document {
                _ if seen.contains(&document) => front,
                1 if seen.contains(&2) => 100,
                2 if seen.contains(&1) => 100,
                _ => 0,
            };
            assert_eq!(repeated, again, "{document} after {seen:?}");
            seen.push(document);
        }
        // A tier holds whole chunks of 256.
        for (document, _, shared, _) in tokens(&fixture, Pass::State(CacheState::Tier)) {
            assert_eq!(shared, [512, 512, 0][document as usize]);
        }
    }

    #[test]
    fn a_server_that_does_not_tokenize_leaves_the_tokens_unknown() {
        let fixture = fixture(EndpointKind::Completions, "{\"prompt\":\"one\"}");
        let workload = fixture.workload();
        let refused = |_: Bytes| std::future::ready(Err("no route".to_owned()));
        let cold = Pass::State(CacheState::Cold);
        let schedule = futures::executor::block_on(workload.build_text(cold, refused)).unwrap();
        let first = &schedule.requests[0];
        assert_eq!((first.prompt_tokens, first.shared_tokens), (None, 0));
    }

    #[test]
    fn a_line_may_state_its_answers_length() {
        let text = "{\"prompt\":\"one\",\"output_tokens\":7,\"id\":1}\n";
        let fixture = fixture(EndpointKind::Completions, text);
        let lengths = |pass| fixture.build(pass).unwrap().requests[0].gen_len;
        assert_eq!(
            (lengths(Pass::State(CacheState::Cold)), lengths(Pass::Fill)),
            (7, 1)
        );
        let dataset = Dataset::parse(text, EndpointKind::Completions).unwrap();
        assert!(dataset.unused_fields.iter().eq(["id"]));
    }

    #[test]
    fn odd_lines_are_refused_with_their_number() {
        for (text, expected) in [
            (
                "{\"prompt\":\"a\",\"tools\":[]}",
                "line 1: labrun does not send `tools`",
            ),
            (
                "{\"prompt\":\"a\"}\n\n{\"prompt\":3}",
                "line 3: it must hold `prompt`",
            ),
            (
                "{\"prompt\":\"a\",\"output_tokens\":0}",
                "line 1: `output_tokens` must be",
            ),
            (
                "{\"prompt\":\"a\",\"output_tokens\":-1}",
                "line 1: invalid value",
            ),
            ("{\"conversations\":[]}", "line 1: it must hold `prompt`"),
            ("prompt\na\n", "line 1: expected value"),
            ("[{\"prompt\":\"a\"}]", "it is a JSON list"),
            (" \n", "it holds no request"),
        ] {
            let refusal = Dataset::parse(text, EndpointKind::Completions)
                .unwrap_err()
                .to_string();
            assert!(refusal.starts_with(expected), "{text}: {refusal}");
        }
    }

    #[test]
    fn messages_that_no_server_takes_are_refused() {
        let of = |messages: &str| {
            let line = format!("{{\"messages\":{messages}}}\n");
            let read = Dataset::parse(&line, EndpointKind::Chat);
            read.map(drop).map_err(|refusal| refusal.to_string())
        };
        for good in [
            r#"[{"role":"user","content":"a"}]"#,
            r#"[{"role":"user","content":[{"type":"text","text":"a"}]}]"#,
            r#"[{"role":"user","content":"a"},{"role":"assistant","content":null},{"role":"tool","content":"b"}]"#,
        ] {
            assert_eq!(of(good), Ok(()), "{good}");
        }
        for (messages, expected) in [
            (r#"["a"]"#, "line 1: message 1 needs a `role`"),
            (
                r#"[{"role":"user","content":"a"},{"from":"human","value":"a"}]"#,
                "line 1: message 2 needs a `role`",
            ),
            (
                r#"[{"role":"user","content":"a"},{"role":"assistant","content":null}]"#,
                "line 1: the last message needs `content`",
            ),
        ] {
            let refusal = of(messages).unwrap_err();
            assert!(refusal.starts_with(expected), "{messages}: {refusal}");
        }
    }
}
