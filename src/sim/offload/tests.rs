use super::*;

const SIZE: u64 = 1_000_000;

fn offload(yaml: &str, faults: &[Fault]) -> Offload {
    let config = OffloadConfig::from_yaml(yaml).unwrap().offload;
    Offload::new(
        config,
        &SimSpec {
            faults: faults.to_vec(),
            ..SimSpec::default()
        },
    )
}

fn chunk() -> Chunk {
    Chunk {
        tokens: 256,
        size_bytes: SIZE,
        contents: (0..16).collect(),
    }
}

fn keys(range: std::ops::Range<u64>) -> Vec<ChunkKey> {
    range.map(|key| ChunkKey { key, tokens: 256 }).collect()
}

fn store(offload: &mut Offload, now_us: u64, range: std::ops::Range<u64>) -> Stored {
    offload.store(now_us, range.map(|key| (key, chunk())).collect())
}

const HOUR_US: u64 = 3_600_000_000;
const DISK: &str = "local_cpu: false\nlocal_disk: /d\nmax_local_disk_size: 1\n";
const DIRECT: &str =
    "local_cpu: false\nlocal_disk: /d\nmax_local_disk_size: 1\nextra_config: {use_odirect: true}";
const REDIS: &str = "local_cpu: false\nremote_url: redis://h:1";

#[test]
fn one_pass_over_the_tiers_joins_only_adjacent_runs() {
    let yaml = "local_disk: /d\nmax_local_disk_size: 1";
    let mut offload = offload(yaml, &[]);
    for key in (0..4).chain(8..12) {
        offload.put(Place::Cpu, key, chunk());
    }
    for key in 4..8 {
        offload.put(Place::Disk, key, chunk());
    }
    let hit = offload.lookup(0, &keys(0..12));
    assert_eq!(
        hit.tokens,
        8 * 256,
        "the CPU tier is not asked again after the disk"
    );
    assert_eq!(hit.places, [[Place::Cpu; 4], [Place::Disk; 4]].concat());
    for key in 0..12 {
        offload.put(Place::Disk, key, chunk());
    }
    assert_eq!(offload.lookup(0, &keys(0..12)).tokens, 12 * 256);
    assert_eq!(offload.lookup(0, &keys(20..22)).tokens, 0);
    assert_eq!(offload.stats.lookup_without_hit, 1);
}

#[test]
fn a_write_to_redis_lands_later_and_lookups_wait_behind_it() {
    let mut offload = offload(REDIS, &[]);
    let stored = store(&mut offload, 0, 0..100);
    let free_us = offload.redis_free_us;
    assert!(free_us > 76_000, "100 MB at 1.3 GB/s, got {free_us}");
    assert!(
        offload.stats.remote_puts_pending > 90,
        "writes are still queued"
    );
    let quick = offload.spec.lookup_us + offload.spec.lookup_us_per_token * 256.0;
    let lookup = offload.lookup(stored.copy_us, &keys(0..1));
    assert_eq!(
        lookup.done_us,
        free_us + 500,
        "it waits for the queue, not for {quick} us"
    );
    assert_eq!((lookup.tokens, lookup.answer), (256, Answer::InTime));
    let idle = offload.lookup(HOUR_US, &keys(0..1));
    assert!(idle.done_us - HOUR_US < 3_000, "no queue, no wait");
    assert_eq!(offload.physical.redis_write, 100 * SIZE);
}

#[test]
fn a_lookup_that_takes_too_long_is_a_miss() {
    let mut offload = offload(&format!("{REDIS}\nlookup_timeout_ms: 20"), &[]);
    store(&mut offload, 0, 0..100);
    let lookup = offload.lookup(10_000, &keys(0..1));
    assert_eq!((lookup.tokens, lookup.answer), (0, Answer::TimedOut));
    assert_eq!(lookup.done_us, 30_000);
}

