//! What tests of this and of the load client share, and the tests of whole schedules.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::{BuildError, Keep, Pass, PlannedRequest, Schedule, Start, Workload, WorkloadFile};
use crate::plan::load_spec::Arrival;
use crate::plan::state::CacheState;
use crate::plan::workload_spec::{EndpointKind, PromptForm, WorkloadKind, WorkloadSpec};
use crate::units::{Concurrency, GenLen, PromptLen, RequestCount, Seed};

/// A schedule of small requests with these starts.
pub(crate) fn schedule(slots: u32, starts: impl IntoIterator<Item = Start>) -> Schedule {
    let request = |start| PlannedRequest {
        path: "/v1/completions",
        body: Bytes::from_static(b"{}"),
        prompt_tokens: Some(1),
        shared_tokens: 0,
        repeated_tokens: 0,
        gen_len: 4,
        start,
        keep: Keep::Hash,
        document: 0,
        is_canary: false,
    };
    Schedule::from_requests(starts.into_iter().map(request).collect(), slots)
}

/// A workload that owns its parts: 600 tokens in, 10 out, 6 requests, 2 slots.
pub(crate) struct Fixture {
    pub(crate) spec: WorkloadSpec,
    pub(crate) prompt_len: u32,
    pub(crate) arrival: Arrival,
    pub(crate) vocab: Range<u32>,
    pub(crate) file: Option<WorkloadFile>,
}

impl Fixture {
    pub(crate) fn new(kind: WorkloadKind) -> Self {
        Self {
            spec: WorkloadSpec {
                kind,
                endpoint: EndpointKind::Completions,
                prompt: PromptForm::TokenIds,
            },
            prompt_len: 600,
            arrival: Arrival::Closed,
            vocab: 1000..30_000,
            file: None,
        }
    }

    /// Gives it the file that its kind names.
    pub(crate) fn read(&mut self, text: &str) {
        self.file = Some(WorkloadFile::parse(text, &self.spec, self.arrival).unwrap());
    }

    pub(crate) fn workload(&self) -> Workload<'_> {
        Workload {
            spec: &self.spec,
            label: "label",
            model: "model",
            prompt_len: PromptLen::new(self.prompt_len).unwrap(),
            gen_len: GenLen::new(10).unwrap(),
            concurrency: Concurrency::new(2).unwrap(),
            requests: RequestCount::new(6).unwrap(),
            arrival: self.arrival,
            seed: Seed(42),
            vocab: self.vocab.clone(),
            chunk_tokens: 256,
            file: self.file.as_ref(),
        }
    }

    pub(crate) fn build(&self, pass: Pass) -> Result<Schedule, BuildError> {
        self.workload().build(pass)
    }

    fn prompts(&self, pass: Pass) -> Vec<Vec<u32>> {
        self.build(pass).unwrap().requests.iter().map(ids).collect()
    }
}

pub(crate) fn shared_prefix(documents: Option<u32>, question_len: Option<u32>) -> WorkloadKind {
    WorkloadKind::SharedPrefix {
        documents,
        questions_per_document: None,
        question_len,
    }
}

/// The token ids of a request's prompt.
pub(crate) fn ids(request: &PlannedRequest) -> Vec<u32> {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    body["prompt"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect()
}

const STATES: [Pass; 4] = [
    Pass::State(CacheState::Cold),
    Pass::State(CacheState::Gpu),
    Pass::State(CacheState::Tier),
    Pass::State(CacheState::Restart),
];

#[test]
fn bodies_ask_for_exact_greedy_streams_with_usage() {
    let fixture = Fixture::new(shared_prefix(None, None));
    let schedule = fixture.build(STATES[0]).unwrap();
    let request = &schedule.requests[0];
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["model"], "model");
    assert_eq!(body["max_tokens"], 10);
    assert_eq!(
        (&body["temperature"], &body["ignore_eos"]),
        (&Value::from(0), &Value::from(true))
    );
    assert_eq!(body["stream"], true);
    assert_eq!(body["stream_options"]["include_usage"], true);
    assert!(body["seed"].is_u64() && body.get("return_token_ids").is_none());
    assert_eq!(request.path, "/v1/completions");
    assert_eq!(
        (request.prompt_tokens, request.shared_tokens),
        (Some(600), 568)
    );
    let prompt = ids(request);
    assert_eq!(prompt.len(), 600);
    assert!(prompt.iter().all(|id| (1000..30_000).contains(id)));
}

