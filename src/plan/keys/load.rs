//! Keys of workloads and of loads.

use super::Default::{Else, Required, Value};
use super::Type::{Count, OneOf, Text, Within};
use super::{Key, Section, Type, key};

const COUNT: Type = Count(1, 4_294_967_295);
const TOKENS: Type = Count(1, 10_000_000);
const SECONDS: Type = Type::Positive;
const RATE: Type = Within(1e-6, 1e9);

const SHARED_PREFIX: &str = "kind = \"shared-prefix\"";
const MULTI_TURN: &str = "kind = \"multi-turn\"";
const EVICT_LOOP: &str = "kind = \"evict-loop\"";
const TRACE: &str = "kind = \"trace\"";
const DATASET: &str = "kind = \"dataset\"";

const fn question_len(only: &'static str) -> Key {
    key(
        "question_len",
        COUNT,
        "tokens",
        Else("32, or half of a shorter prompt"),
        "Fresh tokens at the end of each prompt, which no cache can hold.",
        "64",
    )
    .only(only)
}

/// `[workload.<label>]`.
pub(super) const WORKLOAD: Section = Section {
    id: "workload",
    head: "[workload.rag]",
    about: "What the prompts of a workload are made of. Several may stand in one plan; the axis `workload` \
            names them.",
    only: "",
    keys: &[
        key(
            "kind",
            OneOf(&["shared-prefix", "multi-turn", "unique", "evict-loop", "trace", "dataset"]),
            "",
            Value("\"shared-prefix\""),
            "Documents with fresh questions, sessions that grow turn by turn, prompts that share nothing, \
             documents in a circle (a cache that is too small always misses), a trace, or prompts from a file.",
            "\"shared-prefix\"",
        ),
        key(
            "endpoint",
            OneOf(&["completions", "chat"]),
            "",
            Value("\"completions\""),
            "Which OpenAI route requests use: /v1/completions or /v1/chat/completions.",
            "\"chat\"",
        ),
        key(
            "prompt",
            OneOf(&["token-ids", "text"]),
            "",
            Else("\"token-ids\"; \"text\" over chat and for a dataset"),
            "Whether prompts are sent as token ids, exact by construction, or as text whose length is verified \
             through /tokenize.",
            "\"text\"",
        ),
        key(
            "documents",
            COUNT,
            "documents",
            Else("one a request"),
            "Number of long documents that questions are asked about.",
            "8",
        )
        .only(SHARED_PREFIX),
        key(
            "questions_per_document",
            COUNT,
            "questions",
            Else("as many as `requests` and `documents` give"),
            "Questions asked about each document.",
            "3",
        )
        .only(SHARED_PREFIX),
        question_len(SHARED_PREFIX),
        key("turns", COUNT, "turns", Value("4"), "Turns of each session.", "8").only(MULTI_TURN),
        key(
            "system_len",
            Count(0, 10_000_000),
            "tokens",
            Value("0"),
            "System prompt and tools that all sessions share.",
            "1500",
        )
        .only(MULTI_TURN),
        key("turn_len", TOKENS, "tokens", Value("64"), "Fresh tokens that the user adds each turn.", "200")
            .only(MULTI_TURN),
        key(
            "think_s",
            Within(0.0, 1e9),
            "seconds",
            Value("0.0"),
            "Mean pause of a session between an answer and its next turn; the pauses are exponential.",
            "2.5",
        )
        .only(MULTI_TURN),
        key("documents", COUNT, "documents", Required, "Number of documents in the circle: the working set.", "40")
            .only(EVICT_LOOP),
        question_len(EVICT_LOOP),
        key(
            "path",
            Text,
            "",
            Required,
            "The trace, from the plan's folder: JSON lines of Mooncake or Bailian (`timestamp`, `input_length`, \
             `output_length`, `hash_ids`), or CSV (`timestamp_ms,input_length,output_length[,session]`).",
            "\"trace.jsonl\"",
        )
        .only(TRACE),
        key(
            "block_len",
            COUNT,
            "tokens",
            Else("512, where every line fits it"),
            "Tokens that one hash id of the trace stands for.",
            "16",
        )
        .only(TRACE),
        key(
            "time_unit",
            OneOf(&["s", "ms"]),
            "",
            Else("as the file says, if it leaves no doubt"),
            "The unit of the trace's times.",
            "\"ms\"",
        )
        .only(TRACE),
        key("speed", RATE, "times", Value("1.0"), "How much faster than recorded the trace is replayed.", "2").only(TRACE),
        key(
            "path",
            Text,
            "",
            Required,
            "The prompts, from the plan's folder: JSON lines of `{\"prompt\": ...}` or `{\"messages\": ...}`, with \
             `output_tokens` where that is not `gen_len`.",
            "\"prompts.jsonl\"",
        )
        .only(DATASET),
    ],
};

const CONSTANT: &str = "arrival = \"constant\"";
const POISSON: &str = "arrival = \"poisson\"";
const GAMMA: &str = "arrival = \"gamma\"";
const RAMP: &str = "arrival = \"ramp\"";

const fn rate_rps(only: &'static str) -> Key {
    key(
        "rate_rps",
        RATE,
        "requests per second",
        Required,
        "Mean rate of requests.",
        "4",
    )
    .only(only)
}

/// `[load]`.
pub(super) const LOAD: Section = Section {
    id: "load",
    head: "[load]",
    about: "When requests are sent, how long each may take, and when the load ends.",
    only: "",
    keys: &[
        key(
            "arrival",
            OneOf(&["closed", "constant", "poisson", "gamma", "ramp", "trace"]),
            "",
            Value("\"closed\""),
            "A closed loop sends when one of `concurrency` places is free. Open loops send by the clock: at equal \
             distances, memoryless, in bursts, at a rate that changes, or at the times of the workload's trace.",
            "\"closed\"",
        ),
        rate_rps(CONSTANT),
        rate_rps(POISSON),
        rate_rps(GAMMA),
        key(
            "burstiness",
            RATE,
            "",
            Required,
            "Shape of the distances between requests: 1 is Poisson, less comes in bursts, more is steadier.",
            "0.5",
        )
        .only(GAMMA),
        key("from_rps", RATE, "requests per second", Required, "Rate at the start.", "1").only(RAMP),
        key("to_rps", RATE, "requests per second", Required, "Rate at the end.", "10").only(RAMP),
        key("over_s", SECONDS, "seconds", Required, "How long the change takes.", "60").only(RAMP),
        key(
            "for_s",
            SECONDS,
            "seconds",
            Else("until every request was sent"),
            "After this no more requests are sent.",
            "120",
        ),
        key("connect_timeout_s", SECONDS, "seconds", Value("10.0"), "Limit for setting up a connection.", "5"),
        key(
            "first_token_timeout_s",
            SECONDS,
            "seconds",
            Value("600.0"),
            "Limit from the write of a request to its first token.",
            "60",
        ),
        key(
            "total_timeout_s",
            SECONDS,
            "seconds",
            Value("1800.0"),
            "Limit from the write of a request to the end of its answer.",
            "300",
        ),
        key(
            "drain_s",
            Within(0.0, 1e9),
            "seconds",
            Value("30.0"),
            "How long requests in flight may still take once the load was ended early.",
            "10",
        ),
    ],
};
