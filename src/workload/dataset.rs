//! Prompts and conversations from a file of JSON lines.

use rand::seq::SliceRandom as _;
use serde_json::{Value, json};

use super::prompt::{Draft, Prompt};
use super::text::words;
use super::{BuildError, Keep, Pass, Start, Workload};
use crate::plan::workload_spec::{EndpointKind, WorkloadKind};

/// The requests of a dataset in seeded order, round and round if it is short.
///
/// Each prompt gets a reference number at its end that differs for every request and pass: sent
/// twice as it stands, a prompt would be held by a cache whole.
pub(crate) fn drafts(workload: &Workload<'_>, pass: Pass) -> Result<Vec<Draft>, BuildError> {
    let entries = read(workload)?;
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.shuffle(&mut workload.seed.derive("dataset").rng());
    let gen_len = if pass == Pass::Fill {
        1
    } else {
        workload.gen_len.get()
    };
    let requests = workload.requests.get();
    Ok((0..requests)
        .zip(order.iter().cycle())
        .map(|(request, entry)| {
            let name = format!("reference/{}/{request}", pass.name());
            let reference = format!("\n\nReference: {:016x}", workload.seed.derive(&name).0);
            let prompt = with_reference(&entries[*entry], &reference, workload.spec.endpoint);
            draft(prompt, gen_len, u32::try_from(*entry).unwrap_or(u32::MAX))
        })
        .collect())
}

/// Seeded words, because a dataset's own prompts must stay unseen.
pub(crate) fn warmup(workload: &Workload<'_>, count: u32) -> Result<Vec<Draft>, BuildError> {
    let entries = read(workload)?;
    Ok((0..count)
        .zip(entries.iter().cycle())
        .map(|(request, entry)| {
            let seed = workload.seed.derive(&format!("warmup/{request}"));
            // A word and its space are about six bytes.
            let length = text_len(entry) / 6 + 1;
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
    }
}

fn read(workload: &Workload<'_>) -> Result<Vec<Prompt>, BuildError> {
    let WorkloadKind::Dataset { path } = &workload.spec.kind else {
        return Ok(Vec::new());
    };
    let text = workload
        .file
        .ok_or_else(|| BuildError::NoFile(path.clone()))?;
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let entries: Vec<Prompt> = lines
        .map(|(at, line)| {
            entry(line, workload.spec.endpoint)
                .map_err(|why| BuildError::BadLine { line: at + 1, why })
        })
        .collect::<Result<_, _>>()?;
    if entries.is_empty() {
        Err(BuildError::EmptyFile)
    } else {
        Ok(entries)
    }
}

fn entry(line: &str, endpoint: EndpointKind) -> Result<Prompt, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    match (value.get("prompt"), value.get("messages"), endpoint) {
        (Some(Value::String(text)), None, EndpointKind::Completions) => {
            Ok(Prompt::Text(text.clone()))
        }
        (Some(Value::String(text)), None, EndpointKind::Chat) => {
            Ok(Prompt::Messages(json!([{"role": "user", "content": text}])))
        }
        (None, Some(messages @ Value::Array(items)), EndpointKind::Chat) if !items.is_empty() => {
            Ok(Prompt::Messages(messages.clone()))
        }
        (None, Some(Value::Array(_)), EndpointKind::Completions) => {
            Err("`messages` need `endpoint = \"chat\"`".to_owned())
        }
        _ => Err("it must hold `prompt` (a string) or `messages` (an array)".to_owned()),
    }
}

fn with_reference(prompt: &Prompt, reference: &str, endpoint: EndpointKind) -> Prompt {
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
        Prompt::Segments(_) => {
            debug_assert!(false, "a dataset has no segments ({endpoint:?})");
            prompt.clone()
        }
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

    fn fixture(endpoint: EndpointKind, text: &'static str) -> Fixture {
        let mut fixture = Fixture::new(WorkloadKind::Dataset {
            path: "d".to_owned(),
        });
        fixture.spec.endpoint = endpoint;
        fixture.spec.prompt = crate::plan::workload_spec::PromptForm::Text;
        fixture.file = Some(text);
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
        let wrong = fixture(EndpointKind::Completions, text);
        let error = wrong.build(Pass::Fill).unwrap_err().to_string();
        assert_eq!(
            error,
            "line 1 of the workload's file: `messages` need `endpoint = \"chat\"`"
        );
    }
}
