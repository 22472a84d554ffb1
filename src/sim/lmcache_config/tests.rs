use super::*;

fn error(yaml: &str) -> String {
    format!("{:#}", OffloadConfig::from_yaml(yaml).unwrap_err())
}

#[test]
fn an_empty_file_means_lmcaches_defaults() {
    let config = OffloadConfig::from_yaml("").unwrap().offload;
    assert_eq!((config.chunk_tokens, config.hot_cache), (256, HotCache::On));
    assert_eq!(config.cpu_bytes, 5 << 30);
    assert_eq!((config.disk, config.remote), (None, None));
    assert_eq!(config.lookup_timeout_us, 3_000_000);
}

#[test]
fn every_tier_is_read() {
    let yaml = "chunk_size: 128\nlocal_cpu: false\nmax_local_cpu_size: 2\nlocal_disk: \
                file:///mnt/kv/\nmax_local_disk_size: 1.5\nremote_url: redis://u:pw@h:1\n\
                cache_policy: lfu\nextra_config:\n  use_odirect: true\nlocal_device: cpu\n";
    let loaded = OffloadConfig::from_yaml(yaml).unwrap();
    let disk = loaded.offload.disk.unwrap();
    assert_eq!((disk.path.as_str(), disk.io), ("/mnt/kv/", DiskIo::Direct));
    assert_eq!(disk.capacity_bytes, 3 << 29);
    assert_eq!(loaded.offload.remote.unwrap(), "redis://u:pw@h:1");
    assert_eq!(loaded.offload.policy, Policy::Lfu);
    assert_eq!(loaded.unknown_keys, ["local_device"]);
    assert!(
        loaded
            .shown
            .starts_with("{'chunk_size': 128, 'local_cpu': False, ")
    );
    assert!(
        !loaded.shown.contains("pw"),
        "the password is in {}",
        loaded.shown
    );
}

#[test]
fn a_disk_without_a_size_is_no_tier() {
    assert_eq!(
        OffloadConfig::from_yaml("local_disk: /d")
            .unwrap()
            .offload
            .disk,
        None
    );
}

#[test]
fn errors_say_what_to_do() {
    assert!(error("remote_url: s3://bucket").contains("no model of the tier `s3://`"));
    assert!(error("remote_storage_plugins: [mooncake]").contains("use `redis`"));
    assert!(error("chunk_size: [1]").contains("give a number"));
    assert!(error("cache_policy: best").contains("use LRU"));
    assert!(error("max_local_cpu_size: 0").contains("stages through it"));
    assert!(error("- a").contains("not a mapping"));
    assert!(error("a: [").contains("not valid YAML"));
}

#[test]
fn the_plugin_spelling_of_redis_works() {
    let yaml = "remote_storage_plugins: [redis]\nextra_config:\n  \
                remote_storage_plugin.redis.redis_url: redis://box:7000\n";
    let remote = OffloadConfig::from_yaml(yaml).unwrap().offload.remote;
    assert_eq!(remote.as_deref(), Some("redis://box:7000"));
}