#[test]
fn the_page_cache_answers_for_a_buffered_disk_until_it_is_dropped() {
    let mut offload = offload(DISK, &[]);
    store(&mut offload, 0, 0..10);
    let load = |offload: &mut Offload| {
        let hit = offload.lookup(HOUR_US, &keys(0..10));
        let loaded = offload.load(HOUR_US, &keys(0..10), &hit.places);
        (loaded.done_us - HOUR_US, offload.physical.disk_read)
    };
    let (warm_us, read_bytes) = load(&mut offload);
    assert_eq!(read_bytes, 0, "no byte came from the disk");
    offload.drop_page_cache();
    let (cold_us, read_bytes) = load(&mut offload);
    assert_eq!(read_bytes, 10 * SIZE);
    assert!(
        cold_us > 10 * warm_us,
        "{cold_us} us after the drop, {warm_us} us before"
    );
    assert_eq!(
        offload.physical.disk_write,
        10 * SIZE,
        "written back in the meantime"
    );
    assert_eq!(
        load(&mut offload),
        (warm_us, 10 * SIZE),
        "the read filled the page cache"
    );
    assert_eq!(offload.physical.pcie_rx, 30 * SIZE);
}

#[test]
fn o_direct_always_reads_the_disk_and_shares_it_with_the_writes() {
    let mut offload = offload(DIRECT, &[]);
    let stored = store(&mut offload, 0, 0..10);
    let at_us = stored.copy_us + stored.put_us;
    assert_eq!(
        offload.lookup(at_us, &keys(0..10)).tokens,
        0,
        "not written yet"
    );
    let done_us = at_us + 10_000;
    assert_eq!(offload.lookup(done_us, &keys(0..10)).tokens, 10 * 256);
    store(&mut offload, done_us, 10..30);
    let loaded = offload.load(done_us, &keys(0..10), &[Place::Disk; 10]);
    assert_eq!(offload.physical.disk_read, 10 * SIZE);
    assert!(
        loaded.done_us > done_us + 40_000,
        "20 writes, the latency and 10 reads"
    );
}

#[test]
fn a_disk_fault_hides_the_disk() {
    for (fault, yaml) in [
        (Fault::PageCacheDisk, DIRECT),
        (Fault::RamAnswersForDisk, DIRECT),
    ] {
        let mut offload = offload(yaml, &[fault]);
        store(&mut offload, 0, 0..10);
        offload.drop_page_cache();
        let hit = offload.lookup(HOUR_US, &keys(0..10));
        let loaded = offload.load(HOUR_US, &keys(0..10), &hit.places);
        assert_eq!(
            (loaded.tokens, offload.physical.disk_read),
            (2_560, 0),
            "{fault}"
        );
        assert_eq!(
            offload.physical.pcie_rx,
            10 * SIZE,
            "{fault}: the GPU got its bytes"
        );
        let in_ram = hit.places.contains(&Place::Cpu);
        assert_eq!(in_ram, fault == Fault::RamAnswersForDisk);
    }
}

#[test]
fn stored_kv_is_found_later_when_stores_lag() {
    let mut offload = offload("local_cpu: true", &[Fault::StoreLags]);
    let stored = store(&mut offload, 0, 0..1);
    assert_eq!(
        offload
            .lookup(stored.copy_us + 4_900_000, &keys(0..1))
            .tokens,
        0
    );
    assert_eq!(
        offload
            .lookup(stored.copy_us + 5_000_000, &keys(0..1))
            .tokens,
        256
    );
}

#[test]
fn a_hit_below_is_written_back_to_the_hot_cache() {
    let mut offload = offload("local_disk: /d\nmax_local_disk_size: 1", &[]);
    offload.put(Place::Disk, 0, chunk());
    let places = offload.lookup(0, &keys(0..1)).places;
    assert_eq!(places, [Place::Disk]);
    offload.load(0, &keys(0..1), &places);
    assert_eq!(offload.lookup(0, &keys(0..1)).places, [Place::Cpu]);
}

#[test]
fn the_hot_cache_evicts_the_least_recently_used_chunk() {
    let mut offload = offload("max_local_cpu_size: 0.003", &[]); // 3 chunks
    store(&mut offload, 0, 0..3);
    offload.load(HOUR_US, &keys(0..1), &[Place::Cpu]);
    store(&mut offload, HOUR_US, 3..4);
    assert_eq!(
        offload.lookup(HOUR_US, &keys(0..1)).tokens,
        256,
        "used since"
    );
    assert_eq!(offload.lookup(HOUR_US, &keys(1..2)).tokens, 0, "the oldest");
    assert_eq!(offload.stats.cpu_evicted_keys, 1);
}

