//! The tiers below the GPU: host memory, disk, Redis.
//!
//! Lookups and loads block the engine. Writes to disk and Redis do not: they land later, and
//! until then they occupy their device.

#[cfg(test)]
mod tests;
mod writes;

use std::collections::{BTreeMap, HashSet};

use super::{
    cost::{round_us, transfer_us},
    lmcache_config::{Connector, DiskIo, HotCache, OffloadConfig},
    stats::{PhysicalBytes, TierStats},
    store::{Chunk, Policy, Store},
};
use crate::plan::sim_spec::{Fault, SimSpec};

const GIB: f64 = 1_073_741_824.0;

/// A chunk of a prompt as the tiers know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkKey {
    pub(crate) key: u64,
    pub(crate) tokens: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Place {
    Cpu,
    Disk,
    Redis,
}

/// How a lookup went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    InTime,
    TimedOut,
}

/// The longest prefix that the tiers hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lookup {
    /// Tier of each chunk of the prefix.
    pub(crate) places: Vec<Place>,
    pub(crate) tokens: u64,
    pub(crate) done_us: u64,
    pub(crate) answer: Answer,
}

/// KV copied into the GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// Contents of the GPU blocks, in order.
    pub(crate) contents: Vec<u64>,
    pub(crate) tokens: u64,
    pub(crate) size_bytes: u64,
    pub(crate) done_us: u64,
}

/// KV copied out of the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Chunks taken; fewer than offered when host memory was short.
    pub(crate) chunks: usize,
    pub(crate) tokens: u64,
    pub(crate) size_bytes: u64,
    /// Time that the engine is blocked: copying, then handing over to the writers.
    pub(crate) copy_us: u64,
    pub(crate) put_us: u64,
}

#[derive(Debug)]
enum Landing {
    Put {
        place: Place,
        key: u64,
        chunk: Chunk,
        staged_bytes: u64,
    },
    Writeback {
        size_bytes: u64,
    },
}

#[derive(Debug)]
struct Disk {
    store: Store,
    io: DiskIo,
    page_cache: Store,
    free_us: u64,
    writeback_free_us: u64,
}

/// All tiers of one engine.
#[derive(Debug)]
pub(crate) struct Offload {
    config: OffloadConfig,
    spec: SimSpec,
    cpu: Store,
    disk: Option<Disk>,
    redis: Option<Store>,
    redis_free_us: u64,
    landings: BTreeMap<(u64, u64), Landing>,
    landing_keys: HashSet<(Place, u64)>,
    landing_count: u64,
    staged_bytes: u64,
    pub(crate) stats: TierStats,
    pub(crate) physical: PhysicalBytes,
}

impl Offload {
    pub(crate) fn new(config: OffloadConfig, spec: &SimSpec) -> Self {
        let disk = config.disk.as_ref().map(|disk| Disk {
            store: Store::new(disk.capacity_bytes, config.policy),
            io: if spec.has(Fault::PageCacheDisk) {
                DiskIo::Buffered
            } else {
                disk.io
            },
            page_cache: Store::new((spec.page_cache_gib * GIB) as u64, Policy::Lru),
            free_us: 0,
            writeback_free_us: 0,
        });
        let redis_bytes = (spec.redis_gib * GIB) as u64;
        let redis = config
            .remote
            .as_ref()
            .map(|_| Store::new(redis_bytes, Policy::Lru));
        Self {
            cpu: Store::new(config.cpu_bytes, config.policy),
            config,
            spec: spec.clone(),
            disk,
            redis,
            redis_free_us: 0,
            landings: BTreeMap::new(),
            landing_keys: HashSet::new(),
            landing_count: 0,
            staged_bytes: 0,
            stats: TierStats::new(),
            physical: PhysicalBytes::default(),
        }
    }

    pub(crate) fn config(&self) -> &OffloadConfig {
        &self.config
    }

    /// Completes every write that has landed by `now_us`.
    pub(crate) fn settle(&mut self, now_us: u64) {
        while let Some(entry) = self.landings.first_entry() {
            if entry.key().0 > now_us {
                break;
            }
            match entry.remove() {
                Landing::Put {
                    place,
                    key,
                    chunk,
                    staged_bytes,
                } => {
                    self.staged_bytes -= staged_bytes;
                    self.landing_keys.remove(&(place, key));
                    self.put(place, key, chunk);
                }
                Landing::Writeback { size_bytes } => self.physical.disk_write += size_bytes,
            }
        }
        self.refresh_gauges();
    }

