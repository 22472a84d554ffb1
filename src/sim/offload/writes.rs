//! Stores: out of the GPU, into host memory, and on to disk and Redis in their own time.

use super::{Chunk, Landing, Offload, Place, Store, Stored};
use crate::{
    plan::sim_spec::Fault,
    sim::{
        cost::{round_us, transfer_us},
        keep::Chunks,
        lmcache_config::DiskIo,
    },
};

impl Offload {
    /// What the store that can outlive the process holds, the next victim first: Redis, or else files.
    pub(crate) fn lasting_chunks(&self) -> Chunks {
        let files = self.disk.as_ref().map(|disk| &disk.store);
        let chunks = self.redis.as_ref().or(files).into_iter();
        let chunks = chunks.flat_map(Store::chunks);
        chunks.map(|(key, chunk)| (key, chunk.clone())).collect()
    }

    /// Puts into that store what an earlier process left there; nothing is moved for it.
    pub(crate) fn restore(&mut self, chunks: Chunks) {
        let files = self.disk.as_mut().map(|disk| &mut disk.store);
        if let Some(store) = self.redis.as_mut().or(files) {
            for (key, chunk) in chunks {
                store.insert(key, chunk);
            }
        }
        self.refresh_gauges();
    }

    /// Copies chunks out of the GPU at `now_us` and queues the writes behind it.
    pub(crate) fn store(&mut self, now_us: u64, offered: Vec<(u64, Chunk)>) -> Stored {
        self.settle(now_us);
        let mut stored = Stored {
            chunks: 0,
            tokens: 0,
            size_bytes: 0,
            copy_us: 0,
            put_us: 0,
        };
        let mut taken = Vec::with_capacity(offered.len());
        let is_full = self.finds_no_memory();
        for (key, chunk) in offered {
            if is_full {
                break;
            }
            let Some(staged_bytes) = self.reserve(key, &chunk) else {
                break;
            };
            stored.chunks += 1;
            stored.tokens += u64::from(chunk.tokens);
            stored.size_bytes += chunk.size_bytes;
            taken.push((key, chunk, staged_bytes));
        }
        stored.copy_us = round_us(self.spec.store_us)
            + transfer_us(stored.size_bytes, self.spec.pcie_store_gb_per_s);
        if self.disk.is_some() {
            let per_token = self.spec.store_submit_us_per_token * stored.tokens as f64;
            stored.put_us = round_us(self.spec.store_submit_us + per_token);
        }
        if self.is_vllms_own() {
            (stored.copy_us, stored.put_us) = (0, 0); // a copy engine does it meanwhile
        }
        let done_us = now_us + stored.copy_us + stored.put_us;
        for (key, chunk, staged_bytes) in taken {
            if self.spec.has(Fault::SilentStoreFailure) {
                self.staged_bytes -= staged_bytes;
                self.stats.file_write_bytes += chunk.size_bytes; // counted, and not done
            } else {
                self.submit(done_us, key, chunk, staged_bytes);
            }
        }
        self.settle(done_us);
        self.physical.pcie_tx += stored.size_bytes;
        self.stats.store_requests += 1;
        self.stats.stored_tokens += stored.tokens;
        self.stats
            .time_to_store
            .observe_us(stored.copy_us + stored.put_us);
        let seconds = (stored.copy_us + stored.put_us).max(1) as f64 / 1e6;
        self.stats
            .store_speed
            .observe(stored.tokens as f64 / seconds);
        stored
    }

    /// Whether the next store is one that the fault of a full buffer hits.
    fn finds_no_memory(&self) -> bool {
        let every = u64::from(self.spec.fault_every_requests.max(1));
        let number = self.stats.store_requests + 1;
        self.spec.has(Fault::FullWriteBuffer) && number.is_multiple_of(every)
    }