#[test]
fn documents_are_the_same_in_every_state_and_no_question_ever_repeats() {
    let fixture = Fixture::new(shared_prefix(Some(2), Some(32)));
    let mut documents = HashSet::new();
    let mut questions = HashSet::new();
    let mut firsts = HashSet::new();
    let mut sent = 0;
    for pass in STATES.into_iter().chain([Pass::Fill, Pass::Canary(2)]) {
        // The ladder's documents are its own.
        let whole = fixture
            .prompts(pass)
            .into_iter()
            .filter(|prompt| prompt.len() == 600);
        for prompt in whole {
            documents.insert(prompt[..512].to_vec());
            let question = prompt[prompt.len() - 32..].to_vec();
            firsts.insert((prompt[..512].to_vec(), question[0]));
            questions.insert(question);
            sent += 1;
        }
    }
    assert_eq!(documents.len(), 2);
    assert_eq!(questions.len(), sent, "every question is fresh");
    assert_eq!(firsts.len(), sent, "from its first token on");
}

#[test]
fn cold_asks_each_document_once_and_the_others_ask_the_planned_number() {
    let fixture = Fixture::new(shared_prefix(Some(2), None));
    let counts: Vec<usize> = STATES.map(|pass| fixture.prompts(pass).len()).to_vec();
    assert_eq!(counts, [2, 6, 6, 6]);
    let order = |pass| -> Vec<u32> {
        fixture
            .build(pass)
            .unwrap()
            .requests
            .iter()
            .map(|request| request.document)
            .collect()
    };
    let mut tier = order(STATES[2]);
    assert_ne!(tier, [0, 1, 0, 1, 0, 1], "shuffled");
    tier.sort_unstable();
    assert_eq!(tier, [0, 0, 0, 1, 1, 1]);
    assert_eq!(
        Fixture::new(shared_prefix(None, None))
            .prompts(STATES[0])
            .len(),
        6
    );
    let divided = WorkloadKind::SharedPrefix {
        documents: None,
        questions_per_document: Some(4),
        question_len: None,
    };
    assert_eq!(Fixture::new(divided).prompts(STATES[0]).len(), 2);
}

#[test]
fn the_same_inputs_give_the_same_bytes_and_another_seed_others() {
    let fixture = Fixture::new(shared_prefix(None, None));
    let corpus = |pass| fixture.build(pass).unwrap().corpus;
    assert_eq!(corpus(STATES[2]), corpus(STATES[2]));
    assert_ne!(corpus(STATES[2]), corpus(STATES[1]));
    let mut other = fixture.workload();
    other.seed = Seed(43);
    assert_ne!(other.build(STATES[2]).unwrap().corpus, corpus(STATES[2]));
}

#[test]
fn lengths_without_room_are_refused_and_short_prompts_have_short_questions() {
    let mut fixture = Fixture::new(shared_prefix(None, Some(32)));
    fixture.prompt_len = 32;
    let no_room = BuildError::NoRoom {
        prompt_len: 32,
        question_len: 32,
    };
    assert_eq!(fixture.build(STATES[0]).unwrap_err(), no_room);
    fixture.spec.kind = shared_prefix(None, None);
    assert_eq!(
        fixture.build(STATES[0]).unwrap().requests[0].shared_tokens,
        16
    );
    fixture.vocab = 0..10;
    assert_eq!(
        fixture.build(STATES[0]).unwrap_err(),
        BuildError::SmallVocabulary(10)
    );
}

#[test]
fn unique_prompts_share_nothing() {
    let fixture = Fixture::new(WorkloadKind::Unique);
    let prompts: Vec<_> = STATES
        .into_iter()
        .flat_map(|pass| fixture.prompts(pass))
        .collect();
    let firsts: HashSet<u32> = prompts.iter().map(|prompt| prompt[0]).collect();
    assert_eq!(firsts.len(), prompts.len());
    assert!(fixture.prompts(Pass::Fill).is_empty());
}

#[test]
fn an_evict_loop_goes_in_a_circle() {
    let fixture = Fixture::new(WorkloadKind::EvictLoop {
        documents: 4,
        question_len: None,
    });
    let order = |pass| -> Vec<u32> {
        fixture
            .build(pass)
            .unwrap()
            .requests
            .iter()
            .map(|request| request.document)
            .collect()
    };
    assert_eq!(order(STATES[0]), [0, 1, 2, 3]);
    assert_eq!(order(STATES[2]), [0, 1, 2, 3, 0, 1]);
}

