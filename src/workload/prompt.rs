//! Prompts before they are written: segments of seeded tokens.

use std::collections::HashMap;
use std::ops::Range;

use rand::RngExt as _;

use super::{Keep, Start};
use crate::units::Seed;

/// A run of tokens that is the same wherever the same seed and length stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Segment {
    pub(crate) seed: Seed,
    pub(crate) len: u32,
    /// The place in the vocabulary of its first token, where that must differ from others'.
    pub(crate) first: Option<u32>,
}

impl Segment {
    pub(crate) fn new(seed: Seed, len: u32) -> Self {
        Self {
            seed,
            len,
            first: None,
        }
    }

    /// Hands out its token ids.
    pub(crate) fn for_each_id(&self, vocab: &Range<u32>, mut take: impl FnMut(u32)) {
        let mut rng = self.seed.rng();
        let size = vocab.end - vocab.start;
        for place in 0..self.len {
            let drawn = rng.random_range(vocab.clone());
            match (place, self.first) {
                (0, Some(first)) => take(vocab.start + first % size),
                _ => take(drawn),
            }
        }
    }
}

/// What a prompt is made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Prompt {
    /// Seeded tokens.
    Segments(Vec<Segment>),
    /// Text as it stands in a dataset.
    Text(String),
    /// A conversation as it stands in a dataset: a JSON array.
    Messages(serde_json::Value),
}

/// A request before it is written.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) prompt: Prompt,
    /// Tokens at its front that earlier requests may have left in a cache.
    pub(crate) shared_tokens: u32,
    /// Of these, the tokens that an earlier request of the same pass begins with.
    pub(crate) repeated_tokens: u32,
    pub(crate) gen_len: u32,
    pub(crate) start: Start,
    pub(crate) keep: Keep,
    pub(crate) document: u32,
    /// Tokens of the prompt that are others than its segments have.
    pub(crate) altered: Option<Range<u32>>,
}

impl Draft {
    /// A request of segments, of which all but the last may be cached.
    pub(crate) fn of_segments(segments: Vec<Segment>, gen_len: u32, document: u32) -> Self {
        let shared = segments.len().saturating_sub(1);
        Self {
            shared_tokens: segments[..shared].iter().map(|segment| segment.len).sum(),
            repeated_tokens: 0,
            prompt: Prompt::Segments(segments),
            gen_len,
            start: Start::Slot,
            keep: Keep::Hash,
            document,
            altered: None,
        }
    }
}

/// Notes on each draft how much of its front an earlier one begins with: what a pass shares with
/// itself, whatever was cached before it. Segments of one seed share the shorter one's tokens.
pub(crate) fn note_repeats(drafts: &mut [Draft]) {
    // A trie: a node is a front, an edge the segment that makes it longer. Behind each node, the
    // longest segment of each stream.
    let mut edges: HashMap<(usize, Segment), usize> = HashMap::new();
    let mut longest: HashMap<(usize, Segment), u32> = HashMap::new();
    for draft in drafts {
        let Prompt::Segments(segments) = &draft.prompt else {
            continue;
        };
        let (mut node, mut repeated, mut is_known) = (0, 0, true);
        for segment in segments {
            let stream = Segment { len: 0, ..*segment };
            let seen = longest.entry((node, stream)).or_default();
            repeated += if is_known { segment.len.min(*seen) } else { 0 };
            *seen = segment.len.max(*seen);
            let next = edges.len() + 1;
            let to = *edges.entry((node, *segment)).or_insert(next);
            is_known &= to != next;
            node = to;
        }
        draft.repeated_tokens = repeated;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_front_is_repeated_from_its_second_time_on() {
        let part = |seed| Segment::new(Seed(seed), 10);
        let of = |seeds: &[u64]| {
            let segments = seeds.iter().map(|seed| part(*seed)).collect();
            Draft::of_segments(segments, 1, 0)
        };
        let mut drafts = [
            of(&[1, 2]),
            of(&[1, 3]),
            of(&[1, 3, 4]),
            of(&[2, 1]),
            of(&[1, 2]),
        ];
        note_repeats(&mut drafts);
        let repeated = drafts.each_ref().map(|draft| draft.repeated_tokens);
        assert_eq!(repeated, [0, 10, 20, 0, 20]);
    }

    proptest! {
        /// The oracle: the tokens themselves.
        #[test]
        fn repeats_are_those_of_the_tokens(
            fronts in proptest::collection::vec(
                proptest::collection::vec((0_u64..3, 1_u32..4), 0..4), 1..8),
        ) {
            let mut drafts: Vec<Draft> = (0..).zip(&fronts).map(|(number, front)| {
                let mut segments: Vec<Segment> =
                    front.iter().map(|(seed, len)| Segment::new(Seed(*seed), *len)).collect();
                segments.push(Segment { first: Some(number), ..Segment::new(Seed(99), 1) });
                Draft::of_segments(segments, 1, 0)
            }).collect();
            note_repeats(&mut drafts);
            // Long ids, and of each place in a stream: no two streams begin alike by chance.
            let tokens = |draft: &Draft| -> Vec<(u64, Option<u32>, u32, usize)> {
                let Prompt::Segments(segments) = &draft.prompt else { unreachable!() };
                let of = |(at, s): (usize, &Segment)| {
                    let (seed, first, before) = (s.seed.0, s.first, at);
                    (0..s.len).map(move |place| (seed, first, place, before)).collect::<Vec<_>>()
                };
                segments.iter().enumerate().flat_map(of).collect()
            };
            for (at, draft) in drafts.iter().enumerate() {
                let own = tokens(draft);
                let common = drafts[..at].iter().map(|earlier| {
                    let pairs = own.iter().zip(tokens(earlier));
                    pairs.take_while(|(a, b)| **a == *b).count() as u32
                });
                prop_assert_eq!(draft.repeated_tokens, common.max().unwrap_or(0));
            }
        }
    }
}
