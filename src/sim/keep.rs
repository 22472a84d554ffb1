//! Stores chunks of the simulated Redis tier in a real Redis: they outlive this process, as a real
//! tier's do. Only what a chunk stands for is stored, not its bytes.

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

/// What an earlier process left in the Redis at `url`.
pub(crate) fn load(url: &str) -> Result<Chunks> {
    let asked = redis::cmd("HVALS").arg(HASH).query(&mut connect(url)?);
    let values: Vec<Vec<u8>> = asked.context("reading the chunks that Redis keeps")?;
    let mut ranked: Vec<(u64, u64, Chunk)> =
        values.iter().filter_map(|value| decode(value)).collect();
    ranked.sort_by_key(|(rank, ..)| *rank);
    let chunks = ranked.into_iter().map(|(_, key, chunk)| (key, chunk));
    Ok(chunks.collect())
}

/// Leaves `chunks`, and nothing else of its kind, in the Redis at `url`.
pub(crate) fn save(url: &str, chunks: &[(u64, Chunk)]) -> Result<()> {
    let mut write = redis::pipe();
    write.atomic().cmd("DEL").arg(HASH);
    for (rank, (key, chunk)) in chunks.iter().enumerate() {
        let value = encode(rank as u64, *key, chunk);
        write.cmd("HSET").arg(HASH).arg(*key).arg(value);
    }
    let written = write.exec(&mut connect(url)?);
    written.context("leaving the tier's chunks in Redis")
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
}
