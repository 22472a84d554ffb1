//! `[workload.<label>]`: what the prompts are made of.

use serde::{Deserialize, Serialize};

use super::axes::MAX_TOKENS;
use super::reader::{Located, TableReader};
use super::value::{positive, rate, seconds_or_none, string, up_to, zero_up_to};

/// Which of the two OpenAI routes the requests use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointKind {
    /// `/v1/completions`.
    Completions,
    /// `/v1/chat/completions`.
    Chat,
}

impl EndpointKind {
    /// The route's path.
    pub fn path(self) -> &'static str {
        match self {
            Self::Completions => "/v1/completions",
            Self::Chat => "/v1/chat/completions",
        }
    }
}

/// How prompts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PromptForm {
    /// As token ids: exact by construction, and the server tokenizes nothing.
    TokenIds,
    /// As text whose length was verified through the server's `/tokenize`.
    Text,
}

/// What the requests of one label are made of. Lengths are in tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkloadSpec {
    /// The structure of the prompts.
    pub kind: WorkloadKind,
    /// The route.
    pub endpoint: EndpointKind,
    /// Ids or text.
    pub prompt: PromptForm,
}

/// The unit of a trace's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
}

impl TimeUnit {
    /// The word used in plans.
    pub fn name(self) -> &'static str {
        match self {
            Self::S => "s",
            Self::Ms => "ms",
        }
    }

    /// How long it is, seconds.
    pub fn seconds(self) -> f64 {
        match self {
            Self::S => 1.0,
            Self::Ms => 1e-3,
        }
    }
}

/// The structure of the prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum WorkloadKind {
    /// Long documents, each asked several fresh questions.
    SharedPrefix {
        /// Number of documents; absent: one a request.
        documents: Option<u32>,
        /// Questions asked of a document; with it and without `documents`, the requests are
        /// divided by it.
        questions_per_document: Option<u32>,
        /// Fresh tokens at the end of each prompt; absent: 32, or half of a shorter prompt.
        question_len: Option<u32>,
    },
    /// Sessions whose prompt grows with each turn.
    MultiTurn {
        /// Turns a session.
        turns: u32,
        /// Tokens of the system prompt and tools that all sessions share.
        system_len: u32,
        /// Fresh tokens that the user adds each turn.
        turn_len: u32,
        /// Mean pause of a session between an answer and the next turn, seconds (exponential).
        think_s: f64,
    },
    /// No two prompts share anything: the control.
    Unique,
    /// Documents visited in a circle: a tier smaller than all of them always misses (LRU).
    EvictLoop {
        /// Number of documents: the working set.
        documents: u32,
        /// Fresh tokens at the end of each prompt; absent: as for `shared-prefix`.
        question_len: Option<u32>,
    },
    /// Lengths, times and sharing from a trace; `prompt_len` and `gen_len` of the matrix are not
    /// used.
    Trace {
        /// The file: JSON lines as of Mooncake and Bailian (`timestamp`, `input_length`,
        /// `output_length`, `hash_ids`) or CSV with a head
        /// (`timestamp_ms,input_length,output_length[,session]`).
        path: String,
        /// Tokens that one hash id of the trace stands for; absent: 512, where every line fits it.
        block_len: Option<u32>,
        /// The unit of its times; absent: the file must leave no doubt.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        time_unit: Option<TimeUnit>,
        /// How many times faster than recorded it is replayed.
        speed: f64,
    },
    /// Prompts or conversations from a JSONL file of `{"prompt": ...}` or `{"messages": ...}`,
    /// each with `output_tokens` where that is not the matrix's `gen_len`; `prompt_len` of the
    /// matrix is not used.
    Dataset {
        /// The file.
        path: String,
    },
}

