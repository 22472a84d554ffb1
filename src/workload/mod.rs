//! What is sent: every request of a pass, whole and serialised, before a clock starts.
//!
//! Pure: the same workload, seed and pass give the same bytes. A workload's documents depend on
//! the seed, the label, the prompt length and their number, never on tier or cache state: every tier
//! answers the same prompts. The fresh tokens that end each prompt differ for every request and every
//! pass, so that no cache can hold a whole prompt.
//!
//! [`Workload::build`] makes a pass of token ids (and of datasets); [`Workload::build_text`] one
//! of text, whose lengths it verifies through the server's tokenizer.

mod arrivals;
mod body;
mod canary;
mod dataset;
mod file;
pub(crate) mod files;
mod prompt;
mod shapes;
#[cfg(test)]
pub(crate) mod testing;
mod text;
mod trace;

use std::future::Future;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use crate::plan::load_spec::Arrival;
use crate::plan::state::CacheState;
use crate::plan::workload_spec::{EndpointKind, PromptForm, WorkloadKind, WorkloadSpec};
use crate::units::{Concurrency, GenLen, PromptLen, RequestCount, Seed};

pub(crate) use file::WorkloadFile;
pub(crate) use shapes::default_question_len;

/// When a request is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// When a slot of the closed loop is free.
    Slot,
    /// This long after the load's start.
    At(Duration),
    /// When another request has ended, and then some.
    After {
        /// The other request's index.
        request: u32,
        /// The pause after its end.
        think: Duration,
    },
}

/// What is recorded of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// A hash of its text.
    #[default]
    Hash,
    /// The text and the token ids.
    Text,
    /// These and the log-probability of each token.
    Scores,
}

/// One request, ready to be written.
#[derive(Clone, Debug)]
pub struct PlannedRequest {
    /// The route.
    pub path: &'static str,
    /// The JSON body.
    pub body: Bytes,
    /// Tokens of the prompt, which the server must count too; absent where only it knows.
    pub prompt_tokens: Option<u32>,
    /// Of these, the tokens at the front that earlier requests may have left in a cache.
    pub shared_tokens: u32,
    /// Of these, the tokens that an earlier request of the same pass begins with too.
    pub repeated_tokens: u32,
    /// Tokens that it generates.
    pub gen_len: u32,
    /// When it is to be sent.
    pub start: Start,
    /// What is recorded of its answer.
    pub keep: Keep,
    /// The document, session or trace line that it belongs to.
    pub document: u32,
    /// Whether it is a canary within a load, which no statistic counts.
    pub is_canary: bool,
}

/// All requests of a pass, in planned order.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The requests.
    pub requests: Vec<PlannedRequest>,
    /// Slots of the closed loop: requests with [`Start::Slot`] in flight at the same time.
    pub slots: u32,
    /// BLAKE3 over routes and bodies: the same hash, the same corpus.
    pub corpus: blake3::Hash,
}

impl Schedule {
    /// A schedule of requests that were built elsewhere.
    pub fn from_requests(requests: Vec<PlannedRequest>, slots: u32) -> Self {
        let mut hasher = blake3::Hasher::new();
        for request in &requests {
            hasher.update(request.path.as_bytes());
            hasher.update(&(request.body.len() as u64).to_le_bytes());
            hasher.update(&request.body);
        }
        Self {
            requests,
            slots,
            corpus: hasher.finalize(),
        }
    }

    /// The same with `canaries` within the load, evenly spread. A load whose requests wait for one
    /// another stays as it is.
    #[must_use]
    pub fn with_canaries(&self, canaries: &[PlannedRequest]) -> Self {
        let follows = |planned: &PlannedRequest| matches!(planned.start, Start::After { .. });
        let mut requests = self.requests.clone();
        if requests.iter().any(follows) {
            return Self::from_requests(requests, self.slots);
        }
        let planned = requests.len();
        // From the last on: places before it stay where they are.
        for (before, canary) in canaries.iter().enumerate().rev() {
            let place = (before + 1) * planned / (canaries.len() + 1);
            let start = requests.get(place).map_or(Start::Slot, |next| next.start);
            let canary = PlannedRequest {
                start,
                is_canary: true,
                ..canary.clone()
            };
            requests.insert(place, canary);
        }
        Self::from_requests(requests, self.slots)
    }