    /// Finds the longest prefix of `chunks` in one pass over the tiers.
    ///
    /// Each tier adds the run that starts where the tier before it stopped; an earlier tier is
    /// not asked again. A Redis lookup waits behind the queued writes.
    pub(crate) fn lookup(&mut self, now_us: u64, chunks: &[ChunkKey]) -> Lookup {
        self.settle(now_us);
        let tokens: u64 = chunks.iter().map(|chunk| u64::from(chunk.tokens)).sum();
        let work = self.spec.lookup_us + self.spec.lookup_us_per_token * tokens as f64;
        let mut done_us = now_us
            + if self.is_vllms_own() {
                0
            } else {
                round_us(work)
            };
        let deadline_us = now_us.saturating_add(self.config.lookup_timeout_us);
        let mut places = Vec::new();
        if self.spec.has(Fault::Degraded) {
            done_us = u64::MAX;
        } else {
            self.extend_run(&mut places, chunks, Place::Cpu);
            self.extend_run(&mut places, chunks, Place::Disk);
            if self.redis.is_some() && places.len() < chunks.len() {
                done_us = done_us.max(self.redis_free_us);
                self.settle(done_us.min(deadline_us));
                let before = places.len();
                self.extend_run(&mut places, chunks, Place::Redis);
                let asked = (places.len() - before + 1).min(chunks.len() - before);
                done_us += round_us(self.spec.redis_latency_us * asked as f64);
            }
        }
        let answer = if done_us > deadline_us {
            Answer::TimedOut
        } else {
            Answer::InTime
        };
        if answer == Answer::TimedOut {
            done_us = deadline_us;
            places.clear();
        }
        let hit = chunks[..places.len()]
            .iter()
            .map(|chunk| u64::from(chunk.tokens))
            .sum();
        self.stats.lookup_requests += 1;
        self.stats.lookup_tokens += tokens;
        self.stats.lookup_hits += hit;
        self.stats.lookup_without_hit += u64::from(hit == 0);
        self.stats.time_to_lookup.observe_us(done_us - now_us);
        Lookup {
            places,
            tokens: hit,
            done_us,
            answer,
        }
    }

    /// What is still there of an earlier lookup; takes no time.
    pub(crate) fn recheck(&self, chunks: &[ChunkKey], earlier: &Lookup) -> Lookup {
        let mut places = Vec::new();
        for place in [Place::Cpu, Place::Disk, Place::Redis] {
            self.extend_run(&mut places, &chunks[..earlier.places.len()], place);
        }
        let tokens = chunks[..places.len()]
            .iter()
            .map(|chunk| u64::from(chunk.tokens))
            .sum();
        Lookup {
            places,
            tokens,
            ..earlier.clone()
        }
    }

    fn extend_run(&self, places: &mut Vec<Place>, chunks: &[ChunkKey], place: Place) {
        let store = match place {
            Place::Cpu => Some(&self.cpu),
            Place::Disk => self.disk.as_ref().map(|disk| &disk.store),
            Place::Redis => self.redis.as_ref(),
        };
        let Some(store) = store else { return };
        let rest = &chunks[places.len()..];
        let run = rest
            .iter()
            .take_while(|chunk| store.contains(chunk.key))
            .count();
        places.extend(std::iter::repeat_n(place, run));
    }

    /// Copies the chunks that a lookup found into the GPU, one after another.
    pub(crate) fn load(&mut self, now_us: u64, chunks: &[ChunkKey], places: &[Place]) -> Loaded {
        self.settle(now_us);
        let mut at_us = now_us + round_us(self.spec.load_us);
        let mut loaded = Loaded {
            contents: Vec::new(),
            tokens: 0,
            size_bytes: 0,
            done_us: at_us,
        };
        // Everything is read before anything is written back: hits are pinned.
        let hits: Vec<(Place, u64, Chunk)> = chunks
            .iter()
            .zip(places)
            .map_while(|(chunk, &place)| Some((place, chunk.key, self.get(place, chunk.key)?)))
            .collect();
        let mut last = None;
        for (place, key, chunk) in &hits {
            at_us = self.read(at_us, *place, *key, chunk, last != Some(*place));
            at_us += transfer_us(chunk.size_bytes, self.spec.pcie_load_gb_per_s);
            last = Some(*place);
            loaded.contents.extend_from_slice(&chunk.contents);
            loaded.tokens += u64::from(chunk.tokens);
            loaded.size_bytes += chunk.size_bytes;
        }
        let moved_bytes = if self.spec.has(Fault::HalfLoaded) {
            loaded.size_bytes / 2
        } else {
            loaded.size_bytes
        };
        self.physical.pcie_rx += moved_bytes;
        if self.spec.has(Fault::ImpossibleSpeed) {
            at_us = now_us + 1;
        }
        loaded.done_us = at_us;
        for (place, key, chunk) in hits {
            if place != Place::Cpu && self.keeps_in_cpu() {
                self.put(Place::Cpu, key, chunk);
            }
        }
        self.stats.retrieve_requests += 1;
        self.stats.requested_tokens += loaded.tokens;
        self.stats.hit_tokens += loaded.tokens;
        self.stats.time_to_retrieve.observe_us(at_us - now_us);
        let seconds = (at_us - now_us).max(1) as f64 / 1e6;
        self.stats
            .retrieve_speed
            .observe(loaded.tokens as f64 / seconds);
        loaded
    }

