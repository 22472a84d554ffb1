//! Renders the LMCache configuration of a tier. Undefined names are errors.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, context};
use serde_json::Value;

use super::adapter::{self, Store};
use super::redis;
use crate::bounded;
use crate::plan::server::LmcacheMode;
use crate::plan::tier::{TierKind, TierSpec, check_remote_plugins, check_remote_url};

/// The built-in templates, by name. The folder `templates/` is their source.
const BUILT_IN: [(&str, &str); 9] = [
    (
        "lmcache/cpu.yaml.j2",
        include_str!("../../templates/lmcache/cpu.yaml.j2"),
    ),
    (
        "lmcache/disk.yaml.j2",
        include_str!("../../templates/lmcache/disk.yaml.j2"),
    ),
    (
        "lmcache/cpu+disk.yaml.j2",
        include_str!("../../templates/lmcache/cpu+disk.yaml.j2"),
    ),
    (
        "lmcache/redis.yaml.j2",
        include_str!("../../templates/lmcache/redis.yaml.j2"),
    ),
    (
        "lmcache-server/cpu.yaml.j2",
        include_str!("../../templates/lmcache-server/cpu.yaml.j2"),
    ),
    (
        "lmcache-server/disk.yaml.j2",
        include_str!("../../templates/lmcache-server/disk.yaml.j2"),
    ),
    (
        "lmcache-server/cpu+disk.yaml.j2",
        include_str!("../../templates/lmcache-server/cpu+disk.yaml.j2"),
    ),
    (
        "lmcache-server/redis.yaml.j2",
        include_str!("../../templates/lmcache-server/redis.yaml.j2"),
    ),
    (
        "lmcache-server/adapter.yaml.j2",
        include_str!("../../templates/lmcache-server/adapter.yaml.j2"),
    ),
];

/// The most bytes of a template.
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;
/// The most that a template may do, and 64 bytes of memory each: loops in loops would never end.
const FUEL: u64 = 1_000_000;
/// The most bytes that a template may render.
const MAX_RENDERED_BYTES: usize = 1 << 20;

/// What templates may name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    /// Folder of the user's own templates, if there is one.
    pub templates: Option<&'a Path>,
    /// Where a disk tier keeps its chunks: `scratch_dir`.
    pub scratch_dir: &'a Path,
    /// The Redis of the redis tier: `redis_url`, `redis_host`, `redis_port`.
    pub redis_url: &'a str,
    /// The model that requests name: `model`.
    pub model: &'a str,
}

/// A rendered configuration: `lmcache.yaml`, or `lmcache_server.yaml` in multi-process mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rendered {
    /// The file's name in the cell's folder.
    pub file_name: &'static str,
    /// Text of the rendered file.
    pub text: String,
}

impl Rendered {
    /// The arguments that a multi-process file lists.
    pub(crate) fn arguments(&self) -> Result<Vec<String>> {
        let values: Vec<Value> = serde_yaml_ng::from_str(&self.text)
            .with_context(|| format!("`{}` must be a YAML list of arguments", self.file_name))?;
        values
            .into_iter()
            .map(|value| match value {
                Value::String(text) => Ok(text),
                // An adapter is written as a mapping and handed over as JSON.
                number_or_adapter @ (Value::Number(_) | Value::Object(_)) => {
                    Ok(number_or_adapter.to_string())
                }
                other => bail!(
                    "`{}` lists {other}: expected text, a number or an adapter",
                    self.file_name
                ),
            })
            .collect()
    }
}

