//! A bounded key-value store with an eviction policy: one cache tier, or the page cache.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// KV of one chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) tokens: u32,
    pub(crate) size_bytes: u64,
    /// Contents of the GPU blocks that it was copied from.
    pub(crate) contents: Arc<[u64]>,
}

/// Which entry goes first when a tier is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Lru,
    Mru,
    Fifo,
    Lfu,
}

#[derive(Debug)]
struct Entry {
    chunk: Chunk,
    uses: u64,
    rank: (u64, u64),
}

/// Chunks up to a capacity.
#[derive(Debug)]
pub(crate) struct Store {
    capacity_bytes: u64,
    used_bytes: u64,
    policy: Policy,
    entries: HashMap<u64, Entry>,
    /// Next victim first.
    order: BTreeSet<(u64, u64, u64)>,
    clock: u64,
}

impl Store {
    pub(crate) fn new(capacity_bytes: u64, policy: Policy) -> Self {
        Self {
            capacity_bytes,
            used_bytes: 0,
            policy,
            entries: HashMap::new(),
            order: BTreeSet::new(),
            clock: 0,
        }
    }

    pub(crate) fn contains(&self, key: u64) -> bool {
        self.entries.contains_key(&key)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Reads an entry, which counts as a use of it.
    pub(crate) fn get(&mut self, key: u64) -> Option<Chunk> {
        self.clock += 1;
        let (clock, policy) = (self.clock, self.policy);
        let entry = self.entries.get_mut(&key)?;
        entry.uses += 1;
        if policy != Policy::Fifo {
            self.order.remove(&(entry.rank.0, entry.rank.1, key));
            entry.rank = rank(policy, clock, entry.uses);
            self.order.insert((entry.rank.0, entry.rank.1, key));
        }
        Some(entry.chunk.clone())
    }

    /// Adds a chunk and evicts what must go; returns how many were evicted. A chunk larger than
    /// the store is refused.
    pub(crate) fn insert(&mut self, key: u64, chunk: Chunk) -> u64 {
        if chunk.size_bytes > self.capacity_bytes || self.contains(key) {
            return 0;
        }
        let evicted = self.make_room(chunk.size_bytes, self.capacity_bytes);
        self.clock += 1;
        let rank = rank(self.policy, self.clock, 1);
        self.used_bytes += chunk.size_bytes;
        self.order.insert((rank.0, rank.1, key));
        self.entries.insert(
            key,
            Entry {
                chunk,
                uses: 1,
                rank,
            },
        );
        evicted
    }

    /// Evicts until `size_bytes` more fit below `limit_bytes`, or nothing is left.
    pub(crate) fn make_room(&mut self, size_bytes: u64, limit_bytes: u64) -> u64 {
        let mut evicted = 0;
        while self.used_bytes + size_bytes > limit_bytes {
            let Some((_, _, key)) = self.order.pop_first() else {
                break;
            };
            if let Some(entry) = self.entries.remove(&key) {
                self.used_bytes -= entry.chunk.size_bytes;
                evicted += 1;
            }
        }
        evicted
    }

    /// Everything, the next victim first.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (u64, &Chunk)> {
        let keys = self.order.iter().map(|(_, _, key)| *key);
        keys.filter_map(|key| Some((key, &self.entries.get(&key)?.chunk)))
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
        self.used_bytes = 0;
    }
}

const fn rank(policy: Policy, clock: u64, uses: u64) -> (u64, u64) {
    match policy {
        Policy::Lru | Policy::Fifo => (clock, 0),
        Policy::Mru => (u64::MAX - clock, 0),
        Policy::Lfu => (uses, clock),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(size_bytes: u64) -> Chunk {
        Chunk {
            tokens: 1,
            size_bytes,
            contents: Arc::new([]),
        }
    }

    /// Inserts 1, 2, 3, uses 1 twice and 3 once, adds 4; returns what is left.
    fn left_after(policy: Policy) -> Vec<u64> {
        let mut store = Store::new(30, policy);
        for key in 1..=3 {
            assert_eq!(store.insert(key, chunk(10)), 0);
        }
        store.get(1);
        store.get(1);
        store.get(3);
        assert_eq!(store.insert(4, chunk(10)), 1, "one had to go");
        assert_eq!(store.used_bytes(), 30);
        (1..=4).filter(|&key| store.contains(key)).collect()
    }

    #[test]
    fn each_policy_picks_its_own_victim() {
        assert_eq!(left_after(Policy::Lru), vec![1, 3, 4]);
        assert_eq!(left_after(Policy::Lfu), vec![1, 3, 4]);
        assert_eq!(left_after(Policy::Fifo), vec![2, 3, 4]);
        assert_eq!(left_after(Policy::Mru), vec![1, 2, 4]);
    }

    #[test]
    fn what_is_larger_than_the_store_is_refused() {
        let mut store = Store::new(30, Policy::Lru);
        store.insert(1, chunk(20));
        assert_eq!(store.insert(2, chunk(31)), 0);
        assert!(store.contains(1) && !store.contains(2));
    }
}
