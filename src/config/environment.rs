//! Settings in `LABRUN_SECTION__KEY` variables.

use std::ffi::OsString;

use anyhow::{Result, bail};
use toml::{Table, Value};

use crate::plan::problem::{list, nearest};

/// Prefix of the names of labrun's variables.
const PREFIX: &str = "LABRUN_";
/// Stands between the section and the key.
const SEPARATOR: &str = "__";
/// The section whose keys are names of variables of servers, in the case that they are written in.
const ENV: &str = "env";

/// The settings that `variables` hold, typed as `defaults` has them: text stays text, also where it
/// looks like a number.
///
/// # Errors
/// All variables that name no setting, with the nearest, and all values of another type. No value is
/// quoted: it may be a secret.
pub(super) fn read(
    variables: impl Iterator<Item = (String, String)>,
    defaults: &Table,
) -> Result<Table> {
    let mut settings = Table::new();
    let mut wrong = Vec::new();
    for (name, value) in variables {
        let parts = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once(SEPARATOR));
        let Some((section, key)) = parts else {
            // Marks that labrun sets on its children look like this, and so may a script's variables.
            if let Some(meant) = misspelt(&name, defaults) {
                wrong.push(format!("unknown setting `{name}`: did you mean `{meant}`?"));
            }
            continue;
        };
        let section = section.to_ascii_lowercase();
        let (key, value) = if section == ENV {
            if key.is_empty() || key.contains(|c: char| c.is_whitespace() || c == '=') {
                wrong.push(format!(
                    "unknown setting `{name}`: a variable's name must follow `{PREFIX}ENV{SEPARATOR}`"
                ));
                continue;
            }
            (key.to_owned(), Ok(Value::String(value)))
        } else {
            let key = key.to_ascii_lowercase();
            let default = defaults.get(&section).and_then(|section| section.get(&key));
            let Some(default) = default else {
                wrong.push(format!(
                    "unknown setting `{name}`: {}",
                    meant(&name, defaults)
                ));
                continue;
            };
            (key, typed(&value, default))
        };
        match value {
            Ok(value) => {
                let table = settings
                    .entry(section)
                    .or_insert_with(|| Table::new().into());
                if let Value::Table(table) = table {
                    table.insert(key, value);
                }
            }
            Err(expected) => wrong.push(format!("`{name}` must be {expected}")),
        }
    }
    if !wrong.is_empty() {
        bail!(
            "the environment or `.env` sets what cannot be: {}",
            wrong.join("; ")
        );
    }
    Ok(settings)
}

/// The variable of every setting but those of `[env]`.
fn names(defaults: &Table) -> Vec<String> {
    let sections = defaults.iter();
    let keys = sections.filter_map(|(section, keys)| Some((section, keys.as_table()?)));
    keys.flat_map(|(section, keys)| {
        let name = move |key: &String| {
            let section = section.to_ascii_uppercase();
            format!("{PREFIX}{section}{SEPARATOR}{}", key.to_ascii_uppercase())
        };
        keys.keys().map(name)
    })
    .collect()
}