#[test]
fn turns_grow_by_answer_and_question_and_wait_for_the_turn_before() {
    let kind = WorkloadKind::MultiTurn {
        turns: 3,
        system_len: 200,
        turn_len: 50,
        think_s: 2.0,
    };
    let fixture = Fixture::new(kind);
    let schedule = fixture.build(STATES[0]).unwrap();
    let lengths: Vec<_> = schedule
        .requests
        .iter()
        .map(|r| r.prompt_tokens.unwrap())
        .collect();
    assert_eq!(lengths, [600, 660, 720, 600, 660, 720]);
    let prompts: Vec<_> = schedule.requests.iter().map(ids).collect();
    assert_eq!(
        prompts[1][..600],
        prompts[0][..],
        "a turn begins with the turn before"
    );
    assert_eq!(
        prompts[0][..200],
        prompts[3][..200],
        "sessions share the system prompt"
    );
    assert_ne!(prompts[0][200..], prompts[3][200..]);
    assert_eq!(schedule.requests[2].shared_tokens, 670);
    assert!(matches!(schedule.requests[3].start, Start::Slot));
    let Start::After { request: 1, think } = schedule.requests[2].start else {
        panic!("{:?}", schedule.requests[2].start)
    };
    assert!(think > Duration::ZERO);
    let tier = fixture.prompts(STATES[2]);
    assert_eq!(
        tier[0][..550],
        prompts[0][..550],
        "the same context in every state"
    );
    assert_ne!(tier[0][550..], prompts[0][550..], "and other questions");
    assert_eq!(fixture.prompts(Pass::Fill).len(), 2);
}

#[test]
fn warmups_have_the_shape_and_other_text() {
    let fixture = Fixture::new(shared_prefix(None, None));
    let schedule = fixture.build(Pass::Warmup(3)).unwrap();
    assert_eq!(schedule.requests.len(), 3);
    assert_eq!(
        (
            schedule.requests[0].prompt_tokens,
            schedule.requests[0].gen_len
        ),
        (Some(600), 10)
    );
    let cold = fixture.prompts(STATES[0]);
    assert!(
        schedule
            .requests
            .iter()
            .all(|r| cold.iter().all(|c| c[..16] != ids(r)[..16]))
    );
}

#[test]
fn canaries_are_the_same_each_time_on_the_cells_own_documents() {
    let fixture = Fixture::new(shared_prefix(Some(3), None));
    let schedule = fixture.build(Pass::Canary(2)).unwrap();
    let cold = fixture.build(STATES[0]).unwrap();
    assert_eq!(
        schedule.corpus,
        fixture.build(Pass::Canary(2)).unwrap().corpus
    );
    assert_eq!(schedule.requests.len(), 2 + 1, "and one of half the chunks");
    for (canary, first) in schedule.requests.iter().zip(&cold.requests[..2]) {
        assert_eq!(ids(canary)[..512], ids(first)[..512]);
        assert_eq!(canary.keep, Keep::Scores);
        let body: Value = serde_json::from_slice(&canary.body).unwrap();
        assert_eq!(body["return_token_ids"], true);
        assert_eq!(body["logprobs"], 5);
    }
}

#[test]
fn the_longest_of_the_ladder_is_the_first_half_of_a_document_and_asks_something_else() {
    let mut fixture = Fixture::new(shared_prefix(Some(3), None));
    fixture.prompt_len = 2100;
    let own = fixture.prompts(Pass::Canary(3));
    let of_first: Vec<bool> = own.iter().map(|it| it[..256] == own[0][..256]).collect();
    assert_eq!(of_first, [true, false, false, true, false, false]);
    assert_eq!(own[0][..1024], own[3][..1024], "four of eight chunks");
    let question = |prompt: &Vec<u32>| prompt[prompt.len() - 32..].to_vec();
    assert_ne!(question(&own[0]), question(&own[3]));
    assert_ne!(own[0][1024], own[3][1024], "from its first token on");
    for pass in [Pass::Canary(3), Pass::Altered(3)] {
        let asked = fixture.build(pass).unwrap().shorter_first();
        let lengths: Vec<_> = asked.requests.iter().map(|it| ids(it).len()).collect();
        assert_eq!(lengths, [288, 544, 1056, 2100, 2100, 2100]);
        assert_eq!(asked.slots, fixture.build(pass).unwrap().slots);
    }
}