    /// The same canaries in the order in which they are asked. One of them is about the first half of
    /// another's document, and comes before it: a tier is to give back a part of what it stored, and then
    /// the rest, which the GPU does not hold yet.
    #[must_use]
    pub fn shorter_first(&self) -> Self {
        let mut requests = self.requests.clone();
        requests.sort_by_key(|canary| canary.shared_tokens);
        Self::from_requests(requests, self.slots)
    }

    /// The same for a server that refuses requests for log-probabilities.
    #[must_use]
    pub fn without_scores(&self) -> Self {
        let requests = self.requests.iter().map(body::without_scores).collect();
        Self::from_requests(requests, self.slots)
    }
}

/// Which requests of a workload are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The measured requests of a cache state.
    State(CacheState),
    /// The same documents with other questions, one token each: fills the tier, is not measured.
    Fill,
    /// This many requests of the same shape on other text.
    Warmup(u32),
    /// A fixed question on each of the first documents and of a ladder of shorter ones, to be asked
    /// again in every state: the answers must be equal.
    Canary(u32),
    /// The same questions behind the same documents, of which one chunk differs: the answers must
    /// differ, or equal ones prove nothing.
    Altered(u32),
}

impl Pass {
    /// The word that seeds are derived by.
    fn name(self) -> &'static str {
        match self {
            Self::State(state) => state.name(),
            Self::Fill => "fill",
            Self::Warmup(_) => "warmup",
            Self::Canary(_) => "canary",
            Self::Altered(_) => "altered",
        }
    }

    /// A number that no other pass has, below [`PASS_CODES`].
    fn code(self) -> u32 {
        match self {
            Self::State(CacheState::Cold) => 0,
            Self::State(CacheState::Gpu) => 1,
            Self::State(CacheState::Tier) => 2,
            Self::State(CacheState::Restart) => 3,
            Self::Fill => 4,
            Self::Warmup(_) => 5,
            Self::Canary(_) => 6,
            Self::Altered(_) => 7,
        }
    }
}

/// More than the highest code of a pass.
const PASS_CODES: u32 = 8;

/// Everything that decides the requests of a cell, but the pass.
#[derive(Clone, Debug)]
pub struct Workload<'a> {
    /// The structure.
    pub spec: &'a WorkloadSpec,
    /// The workload's label.
    pub label: &'a str,
    /// The model that the bodies name.
    pub model: &'a str,
    /// Prompt length, tokens.
    pub prompt_len: PromptLen,
    /// Generated tokens a request.
    pub gen_len: GenLen,
    /// Slots of the closed loop.
    pub concurrency: Concurrency,
    /// Requests a measured pass.
    pub requests: RequestCount,
    /// When requests are sent.
    pub arrival: Arrival,
    /// The cell's seed; must not depend on the tier.
    pub seed: Seed,
    /// Token ids that are plain text in this model's vocabulary: no special ones.
    pub vocab: Range<u32>,
    /// Tokens of the tier's storage unit (LMCache's `chunk_size`).
    pub chunk_tokens: u32,
    /// The trace or dataset, for those kinds.
    pub file: Option<&'a WorkloadFile>,
}

/// Why a workload has no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The lengths leave no room for fresh tokens.
    #[error(
        "prompts of {prompt_len} tokens leave no document before a question of {question_len} \
         tokens: lower `question_len` or raise `prompt_len`"
    )]
    NoRoom {
        /// Prompt length.
        prompt_len: u32,
        /// Length that must fit into it, and one more.
        question_len: u32,
    },
    /// Too few token ids to tell questions apart.
    #[error("a vocabulary of {0} token ids is too small: at least 64 are needed")]
    SmallVocabulary(u32),
    /// The file's text was not given.
    #[error("the workload `{0}` needs its file")]
    NoFile(String),
    /// A line of the file cannot be read.
    #[error("line {line}: {why}")]
    BadLine {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The file has no entry.
    #[error("it holds no request")]
    EmptyFile,
    /// The file is one JSON list.
    #[error("it is a JSON list: write one JSON object a line")]
    JsonList,
    /// The file cannot be read as a table.
    #[error("{0}")]
    BadTable(String),
    /// Nothing gives the unit of its times.
    #[error("the unit of its times is not certain ({0}): write `time_unit = \"s\"` or \"ms\"")]
    UnknownUnit(&'static str),
    /// The plan and the file name different units.
    #[error("the plan says `time_unit = \"{plan}\"`, its column of times says \"{column}\"")]
    UnitContradicted {
        /// The plan's.
        plan: &'static str,
        /// The file's.
        column: &'static str,
    },
    /// Trace arrivals without a trace.
    #[error("`arrival = \"trace\"` needs a workload of kind `trace`")]
    NoTraceTimes,
    /// Ids where only text can go, or the other way round.
    #[error("this workload's prompts are text: they are built with the server's tokenizer")]
    NeedsTokenizer,
    /// The tokenizer could not be asked, or text of a length could not be found.
    #[error("no text of exactly {tokens} tokens: {why}")]
    Unfit {
        /// The length wanted.
        tokens: u32,
        /// What stood in the way.
        why: String,
    },
}

/// What a server makes of a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Tokenized {
    /// How many tokens.
    pub count: u32,
    /// Their ids; empty from a server that does not list them.
    #[serde(default)]
    pub tokens: Vec<u32>,
}

