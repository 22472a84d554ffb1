//! Keys of tiers: labrun's own, and those of LMCache that plans use most.

use super::Default::Else;
use super::Type::{Count, Either, Flag, Foreign, OneOf, Positive, Text};
use super::{Section, key};

/// `[tier.<name>]`.
pub(super) const TIER: Section = Section {
    id: "tier",
    head: "[tier.disk]",
    about: "Sizes and settings of a tier. Built in are `baseline` (the GPU alone), those of LMCache (`cpu`, `disk`, \
            `redis` and `cpu+disk`) and those of vLLM itself (`native`, `native+fs`, `simple` and `simple+disk`, \
            whose keys are below), and stores that only an LMCache server reaches (`valkey`, `s3` and `mooncake`); a tier with another name needs a `kind`. A tier of the kind `connector` is any other connector of vLLM's, with keys of its own. All other keys are LMCache's own.",
    only: "",
    keys: &[
        key(
            "kind",
            OneOf(&[
                "baseline",
                "cpu",
                "disk",
                "redis",
                "cpu+disk",
                "native",
                "native+fs",
                "simple",
                "simple+disk",
                "valkey",
                "s3",
                "mooncake",
                "connector",
            ]),
            "",
            Else("the name of a built-in tier"),
            "What the tier is made of, where its name does not say it.",
            "\"disk\"",
        ),
        key(
            "template",
            Text,
            "",
            Else("the built-in one"),
            "A template of your own for LMCache's configuration, in `paths.templates` of the settings.",
            "\"own.yaml.j2\"",
        ),
        key(
            "max_local_cpu_size",
            Positive,
            "GiB",
            Else("5"),
            "RAM of the tier: for `cpu` what it holds, for `disk` and `redis` the staging buffer.",
            "30",
        ),
        key(
            "max_local_disk_size",
            Positive,
            "GiB",
            Else("20"),
            "What a disk tier holds.",
            "60",
        ),
        key(
            "chunk_size",
            Count(1, 4_294_967_295),
            "tokens",
            Else("256"),
            "Tokens of a chunk. Only whole chunks are stored and hit.",
            "64",
        ),
        key(
            "cache_policy",
            Text,
            "",
            Else("LMCache's: LRU"),
            "Which chunks are evicted first.",
            "\"LRU\"",
        ),
        key(
            "save_unfull_chunk",
            Flag,
            "",
            Else("LMCache's"),
            "Whether the last, shorter chunk of a prompt is stored too.",
            "false",
        ),
        key(
            "save_decode_cache",
            Flag,
            "",
            Else("LMCache's"),
            "Whether KV of generated tokens is stored too.",
            "true",
        ),
        key(
            "local_disk",
            Text,
            "",
            Else("`paths.scratch` of the settings, or the run's folder"),
            "Folder of the chunks.",
            "\"file:///mnt/nvme/kv\"",
        ),
        key(
            "remote_url",
            Text,
            "",
            Else("`redis.url` of the settings, or a Redis that labrun starts"),
            "A Redis; other stores cannot be proven.",
            "\"redis://127.0.0.1:6379\"",
        ),
        key(
            "extra_config",
            Either(&[Foreign, Text]),
            "",
            Else("none"),
            "Further settings of LMCache's backends.",
            "{ use_odirect = true }",
        ),
        key(
            "adapter",
            Foreign,
            "",
            Else("the adapter's own"),
            "Keys of the adapter of an LMCache server's second layer (`lmcache = \"multi-process\"`): its `type` \
             (for `disk` `fs`, `fs_native`, `raw_block` or `nixl_store`, for `redis` and `valkey` `resp`, for `s3` `s3`, for \
             `mooncake` `mooncake_store`) and what that type knows; `s3` needs `s3_endpoint` and `s3_region`, `raw_block` \
             `slot_bytes` (a chunk and 4 KiB, in whole 4 KiB), `mooncake_store` `metadata_server`. `serde = { type = \"fp8\" }` \
             (or `turboquant`, both with a loss, or `aesgcm`, without one) is what KV is stored with.",
            "{ type = \"fs_native\", num_workers = 8 }",
        ),
        key(
            "fault_inject",
            Foreign,
            "",
            Else("no faults"),
            "Faults that LMCache's server puts before the adapter: a share `rate` of the chunks (chosen by `seed`) is \
             found and fails to load. Shows that a verdict sees what was not loaded.",
            "{ rate = 0.1, seed = 1 }",
        ),
    ],
};