/// Renders the configuration of `tier`; `None` for tiers that LMCache does not serve.
pub(crate) fn render(
    tier: &TierSpec,
    mode: LmcacheMode,
    scope: Scope<'_>,
) -> Result<Option<Rendered>> {
    if !tier.kind.uses_lmcache() {
        return Ok(None);
    }
    check_adapter(tier, mode)?;
    let name = template_name(tier, mode);
    let environment = environment(scope.templates, &name)?;
    let template = environment
        .get_template(&name)
        .map_err(|error| explain(&name, &error))?;
    if mode == LmcacheMode::MultiProcess && tier.kind.speaks_resp() && tier.template.is_none() {
        let obstacle = redis::adapter_obstacle(scope.redis_url);
        if let Some(why) = obstacle {
            bail!(
                "an LMCache server's adapter cannot use `redis.url` ({}): {why}; name another Redis, \
                 or give the tier a `template`",
                redis::shown(scope.redis_url)
            );
        }
    }
    let (redis_host, redis_port) = redis_address(tier, scope.redis_url)?;
    let scratch_dir = scope.scratch_dir.to_string_lossy();
    let store = Store {
        folder: &scratch_dir,
        redis: (&redis_host, redis_port),
    };
    let adapter = adapter::of(tier, store);
    let text = template
        .render(context! {
            tier => context! { name => tier.name.as_str(), kind => tier.kind.name() },
            set => minijinja::Value::from(minijinja::value::Serde(&tier.settings)),
            adapter => minijinja::Value::from(minijinja::value::Serde(&adapter)),
            scratch_dir => scratch_dir,
            redis_url => scope.redis_url,
            redis_host => redis_host,
            redis_port => redis_port,
            model => scope.model,
        })
        .map_err(|error| explain(&name, &error))?;
    ensure!(
        text.len() <= MAX_RENDERED_BYTES,
        "template `{name}` rendered {} bytes; a configuration has at most {MAX_RENDERED_BYTES}",
        text.len()
    );
    let rendered = Rendered {
        file_name: file_name(mode),
        text,
    };
    check(&rendered, mode).with_context(|| format!("template `{name}` rendered nonsense"))?;
    Ok(Some(rendered))
}

/// Checks that a tier which needs an LMCache server has one, and all that its adapter needs.
fn check_adapter(tier: &TierSpec, mode: LmcacheMode) -> Result<()> {
    let is_adapter = matches!(tier.kind, TierKind::Adapter(_));
    ensure!(
        mode == LmcacheMode::MultiProcess || (tier.adapter.is_empty() && !is_adapter),
        "tier `{}`: adapters are those of an LMCache server; set `lmcache = \"multi-process\"` in [server]",
        tier.name
    );
    if let Some(key) = tier.adapter.missing(tier.kind)
        && tier.template.is_none()
    {
        bail!(
            "tier `{}` has no `{key}`; set it in `adapter` of [tier.{0}]",
            tier.name
        );
    }
    Ok(())
}

fn file_name(mode: LmcacheMode) -> &'static str {
    match mode {
        LmcacheMode::InProcess => "lmcache.yaml",
        LmcacheMode::MultiProcess => "lmcache_server.yaml",
    }
}

fn template_name(tier: &TierSpec, mode: LmcacheMode) -> String {
    let folder = match mode {
        LmcacheMode::InProcess => "lmcache",
        LmcacheMode::MultiProcess => "lmcache-server",
    };
    match &tier.template {
        Some(own) => own.clone(),
        None if matches!(tier.kind, TierKind::Adapter(_)) => format!("{folder}/adapter.yaml.j2"),
        None => format!("{folder}/{}.yaml.j2", tier.kind.name()),
    }
}

fn environment(own: Option<&Path>, name: &str) -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    // So that an error names the variable in release builds too.
    environment.set_debug(true);
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .keep_trailing_newline(true)
            .build()?,
    );
    // A template of the user's own may have any ending; what it makes is YAML.
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::Json);
    for (name, source) in BUILT_IN {
        environment
            .add_template(name, source)
            .map_err(|error| explain(name, &error))?;
    }
    if let Some(path) = own
        .map(|folder| folder.join(name))
        .filter(|path| path.exists())
    {
        let source = bounded::read(&path, MAX_TEMPLATE_BYTES)
            .with_context(|| format!("reading the template `{}`", path.display()))?;
        environment
            .add_template_owned(name.to_owned(), source)
            .map_err(|error| explain(name, &error))?;
    }
    Ok(environment)
}

/// minijinja's message, with the line and the reason that its `Display` leaves to the details.
fn explain(name: &str, error: &minijinja::Error) -> anyhow::Error {
    let line = error
        .line()
        .map(|line| format!(":{line}"))
        .unwrap_or_default();
    let what = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned);
    let named = error
        .range()
        .and_then(|range| error.template_source()?.get(range))
        .map(|source| format!(" at `{source}`"))
        .unwrap_or_default();
    let hint = match error.kind() {
        minijinja::ErrorKind::UndefinedError => {
            "; defined are tier, set, adapter, scratch_dir, redis_url, redis_host, redis_port, model"
        }
        minijinja::ErrorKind::OutOfFuel => "; it does more than any configuration needs",
        minijinja::ErrorKind::TemplateNotFound => "; set `paths.templates` to its folder",
        _ => "",
    };
    anyhow!("template `{name}{line}`: {what}{named}{hint}")
}