impl WorkloadKind {
    /// The word used in plans.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SharedPrefix { .. } => "shared-prefix",
            Self::MultiTurn { .. } => "multi-turn",
            Self::Unique => "unique",
            Self::EvictLoop { .. } => "evict-loop",
            Self::Trace { .. } => "trace",
            Self::Dataset { .. } => "dataset",
        }
    }

    /// Fresh tokens that the plan asks for by number; the default never exceeds the prompt.
    pub fn question_len(&self) -> Option<u32> {
        match self {
            Self::SharedPrefix { question_len, .. } | Self::EvictLoop { question_len, .. } => {
                *question_len
            }
            _ => None,
        }
    }

    /// The file that the workload reads, if any.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Trace { path, .. } | Self::Dataset { path } => Some(path),
            _ => None,
        }
    }
}

impl Default for WorkloadSpec {
    /// Documents with fresh questions, as token ids, over completions.
    fn default() -> Self {
        Self {
            kind: WorkloadKind::SharedPrefix {
                documents: None,
                questions_per_document: None,
                question_len: None,
            },
            endpoint: EndpointKind::Completions,
            prompt: PromptForm::TokenIds,
        }
    }
}

/// Names of the kinds, for [`TableReader::choice`].
#[derive(Clone, Copy)]
enum KindName {
    SharedPrefix,
    MultiTurn,
    Unique,
    EvictLoop,
    Trace,
    Dataset,
}

/// The kinds of workloads, by the names that plans use.
pub(crate) const KIND_NAMES: [&str; 6] = [
    "shared-prefix",
    "multi-turn",
    "unique",
    "evict-loop",
    "trace",
    "dataset",
];

const KINDS: [(&str, KindName); 6] = [
    (KIND_NAMES[0], KindName::SharedPrefix),
    (KIND_NAMES[1], KindName::MultiTurn),
    (KIND_NAMES[2], KindName::Unique),
    (KIND_NAMES[3], KindName::EvictLoop),
    (KIND_NAMES[4], KindName::Trace),
    (KIND_NAMES[5], KindName::Dataset),
];

impl WorkloadSpec {
    /// Reads `[workload.<label>]`. `None` when a problem was reported that leaves no spec.
    pub fn read(table: &TableReader<'_>) -> Option<Self> {
        let endpoint = table.choice(
            "endpoint",
            &[
                ("completions", EndpointKind::Completions),
                ("chat", EndpointKind::Chat),
            ],
        );
        let prompt = table.choice(
            "prompt",
            &[
                ("token-ids", PromptForm::TokenIds),
                ("text", PromptForm::Text),
            ],
        );
        let kind = match table.value("kind") {
            Some(_) => table.choice("kind", &KINDS).map(|kind| kind.value),
            None => Some(KindName::SharedPrefix),
        };
        let kind = kind.and_then(|kind| read_kind(kind, table));
        table.finish();
        let endpoint = endpoint.map_or(EndpointKind::Completions, |endpoint| endpoint.value);
        let kind = kind?;
        let default = match (endpoint, &kind) {
            (EndpointKind::Chat, _) | (_, WorkloadKind::Dataset { .. }) => PromptForm::Text,
            (EndpointKind::Completions, _) => PromptForm::TokenIds,
        };
        if let Some(prompt) = &prompt {
            refuse_ids(table, prompt, endpoint, &kind);
        }
        Some(Self {
            kind,
            endpoint,
            prompt: prompt.map_or(default, |prompt| prompt.value),
        })
    }
}

/// Token ids go only where a server takes them.
fn refuse_ids(
    table: &TableReader<'_>,
    prompt: &Located<PromptForm>,
    endpoint: EndpointKind,
    kind: &WorkloadKind,
) {
    if prompt.value == PromptForm::Text {
        return;
    }
    let why = match (endpoint, kind) {
        (EndpointKind::Chat, _) => "the chat route takes messages, not token ids",
        (_, WorkloadKind::Dataset { .. }) => "a dataset holds text",
        _ => return,
    };
    table.problems().add(
        prompt.span.clone(),
        format!(
            "`prompt = \"token-ids\"` in {} cannot be: {why}",
            table.title()
        ),
        "write `prompt = \"text\"`",
    );
}

