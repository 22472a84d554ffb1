//! Keys of tiers that vLLM serves itself, under its own names.

use super::Default::Else;
use super::Type::{Count, Flag, OneOf, Positive};
use super::{Key, Section, key};

const RAM_GIB: Key = key(
    "max_local_cpu_size",
    Positive,
    "GiB",
    Else("5"),
    "RAM of the tier.",
    "30",
);
const RAM_BYTES: Key = key(
    "cpu_bytes_to_use",
    Count(1, u64::MAX),
    "bytes",
    Else("`max_local_cpu_size`"),
    "The same in vLLM's own words.",
    "32212254720",
);
const LAZY: Key = key(
    "lazy_offload",
    Flag,
    "",
    Else("vLLM's: false"),
    "Whether KV is stored only when the GPU is about to evict it. What was not evicted is then in no tier.",
    "false",
);

/// `[tier.<name>]` of vLLM's connector with a chain of tiers.
pub(super) const NATIVE: Section = Section {
    id: "tier.native",
    head: "[tier.\"native+fs\"]",
    about: "Tiers of the kinds `native` (RAM) and `native+fs` (files in the scratch folder, with RAM before them), \
            which vLLM serves by its `OffloadingConnector`. The keys are those of its `kv_connector_extra_config`.",
    only: "",
    keys: &[
        RAM_GIB,
        RAM_BYTES,
        key(
            "block_size",
            Count(1, 4_294_967_295),
            "tokens",
            Else("vLLM's: a block of the GPU"),
            "Tokens of a chunk, a multiple of the GPU's block. A chunk is a file of `native+fs`.",
            "256",
        ),
        key(
            "eviction_policy",
            OneOf(&["lru", "arc"]),
            "",
            Else("vLLM's: lru"),
            "Which chunks leave RAM first.",
            "\"arc\"",
        ),
        key(
            "n_read_threads",
            Count(1, 4_294_967_295),
            "",
            Else("vLLM's: 16"),
            "Threads of `native+fs` that read files first.",
            "16",
        ),
        key(
            "n_write_threads",
            Count(1, 4_294_967_295),
            "",
            Else("vLLM's: 16"),
            "Threads of `native+fs` that write files first.",
            "16",
        ),
    ],
};

/// `[tier.<name>]` of vLLM's simple connector on a disk.
pub(super) const SIMPLE_DISK: Section = Section {
    id: "tier.simple+disk",
    head: "[tier.\"simple+disk\"]",
    about: "A tier of the kind `simple+disk`: one file in the scratch folder, and no RAM, by vLLM's \
            `SimpleCPUOffloadConnector` (vLLM 0.32 or later).",
    only: "",
    keys: &[
        key(
            "disk_capacity_bytes",
            Count(1, u64::MAX),
            "bytes",
            Else("vLLM's: 100 GiB"),
            "What the file holds.",
            "64424509440",
        ),
        key(
            "disk_buffer_slots",
            Count(1, 4_294_967_295),
            "",
            Else("vLLM's: 2"),
            "Blocks of the buffer between GPU and file.",
            "2",
        ),
        key(
            "use_page_cache",
            Flag,
            "",
            Else("vLLM's: false"),
            "Whether the file is read and written through the page cache.",
            "false",
        ),
        LAZY,
    ],
};

/// `[tier.<name>]` of vLLM's simple connector in RAM.
pub(super) const SIMPLE: Section = Section {
    id: "tier.simple",
    head: "[tier.simple]",
    about: "A tier of the kind `simple`: RAM, by vLLM's `SimpleCPUOffloadConnector`.",
    only: "",
    keys: &[RAM_GIB, RAM_BYTES, LAZY],
};