fn check(rendered: &Rendered, mode: LmcacheMode) -> Result<()> {
    // Unlike JSON's, this mapping refuses a key that is there twice. LMCache takes the last one.
    let value: serde_yaml_ng::Value = serde_yaml_ng::from_str(&rendered.text)?;
    match mode {
        LmcacheMode::MultiProcess => {
            let arguments = rendered.arguments()?;
            let names = || arguments.iter().filter(|name| name.starts_with("--"));
            let twice = names().find(|name| {
                *name != "--l2-adapter" && names().filter(|other| other == name).count() > 1
            });
            match twice {
                Some(name) => bail!("it has the argument `{name}` twice"),
                None => Ok(()),
            }
        }
        LmcacheMode::InProcess if !value.is_mapping() => {
            bail!("it must be a YAML mapping of LMCache's keys")
        }
        LmcacheMode::InProcess => {
            if let Some(url) = value.get("remote_url").and_then(|url| url.as_str()) {
                check_remote_url(url).map_err(|why| anyhow!("`remote_url`: {why}"))?;
            }
            if let Some(plugins) = value.get("remote_storage_plugins") {
                check_remote_plugins(&serde_json::to_value(plugins)?)
                    .map_err(|why| anyhow!("`remote_storage_plugins`: {why}"))?;
            }
            Ok(())
        }
    }
}

