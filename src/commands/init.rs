//! `labrun init`: a commented plan that fits this machine.

mod text;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Result;
use serde_json::Value;

use super::ad_hoc::write_new;
use super::launcher::Machine;
use super::plan_source::Source;
use super::{ExitStatus, say};
use crate::bounded;
use crate::cli::{ChangeArgs, InitArgs};
use crate::config::{Config, Settings};
use crate::nvml;
use crate::plan::server::Launcher;
use crate::runner::host::{free_bytes, meminfo};
use crate::server::kv_size::config as kv_config;
use text::{Facts, Model, Server};

/// The most bytes of a model's `config.json`.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// A model that is not gated, for machines that have none.
const DEFAULT_MODEL: &str = "Qwen/Qwen2.5-7B-Instruct";

/// Writes a plan that fits this machine.
pub(super) fn init(args: &InitArgs) -> Result<ExitStatus> {
    let settings = Config::load(args.config.as_deref())?.settings;
    let facts = look(args, &settings);
    let text = text::plan(args, &facts);
    // A tier that there is not is a problem of the plan, reported as any other.
    let source = Source {
        file: args.file.display().to_string(),
        text,
    };
    source.load(&ChangeArgs::default(), &settings, Machine::look)?;
    write_new(&args.file, &source.text)?;
    let file = args.file.display();
    say(&format!("wrote `{file}`: {}", facts.summary()));
    if facts.server.launcher == Launcher::Sim {
        say(&format!(
            "it runs on the simulator ({}): its numbers are simulated",
            facts.server.why
        ));
    }
    let config = args.config.as_ref();
    let config = config.map_or(String::new(), |it| format!(" --config {}", it.display()));
    say(&format!(
        "look at it with `labrun plan {file}{config}`, run it with `labrun {file}{config}`"
    ));
    Ok(ExitStatus::Success)
}

/// What this machine has.
fn look(args: &InitArgs, settings: &Settings) -> Facts {
    let server = match args.launcher {
        Some(launcher) => Server {
            launcher,
            why: "--launcher".to_owned(),
        },
        None => match Machine::look(settings).launcher() {
            Ok((launcher, why)) => Server { launcher, why },
            Err(why) => Server {
                launcher: Launcher::Sim,
                why,
            },
        },
    };
    let hub = hub(settings, server.launcher);
    let models = &settings.paths.models;
    let model = match (&args.model, hub.as_deref().and_then(newest)) {
        (Some(name), _) => model(name, models, hub.as_deref()),
        (None, Some(name)) => model(&name, models, hub.as_deref()),
        (None, None) => model(DEFAULT_MODEL, models, None),
    };
    Facts {
        gpus: gpus(),
        ram_bytes: meminfo("MemAvailable"),
        disk_bytes: free_bytes(Path::new(".")),
        server,
        model,
    }
}

/// Names and memory of the GPUs, bytes.
fn gpus() -> Vec<(String, u64)> {
    let listed = nvml::ask(|nvml| {
        let gpu = |index| {
            let device = nvml.device_by_index(index).ok()?;
            Some((device.name().ok()?, device.memory_info().ok()?.total))
        };
        let count = nvml.device_count().unwrap_or(0);
        (0..count).filter_map(gpu).collect()
    });
    listed.unwrap_or_default()
}

/// The hub's folder in the Hugging Face cache that servers see.
fn hub(settings: &Settings, launcher: Launcher) -> Option<PathBuf> {
    let own = &settings.docker.hf_cache;
    if launcher == Launcher::Docker && !own.as_os_str().is_empty() {
        return Some(own.join("hub"));
    }
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from);
    named("HF_HUB_CACHE")
        .or_else(|| Some(named("HF_HOME")?.join("hub")))
        .or_else(|| Some(named("XDG_CACHE_HOME")?.join("huggingface/hub")))
        .or_else(|| Some(std::env::home_dir()?.join(".cache/huggingface/hub")))
}

