//! Deterministic mixing, the stand-in for KV contents and for the model itself.

/// Mixes `value` into `state`; a good avalanche, no cryptography.
pub(crate) const fn mix(state: u64, value: u64) -> u64 {
    let mut x = state.rotate_left(23) ^ value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Mixes every token of `tokens` into `state`.
pub(crate) fn mix_tokens(state: u64, tokens: &[u32]) -> u64 {
    tokens
        .iter()
        .fold(state, |state, &token| mix(state, u64::from(token)))
}

/// Mixes the bytes of `text` into `state`.
pub(crate) fn mix_text(state: u64, text: &str) -> u64 {
    text.bytes()
        .fold(mix(state, text.len() as u64), |state, byte| {
            mix(state, u64::from(byte))
        })
}

/// Hashes every full run of `size` tokens, each chained to the one before it.
pub(crate) fn chain(start: u64, tokens: &[u32], size: usize) -> Vec<u64> {
    let mut state = start;
    let full_runs = tokens.chunks_exact(size);
    full_runs
        .map(|run| {
            state = mix_tokens(mix(state, run.len() as u64), run);
            state
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_depends_on_everything_before_it() {
        let tokens: Vec<u32> = (0..64).collect();
        let mut other = tokens.clone();
        other[20] = 999;
        let (a, b) = (chain(0, &tokens, 16), chain(0, &other, 16));
        assert_eq!(a.len(), 4);
        assert_eq!(a[0], b[0], "before the change");
        assert!(
            a[1] != b[1] && a[2] != b[2] && a[3] != b[3],
            "from the change on"
        );
        assert_ne!(chain(1, &tokens, 16)[0], a[0], "a salt changes every key");
    }
}