/// Host and port of a `redis://` URL, for the adapter that takes them apart.
fn redis_address(tier: &TierSpec, url: &str) -> Result<(String, u16)> {
    if !tier.kind.speaks_resp() {
        return Ok((String::new(), 0));
    }
    let rest = url.strip_prefix("redis://").unwrap_or(url);
    let address = rest.rsplit('@').next().unwrap_or(rest);
    let address = address.split('/').next().unwrap_or(address);
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "6379"));
    let port = port
        .parse()
        .map_err(|_| anyhow!("`redis.url` has the port `{port}`; write redis://HOST:PORT"))?;
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(templates: Option<&Path>) -> Scope<'_> {
        Scope {
            templates,
            scratch_dir: Path::new("/nvme/kv"),
            redis_url: "redis://127.0.0.1:6400",
            model: "m",
        }
    }

    fn rendered(tier: &TierSpec, mode: LmcacheMode) -> Rendered {
        render(tier, mode, scope(None)).unwrap().unwrap()
    }

    fn yaml(tier: &TierSpec) -> Value {
        serde_yaml_ng::from_str(&rendered(tier, LmcacheMode::InProcess).text).unwrap()
    }

    #[test]
    fn the_disk_tier_has_no_ram_layer_that_answers() {
        let mut tier = TierSpec::built_in("disk").unwrap();
        tier.settings
            .insert("max_local_disk_size".into(), 7.5.into());
        tier.settings.insert("cache_policy".into(), "no".into());
        let yaml = yaml(&tier);
        assert_eq!(yaml["local_cpu"], false);
        assert_eq!(yaml["local_disk"], "file:///nvme/kv/");
        assert_eq!(yaml["max_local_disk_size"], 7.5);
        assert_eq!(yaml["extra_config"]["use_odirect"], true);
        assert_eq!(
            yaml["cache_policy"], "no",
            "YAML 1.1 readers must not see a flag"
        );
    }

    #[test]
    fn each_in_process_tier_names_its_backend() {
        let cpu = yaml(&TierSpec::built_in("cpu").unwrap());
        assert_eq!(
            (&cpu["local_cpu"], cpu.get("local_disk")),
            (&Value::Bool(true), None)
        );
        let redis = yaml(&TierSpec::built_in("redis").unwrap());
        assert_eq!(redis["remote_url"], "redis://127.0.0.1:6400");
        assert_eq!(redis["local_cpu"], false);
    }

    #[test]
    fn multi_process_tiers_become_arguments() {
        let disk = TierSpec::built_in("disk").unwrap();
        let arguments = rendered(&disk, LmcacheMode::MultiProcess)
            .arguments()
            .unwrap();
        let at = arguments.iter().position(|a| a == "--l2-adapter").unwrap();
        let adapter: Value = serde_json::from_str(&arguments[at + 1]).unwrap();
        assert_eq!(adapter["base_path"], "/nvme/kv");
        assert_eq!(adapter["use_odirect"], true, "not the page cache");
        let redis = TierSpec::built_in("redis").unwrap();
        let arguments = rendered(&redis, LmcacheMode::MultiProcess)
            .arguments()
            .unwrap();
        let adapter: Value = serde_json::from_str(arguments.last().unwrap()).unwrap();
        assert_eq!(
            (&adapter["type"], &adapter["port"]),
            (&"resp".into(), &6400.into())
        );
        let cpu = TierSpec::built_in("cpu").unwrap();
        let arguments = rendered(&cpu, LmcacheMode::MultiProcess)
            .arguments()
            .unwrap();
        assert!(!arguments.contains(&"--l2-adapter".to_owned()));
    }

    #[test]
    fn an_adapter_of_the_plan_needs_an_lmcache_server() {
        let mut disk = TierSpec::built_in("disk").unwrap();
        disk.adapter.faults.insert("rate".into(), 1.0.into());
        let text = rendered(&disk, LmcacheMode::MultiProcess).text;
        assert!(text.contains(r#""type":"fault_inject"}"#), "{text}");
        let error = render(&disk, LmcacheMode::InProcess, scope(None)).unwrap_err();
        assert!(error.to_string().contains("multi-process"), "{error}");
    }

    #[test]
    fn a_store_behind_an_lmcache_server_is_rendered_with_what_it_needs() {
        let mut s3 = TierSpec::built_in("s3").unwrap();
        let mode = LmcacheMode::MultiProcess;
        let error = render(&s3, mode, scope(None)).unwrap_err().to_string();
        assert!(error.contains("tier `s3` has no `s3_endpoint`"), "{error}");
        for key in ["s3_endpoint", "s3_region"] {
            s3.adapter.keys.insert(key.into(), "x".into());
        }
        let arguments = rendered(&s3, mode).arguments().unwrap();
        assert!(
            arguments.contains(&"skip_l1".to_owned()),
            "RAM must not answer"
        );
        let adapter: Value = serde_json::from_str(arguments.last().unwrap()).unwrap();
        assert_eq!(
            (&adapter["type"], &adapter["s3_region"]),
            (&"s3".into(), &"x".into())
        );
        let valkey = TierSpec::built_in("valkey").unwrap();
        let arguments = rendered(&valkey, mode).arguments().unwrap();
        let adapter: Value = serde_json::from_str(arguments.last().unwrap()).unwrap();
        assert_eq!(
            (&adapter["type"], &adapter["port"]),
            (&"resp".into(), &6400.into())
        );
        let error = render(&valkey, LmcacheMode::InProcess, scope(None)).unwrap_err();
        assert!(error.to_string().contains("multi-process"), "{error}");
    }

    #[test]
    fn a_redis_that_an_adapter_cannot_use_is_refused_and_a_password_is_rendered_nowhere() {
        let redis = TierSpec::built_in("redis").unwrap();
        let at = |redis_url| {
            let scope = Scope {
                redis_url,
                ..scope(None)
            };
            render(&redis, LmcacheMode::MultiProcess, scope)
        };
        let text = at("redis://:s3cret@127.0.0.1:6400").unwrap().unwrap().text;
        assert!(
            text.contains("127.0.0.1") && !text.contains("s3cret"),
            "{text}"
        );
        let error = at("redis://:s3cret@127.0.0.1:6400/2")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("database 0 alone") && !error.contains("s3cret"),
            "{error}"
        );
    }

    #[test]
    fn tiers_without_lmcache_render_nothing() {
        for name in ["baseline", "native"] {
            let tier = TierSpec::built_in(name).unwrap();
            assert_eq!(
                render(&tier, LmcacheMode::InProcess, scope(None)).unwrap(),
                None
            );
        }
    }

    #[test]
    fn an_undefined_variable_names_template_line_and_what_is_defined() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("own.yaml.j2"),
            "a: 1\nb: {{ scrach_dir }}\n",
        )
        .unwrap();
        let mut tier = TierSpec::built_in("disk").unwrap();
        tier.template = Some("own.yaml.j2".into());
        let error = render(&tier, LmcacheMode::InProcess, scope(Some(dir.path())))
            .unwrap_err()
            .to_string();
        assert!(error.contains("own.yaml.j2:2"), "{error}");
        assert!(
            error.contains("scrach_dir") && error.contains("scratch_dir"),
            "{error}"
        );
    }

    /// What a template of the user's own comes to.
    fn own(text: &str, mode: LmcacheMode) -> Result<Option<Rendered>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("own.yaml.j2"), text).unwrap();
        let mut tier = TierSpec::built_in("disk").unwrap();
        tier.template = Some("own.yaml.j2".into());
        render(&tier, mode, scope(Some(dir.path())))
    }

    #[test]
    fn a_template_with_a_key_twice_is_refused() {
        let (one, many) = (LmcacheMode::InProcess, LmcacheMode::MultiProcess);
        for (text, mode, twice) in [
            (
                "chunk_size: 256\nlocal_cpu: true\nchunk_size: 512\n",
                one,
                "chunk_size",
            ),
            ("extra_config:\n  a: 1\n  a: 2\n", one, "\"a\""),
            (
                "- \"--chunk-size\"\n- 1\n- \"--chunk-size\"\n- 2\n",
                many,
                "--chunk-size",
            ),
            (
                "- \"--l2-adapter\"\n- {\"type\": \"fs\", \"type\": \"resp\"}\n",
                many,
                "type",
            ),
        ] {
            let error = format!("{:#}", own(text, mode).unwrap_err());
            assert!(
                error.contains(twice) && error.contains("own.yaml.j2"),
                "{error}"
            );
        }
        let two = "- \"--l2-adapter\"\n- {\"type\": \"fs\"}\n- \"--l2-adapter\"\n- {\"type\": \"resp\"}\n";
        assert!(own(two, many).is_ok(), "adapters are a list");
    }

    #[test]
    fn a_template_with_a_store_that_cannot_be_proven_is_refused() {
        for text in [
            "remote_url: \"s3://bucket\"\n",
            "remote_storage_plugins: [mooncake]\n",
            "remote_storage_plugins: \"redis,s3\"\n",
        ] {
            let error = format!("{:#}", own(text, LmcacheMode::InProcess).unwrap_err());
            assert!(error.contains("cannot be proven"), "{error}");
        }
        own("remote_storage_plugins: [redis]\n", LmcacheMode::InProcess).unwrap();
    }

    #[test]
    fn extra_config_leaves_o_direct_on_unless_it_turns_it_off() {
        for name in ["disk", "cpu+disk"] {
            let of = |extra: Value| {
                let mut tier = TierSpec::built_in(name).unwrap();
                tier.settings.insert("extra_config".into(), extra);
                yaml(&tier)["extra_config"].clone()
            };
            let more = of(serde_json::json!({"save_chunk_meta": false}));
            let expected = serde_json::json!({"use_odirect": true, "save_chunk_meta": false});
            assert_eq!(more, expected);
            let off = of(serde_json::json!({"use_odirect": false}));
            assert_eq!(off, serde_json::json!({"use_odirect": false}));
        }
    }

    #[test]
    fn a_template_without_an_end_is_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let mut tier = TierSpec::built_in("disk").unwrap();
        tier.template = Some("own.yaml.j2".into());
        for endless in [
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}a: 1",
            "a: {{ range(9999)|join('x' * 9999) }}",
            "{% for a in range(99999) %}# a comment of a line\n{% endfor %}a: 1",
        ] {
            std::fs::write(dir.path().join("own.yaml.j2"), endless).unwrap();
            let rendered = render(&tier, LmcacheMode::InProcess, scope(Some(dir.path())));
            let error = rendered.unwrap_err().to_string();
            assert!(error.contains("own.yaml.j2"), "{error}");
        }
    }

    #[test]
    fn a_missing_template_and_a_bad_one_are_errors() {
        let mut tier = TierSpec::built_in("disk").unwrap();
        tier.template = Some("nope.yaml.j2".into());
        let error = render(&tier, LmcacheMode::InProcess, scope(None))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("nope.yaml.j2") && error.contains("paths.templates"),
            "{error}"
        );
    }
}