#[test]
fn altered_documents_differ_in_one_chunk_and_have_the_same_question() {
    let mut fixture = Fixture::new(shared_prefix(Some(3), None));
    fixture.prompt_len = 2100;
    let own = fixture.prompts(Pass::Canary(3));
    let altered = fixture.prompts(Pass::Altered(3));
    assert_eq!(
        own.len(),
        3 + 3,
        "a ladder of 4, 2 and 1 of 8 chunks below three of full length"
    );
    let lengths: Vec<_> = own.iter().map(Vec::len).collect();
    assert_eq!(lengths, [2100, 2100, 2100, 1056, 544, 288]);
    let places = own.iter().zip(&altered).map(|(own, altered)| {
        assert_eq!(own.len(), altered.len());
        let differing: Vec<_> = (0..own.len())
            .filter(|at| own[*at] != altered[*at])
            .collect();
        assert_eq!(differing.len(), 256, "one chunk, every token of it");
        differing[0]
    });
    assert_eq!(places.collect::<Vec<_>>(), [0, 1024, 1792, 768, 256, 0]);
    let vocabulary = fixture.vocab.clone();
    assert!(altered.iter().flatten().all(|id| vocabulary.contains(id)));
}

#[test]
fn canaries_within_a_load_are_spread_and_everything_else_stays_in_order() {
    let fixture = Fixture::new(shared_prefix(Some(2), None));
    let load = fixture.build(STATES[2]).unwrap();
    let canaries = fixture.build(Pass::Canary(2)).unwrap().requests;
    let with = load.with_canaries(&canaries[..2]);
    let places = (0..8).filter(|at| with.requests[*at].is_canary);
    assert_eq!(places.collect::<Vec<_>>(), [2, 5]);
    let bodies = |requests: &[PlannedRequest], canary: bool| -> Vec<Bytes> {
        let of = requests.iter().filter(|one| one.is_canary == canary);
        of.map(|one| one.body.clone()).collect()
    };
    assert_eq!(bodies(&with.requests, false), bodies(&load.requests, false));
    assert_eq!(bodies(&with.requests, true), bodies(&canaries[..2], false));
    assert_eq!(load.with_canaries(&[]).corpus, load.corpus);
}

#[test]
fn a_canary_in_an_open_loop_is_sent_with_its_neighbour_and_turns_have_none() {
    let mut fixture = Fixture::new(shared_prefix(None, None));
    fixture.arrival = Arrival::Constant { rate_rps: 2.0 };
    let canaries = fixture.build(Pass::Canary(1)).unwrap().requests;
    let with = fixture
        .build(STATES[1])
        .unwrap()
        .with_canaries(&canaries[..1]);
    assert!(with.requests[3].is_canary);
    assert_eq!(with.requests[3].start, with.requests[4].start);
    let turns = WorkloadKind::MultiTurn {
        turns: 3,
        system_len: 200,
        turn_len: 50,
        think_s: 2.0,
    };
    let load = Fixture::new(turns).build(STATES[1]).unwrap();
    assert_eq!(load.with_canaries(&canaries).corpus, load.corpus);
}

#[test]
fn a_request_without_scores_asks_for_the_same_otherwise() {
    let fixture = Fixture::new(shared_prefix(Some(1), None));
    let with = fixture.build(Pass::Canary(1)).unwrap();
    let without = with.without_scores();
    let read = |schedule: &Schedule| -> Value {
        serde_json::from_slice(&schedule.requests[0].body).unwrap()
    };
    let mut expected = read(&with);
    for member in ["logprobs", "return_tokens_as_token_ids"] {
        expected.as_object_mut().unwrap().remove(member).unwrap();
    }
    assert_eq!(read(&without), expected);
    assert_eq!(without.requests[0].keep, Keep::Text);
    let measured = fixture.build(STATES[0]).unwrap();
    assert_eq!(measured.without_scores().corpus, measured.corpus);
}

#[test]
fn open_loops_have_instants_and_traces_need_a_trace() {
    let mut fixture = Fixture::new(shared_prefix(None, None));
    fixture.arrival = Arrival::Constant { rate_rps: 2.0 };
    let schedule = fixture.build(STATES[1]).unwrap();
    assert_eq!(
        schedule.requests[3].start,
        Start::At(Duration::from_millis(1500))
    );
    assert_eq!(
        fixture.build(Pass::Warmup(1)).unwrap().requests[0].start,
        Start::Slot
    );
    fixture.arrival = Arrival::Trace;
    assert_eq!(
        fixture.build(STATES[1]).unwrap_err(),
        BuildError::NoTraceTimes
    );
}
