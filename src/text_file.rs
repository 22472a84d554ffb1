//! Text files that other programs wrote: regular files only, read whole up to a bound, in the
//! Unicode encoding that their first bytes name.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use crate::bounded;

/// The largest file that is read, bytes.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// The longest line that is read, bytes: a prompt of a million tokens fits.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// Reads `path`, without a byte order mark. Errors name the path.
pub(crate) fn read(path: &Path) -> Result<String> {
    let shown = path.display();
    let bytes = bytes_of(path)?;
    decode(bytes).with_context(|| format!("`{shown}` cannot be read as text"))
}

fn bytes_of(path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    let file = bounded::open(path).with_context(|| format!("reading `{shown}`"))?;
    let mib = MAX_FILE_BYTES >> 20;
    let too_large = || format!("`{shown}` is larger than the {mib} MiB that labrun reads");
    ensure!(file.metadata()?.len() <= MAX_FILE_BYTES, too_large());
    let mut bytes = Vec::new();
    let mut reader = BufReader::new(file);
    for line in 1_u64.. {
        let before = bytes.len() as u64;
        let mut limited = (&mut reader).take(MAX_LINE_BYTES + 1);
        let read = limited.read_until(b'\n', &mut bytes);
        let length = read.with_context(|| format!("reading `{shown}`"))? as u64;
        if length == 0 {
            break;
        }
        ensure!(
            length <= MAX_LINE_BYTES,
            "line {line} of `{shown}` is longer than {} MiB",
            MAX_LINE_BYTES >> 20
        );
        ensure!(before + length <= MAX_FILE_BYTES, too_large());
    }
    Ok(bytes)
}

/// UTF-8, or UTF-16 with a byte order mark, as PowerShell's `>` writes it.
fn decode(bytes: Vec<u8>) -> Result<String> {
    let utf16 = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let pairs = rest.chunks_exact(2);
        ensure!(
            pairs.remainder().is_empty(),
            "it is UTF-16 and ends within a character"
        );
        let units: Vec<u16> = pairs.map(|pair| unit([pair[0], pair[1]])).collect();
        String::from_utf16(&units).context("it begins as UTF-16 and is not")
    };
    match bytes.as_slice() {
        [0x1F, 0x8B, ..] | [0x28, 0xB5, 0x2F, 0xFD, ..] => {
            bail!("it is compressed (gzip or zstd): decompress it first")
        }
        [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xEF, 0xBB, 0xBF, rest @ ..] => utf8(rest.to_vec()),
        _ => utf8(bytes),
    }
}

fn utf8(bytes: Vec<u8>) -> Result<String> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + memchr::memchr_iter(b'\n', valid).count();
        anyhow::anyhow!("line {line} is not UTF-8: save the file as UTF-8")
    })?;
    if let Some(at) = text.find('\0') {
        let line = 1 + text[..at].matches('\n').count();
        bail!(
            "line {line} holds a NUL byte: it is not a text file, or UTF-16 without its byte order mark"
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use proptest::prelude::*;

    use super::*;

    fn write(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    fn refusal(path: &Path) -> String {
        format!("{:#}", read(path).unwrap_err())
    }

    proptest! {
        #[test]
        fn text_is_read_in_each_encoding(text in "[^\u{feff}\0]*") {
            let mut utf16le = vec![0xFF, 0xFE];
            utf16le.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
            let mut utf16be = vec![0xFE, 0xFF];
            utf16be.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
            let marked = format!("\u{feff}{text}").into_bytes();
            for bytes in [text.clone().into_bytes(), marked, utf16le, utf16be] {
                prop_assert_eq!(&decode(bytes).unwrap(), &text);
            }
        }
    }

    #[test]
    fn only_regular_files_are_read_and_nothing_is_waited_for() {
        let (folder, path) = write(b"text");
        assert_eq!(read(&path).unwrap(), "text");
        assert!(refusal(folder.path()).ends_with("is a folder: name a regular file"));
        assert!(refusal(Path::new("/dev/zero")).ends_with("is a device: name a regular file"));
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        assert!(refusal(&pipe).ends_with("is a named pipe: name a regular file"));
        assert!(refusal(&folder.path().join("none")).starts_with("reading `"));
    }

    #[test]
    fn what_is_too_large_or_no_text_is_refused_with_its_line() {
        let (_folder, path) = write(b"");
        let sparse = File::options().write(true).open(&path).unwrap();
        sparse.set_len(MAX_FILE_BYTES + 1).unwrap();
        assert!(refusal(&path).ends_with("is larger than the 1024 MiB that labrun reads"));
        sparse.set_len(MAX_LINE_BYTES + 1).unwrap();
        assert!(refusal(&path).ends_with("is longer than 16 MiB"));
        for (bytes, expected) in [
            (&b"a\n\xE9"[..], "line 2 is not UTF-8"),
            (b"a\nb\0", "line 2 holds a NUL byte"),
            (b"\x1F\x8B\x08\x00", "it is compressed (gzip or zstd)"),
            (b"\xFF\xFEa", "ends within a character"),
            (b"\xFF\xFE\x00\xD8", "begins as UTF-16 and is not"),
        ] {
            let (_folder, path) = write(bytes);
            assert!(refusal(&path).contains(expected), "{}", refusal(&path));
        }
    }
}
