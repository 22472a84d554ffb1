//! From a workload's kind to the requests of a pass.

use rand::seq::SliceRandom as _;

use super::prompt::{Draft, Segment};
use super::{BuildError, PASS_CODES, Pass, Start, Workload, canary, dataset, trace};
use crate::plan::state::CacheState;
use crate::plan::workload_spec::WorkloadKind;
use crate::units::{Seed, span_of_seconds};

/// Fresh tokens at the end of a prompt where the plan names no number.
pub(crate) const QUESTION_LEN: u32 = 32;

/// The requests of `pass`, each with [`Start::Slot`] unless it follows another.
pub(crate) fn drafts(workload: &Workload<'_>, pass: Pass) -> Result<Vec<Draft>, BuildError> {
    match (pass, &workload.spec.kind) {
        (Pass::Canary(count), _) => canary::drafts(workload, count, canary::Document::Own),
        (Pass::Altered(count), _) => canary::drafts(workload, count, canary::Document::Altered),
        (Pass::Warmup(count), WorkloadKind::Dataset { .. }) => dataset::warmup(workload, count),
        (Pass::Warmup(count), _) => Ok(warmup(workload, count)),
        (_, WorkloadKind::SharedPrefix { .. }) => shared_prefix(workload, pass),
        (_, WorkloadKind::EvictLoop { documents, .. }) => evict_loop(workload, pass, *documents),
        (_, WorkloadKind::Unique) => Ok(unique(workload, pass)),
        (_, WorkloadKind::MultiTurn { .. }) => multi_turn(workload, pass),
        (_, WorkloadKind::Trace { .. }) => trace::drafts(workload, pass),
        (_, WorkloadKind::Dataset { .. }) => dataset::drafts(workload, pass),
    }
}

/// The part of document `number` that every request on it begins with: independent of the pass.
pub(crate) fn document(workload: &Workload<'_>, number: u32) -> Result<Vec<Segment>, BuildError> {
    let prompt_len = workload.prompt_len.get();
    let WorkloadKind::MultiTurn {
        system_len,
        turn_len,
        ..
    } = workload.spec.kind
    else {
        let len = prompt_len - question_len(workload)?;
        return Ok(vec![Segment::new(
            stream(workload, "document", number),
            len,
        )]);
    };
    let fixed_len = system_len + turn_len;
    let context_len = prompt_len
        .checked_sub(fixed_len)
        .ok_or(BuildError::NoRoom {
            prompt_len,
            question_len: fixed_len,
        })?;
    let system = Segment::new(stream(workload, "system", 0), system_len);
    let context = Segment::new(stream(workload, "context", number), context_len);
    let mut segments = vec![system, context];
    segments.retain(|segment| segment.len > 0);
    Ok(segments)
}

/// The seed of a stream that all tiers, states and passes share.
fn stream(workload: &Workload<'_>, what: &str, number: u32) -> Seed {
    let (label, len) = (workload.label, workload.prompt_len);
    workload
        .seed
        .derive(&format!("{what}/{label}/{len}/{number}"))
}

/// Fresh tokens at the end of a prompt where the plan names no number.
pub(crate) fn default_question_len(prompt_len: u32) -> u32 {
    QUESTION_LEN.min((prompt_len / 2).max(1)).min(prompt_len)
}

/// Fresh tokens: the plan's number, or a default that a short prompt can hold.
pub(crate) fn question_len(workload: &Workload<'_>) -> Result<u32, BuildError> {
    let prompt_len = workload.prompt_len.get();
    let planned = match workload.spec.kind {
        WorkloadKind::SharedPrefix { question_len, .. }
        | WorkloadKind::EvictLoop { question_len, .. } => question_len,
        _ => None,
    };
    match planned {
        Some(question_len) if question_len >= prompt_len => Err(BuildError::NoRoom {
            prompt_len,
            question_len,
        }),
        Some(question_len) => Ok(question_len),
        None => Ok(default_question_len(prompt_len)),
    }
}

/// Fresh tokens for request `request` of `pass`, the `nth` on its document.
///
/// Their first token differs between all questions on one document as long as the vocabulary
/// allows, so that not even one token behind the document can come from a cache.
pub(crate) fn question(
    workload: &Workload<'_>,
    pass: Pass,
    (request, nth): (u32, u32),
    len: u32,
) -> Segment {
    let name = format!("question/{}", pass.name());
    Segment {
        seed: stream(workload, &name, request),
        len,
        first: Some(pass.code().wrapping_add(nth.wrapping_mul(PASS_CODES))),
    }
}

/// Visits of documents in the order of `visits`, each with a fresh question.
fn visit(
    workload: &Workload<'_>,
    pass: Pass,
    visits: &[(u32, u32)],
) -> Result<Vec<Draft>, BuildError> {
    let len = question_len(workload)?;
    let gen_len = if pass == Pass::Fill {
        1
    } else {
        workload.gen_len.get()
    };
    let mut drafts = Vec::with_capacity(visits.len());
    for (request, (number, nth)) in (0..).zip(visits) {
        let mut segments = document(workload, *number)?;
        segments.push(question(workload, pass, (request, *nth), len));
        drafts.push(Draft::of_segments(segments, gen_len, *number));
    }
    Ok(drafts)
}

