//! Keys of a tier whose connector labrun does not know.

use super::Default::{Else, Required, Value};
use super::Type::{Count, Either, Flag, Foreign, List, Section as Table, Sections, Text, Texts};
use super::{Section, key};

/// The key and value that these keys need.
const KIND: &str = "kind = \"connector\"";

/// `[tier.<name>]` of the kind `connector`.
pub(super) const CONNECTOR: Section = Section {
    id: "tier.connector",
    head: "[tier.mine]",
    about: "A tier of the kind `connector`: any connector of vLLM's, also one that labrun has never heard of \
            (`launcher = \"process\"`). In its texts `{folder}` is the scratch folder of the server, `{vllm}` the address of \
            vLLM, and `{port}` and `{port.NAME}` are free ports, the same wherever the name stands; a text that is \
            nothing but a port is passed on as a number.",
    only: "",
    keys: &[
        key(
            "kv_transfer_config",
            Foreign,
            "",
            Required,
            "The value of vLLM's `--kv-transfer-config`, passed on as it is.",
            "{ kv_connector = \"MyConnector\", kv_role = \"kv_both\" }",
        )
        .only(KIND),
        key(
            "args",
            Foreign,
            "",
            Else("none"),
            "Arguments of `vllm serve` for this tier alone, without the leading dashes.",
            "{ kv-cache-dtype = \"fp8\" }",
        )
        .only(KIND),
        key(
            "env",
            Texts,
            "",
            Else("none"),
            "Environment of vLLM for this tier alone.",
            "{ MY_FOLDER = \"{folder}\" }",
        )
        .only(KIND),
        key(
            "chunk_size",
            Count(1, 4_294_967_295),
            "tokens",
            Else("256"),
            "Tokens of a chunk: what hits are expected in.",
            "64",
        )
        .only(KIND),
        key(
            "outlives_restart",
            Flag,
            "",
            Value("false"),
            "Whether what it holds outlives a restart of vLLM and of the side processes.",
            "true",
        )
        .only(KIND),
        key(
            "side",
            Sections("connector.side"),
            "",
            Else("none"),
            "Side processes: they run beside vLLM, and are started before it in this order.",
            "",
        )
        .only(KIND),
        key(
            "watch",
            Table("connector.watch"),
            "",
            Else("nothing: the tier is never proven"),
            "What shows what it loaded.",
            "",
        )
        .only(KIND),
        key(
            "reset",
            Table("connector.reset"),
            "",
            Else("no request"),
            "What empties the RAM before the tier, ahead of a pass that the tier is to serve.",
            "",
        )
        .only(KIND),
    ],
};

/// `[[tier.<name>.side]]`.
pub(super) const SIDE: Section = Section {
    id: "connector.side",
    head: "[[tier.mine.side]]",
    about: "A side process. It is started before vLLM, and stopped after it; its log lies with the cell as \
            `side-NAME.log`. If it ends by itself, the cell fails. One of `ready_port`, `ready_url` and `ready_line` says \
            when it is ready.",
    only: "",
    keys: &[
        key("name", Text, "", Required, "Its name.", "\"store\""),
        key(
            "command",
            List(&Text),
            "",
            Required,
            "The program and its arguments. A program without a `/` is looked for in `process.bin_dir` of the settings, then in \
             PATH.",
            "[\"my-store\", \"--port\", \"9000\"]",
        ),
        key(
            "env",
            Texts,
            "",
            Else("none"),
            "Its environment, over that of `[server.env]`.",
            "{ MY_FOLDER = \"{folder}\" }",
        ),
        key(
            "ready_port",
            Either(&[Count(1, 65_535), Text]),
            "",
            Else("see above"),
            "The port of 127.0.0.1 at which it listens once it is ready: a number, or \"{port.NAME}\".",
            "9000",
        ),
        key(
            "ready_url",
            Text,
            "",
            Else("see above"),
            "A URL that answers with success once it is ready.",
            "\"http://127.0.0.1:9000/health\"",
        ),
        key(
            "ready_line",
            Text,
            "",
            Else("see above"),
            "Text that its log holds once it is ready.",
            "\"listening\"",
        ),
        key(
            "ready_timeout_s",
            Count(1, 4_294_967_295),
            "s",
            Value("60"),
            "Longest wait for that.",
            "120",
        ),
    ],
};

/// `[tier.<name>.watch]`.
pub(super) const WATCH: Section = Section {
    id: "connector.watch",
    head: "[tier.mine.watch]",
    about: "What shows what the connector loaded. Each of `disk`, `redis`, `port`, `pcie` and `counters.loaded_bytes` \
            that is named is to have carried all of it; a pass whose named bytes cannot be read is inconclusive.",
    only: "",
    keys: &[
        key(
            "disk",
            Text,
            "",
            Else("no folder"),
            "The folder of its files. The bytes that vLLM and its side processes read from disk are its loads; the page \
             cache of its files is dropped before a pass.",
            "\"{folder}\"",
        ),
        key(
            "redis",
            Text,
            "",
            Else("no Redis"),
            "The URL of its Redis, which must be empty at the start. The bytes that it sends are its loads.",
            "\"redis://127.0.0.1:6379\"",
        ),
        key(
            "port",
            Either(&[Count(1, 65_535), Text]),
            "",
            Else("no port"),
            "The TCP port at which its store listens, on this machine or another: a number, or \"{port.NAME}\". The bytes \
             that come from it are its loads, by the kernel's counts of all connections of this machine to a port of \
             that number.",
            "6500",
        ),
        key(
            "pcie",
            Flag,
            "",
            Value("false"),
            "Whether it is RAM of this machine and nothing else, so that bytes over PCIe show its loads.",
            "true",
        ),
        key(
            "metrics",
            Text,
            "",
            Else("vLLM's `/metrics`"),
            "URL at which its counters are exposed for Prometheus.",
            "\"http://127.0.0.1:9000/metrics\"",
        ),
        key(
            "counters",
            Table("connector.counters"),
            "",
            Else("none"),
            "Its counters by their names there.",
            "",
        ),
    ],
};

/// `[tier.<name>.watch.counters]`.
pub(super) const COUNTERS: Section = Section {
    id: "connector.counters",
    head: "[tier.mine.watch.counters]",
    about: "Counters of the connector, or of a side process, by the names of their metrics; series that differ in \
            labels are added up.",
    only: "",
    keys: &[
        key(
            "loaded_bytes",
            Text,
            "",
            Else("none"),
            "Bytes that it loaded to the GPU.",
            "\"my_loaded_bytes_total\"",
        ),
        key(
            "stored_bytes",
            Text,
            "",
            Else("none"),
            "Bytes that it stored. What is watched must have been sent as much in a cold pass.",
            "\"my_stored_bytes_total\"",
        ),
        key(
            "hit_tokens",
            Text,
            "",
            Else("none"),
            "Tokens that it found. Too few make a pass invalid; they are no bytes, and prove none.",
            "\"my_hit_tokens_total\"",
        ),
    ],
};

/// `[tier.<name>.reset]`.
pub(super) const RESET: Section = Section {
    id: "connector.reset",
    head: "[tier.mine.reset]",
    about: "A request that empties the RAM before the tier. The GPU's prefix cache is emptied by labrun.",
    only: "",
    keys: &[
        key(
            "url",
            Text,
            "",
            Required,
            "Where it is posted; it must answer with success.",
            "\"{vllm}/reset_prefix_cache?reset_external=true\"",
        ),
        key(
            "body",
            Foreign,
            "",
            Else("an empty one"),
            "Its body, sent as JSON.",
            "{ tier = \"l1\" }",
        ),
    ],
};
