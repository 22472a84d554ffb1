//! What limited a pass: the part that is most of the time to the first token, and what telemetry saw busy.

use crate::aggregate::parts::{Carrier, Part, Parts};
use crate::record::schema::Bottleneck;

/// Resources that carry KV.
const CARRIERS: [&str; 4] = ["pcie", "disk", "redis", "network"];

/// A client that adds less than this to the time to the first token did not limit it.
const CLIENT_SHARE: f64 = 0.1;

/// The word of a pass most of whose time to the first token is in no part that anything timed: no cause.
pub(crate) const UNEXPLAINED: &str = "unexplained";

/// The word of a pass of which no part is more than half.
pub(crate) const MIXED: &str = "mixed";

/// The word of a pass that no reading covers.
const TOO_SHORT: &str = "too short to tell";

/// Names what limited a pass: `load from disk`, `compute`, `queue`. `None` where nothing is known.
pub(crate) fn limit(
    parts: Option<&Parts>,
    recorded: Option<&Bottleneck>,
    carrier: Option<Carrier>,
) -> Option<String> {
    let recorded = recorded.map(|one| (one.name.as_str(), one));
    // What a slow client adds lies between it and the server: where little does, it was not the limit.
    let is_outside = |parts: &Parts| {
        let network = parts.get(Part::Network);
        network.is_none_or(|ms| ms > CLIENT_SHARE * parts.ttft_ms)
    };
    if matches!(recorded, Some(("client", _))) && parts.is_none_or(is_outside) {
        return Some("client".to_owned());
    }
    let busy = recorded.and_then(|(name, _)| CARRIERS.into_iter().find(|known| *known == name));
    let most = parts.and_then(|parts| Some((parts, parts.largest()?)));
    match most {
        Some((_, Part::Load)) => {
            return Some(with("load", carrier.map(|one| one.name).or(busy)));
        }
        Some((_, Part::Batch)) => {
            return Some(with("batch", carrier.map(|one| one.name).or(busy)));
        }
        Some((_, Part::Compute)) => return Some("compute".to_owned()),
        Some((parts, Part::Queue)) if parts.queue_holds_loads => {
            return Some(with("queue and load", busy));
        }
        Some((_, Part::Queue)) => return Some(with("queue", busy)),
        Some((_, Part::Store)) => return Some(with("store", busy)),
        Some((_, Part::Network)) => return Some("network".to_owned()),
        Some((_, Part::Frontend)) => return Some("frontend".to_owned()),
        Some((parts, Part::Unexplained)) if is_whole(parts) => {
            return Some(UNEXPLAINED.to_owned());
        }
        Some((_, Part::Unexplained)) | None => {}
    }
    if let Some(parts) = parts
        && let (Some(load), Some(batch)) = (parts.get(Part::Load), parts.get(Part::Batch))
        && load + batch > 0.5 * parts.ttft_ms
    {
        return Some(with("batch", carrier.map(|one| one.name).or(busy)));
    }
    let is_whole = parts.is_some_and(is_whole);
    match recorded {
        // Of labrun 0.1: telemetry alone named nothing.
        Some((UNKNOWN | TOO_SHORT | NOTHING_BUSY | "client", _)) | None if is_whole => {
            Some(MIXED.to_owned())
        }
        Some((UNKNOWN, one)) if one.reasons.iter().any(|why| why.contains("too short")) => {
            Some(TOO_SHORT.to_owned())
        }
        Some((UNKNOWN, _)) => Some(NOTHING_BUSY.to_owned()),
        Some((name, _)) => Some(name.to_owned()),
        None => None,
    }
}

/// Whether the engine's own time is known, be it in one part or another.
fn is_whole(parts: &Parts) -> bool {
    parts
        .get(Part::Compute)
        .or(parts.get(Part::Batch))
        .is_some()
}

/// A part with what carried it: `load from disk`, `store to redis`, `queue behind redis`.
fn with(part: &str, carrier: Option<&str>) -> String {
    let preposition = match (part, carrier) {
        (_, None) => return part.to_owned(),
        ("load", Some("pcie" | "network")) => "over",
        ("load", _) => "from",
        ("store", _) => "to",
        _ => "behind",
    };
    format!("{part} {preposition} {}", carrier.unwrap_or_default())
}

/// The word of a pass in which nothing that was watched was busy.
const NOTHING_BUSY: &str = "nothing busy";
/// What labrun 0.1 recorded for both.
const UNKNOWN: &str = "unknown";

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(name: &str, reason: &str) -> Bottleneck {
        Bottleneck {
            name: name.to_owned(),
            reasons: vec![reason.to_owned()],
        }
    }

    #[test]
    fn without_parts_the_telemetry_speaks_and_never_says_unknown() {
        let of = |name, reason| limit(None, Some(&recorded(name, reason)), None).unwrap();
        assert_eq!(of("disk", "busy"), "disk");
        assert_eq!(of("unknown", "the pass was too short to judge"), TOO_SHORT);
        assert_eq!(
            of("unknown", "nothing that was watched was busy"),
            "nothing busy"
        );
        assert_eq!(of(TOO_SHORT, ""), TOO_SHORT);
        assert_eq!(limit(None, None, None), None);
    }
}