fn meant(name: &str, defaults: &Table) -> String {
    let names = names(defaults);
    // The common prefix would make all names similar.
    let short = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
    let shorts: Vec<String> = names.iter().map(|name| short(name)).collect();
    match nearest(&short(name), shorts.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{PREFIX}{near}`?"),
        None => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            format!("valid: {}, and LABRUN_ENV__NAME for servers", list(&names))
        }
    }
}

/// The setting that `name`, which is none, differs from in case and in what separates its words.
fn misspelt(name: &str, defaults: &Table) -> Option<String> {
    if let Some(key) = name.strip_prefix("LABRUN_ENV_") {
        return Some(format!("{PREFIX}ENV{SEPARATOR}{key}"));
    }
    let plain = |name: &str| name.replace(['_', '-', '.'], "").to_ascii_uppercase();
    let wanted = plain(name);
    names(defaults)
        .into_iter()
        .find(|name| plain(name) == wanted)
}

/// The variables as text. Those of others that are not UTF-8 are left out.
///
/// # Errors
/// A variable of labrun's that is not UTF-8.
pub(super) fn text(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>> {
    let named = variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let ours = named.filter_map(|(name, value)| match value.into_string() {
        Ok(value) => Some(Ok((name, value))),
        Err(_) if name.starts_with(PREFIX) => Some(Err(name)),
        Err(_) => None,
    });
    let text: Result<_, String> = ours.collect();
    text.map_err(|name| anyhow::anyhow!("the variable `{name}` is not UTF-8 text"))
}

/// `text` as a value of the type of `default`.
fn typed(text: &str, default: &Value) -> Result<Value, String> {
    let word = text.trim();
    match default {
        Value::Integer(_) => word
            .parse()
            .ok()
            .map(Value::Integer)
            .ok_or("a whole number"),
        Value::Float(_) => word.parse().ok().map(Value::Float).ok_or("a number"),
        Value::Boolean(_) => match word.to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(Value::Boolean(true)),
            "false" | "0" => Ok(Value::Boolean(false)),
            _ => Err("`true` or `false`"),
        },
        Value::Array(_) if word.starts_with('[') => {
            let table: Option<Table> = toml::from_str(&format!("a = {word}")).ok();
            let items = table.and_then(|mut table| table.remove("a"));
            items.ok_or("an array as TOML writes it, or words with commas between them")
        }
        Value::Array(_) => {
            let words = word
                .split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty());
            Ok(words.map(Value::from).collect::<Vec<_>>().into())
        }
        _ => Ok(Value::String(text.to_owned())),
    }
    .map_err(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(pairs: &[(&str, &str)]) -> Result<Table> {
        let defaults: Table = toml::from_str(crate::config::DEFAULTS).unwrap();
        let owned = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        read(owned, &defaults)
    }

    #[test]
    fn values_have_the_type_of_the_setting_and_names_of_servers_keep_their_case() {
        let set = read_of(&[
            ("LABRUN_SLURM__TIME", "120"),
            ("LABRUN_SLURM__GPUS", "8"),
            ("LABRUN_SLURM__ARGS", "--a, --b"),
            ("LABRUN_TELEMETRY__ENABLED", "false"),
            ("LABRUN_TELEMETRY__BUDGET_PERCENT", "5"),
            ("LABRUN_PATHS__RESULTS", "/data"),
            ("LABRUN_ENV__CUDA_VISIBLE_DEVICES", "0,1"),
            ("LABRUN_ENV__http_proxy", "8080"),
            ("LABRUN_ENV__A__B", "x"),
            ("LABRUN_RUN", "a mark"),
            ("PATH", "/bin"),
        ])
        .unwrap();
        assert_eq!(set["slurm"]["time"].as_str(), Some("120"));
        assert_eq!(set["slurm"]["gpus"].as_integer(), Some(8));
        assert_eq!(set["slurm"]["args"].as_array().unwrap().len(), 2);
        assert_eq!(set["telemetry"]["enabled"].as_bool(), Some(false));
        assert_eq!(set["telemetry"]["budget_percent"].as_float(), Some(5.0));
        assert_eq!(set["env"]["CUDA_VISIBLE_DEVICES"].as_str(), Some("0,1"));
        assert_eq!(set["env"]["http_proxy"].as_str(), Some("8080"));
        assert_eq!(set["env"]["A__B"].as_str(), Some("x"));
        assert_eq!(set.len(), 4);
    }

    #[test]
    fn what_names_no_setting_is_refused_with_the_nearest_and_no_value_is_quoted() {
        for (name, meant) in [
            ("LABRUN_REDIS__URLL", "LABRUN_REDIS__URL"),
            ("LABRUN_REDIS_URL", "LABRUN_REDIS__URL"),
            ("LABRUN_PATH__RESULTS", "LABRUN_PATHS__RESULTS"),
            ("LABRUN_PATHS_RESULTS", "LABRUN_PATHS__RESULTS"),
            ("LABRUN_SLURM__PARTITON", "LABRUN_SLURM__PARTITION"),
            ("labrun_paths__results", "LABRUN_PATHS__RESULTS"),
            ("LABRUN-PATHS__RESULTS", "LABRUN_PATHS__RESULTS"),
            ("LABRUN_PATHS.RESULTS", "LABRUN_PATHS__RESULTS"),
            ("LABRUN_ENV_HF_HOME", "LABRUN_ENV__HF_HOME"),
        ] {
            let error = read_of(&[(name, "s3cret")]).unwrap_err().to_string();
            let expected = format!("unknown setting `{name}`: did you mean `{meant}`?");
            assert!(error.contains(&expected), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        for (name, expected) in [
            ("LABRUN_ENV__", "a variable's name must follow"),
            ("LABRUN_ENV__A B", "a variable's name must follow"),
            ("LABRUN_SLURM__GPUS", "a whole number"),
            ("LABRUN_TELEMETRY__ENABLED", "`true` or `false`"),
            ("LABRUN_SLURM__ARGS", "an array"),
        ] {
            let error = read_of(&[(name, "[s3cret")]).unwrap_err().to_string();
            assert!(
                error.contains(expected) && !error.contains("s3cret"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_variable_of_labruns_that_is_no_text_is_refused_and_those_of_others_are_not() {
        use std::os::unix::ffi::OsStringExt as _;
        let pairs = |names: &[&str]| {
            let pair = |name: &&str| (OsString::from(name), OsString::from_vec(vec![0xff]));
            names.iter().map(pair).collect::<Vec<_>>().into_iter()
        };
        assert_eq!(text(pairs(&["LS_COLORS"])).unwrap(), []);
        let error = text(pairs(&["LS_COLORS", "LABRUN_PATHS__RESULTS"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the variable `LABRUN_PATHS__RESULTS` is not UTF-8 text"
        );
    }
}
