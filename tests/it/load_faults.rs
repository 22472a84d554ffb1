//! The load client against the faulty server of `benches/client.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use labrun::internals::Outcome;

#[path = "../../benches/client/faulty.rs"]
mod faulty;

use faulty::run_faults;

#[tokio::test]
async fn every_request_is_recorded_whatever_the_server_does() {
    let (outcome, received) = run_faults(Duration::from_millis(1500)).await.unwrap();
    let counts = outcome.counts();
    assert_eq!(counts.sent, counts.ok + counts.failed + counts.unfinished);
    assert_eq!(counts.sent, outcome.records.len() as u64);
    assert_eq!(counts.sent, received, "{counts:?}");
    assert!(counts.ok > 0 && counts.unfinished > 0, "{counts:?}");
    let kinds: BTreeSet<String> = outcome
        .records
        .iter()
        .filter_map(|record| match &record.outcome {
            Outcome::Failed(failure) => Some(failure.kind.name().into_owned()),
            Outcome::Ok | Outcome::Unfinished => None,
        })
        .collect();
    for kind in ["cut-stream", "http-503", "timeout-total"] {
        assert!(kinds.contains(kind), "{kind}: {kinds:?}");
    }
}
