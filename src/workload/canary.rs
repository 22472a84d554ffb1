//! Questions whose answers must be equal in every state, and the same questions behind a document
//! that was altered, whose answers must not.

use std::ops::Range;

use super::prompt::{Draft, Segment};
use super::shapes::{document, documents, question, question_len};
use super::{BuildError, Keep, Pass, Workload};

/// Tokens that a canary's answer has: enough to differ when the KV behind it is wrong.
const ANSWER_LEN: u32 = 24;

/// Steps of the ladder below the cell's own length. Each halves the document, so all of them
/// together cost less than one more canary of full length.
const MAX_RUNGS: u32 = 4;

/// Which document a canary stands behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    /// Its own.
    Own,
    /// Its own, of which one chunk differs.
    Altered,
}

/// A fixed question on each of `count` documents of the cell's length, then one on each shorter
/// document of the ladder, of which the longest is the first half of the first document.
pub(crate) fn drafts(
    workload: &Workload<'_>,
    count: u32,
    which: Document,
) -> Result<Vec<Draft>, BuildError> {
    let chunk = workload.chunk_tokens.max(2);
    let full = count.min(documents(workload));
    let mut drafts = Vec::new();
    for number in 0..full {
        drafts.push(draft(workload, number, number, None)?);
    }
    let whole_chunks = drafts
        .first()
        .map_or(0, |draft| draft.shared_tokens / chunk);
    for (number, chunks) in (full..).zip(rungs(whole_chunks)) {
        let of_document = if number == full { 0 } else { number };
        drafts.push(draft(workload, number, of_document, Some(chunks * chunk))?);
    }
    if which == Document::Altered {
        for (turn, draft) in drafts.iter_mut().enumerate() {
            draft.altered = Some(altered(turn, draft.shared_tokens, chunk));
        }
    }
    Ok(drafts)
}

/// Documents of the ladder, in chunks, below one of `chunks`.
fn rungs(chunks: u32) -> impl Iterator<Item = u32> {
    (1..=MAX_RUNGS)
        .map(move |step| chunks >> step)
        .take_while(|chunks| *chunks > 0)
}

/// The tokens that differ in the altered document of the canary whose `turn` it is: a chunk at the
/// beginning, in the middle or at the end. From the fourth on it is the end, which costs least: all
/// before it is cached.
fn altered(turn: usize, document_len: u32, chunk: u32) -> Range<u32> {
    let whole_chunks = document_len / chunk;
    let index = match turn {
        0 => 0,
        1 => whole_chunks / 2,
        _ => whole_chunks.saturating_sub(1),
    };
    let start = (index * chunk).min(document_len);
    start..(start + chunk).min(document_len)
}

/// Question `number` on a document, or on its first `len` tokens.
fn draft(
    workload: &Workload<'_>,
    number: u32,
    of_document: u32,
    len: Option<u32>,
) -> Result<Draft, BuildError> {
    let chunk = workload.chunk_tokens.max(2);
    // Half a chunk at most: it must fit behind a chunk's edge.
    let question_len = question_len(workload)?.min(chunk / 2);
    let mut segments = document(workload, of_document)?;
    let document_len: u32 = segments.iter().map(|segment| segment.len).sum();
    let document_len = len.map_or(document_len, |len| len.min(document_len));
    truncate(
        &mut segments,
        document_part(document_len, question_len, chunk),
    );
    let pass = Pass::Canary(0);
    segments.push(question(workload, pass, (number, 0), question_len));
    let mut draft = Draft::of_segments(segments, ANSWER_LEN, number);
    draft.keep = Keep::Scores;
    Ok(draft)
}

/// How much of a document of `document_len` tokens a canary is asked about.
///
/// A canary is the only prompt that is sent twice, so the tier may have all of its whole chunks
/// from the time before. Were its length a multiple of the chunk, the whole prompt would be cached,
/// and a server that then has one token left to compute may answer without loading anything: the
/// false hit that canaries are there to find would be the canary's own fault. So the question must
/// lie behind the last chunk's edge, whole: the prompt's length modulo the chunk is at least the
/// question's length, and no chunk ever holds a token of it. Where the document's end does not
/// allow that, its part behind the last edge is left out.
fn document_part(document_len: u32, question_len: u32, chunk: u32) -> u32 {
    let behind_edge = document_len % chunk;
    if behind_edge + question_len < chunk {
        return document_len;
    }
    match document_len - behind_edge {
        // Shorter than a chunk: no tier holds any of it; stay below the edge.
        0 => chunk - 1 - question_len,
        whole_chunks => whole_chunks,
    }
}

/// Keeps the first `len` tokens.
fn truncate(segments: &mut Vec<Segment>, mut len: u32) {
    for segment in segments.iter_mut() {
        segment.len = segment.len.min(len);
        len -= segment.len;
    }
    segments.retain(|segment| segment.len > 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_chunk_ever_holds_a_token_of_the_question() {
        for chunk in [16, 256] {
            for question_len in [1, 7, 8] {
                for document_len in 1..1200 {
                    let part = document_part(document_len, question_len, chunk);
                    let total = part + question_len;
                    assert!(part <= document_len);
                    assert!(
                        total % chunk >= question_len,
                        "{document_len} {question_len} {chunk}"
                    );
                    assert!(
                        document_len - part < chunk,
                        "at most the part behind the last edge"
                    );
                }
            }
        }
    }

    #[test]
    fn the_ladder_goes_down_by_halves_and_ends() {
        let of = |chunks| rungs(chunks).collect::<Vec<_>>();
        assert_eq!(of(128), [64, 32, 16, 8]);
        assert_eq!(of(5), [2, 1]);
        assert_eq!((of(1), of(0)), (vec![], vec![]));
    }

    #[test]
    fn the_altered_chunk_is_early_then_in_the_middle_then_late() {
        let of = |turn| altered(turn, 2100, 256);
        assert_eq!(
            [of(0), of(1), of(2), of(3)],
            [0..256, 1024..1280, 1792..2048, 1792..2048]
        );
    }

    proptest! {
        #[test]
        fn an_altered_chunk_lies_in_its_document(
            turn in 0_usize..9, document_len in 1_u32..100_000, chunk in 2_u32..4096,
        ) {
            let range = altered(turn, document_len, chunk);
            prop_assert!(range.start < range.end && range.end <= document_len, "{range:?}");
        }

        #[test]
        fn the_ladder_costs_less_than_one_document(chunks in 0_u32..1_000_000) {
            prop_assert!(rungs(chunks).sum::<u32>() <= chunks);
        }
    }
}
