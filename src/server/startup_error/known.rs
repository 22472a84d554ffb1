//! What is known of the reasons for which vLLM and LMCache end while they start: how to recognise
//! one, and what to do about it.

use crate::server::{adapter_library, vllm_arguments};

/// A reason that is recognised by what a line of the log contains.
struct Known {
    /// Any of these.
    marks: &'static [&'static str],
    /// What to do, one sentence without a full stop.
    advice: &'static str,
}

/// The more special come first.
const KNOWN: [Known; 24] = [
    Known {
        marks: &["CPU Offloading is currently only supported on CUDA-alike"],
        advice: "vLLM's own offloading copies with CUDA or XPU and has nothing for a CPU: remove the \
                 tier `native`, or run on a GPU",
    },
    Known {
        marks: &["is greater than the derived max_model_len"],
        advice: "lower `max-model-len` in [server.args] to what the model has, or take a model with \
                 more positions",
    },
    Known {
        marks: &[
            "larger than the available KV cache memory",
            "No available memory for the cache blocks",
            "larger than the maximum number of tokens that can be stored in KV cache",
        ],
        advice: "the KV cache has no room for one prompt of `max-model-len`: lower that, or raise \
                 `gpu-memory-utilization` (on a CPU: VLLM_CPU_KVCACHE_SPACE)",
    },
    Known {
        marks: &["is less than desired GPU memory utilization"],
        advice: "something else holds GPU memory (`nvidia-smi` lists it): end it, or lower \
                 `gpu-memory-utilization` in [server.args]",
    },
    Known {
        marks: &[
            "CUDA out of memory",
            "CUDA error: out of memory",
            "cudaErrorMemoryAllocation",
            "torch.OutOfMemoryError",
            "torch.cuda.OutOfMemoryError",
        ],
        advice: "the GPU's memory is full: lower `gpu-memory-utilization` or `max-num-seqs`, raise \
                 `tensor-parallel-size`, or take a smaller model",
    },
    Known {
        marks: &[
            "can't allocate memory",
            "Cannot allocate memory",
            "std::bad_alloc",
            "MemoryError",
            "cudaHostAlloc",
            "cudaHostRegister",
            "Not enough available memory",
            "is not enough for the KV cache",
            // A process that the kernel killed, as vLLM's front process reports it.
            "': -9",
        ],
        advice: "this machine's memory is full or limited: lower `max_local_cpu_size` of the tier (on a \
                 CPU: VLLM_CPU_KVCACHE_SPACE), or raise the limit (`labrun doctor` shows it)",
    },
    Known {
        marks: &["gated repo", "GatedRepoError", "is restricted. You must"],
        advice: "accept the model's terms on its page at huggingface.co, and put HF_TOKEN=... into \
                 `.env`",
    },
    Known {
        marks: &[
            "RepositoryNotFoundError",
            "Repository Not Found",
            "is not a valid model identifier",
            "Repo id must be in the form",
        ],
        advice: "no such model: check `model`, or, where it is private, put HF_TOKEN=... into `.env`",
    },
    Known {
        marks: &[
            "We couldn't connect to",
            "LocalEntryNotFoundError",
            "OfflineModeIsEnabled",
            "offline mode is enabled",
            "Temporary failure in name resolution",
            "Name or service not known",
            "Max retries exceeded",
            "Cannot find the requested files in the disk cache",
            "Cannot find an appropriate cached snapshot folder",
        ],
        advice: "the model is not on this machine and its hub does not answer: fetch it before (`hf \
                 download MODEL`), or put its folder below `paths.models` of the settings",
    },
    Known {
        marks: &[
            "driver on your system is too old",
            "CUDA driver version is insufficient",
            "compiled with an unsupported toolchain",
            "no kernel image is available",
        ],
        advice: "vLLM's build and this GPU's driver do not fit: update the driver, or take a vLLM for \
                 its CUDA (`labrun doctor` shows both)",
    },
    Known {
        marks: &[
            "Failed to infer device type",
            "No CUDA GPUs are available",
            "Found no NVIDIA driver",
            "NVML Shared Library Not Found",
            "libcuda.so.1: cannot open",
            "Device string must not be empty",
        ],
        advice: "the server sees no GPU: check `nvidia-smi` and CUDA_VISIBLE_DEVICES (in Docker \
                 `gpus` in [server]), or rehearse with `launcher = \"sim\"`",
    },
    Known {
        marks: &[
            "Address already in use",
            "address already in use",
            "[Errno 98]",
        ],
        advice: "another program took the port: run again with --resume, or leave `port` out of \
                 [server]",
    },
    Known {
        marks: &["Unsupported connector type", "Unknown kv connector"],
        advice: "this vLLM does not know the connector of the tier: take a version that does, or \
                 another `lmcache` mode in [server]",
    },
    Known {
        marks: &["No module named 'nixl"],
        advice: adapter_library::NIXL_FIX,
    },
    Known {
        marks: &["Rust raw-block extension is not installed"],
        advice: adapter_library::RAW_BLOCK_FIX,
    },
    Known {
        marks: &["requires the C++ Mooncake extension"],
        advice: adapter_library::MOONCAKE_FIX,
    },
    Known {
        marks: &["No module named 'lmcache"],
        advice: "LMCache is not installed beside vLLM: `pip install lmcache` there, or take an image \
                 that has it (`lmcache/vllm-openai`)",
    },
    Known {
        marks: &[
            "lmcache/c_ops",
            "No module named 'lmcache.c_ops",
            "lmcache.c_ops",
        ],
        advice: "this LMCache was not built for this vLLM's torch: install a pair that fits",
    },
    Known {
        marks: &[
            "larger than the number of available GPUs",
            "is larger than available device",
            "World size",
        ],
        advice: "the plan asks for more GPUs than there are: lower `tensor-parallel-size` in \
                 [server.args]",
    },
    Known {
        marks: &["must be divisible by tensor parallel size"],
        advice: "set `tensor-parallel-size` in [server.args] to a number that divides the model's heads",
    },
    Known {
        marks: &["trust_remote_code=True"],
        advice: "the model comes with code of its own: read it, and set `trust-remote-code = true` in \
                 [server.args]",
    },
    Known {
        marks: &[
            "does not recognize this architecture",
            "are not supported for now",
            "failed to be inspected",
        ],
        advice: "this vLLM does not know the model: take a newer one",
    },
    Known {
        marks: &["No space left on device"],
        advice: "a disk, or `/dev/shm`, is full: make room there",
    },
    Known {
        marks: &["is only supported on GPUs with compute capability"],
        advice: "this GPU has no bfloat16: set `dtype = \"half\"` in [server.args]",
    },
];

/// What argparse says of an argument that no option has.
const UNRECOGNIZED: &str = "unrecognized arguments: ";

/// What to do about `text`, where it is known.
pub(super) fn advice(text: &str) -> Option<String> {
    if let Some((_, rest)) = text.split_once(UNRECOGNIZED) {
        return Some(unrecognized(rest));
    }
    let is_meant = |known: &&Known| known.marks.iter().any(|mark| text.contains(mark));
    KNOWN
        .iter()
        .find(is_meant)
        .map(|known| known.advice.to_owned())
}

/// What was meant by the first of the arguments that `vllm serve` refused.
fn unrecognized(arguments: &str) -> String {
    let named = arguments
        .split_whitespace()
        .find_map(|word| word.strip_prefix("--"));
    let name = named.map(|word| word.split('=').next().unwrap_or(word));
    match name.and_then(|name| Some((name, vllm_arguments::meant(name)?))) {
        Some((name, meant)) if name != meant => {
            format!("write `{meant}` instead of `{name}` in [server.args]")
        }
        _ => "remove it from [server.args] or [server.lmcache_args], or take a version that has it"
            .to_owned(),
    }
}
