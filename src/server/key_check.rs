//! Whether LMCache knows the keys that it is given, by the list of its version.

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use super::render::Rendered;
use crate::foreign::without_colours;
use crate::plan::adapter::AdapterSpec;
use crate::plan::lmcache_keys::{self, Version};
use crate::plan::server::LmcacheMode;

/// The line of the in-process engine that names its version.
const ENGINE_LINE: &str = "LMCache initialized for role ";
/// Before the version in the banner of an `lmcache server`.
const BANNER: &str = " LMCache v";

/// Checks that every key of a rendered file, or every argument in it and in the plan's own `more`,
/// is one that LMCache has: in `version`, or, where that is not known yet, in any that is listed.
///
/// # Errors
/// Names the first that it does not have, with the versions that do or the nearest of its own.
pub(crate) fn check(
    rendered: &Rendered,
    mode: LmcacheMode,
    more: &[String],
    version: Option<Version>,
) -> Result<()> {
    let keys = match mode {
        LmcacheMode::InProcess => keys_of(rendered)?,
        LmcacheMode::MultiProcess => {
            let mut arguments = rendered.arguments()?;
            arguments.extend_from_slice(more);
            check_adapters(&arguments, version)?;
            arguments.iter().filter_map(|text| flag(text)).collect()
        }
    };
    for key in keys {
        lmcache_keys::check(mode, &key, version).map_err(|message| anyhow!(message))?;
    }
    Ok(())
}

fn keys_of(rendered: &Rendered) -> Result<Vec<String>> {
    let value: Value = serde_yaml_ng::from_str(&rendered.text)
        .with_context(|| format!("`{}` is not valid YAML", rendered.file_name))?;
    match value {
        Value::Object(keys) => Ok(keys.into_iter().map(|(key, _)| key).collect()),
        _ => bail!(
            "`{}` must be a YAML mapping of LMCache's keys",
            rendered.file_name
        ),
    }
}

/// Checks the keys of each adapter in `arguments`, where the version is known: any adapter takes what it
/// does not know, and ignores it.
fn check_adapters(arguments: &[String], version: Option<Version>) -> Result<()> {
    if version.is_none() {
        return Ok(());
    }
    let adapters = arguments
        .windows(2)
        .filter(|pair| pair[0] == "--l2-adapter");
    for pair in adapters {
        let given = serde_json::from_str(&pair[1]).unwrap_or_default();
        AdapterSpec::check_given(&given, version).map_err(|message| anyhow!(message))?;
    }
    Ok(())
}

/// The name of a flag, without its dashes and what may be set in it.
fn flag(argument: &str) -> Option<String> {
    let name = argument.strip_prefix("--")?;
    Some(name.split('=').next().unwrap_or(name).to_owned())
}

/// The version that LMCache names in its log; the last one where it was started twice.
pub(crate) fn version_from_log(log: &str) -> Option<Version> {
    log.lines().rev().find_map(|line| {
        let line = without_colours(line);
        let rest = match line.split_once(ENGINE_LINE) {
            Some((_, rest)) => rest.split_once(" with version ")?.1.to_owned(),
            None => line.split_once(BANNER)?.1.to_owned(),
        };
        rest.split([' ', ',']).next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Rendered {
        Rendered {
            file_name: "lmcache.yaml",
            text: text.to_owned(),
        }
    }

    fn version(text: &str) -> Option<Version> {
        text.parse().ok()
    }

    #[test]
    fn a_key_that_lmcache_does_not_have_is_refused_with_the_nearest() {
        let own = file("chunk_size: 256\nmax_local_cpu_sise: 5\n");
        let error = check(&own, LmcacheMode::InProcess, &[], None).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("`max_local_cpu_sise`"), "{error}");
        assert!(error.contains("`max_local_cpu_size`"), "{error}");
    }

    #[test]
    fn a_file_is_checked_against_its_own_version() {
        let own = file("chunk_size: 256\nlocal_cpu_use_hugepages: true\n");
        let at = |text| check(&own, LmcacheMode::InProcess, &[], version(text));
        assert!(at("0.4.6").is_ok() && at("0.5.6").is_ok());
        let error = at("0.4.5").unwrap_err().to_string();
        assert!(
            error.contains("0.4.5") && error.contains("0.4.6 to 0.5.6 have it"),
            "{error}"
        );
    }

    #[test]
    fn arguments_of_the_template_and_of_the_plan_are_checked() {
        let mode = LmcacheMode::MultiProcess;
        let own = file("- \"--chunk-size\"\n- 256\n- \"--l1-size-gb=1.0\"\n");
        let more = |text: &str| [text.to_owned(), "auto".to_owned()];
        let good = more("--supported-transfer-mode");
        assert!(check(&own, mode, &good, version("0.5.6")).is_ok());
        let error = check(&own, mode, &good, version("0.4.5")).unwrap_err();
        assert!(
            error.to_string().contains("0.4.7 to 0.5.6 have it"),
            "{error}"
        );
        // Python would take a beginning of a name for the whole.
        let error = check(&own, mode, &more("--l1-size"), None).unwrap_err();
        assert!(error.to_string().contains("`--l1-size`"), "{error}");
    }

    #[test]
    fn the_version_is_read_from_either_log() {
        let engine = "\u{1b}[32;20m[x] LMCache INFO:\u{1b}[0m LMCache initialized for role \
                      KVConnectorRole.WORKER with version 0.5.6-g3e11e108, vllm version 0.32.0, x";
        assert_eq!(version_from_log(engine), version("0.5.6"));
        let banner = "| |   |  \\/  |  / ___|      LMCache v0.4.7 (gabc)\n[x] LMCache INFO: y\n";
        assert_eq!(version_from_log(banner), version("0.4.7"));
        assert_eq!(version_from_log("LMCache server v2 is up"), None);
    }
}
