//! How long things take.

use crate::plan::sim_spec::SimSpec;

/// What one scheduler step does, summed over its requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct StepLoad {
    /// Tokens computed.
    pub(crate) tokens: u64,
    /// Query-key pairs of prefills.
    pub(crate) prefill_pairs: f64,
    /// Sequences that decode one token.
    pub(crate) decodes: u64,
    /// Context attended by the decodes, tokens.
    pub(crate) decode_context: u64,
}

impl StepLoad {
    /// Adds `count` tokens of one request that already has `context` tokens.
    pub(crate) fn add(&mut self, count: u64, context: u64, phase: Phase) {
        self.tokens += count;
        match phase {
            Phase::Decode => {
                self.decodes += 1;
                self.decode_context += context;
            }
            Phase::Prefill => {
                let (count, context) = (count as f64, context as f64);
                self.prefill_pairs += count * (context + count / 2.0);
            }
        }
    }
}

/// What a request does in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Prefill,
    Decode,
}

/// Time of one step on the GPU: the slower of reading the weights and computing, then attention.
pub(crate) fn step_us(spec: &SimSpec, load: &StepLoad) -> u64 {
    let compute = spec.step_fixed_us + spec.token_us * load.tokens as f64;
    let attention = spec.attention_us_per_mpair * load.prefill_pairs / 1e6;
    let decode = spec.decode_us_per_kilotoken * load.decode_context as f64 / 1e3
        + spec.decode_us_per_seq * load.decodes.saturating_sub(1) as f64;
    round_us(compute.max(spec.weights_us) + attention + decode)
}

/// Time to move `size_bytes` at `gb_per_s` (10^9 bytes).
pub(crate) fn transfer_us(size_bytes: u64, gb_per_s: f64) -> u64 {
    round_us(size_bytes as f64 / (gb_per_s * 1e3))
}

/// Whole microseconds.
pub(crate) fn round_us(us: f64) -> u64 {
    us.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(count: u64, context: u64, phase: Phase) -> u64 {
        let mut load = StepLoad::default();
        load.add(count, context, phase);
        step_us(&SimSpec::default(), &load)
    }

    #[test]
    fn small_steps_cost_the_weights_and_large_ones_the_compute() {
        assert!(step(100, 0, Phase::Prefill) < step(1, 0, Phase::Decode) * 101 / 100);
        assert!(step(8_192, 0, Phase::Prefill) > 20 * step(1, 0, Phase::Decode));
    }

    #[test]
    fn context_makes_prefill_and_decode_slower() {
        assert!(step(1_024, 16_384, Phase::Prefill) > step(1_024, 0, Phase::Prefill));
        assert!(step(1, 16_384, Phase::Decode) > step(1, 16, Phase::Decode));
    }

    #[test]
    fn a_gigabyte_at_one_gigabyte_a_second_takes_a_second() {
        assert_eq!(transfer_us(1_000_000_000, 1.0), 1_000_000);
    }
}