/// The number of documents.
pub(crate) fn documents(workload: &Workload<'_>) -> u32 {
    let requests = workload.requests.get();
    match workload.spec.kind {
        WorkloadKind::SharedPrefix {
            documents: Some(documents),
            ..
        }
        | WorkloadKind::EvictLoop { documents, .. } => documents,
        WorkloadKind::SharedPrefix {
            questions_per_document: Some(questions),
            ..
        } => requests.div_ceil(questions),
        WorkloadKind::MultiTurn { turns, .. } => requests.div_ceil(turns),
        _ => requests,
    }
}

fn shared_prefix(workload: &Workload<'_>, pass: Pass) -> Result<Vec<Draft>, BuildError> {
    let documents = documents(workload);
    let visits: Vec<(u32, u32)> = match pass {
        // Every document once: a second visit would not be cold.
        Pass::State(CacheState::Cold) | Pass::Fill => (0..documents).map(|d| (d, 0)).collect(),
        _ => {
            let mut visits: Vec<_> = (0..workload.requests.get())
                .map(|r| (r % documents, r / documents))
                .collect();
            let order = stream(workload, &format!("order/{}", pass.name()), 0);
            visits.shuffle(&mut order.rng());
            visits
        }
    };
    visit(workload, pass, &visits)
}

fn evict_loop(
    workload: &Workload<'_>,
    pass: Pass,
    documents: u32,
) -> Result<Vec<Draft>, BuildError> {
    let requests = match pass {
        Pass::State(CacheState::Cold) | Pass::Fill => documents,
        _ => workload.requests.get(),
    };
    // In a circle and never shuffled: the order that the least recently used is always next in.
    let visits: Vec<_> = (0..requests)
        .map(|r| (r % documents, r / documents))
        .collect();
    visit(workload, pass, &visits)
}

fn unique(workload: &Workload<'_>, pass: Pass) -> Vec<Draft> {
    // Nothing of it will be asked again, so there is nothing to fill a tier with.
    let requests = if pass == Pass::Fill {
        0
    } else {
        workload.requests.get()
    };
    let name = format!("unique/{}", pass.name());
    let whole = |request| {
        let mut segment = Segment::new(stream(workload, &name, request), workload.prompt_len.get());
        segment.first = Some(pass.code().wrapping_add(request.wrapping_mul(PASS_CODES)));
        Draft::of_segments(vec![segment], workload.gen_len.get(), request)
    };
    (0..requests).map(whole).collect()
}

fn warmup(workload: &Workload<'_>, count: u32) -> Vec<Draft> {
    (0..count)
        .map(|request| {
            let seed = stream(workload, "warmup", request);
            let segment = Segment::new(seed, workload.prompt_len.get());
            Draft::of_segments(vec![segment], workload.gen_len.get(), request)
        })
        .collect()
}

/// Sessions one after another in planned order; they run beside each other, one a slot.
///
/// A turn's prompt holds the earlier answers, and bodies must exist before the clock starts. So
/// each earlier answer is replaced by seeded tokens of the same length: the cache sees the same
/// growth, and the one difference is that the answer's own KV, computed while decoding, is never
/// reused. A server that caches decoded tokens would gain more than is measured here.
fn multi_turn(workload: &Workload<'_>, pass: Pass) -> Result<Vec<Draft>, BuildError> {
    let WorkloadKind::MultiTurn {
        turns,
        turn_len,
        think_s,
        ..
    } = workload.spec.kind
    else {
        return Ok(Vec::new());
    };
    let gen_len = workload.gen_len.get();
    let mut drafts: Vec<Draft> = Vec::new();
    let requests = workload.requests.get();
    for session in 0..documents(workload) {
        let mut segments = document(workload, session)?;
        let turns = match pass {
            Pass::Fill => 1,
            _ => turns.min(requests - session * turns),
        };
        let mut think = stream(workload, &format!("think/{}", pass.name()), session).rng();
        for turn in 0..turns {
            let index = u32::try_from(drafts.len()).unwrap_or(u32::MAX);
            let user = question(workload, pass, (index, turn), turn_len);
            segments.push(user);
            let gen_len = if pass == Pass::Fill { 1 } else { gen_len };
            let mut draft = Draft::of_segments(segments.clone(), gen_len, session);
            if turn > 0 {
                // Inverse transform of an exponential; `1 - u` is never zero.
                let unit: f64 = rand::RngExt::random(&mut think);
                let pause = span_of_seconds(-think_s * (1.0 - unit).ln());
                draft.start = Start::After {
                    request: index - 1,
                    think: pause,
                };
            }
            drafts.push(draft);
            let answer = stream(workload, &format!("answer/{}", pass.name()), index);
            segments.push(Segment::new(answer, workload.gen_len.get()));
        }
    }
    Ok(drafts)
}
