//! Prompts as text of exact length in tokens, as the server's own tokenizer counts them.
//!
//! Nothing about the tokenizer is assumed, neither that a word is a token nor that lengths add up:
//! each part of a prompt is lengthened and shortened by words until the tokenizer finds that
//! everything up to its end has the planned length. Parts that several prompts share are fitted
//! once, so they are the same text in all of them.

use std::collections::HashMap;
use std::future::Future;
use std::ops::Range;

use bytes::Bytes;
use rand::RngExt as _;

use super::body::{self, tokenize_body};
use super::prompt::{Draft, Prompt, Segment};
use super::{BuildError, PlannedRequest, Tokenized, Workload};
use crate::units::Seed;

/// Short common words. The exact choice means nothing; it must never change, or corpora would.
const WORDS: [&str; 96] = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "company",
    "system",
    "program",
    "question",
    "work",
    "government",
    "number",
    "night",
    "point",
    "home",
    "water",
    "room",
    "mother",
    "area",
    "money",
    "story",
    "fact",
    "month",
    "lot",
    "right",
    "study",
    "book",
    "eye",
    "job",
    "word",
    "business",
    "issue",
    "side",
    "kind",
    "head",
    "house",
    "service",
    "friend",
    "father",
    "power",
    "hour",
    "game",
    "line",
    "end",
    "member",
    "law",
    "car",
    "city",
    "community",
    "name",
    "president",
    "team",
    "minute",
    "idea",
    "kid",
    "body",
    "information",
    "back",
    "parent",
    "face",
    "others",
    "level",
    "office",
    "door",
    "health",
    "person",
    "art",
    "war",
    "history",
    "party",
    "result",
    "change",
    "morning",
    "reason",
    "research",
    "girl",
    "guy",
    "moment",
];

/// Tried one after another where whole words jump over the length.
const FILLERS: [&str; 12] = [
    " a", " I", ".", ",", " 1", "7", "\n", " the", "!", " x y", "é", " of a",
];

/// Corrections before a length is given up. Each asks the tokenizer once.
const CORRECTIONS: u32 = 24;

/// Seeded words, each with a space before it, without end.
pub(crate) fn words(seed: Seed) -> impl Iterator<Item = String> {
    let mut rng = seed.rng();
    std::iter::from_fn(move || Some(format!(" {}", WORDS[rng.random_range(0..WORDS.len())])))
}

/// Turns drafts into requests, asking `tokenize` for the length of each text.
pub(crate) async fn render_text<C, F>(
    workload: &Workload<'_>,
    drafts: Vec<Draft>,
    tokenize: C,
) -> Result<Vec<PlannedRequest>, BuildError>
where
    C: Fn(Bytes) -> F,
    F: Future<Output = Result<Tokenized, String>>,
{
    let tokens_of = |text: &str| {
        let asked = tokenize(tokenize_body(workload.model, workload.spec.endpoint, text));
        async { Ok(asked.await?.count) }
    };
    // The text of each chain of segments that is already fitted.
    let mut fitted: HashMap<Vec<Segment>, String> = HashMap::new();
    let mut requests = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let Prompt::Segments(segments) = &draft.prompt else {
            requests.push(body::render_ids(workload, &draft));
            continue;
        };
        let segments = segments.clone();
        let mut text = String::new();
        let mut target = 0;
        for (at, segment) in segments.iter().enumerate() {
            target += segment.len;
            let chain = &segments[..=at];
            if let Some(known) = fitted.get(chain) {
                text.clone_from(known);
                continue;
            }
            text = fit(&text, *segment, target, &tokens_of).await?;
            // The last part is fresh: nothing else begins with it.
            if at + 1 < segments.len() {
                fitted.insert(chain.to_vec(), text.clone());
            }
        }
        let request = match &draft.altered {
            // Its length in tokens is the tokenizer's: nothing rests on it.
            Some(range) => {
                let text = altered(&text, range, target);
                body::render_text(workload, &draft, &text, None)
            }
            None => body::render_text(workload, &draft, &text, Some(target)),
        };
        requests.push(request);
    }
    Ok(requests)
}

