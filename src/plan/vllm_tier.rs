//! Tiers that vLLM serves itself: their keys in a plan, under the names of vLLM's
//! `kv_connector_extra_config`.

use serde_json::{Map, Value};
use toml::de::DeValue;

use super::reader::TableReader;
use super::tier::TierKind;
use super::value::{boolean, gibibytes, json, non_negative, positive};

/// Reads one value, or says what it must be.
type Reader = fn(&DeValue<'_>) -> Result<Value, String>;

/// Keys of the connector with a chain of tiers.
const OFFLOADING: [(&str, Reader); 3] = [
    ("max_local_cpu_size", size_gib),
    ("cpu_bytes_to_use", bytes),
    ("block_size", count),
];

/// Which chunks leave its RAM first.
const POLICIES: [(&str, &str); 2] = [("lru", "lru"), ("arc", "arc")];

/// Keys of the folder behind it.
const FS: [(&str, Reader); 2] = [("n_read_threads", count), ("n_write_threads", count)];

/// Keys of the simple connector in RAM.
const SIMPLE: [(&str, Reader); 3] = [
    ("max_local_cpu_size", size_gib),
    ("cpu_bytes_to_use", bytes),
    ("lazy_offload", flag),
];

/// Keys of the simple connector on a disk.
const SIMPLE_DISK: [(&str, Reader); 4] = [
    ("disk_capacity_bytes", bytes),
    ("disk_buffer_slots", count),
    ("use_page_cache", flag),
    ("lazy_offload", flag),
];

/// The settings in `table`, of a tier of `kind`.
pub(super) fn read_settings(kind: TierKind, table: &TableReader<'_>) -> Map<String, Value> {
    let parts: &[&[(&str, Reader)]] = match kind {
        TierKind::NativeFs => &[&OFFLOADING, &FS],
        TierKind::Simple => &[&SIMPLE],
        TierKind::SimpleDisk => &[&SIMPLE_DISK],
        _ => &[&OFFLOADING],
    };
    let mut settings = Map::new();
    for (key, reader) in parts.iter().copied().flatten() {
        if let Some(located) = table.read(key, reader) {
            settings.insert((*key).to_owned(), located.value);
        }
    }
    if matches!(kind, TierKind::Native | TierKind::NativeFs)
        && let Some(policy) = table.choice("eviction_policy", &POLICIES)
    {
        settings.insert("eviction_policy".to_owned(), policy.value.into());
    }
    if settings.contains_key("cpu_bytes_to_use")
        && let Some(size) = table.value("max_local_cpu_size")
    {
        let message = format!(
            "`max_local_cpu_size` and `cpu_bytes_to_use` in {} both say how much RAM it gets",
            table.title()
        );
        table
            .problems()
            .add(size.span, message, "remove one of them");
    }
    settings
}

fn size_gib(value: &DeValue<'_>) -> Result<Value, String> {
    gibibytes(value).and(json(value))
}

fn bytes(value: &DeValue<'_>) -> Result<Value, String> {
    match non_negative(value) {
        Ok(bytes) if bytes > 0 => Ok(bytes.into()),
        _ => Err("an integer of bytes of at least 1".to_owned()),
    }
}

fn count(value: &DeValue<'_>) -> Result<Value, String> {
    positive(value).map(Value::from)
}

fn flag(value: &DeValue<'_>) -> Result<Value, String> {
    boolean(value).map(Value::from)
}

#[cfg(test)]
mod tests {
    use crate::plan::tier::tests::read_tier as read;

    #[test]
    fn ram_is_said_in_gib_or_in_bytes_and_not_in_both() {
        for (text, gib) in [
            ("", 5.0),
            ("max_local_cpu_size = 30", 30.0),
            ("cpu_bytes_to_use = 3221225472", 3.0),
        ] {
            let (tier, problems) = read("native+fs", text);
            assert!(problems.is_empty(), "{problems:?}");
            let ram_gib = tier.unwrap().ram_gib();
            assert!((ram_gib - gib).abs() < 1e-9, "{text}: {ram_gib}");
        }
        let both = "max_local_cpu_size = 30\ncpu_bytes_to_use = 3221225472";
        let (_, problems) = read("native", both);
        assert_eq!(problems.len(), 1);
        assert_eq!(&both[problems[0].span.clone()], "30");
    }

    #[test]
    fn a_tier_takes_its_own_keys_alone() {
        for (tier, line) in [
            ("native+fs", "n_read_threads = 4"),
            ("simple+disk", "disk_capacity_bytes = 1073741824"),
            ("simple", "lazy_offload = true"),
        ] {
            assert!(read(tier, line).1.is_empty(), "{tier}: {line}");
            let (_, problems) = read("native", line);
            assert_eq!(problems.len(), 1, "{line}");
            assert!(problems[0].message.contains("unknown key"), "{problems:?}");
        }
        for line in [
            "eviction_policy = \"mru\"",
            "block_size = 0",
            "cpu_bytes_to_use = 1.5",
        ] {
            assert_eq!(read("native+fs", line).1.len(), 1, "{line}");
        }
    }

    #[test]
    fn chunks_are_those_of_block_size() {
        let (tier, _) = read("native+fs", "block_size = 512");
        assert_eq!(tier.unwrap().chunk_tokens(), 512);
    }
}
