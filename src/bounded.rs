//! Reads files and lines up to a limit, and regular files alone. A pipe or a device would hang or never end.

use std::fs::File;
use std::io::{self, BufRead, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

/// Opens the regular file at `path` for reading.
///
/// # Errors
/// The system's error; also where it is not a regular file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // Not blocking: opening a pipe that nobody writes to would wait for ever.
    let file = File::options()
        .read(true)
        .custom_flags(flags(OFlags::NONBLOCK | OFlags::NOCTTY))
        .open(path)?;
    regular(file)
}

/// Opens the file at `path` to write to it, where it is a regular one or missing; a link is not followed.
/// What it holds stays.
///
/// # Errors
/// The system's error; also where it is a link or not a regular file.
pub(crate) fn open_to_write(path: &Path) -> io::Result<File> {
    let opened = File::options()
        .read(true)
        .append(false)
        .create(true)
        .truncate(false)
        .write(true)
        .custom_flags(flags(OFlags::NONBLOCK | OFlags::NOFOLLOW))
        .open(path);
    match opened {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            Err(refused("it is a link; remove it".to_owned()))
        }
        opened => regular(opened?),
    }
}

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

fn regular(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    let what = match kind {
        kind if kind.is_file() => return Ok(file),
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => "not a regular file",
    };
    Err(refused(format!("it is {what}: name a regular file")))
}

/// The text of the regular file at `path`, of at most `most` bytes.
///
/// # Errors
/// The system's error; also where it is not a regular file, is larger, or is not UTF-8.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<String> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let most = most >> 20;
        return Err(refused(format!("it is larger than {most} MiB")));
    }
    String::from_utf8(bytes).map_err(|_| refused("it is not UTF-8 text".to_owned()))
}

/// The most of one line of a log that is worth reading, bytes.
pub(crate) const MAX_LINE_BYTES: usize = 64 << 10;

/// Reads a line with its end, at most `most` bytes of it; returns how many were left out.
pub(crate) fn read_line(
    from: &mut impl BufRead,
    line: &mut Vec<u8>,
    most: usize,
) -> io::Result<usize> {
    let mut left_out = 0;
    loop {
        let part = match from.fill_buf() {
            Ok(part) => part,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if part.is_empty() {
            return Ok(left_out);
        }
        let end = memchr::memchr(b'\n', part);
        let length = end.map_or(part.len(), |at| at + 1);
        let room = most.saturating_sub(line.len()).min(length);
        line.extend_from_slice(&part[..room]);
        left_out += length - room;
        from.consume(length);
        if end.is_some() {
            // The end of the line itself is written again.
            return Ok(left_out.saturating_sub(usize::from(left_out > 0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_not_written_through_and_what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, link) = (dir.path().join("victim"), dir.path().join("link"));
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        let error = open_to_write(&link).unwrap_err().to_string();
        assert_eq!(error, "it is a link; remove it");
        drop(open_to_write(&victim).unwrap());
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
        let error = open_to_write(Path::new("/dev/null"))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "it is a device: name a regular file");
    }

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, vec![b'a'; 1 << 20]).unwrap();
        assert_eq!(read(&path, 1 << 20).unwrap().len(), 1 << 20);
        let refused = |path: &Path, most| read(path, most).unwrap_err().to_string();
        std::fs::write(&path, vec![b'a'; (1 << 20) + 1]).unwrap();
        assert_eq!(refused(&path, 1 << 20), "it is larger than 1 MiB");
        std::fs::write(&path, [0xff]).unwrap();
        assert_eq!(refused(&path, 9), "it is not UTF-8 text");
        assert_eq!(
            refused(dir.path(), 9),
            "it is a folder: name a regular file"
        );
        assert_eq!(
            refused(Path::new("/dev/zero"), 9),
            "it is a device: name a regular file"
        );
        let pipe = dir.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(refused(&pipe, 9), "it is a named pipe: name a regular file");
    }
}