/// `text` of `tokens` tokens with other words in about the place of the tokens of `range`.
fn altered(text: &str, range: &Range<u32>, tokens: u32) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let place = |token: u32| words.len() * token as usize / tokens.max(1) as usize;
    let range = place(range.start)..place(range.end).max(place(range.start) + 1);
    let other = |word: &str| {
        let known = WORDS.iter().position(|known| *known == word);
        WORDS[(known.unwrap_or(0) + WORDS.len() / 2) % WORDS.len()]
    };
    let words = words.iter().enumerate();
    let words = words.map(|(at, word)| match *word {
        // What stands before the first space is no word.
        "" => "",
        word if range.contains(&at) => other(word),
        word => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// `prefix` and seeded words behind it, `target` tokens in all.
async fn fit<C, F>(
    prefix: &str,
    segment: Segment,
    target: u32,
    tokens_of: &C,
) -> Result<String, BuildError>
where
    C: Fn(&str) -> F,
    F: Future<Output = Result<u32, String>>,
{
    let unfit = |why: String| BuildError::Unfit {
        tokens: target,
        why,
    };
    let mut source = words(segment.seed);
    let mut parts: Vec<String> = Vec::new();
    if let Some(first) = segment.first {
        // They differ at their first character, as their ids are at their first id.
        parts.push(format!(" {first}"));
    }
    let fixed = parts.len();
    parts.extend(source.by_ref().take(segment.len as usize));
    let mut seen = 0;
    for _ in 0..CORRECTIONS {
        let text = format!("{prefix}{}", parts.concat());
        seen = tokens_of(&text).await.map_err(unfit)?;
        if seen == target {
            return Ok(text);
        }
        if seen.abs_diff(target) <= 2
            && let Some(text) = patch(prefix, &parts, target, tokens_of)
                .await
                .map_err(unfit)?
        {
            return Ok(text);
        }
        if seen < target {
            parts.extend(source.by_ref().take((target - seen) as usize));
        } else {
            // A word is at least a token; at least one goes, and what must stay stays.
            let excess = (seen - target).min(u32::try_from(parts.len()).unwrap_or(u32::MAX));
            let left = parts.len() - (excess as usize).div_ceil(2);
            if left < fixed || parts.is_empty() {
                break;
            }
            parts.truncate(left);
        }
    }
    Err(unfit(format!(
        "the tokenizer's lengths jump over it, last {seen}"
    )))
}

/// Tries each filler in place of the last few words.
async fn patch<C, F>(
    prefix: &str,
    parts: &[String],
    target: u32,
    tokens_of: &C,
) -> Result<Option<String>, String>
where
    C: Fn(&str) -> F,
    F: Future<Output = Result<u32, String>>,
{
    for dropped in 0..=2.min(parts.len().saturating_sub(1)) {
        let base = format!("{prefix}{}", parts[..parts.len() - dropped].concat());
        for filler in std::iter::once("").chain(FILLERS) {
            let text = format!("{base}{filler}");
            if tokens_of(&text).await? == target {
                return Ok(Some(text));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::Value;

    use super::*;
    use crate::plan::state::CacheState;
    use crate::plan::workload_spec::{PromptForm, WorkloadKind};
    use crate::workload::Pass;
    use crate::workload::testing::{Fixture, shared_prefix};

    /// A tokenizer that no rule of thumb fits: four bytes a token, and two tokens put before.
    fn awkward(text: &str) -> u32 {
        u32::try_from(text.len().div_ceil(4)).unwrap() + 2
    }

    /// One token a word, as most tokenizers nearly have it.
    fn wordy(text: &str) -> u32 {
        u32::try_from(text.split_whitespace().count()).unwrap()
    }

    fn build(fixture: &Fixture, pass: Pass, tokens: fn(&str) -> u32) -> Vec<(String, u32)> {
        let asked = Cell::new(0);
        let count = |body: Bytes| {
            asked.set(asked.get() + 1);
            let value: Value = serde_json::from_slice(&body).unwrap();
            std::future::ready(Ok(counted(tokens(value["prompt"].as_str().unwrap()))))
        };
        let workload = fixture.workload();
        let schedule = futures::executor::block_on(workload.build_text(pass, count)).unwrap();
        schedule
            .requests
            .iter()
            .map(|request| {
                let value: Value = serde_json::from_slice(&request.body).unwrap();
                (
                    value["prompt"].as_str().unwrap().to_owned(),
                    request.prompt_tokens.unwrap(),
                )
            })
            .collect()
    }

    fn counted(count: u32) -> Tokenized {
        Tokenized {
            count,
            tokens: Vec::new(),
        }
    }

    fn text_fixture(kind: WorkloadKind) -> Fixture {
        let mut fixture = Fixture::new(kind);
        fixture.spec.prompt = PromptForm::Text;
        fixture
    }

    #[test]
    fn texts_have_exactly_the_planned_length() {
        let fixture = text_fixture(shared_prefix(Some(3), Some(32)));
        for tokens in [awkward as fn(&str) -> u32, wordy] {
            for (text, planned) in build(&fixture, Pass::State(CacheState::Tier), tokens) {
                assert_eq!((tokens(&text), planned), (600, 600), "{text}");
            }
        }
    }

    #[test]
    fn documents_are_the_same_text_in_every_state_and_questions_differ() {
        let fixture = text_fixture(shared_prefix(Some(1), Some(32)));
        let cold = build(&fixture, Pass::State(CacheState::Cold), wordy);
        let tier = build(&fixture, Pass::State(CacheState::Tier), wordy);
        let front = |text: &str| text.split(' ').take(560).collect::<Vec<_>>().join(" ");
        let back = |text: &str| text.split(' ').skip(569).collect::<Vec<_>>().join(" ");
        assert_eq!(front(&cold[0].0), front(&tier[0].0));
        assert_eq!(front(&tier[1].0), front(&tier[0].0));
        assert_ne!(back(&cold[0].0), back(&tier[0].0));
        assert_ne!(back(&tier[1].0), back(&tier[0].0));
    }

    #[test]
    fn an_altered_text_has_other_words_in_one_place_and_the_same_question() {
        let mut fixture = text_fixture(shared_prefix(Some(1), Some(32)));
        fixture.prompt_len = 1100;
        let own = &build(&fixture, Pass::Canary(1), wordy)[0].0;
        let altered = asked(&fixture, Pass::Altered(1));
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (own, altered) = (words(own), words(&altered));
        assert_eq!(own.len(), altered.len());
        let differing: Vec<_> = (0..own.len())
            .filter(|at| own[*at] != altered[*at])
            .collect();
        assert!((250..260).contains(&differing.len()), "{}", differing.len());
        assert!(differing.iter().all(|at| *at < 260), "the first chunk");
    }

    /// The text of the first request.
    fn asked(fixture: &Fixture, pass: Pass) -> String {
        let count = |body: Bytes| {
            let value: Value = serde_json::from_slice(&body).unwrap();
            std::future::ready(Ok(counted(wordy(value["prompt"].as_str().unwrap()))))
        };
        let workload = fixture.workload();
        let schedule = futures::executor::block_on(workload.build_text(pass, count)).unwrap();
        assert_eq!(schedule.requests[0].prompt_tokens, None);
        let value: Value = serde_json::from_slice(&schedule.requests[0].body).unwrap();
        value["prompt"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_tokenizer_that_skips_the_length_is_an_error() {
        let fixture = text_fixture(WorkloadKind::Unique);
        let odd =
            |body: Bytes| std::future::ready(Ok(counted(u32::try_from(body.len()).unwrap() | 1)));
        let result =
            futures::executor::block_on(fixture.workload().build_text(Pass::Warmup(1), odd));
        assert!(
            matches!(result, Err(BuildError::Unfit { tokens: 600, .. })),
            "{result:?}"
        );
        let broken = |_: Bytes| std::future::ready(Err::<Tokenized, _>("no route".to_owned()));
        let result =
            futures::executor::block_on(fixture.workload().build_text(Pass::Warmup(1), broken));
        assert!(result.unwrap_err().to_string().contains("no route"));
    }
}
