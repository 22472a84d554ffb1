//! The arguments of `vllm serve`, by the help of one version of it.
//!
//! vLLM refuses an argument that it does not know, after the minute that its imports take. Other
//! versions have other arguments: the list finds what was meant, and proves nothing.

use std::sync::LazyLock;

use crate::plan::lmcache_keys::Version;
use crate::plan::problem::nearest;

static LIST: LazyLock<List> =
    LazyLock::new(|| List::parse(include_str!("vllm_arguments/serve.txt")));

/// The list, as `scripts/list-vllm-arguments.py` writes it.
#[derive(Debug)]
struct List {
    version: Version,
    /// Names without the leading dashes, sorted.
    names: Vec<&'static str>,
}

impl List {
    fn parse(text: &'static str) -> Self {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let version = lines.next().and_then(|line| line.strip_prefix("version: "));
        Self {
            version: version
                .and_then(|version| version.parse().ok())
                .unwrap_or(Version::new(0, 0, 0)),
            names: lines.collect(),
        }
    }
}

/// The version whose arguments are listed.
pub(crate) fn version() -> Version {
    LIST.version
}

/// Whether the listed version has `name` (without dashes), as a whole or as the table of a dotted key.
pub(crate) fn has(name: &str) -> bool {
    let name = name.replace('_', "-");
    let whole = name.split('.').next().unwrap_or_default();
    let base = whole.strip_prefix("no-").unwrap_or(whole);
    [whole, base]
        .iter()
        .any(|name| LIST.names.binary_search(name).is_ok())
}

/// The argument that `name` may have been meant to be.
pub(crate) fn meant(name: &str) -> Option<&'static str> {
    nearest(name, LIST.names.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_has_what_plans_use() {
        assert!(LIST.names.is_sorted() && LIST.names.len() > 300);
        assert_eq!(version(), Version::new(0, 32, 0));
        for name in [
            "max-model-len",
            "enforce-eager",
            "no-enforce-eager",
            "max_num_seqs",
            "compilation-config.mode",
        ] {
            assert!(has(name), "{name}");
        }
        assert!(!has("gpu-memory-utilisation"));
    }

    #[test]
    fn a_misspelt_argument_is_recognised() {
        for (wrong, right) in [
            ("gpu-memory-utilisation", Some("gpu-memory-utilization")),
            ("max-num-batched-token", Some("max-num-batched-tokens")),
            ("tensor-paralel-size", Some("tensor-parallel-size")),
            ("zzzz", None),
        ] {
            assert_eq!(meant(wrong), right, "{wrong}");
        }
    }
}
