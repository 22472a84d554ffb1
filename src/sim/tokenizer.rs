//! A word-level tokenizer: a word is a token, `t17` is id 17.

use super::hash::mix_text;

/// Ids at the end of the vocabulary that are no words.
const SPECIAL_IDS: u32 = 256;

/// Which ids are words and which are special.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vocabulary {
    size: u32,
}

impl Vocabulary {
    /// A vocabulary of `size` ids, the last ones special.
    pub(super) const fn new(size: u32) -> Self {
        Self { size }
    }

    /// Ids below this stand for words.
    pub(super) const fn words(self) -> u32 {
        if self.size > 2 * SPECIAL_IDS {
            self.size - SPECIAL_IDS
        } else if self.size > 2 {
            self.size - 2
        } else {
            1
        }
    }

    /// All ids.
    pub(super) const fn size(self) -> u32 {
        self.size
    }

    /// The token that starts every text prompt.
    pub(super) const fn bos(self) -> u32 {
        self.words()
    }

    /// The token that ends a text.
    pub(super) const fn eos(self) -> u32 {
        self.words() + 1
    }

    /// Ids of the words of `text`, without the start token.
    pub(super) fn encode(self, text: &str) -> Vec<u32> {
        text.split_whitespace()
            .map(|word| self.word_id(word))
            .collect()
    }

    /// The text of `ids`; special ids have none.
    pub(super) fn decode(self, ids: &[u32]) -> String {
        let mut text = String::new();
        for id in ids.iter().filter(|id| **id < self.words()) {
            text.push_str(" t");
            text.push_str(&id.to_string());
        }
        text
    }

    fn word_id(self, word: &str) -> u32 {
        let number = word
            .strip_prefix('t')
            .and_then(|digits| digits.parse::<u32>().ok());
        match number {
            Some(id) if id < self.words() => id,
            _ => (mix_text(0, word) % u64::from(self.words())) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip_and_others_stay_inside() {
        let vocabulary = Vocabulary::new(128_256);
        assert_eq!(vocabulary.words(), 128_000);
        assert_eq!(vocabulary.encode(" t0  t127999\nt5"), [0, 127_999, 5]);
        assert_eq!(
            vocabulary.decode(&[0, 127_999, vocabulary.eos()]),
            " t0 t127999"
        );
        let other = vocabulary.encode("Hello t128000");
        assert_eq!(other.len(), 2);
        assert!(other.iter().all(|&id| id < 128_000));
        assert_eq!(other, vocabulary.encode("Hello t128000"));
    }
}