fn read_kind(kind: KindName, table: &TableReader<'_>) -> Option<WorkloadKind> {
    let count = |key: &str| table.read(key, positive).map(|count| count.value);
    Some(match kind {
        KindName::SharedPrefix => WorkloadKind::SharedPrefix {
            documents: count("documents"),
            questions_per_document: count("questions_per_document"),
            question_len: count("question_len"),
        },
        KindName::MultiTurn => WorkloadKind::MultiTurn {
            turns: count("turns").unwrap_or(4),
            system_len: table
                .read("system_len", zero_up_to(MAX_TOKENS))
                .map_or(0, |len| len.value),
            turn_len: table
                .read("turn_len", up_to(MAX_TOKENS))
                .map_or(64, |len| len.value),
            think_s: table
                .read("think_s", seconds_or_none)
                .map_or(0.0, |think| think.value),
        },
        KindName::Unique => WorkloadKind::Unique,
        KindName::EvictLoop => WorkloadKind::EvictLoop {
            documents: table.require("documents", positive)?.value,
            question_len: count("question_len"),
        },
        KindName::Trace => WorkloadKind::Trace {
            path: table.require("path", string)?.value,
            block_len: count("block_len"),
            time_unit: table
                .choice("time_unit", &[("s", TimeUnit::S), ("ms", TimeUnit::Ms)])
                .map(|unit| unit.value),
            speed: table.read("speed", rate).map_or(1.0, |speed| speed.value),
        },
        KindName::Dataset => WorkloadKind::Dataset {
            path: table.require("path", string)?.value,
        },
    })
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::*;
    use crate::plan::reader::Problems;

    fn read(text: &str) -> (Option<WorkloadSpec>, Vec<String>) {
        let document = DeTable::parse(text).unwrap();
        let problems = Problems::default();
        let table = TableReader::new("workload.w", document.get_ref(), document.span(), &problems);
        let spec = WorkloadSpec::read(&table);
        let problems = problems.into_sorted();
        (
            spec,
            problems
                .into_iter()
                .map(|p| format!("{} | {}", p.message, p.hint))
                .collect(),
        )
    }

    #[test]
    fn each_kind_reads_its_keys() {
        let (spec, problems) =
            read("kind = \"shared-prefix\"\ndocuments = 8\nquestion_len = 16\nendpoint = \"chat\"");
        assert_eq!(problems, [""; 0]);
        let spec = spec.unwrap();
        assert_eq!(spec.prompt, PromptForm::Text, "chat takes text");
        assert!(matches!(
            spec.kind,
            WorkloadKind::SharedPrefix {
                documents: Some(8),
                question_len: Some(16),
                ..
            }
        ));
        let (spec, problems) = read("kind = \"multi-turn\"\nthink_s = 1.5\nsystem_len = 0");
        assert_eq!(problems, [""; 0]);
        assert!(matches!(
            spec.unwrap().kind,
            WorkloadKind::MultiTurn {
                turns: 4,
                turn_len: 64,
                system_len: 0,
                ..
            }
        ));
        let (spec, problems) = read("kind = \"trace\"\npath = \"t.jsonl\"\nspeed = 2");
        assert_eq!(problems, [""; 0]);
        assert_eq!(spec.unwrap().kind.path(), Some("t.jsonl"));
    }

    #[test]
    fn a_key_of_another_kind_and_a_missing_one_are_problems() {
        let (_, problems) = read("kind = \"unique\"\ndocuments = 3");
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].contains("unknown key `documents`"),
            "{problems:?}"
        );
        let (spec, problems) = read("kind = \"evict-loop\"");
        assert!(spec.is_none());
        assert!(
            problems[0].contains("`documents` is missing"),
            "{problems:?}"
        );
    }

    #[test]
    fn token_ids_do_not_go_over_chat() {
        let (_, problems) = read("kind = \"unique\"\nendpoint = \"chat\"\nprompt = \"token-ids\"");
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("takes messages"), "{problems:?}");
    }
}
