//! Reads small files: regular ones, up to a limit. A pipe or a device would hang or never end.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The text of the regular file at `path`, of at most `most` bytes.
///
/// # Errors
/// What the system says; that it is no regular file, is larger, or is not UTF-8.
pub fn read(path: &Path, most: u64) -> io::Result<String> {
    let refused = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    // Not blocking: opening a pipe that nobody writes to would wait for ever.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(refused("it is a folder".to_owned()));
    }
    if !kind.is_file() {
        return Err(refused("it is a pipe or a device, not a file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let most = most >> 20;
        return Err(refused(format!("it is larger than {most} MiB")));
    }
    String::from_utf8(bytes).map_err(|_| refused("it is not UTF-8 text".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(refused(dir.path(), 9), "it is a folder");
        assert_eq!(
            refused(Path::new("/dev/zero"), 9),
            "it is a pipe or a device, not a file"
        );
        let pipe = dir.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(refused(&pipe, 9), "it is a pipe or a device, not a file");
    }
}
