//! Redis, and the token of the Hugging Face hub, which is never shown.

use std::path::PathBuf;

use super::line::{Level, Line};
use super::needs::Needs;
use crate::config::Settings;
use crate::server::redis::{Redis, shown};
use crate::units::thousands;

/// Largest value that Redis takes by default, bytes.
const BULK_LIMIT: u64 = 512 << 20;

/// A smaller `maxmemory` has hardly room for one long prompt of a model, bytes.
const SMALL_BYTES: f64 = 4.0 * 1024.0 * 1024.0 * 1024.0;

/// Examines Redis and the token.
pub(super) async fn look(settings: &Settings, needs: &Needs) -> Vec<Line> {
    let mut lines = vec![redis(settings, needs).await, token(needs)];
    lines.extend(needs.libraries.iter().map(|missing| {
        let fix = "install it, or name another adapter";
        Line::of("adapter library", Level::Error, missing, fix)
    }));
    lines
}

pub(super) async fn redis(settings: &Settings, needs: &Needs) -> Line {
    let (topic, url) = ("Redis", settings.redis.url.as_str());
    let level = Needs::level(needs.redis);
    if url.is_empty() {
        return Line::good(topic, "none is named; redis tiers start their own");
    }
    let asked = async {
        let redis = Redis::connect(url).await?;
        let info = redis.info().await?;
        let bulk = redis.largest_value_bytes().await.unwrap_or(BULK_LIMIT);
        // Where the number of keys may not be asked for, the run reports it.
        anyhow::Ok((info, bulk, redis.keys().await.unwrap_or(0)))
    };
    match asked.await {
        Ok((info, bulk, keys)) => {
            let message = format!(
                "{} at {}, values up to {} MiB",
                info.version,
                shown(url),
                bulk >> 20
            );
            let limit = info.maxmemory_bytes.filter(|bytes| *bytes > 0.0);
            if keys > 0 {
                let message = format!("{message}; it holds {} keys", thousands(keys as f64));
                let fix = "a run refuses it: empty its database (FLUSHDB), or name another in `redis.url`";
                Line::of(topic, level, message, fix)
            } else if let Some(bytes) = limit.filter(|bytes| *bytes < SMALL_BYTES) {
                let mib = thousands(bytes / f64::from(1 << 20));
                let message = format!("{message}; its `maxmemory` is {mib} MiB");
                let fix = "raise it (CONFIG SET maxmemory): what it evicts is computed again, or is refused";
                Line::warning(topic, message, fix)
            } else {
                Line::good(topic, message)
            }
        }
        Err(error) => Line::of(
            topic,
            level,
            format!("{error:#}"),
            "start it, name another in `redis.url`, or set `redis_image` in [server] (docker)",
        ),
    }
}

/// Where the hub's token is, as words; `None` where there is none.
pub(super) fn token_place() -> Option<String> {
    if std::env::var_os("HF_TOKEN").is_some_and(|token| !token.is_empty()) {
        return Some("in HF_TOKEN".to_owned());
    }
    let named = std::env::var_os("HF_TOKEN_PATH").map(PathBuf::from);
    let cache = std::env::var_os("HF_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(std::env::home_dir()?.join(".cache/huggingface")));
    let file = named.or_else(|| Some(cache?.join("token")));
    let file = file.filter(|file| file.is_file())?;
    Some(format!("in `{}`", file.display()))
}

fn token(needs: &Needs) -> Line {
    let topic = "HF token";
    match (token_place(), &needs.gated_model) {
        (Some(place), _) => Line::good(topic, format!("present {place} (not shown)")),
        (None, Some(model)) => Line::of(
            topic,
            Level::Warning,
            format!("absent, and `{model}` is a gated model"),
            "accept its terms at huggingface.co, and put HF_TOKEN=... into `.env`",
        ),
        (None, None) => Line::good(topic, "absent; only gated models (Llama, Gemma) need one"),
    }
}
