//! Ties a record to its files. `cell.json` has a hash of every file beside it and of itself, and so has
//! `manifest.json`: what was changed, cut or exchanged afterwards is recognised.
//!
//! This detects accidents and edits. It is no signature: whoever rewrites every hash is not detected.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bounded;
use crate::record::schema::CellRecord;

/// The last field of a file that has a hash of itself.
pub(super) const DIGEST: &str = "digest";

/// What stands in place of the digest while it is computed.
const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The record of a cell.
pub(crate) const CELL_FILE: &str = "cell.json";

/// The requests of a cell.
pub(crate) const REQUESTS_FILE: &str = "requests.parquet";

/// The telemetry of a cell.
pub(crate) const TELEMETRY_FILE: &str = "telemetry.parquet";

/// The files of a cell that reports and comparisons read. A cell without them as they were written is
/// not used; the others are for people.
const READ_FILES: [&str; 2] = [REQUESTS_FILE, TELEMETRY_FILE];

/// A file as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHash {
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of its content, hexadecimal.
    pub blake3: String,
}

/// The files of a cell by name, without `cell.json` itself.
pub(crate) type FileHashes = BTreeMap<String, FileHash>;

/// How a file in a folder differs from the one that was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    /// It is missing.
    Missing,
    /// It is shorter or longer.
    Length {
        /// Bytes that were recorded.
        recorded: u64,
        /// Bytes that it has.
        now: u64,
    },
    /// Its content is another.
    Content,
    /// It is there and was not recorded.
    Unrecorded,
    /// It cannot be read, and why.
    Unreadable(String),
}

impl Difference {
    /// The difference in words, after the file's name.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Missing => "is missing".to_owned(),
            Self::Length { recorded, now } => {
                format!("has {now} bytes and had {recorded} when it was recorded")
            }
            Self::Content => "is not the file that was recorded: its hash differs".to_owned(),
            Self::Unrecorded => "was not recorded with this cell".to_owned(),
            Self::Unreadable(why) => format!("cannot be read: {why}"),
        }
    }
}

/// Hashes the file at `path`.
pub(crate) fn of_file(path: &Path) -> io::Result<FileHash> {
    let file = bounded::open(path)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file)?;
    Ok(FileHash {
        bytes: hasher.count(),
        blake3: hasher.finalize().to_hex().to_string(),
    })
}

/// Hashes every file in a cell's folder but `cell.json`.
pub(crate) fn of_folder(folder: &Path) -> Result<FileHashes> {
    let mut hashes = FileHashes::new();
    for name in names(folder)? {
        let path = folder.join(&name);
        let hash = of_file(&path).with_context(|| format!("hashing `{}`", path.display()))?;
        hashes.insert(name, hash);
    }
    Ok(hashes)
}

/// The names of the files in a cell's folder but `cell.json`.
fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list `{}`", folder.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != CELL_FILE && !entry.file_type()?.is_dir() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// How one file of a folder differs from the `recorded` one.
fn difference(folder: &Path, name: &str, recorded: &FileHash) -> Option<Difference> {
    let path = folder.join(name);
    match fs::metadata(&path).map(|metadata| metadata.len()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Difference::Missing),
        Err(error) => Some(Difference::Unreadable(error.to_string())),
        Ok(now) if now != recorded.bytes => Some(Difference::Length {
            recorded: recorded.bytes,
            now,
        }),
        Ok(_) => match of_file(&path) {
            Err(error) => Some(Difference::Unreadable(error.to_string())),
            Ok(now) => (now != *recorded).then_some(Difference::Content),
        },
    }
}

/// Every file of `folder` that differs from the recorded ones, by name.
pub(crate) fn differences(
    folder: &Path,
    recorded: &FileHashes,
) -> Result<Vec<(String, Difference)>> {
    let mut found: Vec<(String, Difference)> = recorded
        .iter()
        .filter_map(|(name, hash)| Some((name.clone(), difference(folder, name, hash)?)))
        .collect();
    let others = names(folder)?.into_iter();
    let others = others.filter(|name| !recorded.contains_key(name));
    found.extend(others.map(|name| (name, Difference::Unrecorded)));
    Ok(found)
}

/// Why a cell must not be used: a file that is read differs from the one that was recorded. Cells of
/// labrun 0.1 have no hashes; of theirs it is known only whether the requests are there.
pub(crate) fn unusable(folder: &Path, record: &CellRecord) -> Option<String> {
    let has = |name: &str| folder.join(name).exists();
    for name in READ_FILES {
        let difference = match record.files.get(name) {
            Some(recorded) => difference(folder, name, recorded),
            None if !record.files.is_empty() && has(name) => Some(Difference::Unrecorded),
            None => None,
        };
        if let Some(difference) = difference {
            return Some(format!("its `{name}` {}", difference.describe()));
        }
    }
    let sent: u64 = record.passes.iter().map(|pass| pass.counts.sent).sum();
    (sent > 0 && !has(REQUESTS_FILE))
        .then(|| format!("its record counts {sent} requests, and its `{REQUESTS_FILE}` is missing"))
}