#[test]
fn a_store_is_cut_short_when_queued_writes_hold_the_host_pool() {
    let yaml = format!("{DIRECT}\nmax_local_cpu_size: 0.005");
    let mut offload = offload(&yaml, &[]);
    assert_eq!(store(&mut offload, 0, 0..4).chunks, 4);
    assert_eq!(
        store(&mut offload, 1, 4..8).chunks,
        1,
        "room for 5 chunks in all"
    );
    assert_eq!(
        store(&mut offload, HOUR_US, 8..12).chunks,
        4,
        "the writes are done"
    );
    assert_eq!(offload.staged_bytes, 4 * SIZE);
    offload.settle(2 * HOUR_US);
    assert_eq!(offload.staged_bytes, 0);
}

#[test]
fn storing_the_same_chunk_twice_writes_it_once() {
    for yaml in [DIRECT, REDIS, "local_cpu: true", DISK] {
        let mut offload = offload(yaml, &[]);
        store(&mut offload, 0, 0..4);
        store(&mut offload, 1, 0..4);
        store(&mut offload, HOUR_US, 0..4);
        offload.settle(2 * HOUR_US);
        assert_eq!(offload.staged_bytes, 0, "{yaml}");
        assert!(offload.physical.redis_write <= 4 * SIZE, "{yaml}");
        assert!(offload.physical.disk_write <= 4 * SIZE, "{yaml}");
        assert_eq!(
            offload.physical.pcie_tx,
            12 * SIZE,
            "the copy out of the GPU is paid again"
        );
    }
}

#[test]
fn native_offloading_stores_behind_the_engines_back_and_can_be_reset() {
    let config = OffloadConfig::native(1 << 30, 16);
    let mut offload = Offload::new(config, &SimSpec::default());
    let stored = store(&mut offload, 0, 0..4);
    assert_eq!((stored.copy_us, stored.put_us), (0, 0));
    assert_eq!(offload.lookup(1, &keys(0..4)).tokens, 4 * 256);
    offload.reset();
    assert_eq!(offload.lookup(1, &keys(0..4)).tokens, 0);
}

fn own_tier(extra: &serde_json::Value, connector: &str, faults: &[Fault]) -> Offload {
    let text = serde_json::json!({"kv_connector": connector, "kv_connector_extra_config": extra});
    let config = OffloadConfig::from_transfer_config(&text.to_string(), 16).unwrap();
    let spec = SimSpec {
        faults: faults.to_vec(),
        ..SimSpec::default()
    };
    Offload::new(config, &spec)
}

fn files_behind_ram(faults: &[Fault]) -> Offload {
    let tiers = serde_json::json!([{"type": "fs", "root_dir": "/kv"}]);
    let extra = serde_json::json!({"cpu_bytes_to_use": 20 * SIZE, "secondary_tiers": tiers});
    own_tier(&extra, "OffloadingConnector", faults)
}

#[test]
fn files_behind_vllms_ram_serve_once_it_is_emptied_and_fill_it_again() {
    let mut offload = files_behind_ram(&[]);
    store(&mut offload, 0, 0..10);
    assert_eq!(offload.stats.file_puts_pending, 10, "they cascade later");
    let found = offload.lookup(HOUR_US, &keys(0..10));
    assert_eq!(found.places, [Place::Cpu; 10], "RAM comes first");
    assert_eq!(offload.stats.file_write_bytes, 10 * SIZE);
    offload.reset();
    let found = offload.lookup(HOUR_US, &keys(0..10));
    assert_eq!(found.places, [Place::Disk; 10]);
    offload.load(HOUR_US, &keys(0..10), &found.places);
    let read = (offload.physical.disk_read, offload.stats.file_read_bytes);
    assert_eq!(read, (10 * SIZE, 10 * SIZE));
    let again = offload.lookup(HOUR_US, &keys(0..10));
    assert_eq!(again.places, [Place::Cpu; 10], "what was promoted");
    let mut next = files_behind_ram(&[]);
    next.restore(offload.lasting_chunks());
    assert_eq!(next.lookup(0, &keys(0..10)).places, [Place::Disk; 10]);
}