/// The generating model that was fetched last.
fn newest(hub: &Path) -> Option<String> {
    let entries = fs::read_dir(hub).ok()?.flatten();
    let models = entries.filter_map(|entry| {
        let folder = entry.file_name().to_string_lossy().into_owned();
        let name = folder.strip_prefix("models--")?.replace("--", "/");
        let config = config_of(&name, hub)?;
        let kinds = config.get("architectures")?.as_array()?;
        let generates = |kind: &Value| {
            kind.as_str()
                .is_some_and(|kind| kind.ends_with("ForCausalLM"))
        };
        let fetched = entry.metadata().and_then(|folder| folder.modified());
        kinds
            .iter()
            .any(generates)
            .then(|| (fetched.unwrap_or(SystemTime::UNIX_EPOCH), name))
    });
    models.max().map(|(_, name)| name)
}

/// The configuration of a model in the cache.
fn config_of(model: &str, hub: &Path) -> Option<Value> {
    serde_json::from_str(&config_text(model, hub)?).ok()
}

fn config_text(model: &str, hub: &Path) -> Option<String> {
    let folder = hub.join(format!("models--{}", model.replace('/', "--")));
    let revision = fs::read_to_string(folder.join("refs/main")).ok()?;
    let config = folder
        .join("snapshots")
        .join(revision.trim())
        .join("config.json");
    bounded::read(&config, MAX_CONFIG_BYTES).ok()
}

/// What is known of a model, which is in the folder `models` of the settings or in the cache.
fn model(name: &str, models: &Path, hub: Option<&Path>) -> Model {
    let local = models.join(name).join("config.json");
    let local = bounded::read(&local, MAX_CONFIG_BYTES).ok();
    let local = local.filter(|_| !models.as_os_str().is_empty());
    let place = match local {
        Some(_) => "in `paths.models`",
        None => "in Hugging Face's cache",
    };
    let text = local.or_else(|| config_text(name, hub?));
    let config: Option<Value> = text
        .as_ref()
        .and_then(|text| serde_json::from_str(text).ok());
    // A model of several senses has the text's own inside.
    let positions = config.as_ref().and_then(|config| {
        let tables = [Some(config), config.get("text_config")];
        let mut tables = tables.into_iter().flatten();
        tables.find_map(|table| table.get("max_position_embeddings")?.as_u64())
    });
    let kv = text.and_then(|text| kv_config::model(&text, &kv_config::Serving::default()).ok());
    Model {
        name: name.to_owned(),
        place: config.is_some().then_some(place),
        positions,
        kv_bytes: kv
            .and_then(|kv| kv.stored.or(kv.device))
            .map(|bytes| bytes.high),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_that_was_fetched_last_and_generates_is_taken() {
        let hub = tempfile::tempdir().unwrap();
        let put = |name: &str, config: &str| {
            let folder = hub
                .path()
                .join(format!("models--{}", name.replace('/', "--")));
            fs::create_dir_all(folder.join("snapshots/c0ffee")).unwrap();
            fs::create_dir_all(folder.join("refs")).unwrap();
            fs::write(folder.join("refs/main"), "c0ffee\n").unwrap();
            fs::write(folder.join("snapshots/c0ffee/config.json"), config).unwrap();
        };
        assert_eq!(newest(hub.path()), None);
        put("org/embeds", r#"{"architectures": ["BertModel"]}"#);
        assert_eq!(newest(hub.path()), None);
        put(
            "org/tiny",
            r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "hidden_size": 256,
                "max_position_embeddings": 8192, "torch_dtype": "bfloat16"}"#,
        );
        assert_eq!(newest(hub.path()).as_deref(), Some("org/tiny"));
        let nowhere = Path::new("");
        let known = model("org/tiny", nowhere, Some(hub.path()));
        assert_eq!(known.place, Some("in Hugging Face's cache"));
        assert_eq!(
            (known.positions, known.kv_bytes),
            (Some(8192), Some(1024.0))
        );
        let unknown = model("org/other", nowhere, Some(hub.path()));
        assert_eq!(
            (unknown.place, unknown.positions, unknown.kv_bytes),
            (None, None, None)
        );
        let models = tempfile::tempdir().unwrap();
        fs::create_dir(models.path().join("own")).unwrap();
        let config = "{\"max_position_embeddings\": 4096}";
        fs::write(models.path().join("own/config.json"), config).unwrap();
        let local = model("own", models.path(), Some(hub.path()));
        assert_eq!(
            (local.place, local.positions),
            (Some("in `paths.models`"), Some(4096))
        );
    }
}
