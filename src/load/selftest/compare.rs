//! How far a client's instants are from what the server knows.

use std::collections::HashMap;
use std::time::Duration;

use super::{Seen, Served};

/// Errors of a client's instants against the server's record of the same requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Errors {
    /// Median of first arrival minus first write.
    pub ttft_p50: Duration,
    /// 99th percentile of the same.
    pub ttft_p99: Duration,
    /// Median of |gap seen - gap written|.
    pub gap_p50: Duration,
    /// 99th percentile of the same.
    pub gap_p99: Duration,
    /// 99th percentile of the gaps that the client saw.
    pub seen_gap_p99: Duration,
    /// 99th percentile of the gaps that the server wrote.
    pub written_gap_p99: Duration,
    /// Requests that could be paired arrival by arrival, of all.
    pub paired_share: f64,
}

/// Compares instants of client and server. Requests in which a read had several tokens have no arrival
/// for each write and only count for TTFT.
pub fn errors(seen: &[Seen], served: &[Served]) -> Errors {
    let by_number: HashMap<u32, &Served> = served
        .iter()
        .map(|served| (served.number, served))
        .collect();
    let (mut ttft, mut gaps, mut seen_gaps, mut written_gaps) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut paired = 0_u32;
    for seen in seen {
        let Some(served) = by_number.get(&seen.number) else {
            continue;
        };
        if let (Some(arrival), Some(write)) = (seen.arrivals_ns.first(), served.written_ns.first())
        {
            ttft.push(arrival.saturating_sub(*write));
        }
        seen_gaps.extend(gaps_of(&seen.arrivals_ns));
        written_gaps.extend(gaps_of(&served.written_ns));
        if seen.arrivals_ns.len() == served.written_ns.len() {
            paired += 1;
            let pairs = gaps_of(&seen.arrivals_ns).zip(gaps_of(&served.written_ns));
            gaps.extend(pairs.map(|(seen, written)| seen.abs_diff(written)));
        }
    }
    Errors {
        ttft_p50: quantile(&mut ttft, 0.5),
        ttft_p99: quantile(&mut ttft, 0.99),
        gap_p50: quantile(&mut gaps, 0.5),
        gap_p99: quantile(&mut gaps, 0.99),
        seen_gap_p99: quantile(&mut seen_gaps, 0.99),
        written_gap_p99: quantile(&mut written_gaps, 0.99),
        paired_share: f64::from(paired) / seen.len().max(1) as f64,
    }
}

fn gaps_of(instants_ns: &[u64]) -> impl Iterator<Item = u64> + '_ {
    instants_ns.windows(2).map(|pair| pair[1] - pair[0])
}

/// Nearest rank; zero of nothing.
fn quantile(values: &mut [u64], share: f64) -> Duration {
    values.sort_unstable();
    let rank = (share * values.len() as f64).ceil().max(1.0) as usize;
    Duration::from_nanos(values.get(rank - 1).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_paired_by_number_and_arrivals_by_place() {
        let served = [
            Served {
                number: 1,
                received_ns: 0,
                written_ns: vec![100, 200, 300],
            },
            Served {
                number: 0,
                received_ns: 0,
                written_ns: vec![10, 20, 30],
            },
        ];
        let seen = [
            Seen {
                number: 0,
                sent_ns: 0,
                arrivals_ns: vec![13, 25, 33],
            },
            Seen {
                number: 1,
                sent_ns: 0,
                arrivals_ns: vec![104, 301],
            },
        ];
        let errors = errors(&seen, &served);
        assert_eq!(errors.ttft_p50, Duration::from_nanos(3));
        assert_eq!(errors.ttft_p99, Duration::from_nanos(4));
        assert_eq!(
            errors.gap_p99,
            Duration::from_nanos(2),
            "12 and 8 seen, 10 and 10 written"
        );
        assert!((errors.paired_share - 0.5).abs() < 1e-9);
        assert_eq!(errors.seen_gap_p99, Duration::from_nanos(197));
    }
}