impl Workload<'_> {
    /// Whether its prompts are text that a tokenizer must verify ([`Self::build_text`]).
    pub fn needs_tokenizer(&self) -> bool {
        self.spec.prompt == PromptForm::Text
            && !matches!(self.spec.kind, WorkloadKind::Dataset { .. })
    }

    /// The requests of `pass`, where no tokenizer is needed.
    pub fn build(&self, pass: Pass) -> Result<Schedule, BuildError> {
        if self.needs_tokenizer() || self.chat_with_ids() {
            return Err(BuildError::NeedsTokenizer);
        }
        let drafts = self.drafts(pass)?;
        let requests = drafts
            .into_iter()
            .map(|draft| body::render_ids(self, &draft))
            .collect();
        Ok(Schedule::from_requests(requests, self.concurrency.get()))
    }

    /// The requests of `pass` as text of exact length. `tokenize` asks the server's `/tokenize`
    /// with the given JSON body. The prompts of a dataset are what they are; their tokens are noted
    /// where the server tokenizes.
    pub async fn build_text<C, F>(&self, pass: Pass, tokenize: C) -> Result<Schedule, BuildError>
    where
        C: Fn(Bytes) -> F,
        F: Future<Output = Result<Tokenized, String>>,
    {
        if !self.needs_tokenizer() {
            let mut schedule = self.build(pass)?;
            let is_dataset = matches!(self.spec.kind, WorkloadKind::Dataset { .. });
            if is_dataset && matches!(pass, Pass::State(_)) {
                dataset::note_tokens(self, pass, &mut schedule.requests, tokenize).await?;
            }
            return Ok(schedule);
        }
        let drafts = self.drafts(pass)?;
        let requests = text::render_text(self, drafts, tokenize).await?;
        Ok(Schedule::from_requests(requests, self.concurrency.get()))
    }

    fn chat_with_ids(&self) -> bool {
        self.spec.endpoint == EndpointKind::Chat
            && !matches!(self.spec.kind, WorkloadKind::Dataset { .. })
    }

    /// What a tier holds of a prompt is a multiple of this. The prompts of a file are given: where
    /// none fills a chunk, they share nothing that a tier could serve, and nothing is wrong.
    fn file_unit(&self, pass: Pass) -> Option<u32> {
        let from_tier = matches!(pass, Pass::State(CacheState::Tier | CacheState::Restart));
        (from_tier && self.file.is_some()).then(|| self.chunk_tokens.max(1))
    }

    fn drafts(&self, pass: Pass) -> Result<Vec<prompt::Draft>, BuildError> {
        let vocabulary = self.vocab.end.saturating_sub(self.vocab.start);
        if vocabulary < 64 {
            return Err(BuildError::SmallVocabulary(vocabulary));
        }
        let mut drafts = shapes::drafts(self, pass)?;
        prompt::note_repeats(&mut drafts);
        if let Some(unit) = self.file_unit(pass) {
            for draft in &mut drafts {
                draft.shared_tokens = draft.shared_tokens / unit * unit;
            }
        }
        if matches!(pass, Pass::State(_)) {
            arrivals::set_starts(&mut drafts, self.arrival, self.seed)?;
        }
        Ok(drafts)
    }
}
