//! Questions whose answers must be equal in every state.

use super::prompt::{Draft, Segment};
use super::shapes::{document, documents, question, question_len};
use super::{BuildError, Keep, Pass, Workload};

/// Tokens that a canary's answer has: enough to differ when the KV behind it is wrong.
const ANSWER_LEN: u32 = 24;

/// One fixed question on each of the first `count` documents.
pub(crate) fn drafts(workload: &Workload<'_>, count: u32) -> Result<Vec<Draft>, BuildError> {
    let chunk = workload.chunk_tokens.max(2);
    (0..count.min(documents(workload)))
        .map(|number| {
            // Half a chunk at most: it must fit behind a chunk's edge.
            let question_len = question_len(workload)?.min(chunk / 2);
            let mut segments = document(workload, number)?;
            let document_len: u32 = segments.iter().map(|segment| segment.len).sum();
            truncate(
                &mut segments,
                document_part(document_len, question_len, chunk),
            );
            segments.push(question(
                workload,
                Pass::Canary(count),
                (number, 0),
                question_len,
            ));
            let mut draft = Draft::of_segments(segments, ANSWER_LEN, number);
            draft.keep = Keep::Text;
            Ok(draft)
        })
        .collect()
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
}
