//! Entry points for fuzzers: parsers of foreign data take any bytes and must not panic.
//!
//! Each parser has a function here, a file in `fuzz/fuzz_targets` and a corpus in `fuzz/corpus`, all
//! of one name. A test replays every corpus. An input that once broke a reader stays in its corpus.
//! To search for more, with or without `cargo-fuzz`:
//!
//! ```text
//! RUSTC_BOOTSTRAP=1 cargo fuzz run sse -- -max_total_time=300
//! fuzz/run sse 300
//! ```

use crate::config::dot_env;
use crate::load;
use crate::matrix;
use crate::record;
use crate::server::prom;
use crate::verdict::log_counts;

/// A reader and its name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("sse", load::fuzz::sse),
    ("http", load::fuzz::http),
    ("metrics", prom::fuzz),
    ("log", log_counts::fuzz),
    ("dot_env", dot_env::fuzz),
    ("plan", matrix::fuzz::plan),
    ("record", record::fuzz::record),
];

/// Feeds `data` to the reader called `name`.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(target, _)| *target == name);
    let (_, read) = target.unwrap_or_else(|| panic!("no fuzz target is called `{name}`"));
    read(data);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn names_in(folder: &Path) -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn every_corpus_is_read_without_a_panic() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let targets: BTreeSet<String> =
            TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(names_in(&fuzz.join("fuzz_targets")), targets);
        assert_eq!(names_in(&fuzz.join("corpus")), targets);
        for (name, read) in TARGETS {
            let inputs = std::fs::read_dir(fuzz.join("corpus").join(name)).unwrap();
            let mut replayed = 0;
            for input in inputs {
                let input = input.unwrap().path();
                let bytes = std::fs::read(&input).unwrap();
                let ended = std::panic::catch_unwind(|| read(&bytes));
                assert!(ended.is_ok(), "`{name}` panics at {}", input.display());
                replayed += 1;
            }
            assert!(replayed > 0, "the corpus of `{name}` is empty");
        }
    }
}