/// `value`, a table, as people read it, with a digest of the whole text as its last field; and the
/// digest.
pub fn sealed(mut value: Value) -> Result<(Vec<u8>, String)> {
    if let Value::Object(fields) = &mut value {
        fields.shift_remove(DIGEST);
        fields.insert(DIGEST.to_owned(), NO_DIGEST.into());
    }
    let mut text = serde_json::to_string_pretty(&value)?;
    text.push('\n');
    let digest = blake3::hash(text.as_bytes()).to_hex().to_string();
    let at = text.rfind(NO_DIGEST).context("a sealed file is a table")?;
    text.replace_range(at..at + NO_DIGEST.len(), &digest);
    Ok((text.into_bytes(), digest))
}

/// Whether a file is as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seal {
    /// It has no digest: labrun 0.1 wrote none.
    Absent,
    /// It is as it was written, with this digest.
    Whole(String),
    /// It was changed.
    Broken,
}

/// Whether `text`, which reads as `value`, is as [`sealed`] wrote it.
pub(crate) fn seal_of(text: &str, value: &Value) -> Seal {
    let Some(digest) = value.get(DIGEST) else {
        // Hashes of files came with the digest.
        return match value.get("files") {
            Some(_) => Seal::Broken,
            None => Seal::Absent,
        };
    };
    let Some(digest) = digest.as_str().filter(|it| it.len() == NO_DIGEST.len()) else {
        return Seal::Broken;
    };
    let Some(at) = text.rfind(digest) else {
        return Seal::Broken;
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&text.as_bytes()[..at]);
    hasher.update(NO_DIGEST.as_bytes());
    hasher.update(&text.as_bytes()[at + digest.len()..]);
    if hasher.finalize().to_hex().as_str() == digest {
        Seal::Whole(digest.to_owned())
    } else {
        Seal::Broken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Option<Seal> {
        let value: Value = serde_json::from_str(text).ok()?;
        Some(seal_of(text, &value))
    }

    fn record() -> Value {
        json!({"format": 1, "id": "a", "files": {"x": {"bytes": 3, "blake3": "00"}}, "n": 0.1})
    }

    #[test]
    fn a_sealed_file_is_whole_and_sealing_it_again_changes_nothing() {
        let (bytes, digest) = sealed(record()).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(read(&text), Some(Seal::Whole(digest)));
        let (again, _) = sealed(serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(String::from_utf8(again).unwrap(), text);
        assert_eq!(read("{\"format\": 1}"), Some(Seal::Absent));
        assert_eq!(read("{\"files\": {}}"), Some(Seal::Broken));
        assert_eq!(read("{\"digest\": 3}"), Some(Seal::Broken));
        assert!(sealed(json!([1])).is_err());
    }

    proptest! {
        #[test]
        fn no_single_bit_of_a_sealed_file_can_change(at in any::<prop::sample::Index>(), bit in 0..8) {
            let (mut bytes, _) = sealed(record()).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            if let Ok(text) = std::str::from_utf8(&bytes) {
                let seal = read(text);
                prop_assert!(matches!(seal, None | Some(Seal::Broken)), "byte {at}: {seal:?}");
            }
        }
    }

    #[test]
    fn each_difference_of_a_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["same", "gone", "longer", "other", CELL_FILE] {
            fs::write(path(name), "abc").unwrap();
        }
        let recorded = of_folder(folder.path()).unwrap();
        assert_eq!(recorded.len(), 4, "`cell.json` cannot hash itself here");
        assert_eq!(differences(folder.path(), &recorded).unwrap(), []);
        fs::remove_file(path("gone")).unwrap();
        fs::write(path("longer"), "abcd").unwrap();
        fs::write(path("other"), "abd").unwrap();
        fs::write(path("added"), "").unwrap();
        let found = differences(folder.path(), &recorded).unwrap();
        let expected = [
            ("gone", Difference::Missing),
            (
                "longer",
                Difference::Length {
                    recorded: 3,
                    now: 4,
                },
            ),
            ("other", Difference::Content),
            ("added", Difference::Unrecorded),
        ];
        let expected = expected.map(|(name, difference)| (name.to_owned(), difference));
        assert_eq!(found, expected);
    }
}