#[test]
fn what_leaves_vllms_ram_is_still_in_files() {
    let mut offload = files_behind_ram(&[]);
    for begin in [0, 10, 20] {
        store(&mut offload, begin * HOUR_US, begin..begin + 10);
    }
    let found = offload.lookup(30 * HOUR_US, &keys(0..10));
    assert_eq!(found.places, [Place::Disk; 10]);
    assert_eq!(
        offload.lookup(30 * HOUR_US, &keys(20..30)).places,
        [Place::Cpu; 10]
    );
}

#[test]
fn ram_that_a_reset_leaves_answers_for_the_files() {
    let mut offload = files_behind_ram(&[Fault::RamAnswersForDisk]);
    store(&mut offload, 0, 0..10);
    offload.reset();
    assert_eq!(
        offload.lookup(HOUR_US, &keys(0..10)).places,
        [Place::Cpu; 10]
    );
}

#[test]
fn the_simple_connectors_file_has_no_ram_before_it_and_a_reset_forgets_it() {
    let extra = serde_json::json!({"kv_offload_backend": "disk", "disk_path": "/kv/kv"});
    let mut offload = own_tier(&extra, "SimpleCPUOffloadConnector", &[]);
    store(&mut offload, 0, 0..10);
    let found = offload.lookup(HOUR_US, &keys(0..10));
    assert_eq!(found.places, [Place::Disk; 10]);
    offload.load(HOUR_US, &keys(0..10), &found.places);
    assert_eq!(
        offload.lookup(HOUR_US, &keys(0..10)).places,
        [Place::Disk; 10]
    );
    offload.reset();
    assert_eq!(offload.lookup(HOUR_US, &keys(0..10)).tokens, 0);
}

#[test]
fn half_loaded_moves_half_and_counts_and_reads_all() {
    let mut offload = offload(DIRECT, &[Fault::HalfLoaded]);
    store(&mut offload, 0, 0..10);
    let found = offload.lookup(HOUR_US, &keys(0..10));
    let loaded = offload.load(HOUR_US, &keys(0..10), &found.places);
    assert_eq!((loaded.tokens, loaded.size_bytes), (2_560, 10 * SIZE));
    assert_eq!(offload.physical.disk_read, 10 * SIZE);
    assert_eq!(offload.physical.pcie_rx, 5 * SIZE);
}

#[test]
fn impossible_speed_takes_no_time_and_moves_all() {
    let mut offload = offload("local_cpu: true", &[Fault::ImpossibleSpeed]);
    store(&mut offload, 0, 0..10);
    let found = offload.lookup(HOUR_US, &keys(0..10));
    let loaded = offload.load(HOUR_US, &keys(0..10), &found.places);
    assert_eq!((loaded.tokens, loaded.done_us), (2_560, HOUR_US + 1));
    assert_eq!(offload.physical.pcie_rx, 10 * SIZE);
}

#[test]
fn a_full_write_buffer_refuses_every_fourth_store() {
    let mut offload = offload("local_cpu: true", &[Fault::FullWriteBuffer]);
    let taken = (0..8).map(|number| store(&mut offload, number, number * 2..number * 2 + 2).chunks);
    assert_eq!(taken.collect::<Vec<_>>(), [2, 2, 2, 0, 2, 2, 2, 0]);
    assert_eq!(offload.staged_bytes, 0, "nothing is left in the buffer");
}

#[test]
fn a_silent_store_failure_counts_what_it_does_not_store() {
    let mut offload = offload(DIRECT, &[Fault::SilentStoreFailure]);
    let stored = store(&mut offload, 0, 0..10);
    assert_eq!((stored.chunks, offload.stats.stored_tokens), (10, 2_560));
    assert_eq!(offload.lookup(HOUR_US, &keys(0..10)).tokens, 0);
    assert_eq!((offload.physical.disk_write, offload.staged_bytes), (0, 0));
}