    /// Makes room in the host pool for a chunk and returns how much of it was taken; nothing
    /// when writes in flight hold the whole pool.
    fn reserve(&mut self, key: u64, chunk: &Chunk) -> Option<u64> {
        if self.keeps_in_cpu() && self.cpu.contains(key) {
            return Some(0);
        }
        let limit_bytes = self.config.cpu_bytes.saturating_sub(self.staged_bytes);
        let evicted = self.cpu.make_room(chunk.size_bytes, limit_bytes);
        self.count_evictions(evicted);
        if self.cpu.used_bytes() + chunk.size_bytes > limit_bytes {
            self.stats.cpu_evictions_failed += 1;
            return None;
        }
        self.staged_bytes += chunk.size_bytes;
        Some(chunk.size_bytes)
    }

    /// Sends a chunk to every tier that does not have it. `staged_bytes` of the host pool hold
    /// it until the first of them does.
    fn submit(&mut self, at_us: u64, key: u64, chunk: Chunk, mut staged_bytes: u64) {
        let lags = self.spec.has(Fault::StoreLags);
        let lag_us = if lags {
            self.spec.store_lag_ms * 1_000
        } else {
            0
        };
        if self.keeps_in_cpu() && staged_bytes > 0 {
            // From here on the hot cache holds the buffer; the writers share it.
            self.land(at_us + lag_us, Place::Cpu, key, chunk.clone(), staged_bytes);
            staged_bytes = 0;
        }
        if let Some(disk) = self.disk.as_mut()
            && !disk.store.contains(key)
            && !self.landing_keys.contains(&(Place::Disk, key))
        {
            let write_us = transfer_us(chunk.size_bytes, self.spec.disk_write_gb_per_s);
            let done_us = if disk.io == DiskIo::Buffered {
                disk.page_cache.insert(key, chunk.clone());
                disk.writeback_free_us = disk.writeback_free_us.max(at_us) + write_us;
                let writeback = Landing::Writeback {
                    size_bytes: chunk.size_bytes,
                };
                self.landing_count += 1;
                self.landings
                    .insert((disk.writeback_free_us, self.landing_count), writeback);
                at_us + transfer_us(chunk.size_bytes, self.spec.page_cache_gb_per_s)
            } else {
                disk.free_us = disk.free_us.max(at_us) + write_us;
                disk.free_us
            };
            self.land(
                done_us + lag_us,
                Place::Disk,
                key,
                chunk.clone(),
                staged_bytes,
            );
            staged_bytes = 0;
        }
        if let Some(redis) = self.redis.as_ref()
            && !redis.contains(key)
            && !self.landing_keys.contains(&(Place::Redis, key))
        {
            let write_us = transfer_us(chunk.size_bytes, self.spec.redis_write_gb_per_s);
            self.redis_free_us = self.redis_free_us.max(at_us) + write_us;
            self.land(
                self.redis_free_us + lag_us,
                Place::Redis,
                key,
                chunk,
                staged_bytes,
            );
            staged_bytes = 0;
        }
        self.staged_bytes -= staged_bytes; // nobody needs the buffer any more
    }

    fn land(&mut self, at_us: u64, place: Place, key: u64, chunk: Chunk, staged_bytes: u64) {
        self.landing_count += 1;
        self.landing_keys.insert((place, key));
        let landing = Landing::Put {
            place,
            key,
            chunk,
            staged_bytes,
        };
        self.landings.insert((at_us, self.landing_count), landing);
    }

    pub(super) fn put(&mut self, place: Place, key: u64, chunk: Chunk) {
        let size_bytes = chunk.size_bytes;
        match place {
            Place::Cpu => {
                let evicted = self.cpu.insert(key, chunk);
                self.count_evictions(evicted);
            }
            Place::Disk => {
                if let Some(disk) = self.disk.as_mut() {
                    disk.store.insert(key, chunk);
                    self.stats.file_write_bytes += size_bytes;
                    if disk.io == DiskIo::Direct {
                        self.physical.disk_write += size_bytes;
                    }
                }
            }
            Place::Redis => {
                if let Some(redis) = self.redis.as_mut() {
                    redis.insert(key, chunk);
                    self.physical.redis_write += size_bytes;
                    self.stats.remote_writes += 1;
                    self.stats.remote_write_bytes += size_bytes;
                }
            }
        }
    }
}
