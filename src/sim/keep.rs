//! Stores chunks of a simulated tier in a real Redis or a real folder: they outlive this process, as
//! a real tier's do. Only what a chunk stands for is stored, not its bytes.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use redis::{Client, Connection};

use super::store::Chunk;

/// The hash that holds them, a field a chunk.
const HASH: &str = "labrun-sim:chunks";
/// Longest wait for a connection, and the pause between two tries: the network that both are in may
/// be a moment behind their start.
const LIMIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// Chunks by key, the one to be evicted first in front.
pub(crate) type Chunks = Vec<(u64, Chunk)>;

/// The file of a folder that holds them, one behind another, each behind its length.
const FILE: &str = "labrun-sim-chunks";

/// What keeps a tier's chunks beyond a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// The Redis at a URL.
    Redis(String),
    /// A folder.
    Folder(PathBuf),
}

impl Keeper {
    /// What an earlier process left.
    pub(crate) fn load(&self) -> Result<Chunks> {
        let mut ranked: Vec<(u64, u64, Chunk)> = match self {
            Self::Redis(url) => {
                let asked = redis::cmd("HVALS").arg(HASH).query(&mut connect(url)?);
                let values: Vec<Vec<u8>> = asked.context("reading the chunks that Redis keeps")?;
                values.iter().filter_map(|value| decode(value)).collect()
            }
            Self::Folder(folder) => read(folder)?,
        };
        ranked.sort_by_key(|(rank, ..)| *rank);
        let chunks = ranked.into_iter().map(|(_, key, chunk)| (key, chunk));
        Ok(chunks.collect())
    }

    /// Leaves `chunks`, and nothing else of its kind.
    pub(crate) fn save(&self, chunks: &[(u64, Chunk)]) -> Result<()> {
        let values = chunks.iter().enumerate();
        let values = values.map(|(rank, (key, chunk))| (*key, encode(rank as u64, *key, chunk)));
        match self {
            Self::Redis(url) => {
                let mut write = redis::pipe();
                write.atomic().cmd("DEL").arg(HASH);
                for (key, value) in values {
                    write.cmd("HSET").arg(HASH).arg(key).arg(value);
                }
                let written = write.exec(&mut connect(url)?);
                written.context("leaving the tier's chunks in Redis")
            }
            Self::Folder(folder) => {
                let mut all = Vec::new();
                for (_, value) in values {
                    all.extend((value.len() as u64).to_le_bytes());
                    all.extend(value);
                }
                let file = folder.join(FILE);
                std::fs::create_dir_all(folder)
                    .and_then(|()| std::fs::write(&file, all))
                    .with_context(|| format!("leaving the tier's chunks in `{}`", file.display()))
            }
        }
    }
}

/// The chunks in `folder`; none where there is no file.
fn read(folder: &Path) -> Result<Vec<(u64, u64, Chunk)>> {
    let file = folder.join(FILE);
    let all = match std::fs::read(&file) {
        Ok(all) => all,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let what = format!("reading the chunks that `{}` keeps", file.display());
            return Err(error).context(what);
        }
    };
    let mut rest = all.as_slice();
    let next = || {
        let (length, behind) = rest.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (value, behind) = behind.split_at_checked(length)?;
        rest = behind;
        decode(value)
    };
    Ok(std::iter::from_fn(next).collect())
}

fn connect(url: &str) -> Result<Connection> {
    let client = Client::open(url)?;
    let began = Instant::now();
    loop {
        let left = LIMIT.saturating_sub(began.elapsed());
        match client.get_connection_with_timeout(left) {
            Err(_) if began.elapsed() + PAUSE < LIMIT => std::thread::sleep(PAUSE),
            tried => {
                let what = "connecting to the tier's Redis, which is to keep its chunks";
                return tried.context(what);
            }
        }
    }
}

/// Numbers of 8 bytes each: rank, key, tokens, size, contents.
fn encode(rank: u64, key: u64, chunk: &Chunk) -> Vec<u8> {
    let head = [rank, key, u64::from(chunk.tokens), chunk.size_bytes];
    let all = head.iter().chain(chunk.contents.iter());
    all.flat_map(|number| number.to_le_bytes()).collect()
}

fn decode(value: &[u8]) -> Option<(u64, u64, Chunk)> {
    let (numbers, []) = value.as_chunks::<8>() else {
        return None;
    };
    let mut numbers = numbers.iter().map(|number| u64::from_le_bytes(*number));
    let (rank, key) = (numbers.next()?, numbers.next()?);
    let chunk = Chunk {
        tokens: u32::try_from(numbers.next()?).ok()?,
        size_bytes: numbers.next()?,
        contents: numbers.collect::<Vec<u64>>().into(),
    };
    Some((rank, key, chunk))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_chunk_comes_back_as_it_was() {
        let chunk = Chunk {
            tokens: 256,
            size_bytes: 1 << 25,
            contents: Arc::new([7, u64::MAX, 0]),
        };
        let value = encode(3, u64::MAX, &chunk);
        assert_eq!(decode(&value), Some((3, u64::MAX, chunk)));
        assert_eq!(decode(&value[..9]), None, "somebody else's");
    }

    #[test]
    fn a_folder_gives_back_what_was_left_last_and_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let keeper = Keeper::Folder(folder.path().join("kv"));
        assert_eq!(keeper.load().unwrap(), []);
        let chunk = |content| Chunk {
            tokens: 16,
            size_bytes: 1,
            contents: Arc::new([content]),
        };
        keeper.save(&[(1, chunk(1))]).unwrap();
        let chunks = [(9, chunk(3)), (2, chunk(4))];
        keeper.save(&chunks).unwrap();
        assert_eq!(keeper.load().unwrap(), chunks);
    }
}