    fn get(&mut self, place: Place, key: u64) -> Option<Chunk> {
        match place {
            Place::Cpu => self.cpu.get(key),
            Place::Disk => self.disk.as_mut()?.store.get(key),
            Place::Redis => self.redis.as_mut()?.get(key),
        }
    }

    /// Reads a chunk into host memory; returns when that is done.
    fn read(&mut self, at_us: u64, place: Place, key: u64, chunk: &Chunk, first: bool) -> u64 {
        let size_bytes = chunk.size_bytes;
        match (place, &mut self.disk) {
            (Place::Cpu, _) | (Place::Disk, None) => at_us,
            (Place::Disk, Some(disk)) => {
                self.stats.file_read_bytes += size_bytes;
                let cached = disk.io == DiskIo::Buffered
                    && (disk.page_cache.get(key).is_some() || self.spec.has(Fault::PageCacheDisk));
                if cached {
                    return at_us + transfer_us(size_bytes, self.spec.page_cache_gb_per_s);
                }
                let latency_us = if first {
                    round_us(self.spec.disk_latency_us)
                } else {
                    0
                };
                let read_us = transfer_us(size_bytes, self.spec.disk_read_gb_per_s);
                disk.free_us = disk.free_us.max(at_us) + latency_us + read_us;
                if disk.io == DiskIo::Buffered {
                    disk.page_cache.insert(key, chunk.clone());
                }
                self.physical.disk_read += size_bytes;
                disk.free_us
            }
            (Place::Redis, _) => {
                let latency_us = round_us(self.spec.redis_latency_us);
                let read_us = transfer_us(size_bytes, self.spec.redis_read_gb_per_s);
                self.redis_free_us = self.redis_free_us.max(at_us) + latency_us + read_us;
                self.physical.redis_read += size_bytes;
                self.stats.remote_reads += 1;
                self.stats.remote_read_bytes += size_bytes;
                self.redis_free_us
            }
        }
    }

    /// Empties the page cache, as `drop_caches` after a `sync` would.
    pub(crate) fn drop_page_cache(&mut self) {
        if let Some(disk) = self.disk.as_mut() {
            disk.page_cache.clear();
        }
    }

    /// Forgets host memory, if the connector can. Files behind it stay; the simple connector forgets
    /// what its file holds.
    pub(crate) fn reset(&mut self) {
        if !self.is_vllms_own() || self.spec.has(Fault::RamAnswersForDisk) {
            return;
        }
        self.cpu.clear();
        if let Some(disk) = self.disk.as_mut()
            && self.config.connector == Connector::Simple
        {
            disk.store.clear();
        }
        self.refresh_gauges();
    }

    fn keeps_in_cpu(&self) -> bool {
        self.config.hot_cache == HotCache::On || self.spec.has(Fault::RamAnswersForDisk)
    }

    /// Whether it is vLLM's own, without LMCache.
    pub(crate) fn is_vllms_own(&self) -> bool {
        self.config.connector != Connector::LmCache
    }

    fn count_evictions(&mut self, evicted: u64) {
        self.stats.cpu_evictions += u64::from(evicted > 0);
        self.stats.cpu_evicted_keys += evicted;
    }

    fn refresh_gauges(&mut self) {
        self.stats.cpu_bytes = self.cpu.used_bytes();
        self.stats.cpu_chunks = self.cpu.len();
        self.stats.disk_bytes = self.disk.as_ref().map_or(0, |disk| disk.store.used_bytes());
        self.stats.remote_bytes = self.redis.as_ref().map_or(0, Store::used_bytes);
        let puts = |to: Place| {
            self.landing_keys
                .iter()
                .filter(|(place, _)| *place == to)
                .count()
        };
        self.stats.remote_puts_pending = puts(Place::Redis);
        self.stats.file_puts_pending = puts(Place::Disk);
    }
}
