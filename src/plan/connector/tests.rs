use super::*;
use crate::plan::Plan;
use crate::plan::tier::tests::read_tier;

const CONFIG: &str =
    "kind = \"connector\"\nkv_transfer_config = { kv_connector = \"C\", port = \"{port.a}\" }\n";

fn read(text: &str) -> ConnectorSpec {
    let (tier, problems) = read_tier("mine", text);
    assert_eq!(problems, [], "{text}");
    *tier.unwrap().connector.unwrap()
}

#[test]
fn a_connector_is_taken_as_it_is_written() {
    let spec = read(&format!(
        "{CONFIG}outlives_restart = true\nargs = {{ enforce_eager = true }}\nenv = {{ LMCACHE_X = \"{{folder}}\" }}\n\
             [[side]]\nname = \"s\"\ncommand = [\"p\", \"{{port.b}}\"]\nready_port = \"{{port.b}}\"\nready_timeout_s = 9\n\
             [[side]]\nname = \"t\"\ncommand = [\"p\"]\nready_port = 70\n\
             [reset]\nurl = \"http://h/{{port.a}}\"\nbody = {{ tier = \"l1\" }}\n\
             [watch]\ndisk = \"{{folder}}\"\nport = \"{{port.b}}\"\nmetrics = \"http://h:1/m\"\ncounters = {{ hit_tokens = \"a:b_c\" }}\n"
    ));
    assert_eq!((spec.name(), spec.outlives_restart), ("C", true));
    assert_eq!(spec.kv_transfer_config["port"], "{port.a}");
    assert_eq!(spec.args["enforce-eager"], true);
    assert_eq!(
        spec.env["LMCACHE_X"], "{folder}",
        "the tier has no file of labrun's"
    );
    assert_eq!(spec.ports(), BTreeSet::from(["a", "b"]));
    let ready: Vec<&Ready> = spec.sides.iter().map(|side| &side.ready).collect();
    assert_eq!(
        ready,
        [&Ready::Port("{port.b}".into()), &Ready::Port("70".into())]
    );
    assert_eq!(spec.sides[0].ready_timeout, Duration::from_secs(9));
    assert_eq!(spec.sides[1].ready_timeout, Duration::from_secs(60));
    assert_eq!(spec.watch.counters.names(), ["a:b_c"]);
    assert_eq!(spec.watch.port.as_deref(), Some("{port.b}"));
    let elsewhere = read(&format!("{CONFIG}watch = {{ port = 6500 }}"));
    assert_eq!(elsewhere.watch.port.as_deref(), Some("6500"));
}

/// Lines of a tier, what of them is marked (empty: anything), and the words of the only problem.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "kind = \"connector\"\n",
        "",
        "`kv_transfer_config` is missing",
    ),
    (
        "kind = \"connector\"\nkv_transfer_config = 3\n",
        "3",
        "`kv_transfer_config` in [tier.mine] must be a table",
    ),
    (
        "kind = \"connector\"\nkv_transfer_config = { kv_role = \"kv_both\" }\n",
        "{ kv_role = \"kv_both\" }",
        "names no connector",
    ),
    ("wach = {}", "wach", "unknown key `wach` in [tier.mine]"),
    (
        "max_local_cpu_size = 3",
        "max_local_cpu_size",
        "unknown key",
    ),
    (
        "args = { kv-transfer-config = {} }",
        "kv-transfer-config",
        "is labrun's to set",
    ),
    ("outlives_restart = 1", "1", "must be `true` or `false`"),
    (
        "watch = { dsk = \"a\" }",
        "dsk",
        "unknown key `dsk` in [tier.mine.watch]",
    ),
    (
        "watch = { disk = 3 }",
        "3",
        "`disk` in [tier.mine.watch] must be a string",
    ),
    (
        "watch = { counters = { loaded = \"a\" } }",
        "loaded",
        "unknown key `loaded`",
    ),
    (
        "watch = { counters = { hit_tokens = \"a{b}\" } }",
        "\"a{b}\"",
        "the name of a metric",
    ),
    ("watch = { metrics = \"h:1\" }", "\"h:1\"", "must be a URL"),
    ("reset = { body = {} }", "{ body = {} }", "`url` is missing"),
    (
        "[[side]]\nname = \"s\"\nready_line = \"a\"\n",
        "",
        "`command` is missing in [tier.mine.side]",
    ),
    (
        "[[side]]\nname = \"s\"\ncommand = [\"p\"]\n",
        "",
        "must say once what shows that it is ready",
    ),
    (
        "[[side]]\nname = \"a/b\"\ncommand = [\"p\"]\nready_line = \"a\"\n",
        "\"a/b\"",
        "cannot name a side process",
    ),
    (
        "[[side]]\nname = \"s\"\ncommand = \"p -q\"\nready_line = \"a\"\n",
        "\"p -q\"",
        "must be an array",
    ),
    (
        "[[side]]\nname = \"s\"\ncommand = [\"p\"]\nready_port = \"a\"\n",
        "\"a\"",
        "must be a port",
    ),
    (
        "[[side]]\nname = \"s\"\ncommand = [\"p\"]\nready_line = \"a\"\nredy = 1\n",
        "redy",
        "unknown key",
    ),
    (
        "watch = { redis = \"redis://h:{port.b}\" }",
        "",
        "asks at `{port.b}`, and nothing that it starts",
    ),
    (
        "watch = { port = \"{port.b}\" }",
        "",
        "asks at `{port.b}`, and nothing that it starts",
    ),
    (
        "watch = { port = 70000 }",
        "70000",
        "`port` in [tier.mine.watch] must be a port from 1 to 65,535",
    ),
    (
        "watch = { port = 0 }",
        "0",
        "must be a port from 1 to 65,535",
    ),
    (
        "watch = { port = \"127.0.0.1:{port.a}\" }",
        "\"127.0.0.1:{port.a}\"",
        "must be a port from 1 to 65,535",
    ),
    (
        "watch = { redis = \"redis://me:s3cret@h:1\" }",
        "",
        "plans are stored with their results",
    ),
    (
        "env = { MY_PASSWORD = \"s3cret\" }",
        "MY_PASSWORD",
        "looks like a secret",
    ),
    (
        "reset = { url = \"http://h\", body = { api_key = \"s3cret\" } }",
        "",
        "looks like a secret",
    ),
];

#[test]
fn a_connector_that_is_written_wrongly_is_reported_where_it_stands() {
    for (text, at, message) in WRONG {
        let whole = if text.starts_with("kind") {
            (*text).to_owned()
        } else {
            format!("{CONFIG}{text}")
        };
        let (_, problems) = read_tier("mine", &whole);
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        let shown = format!("{} {}", problems[0].message, problems[0].hint);
        assert!(
            shown.contains(message) && !shown.contains("s3cret"),
            "{text}: {shown}"
        );
        if !at.is_empty() {
            assert_eq!(&whole[problems[0].span.clone()], *at, "{text}");
        }
    }
}

#[test]
fn two_processes_of_a_name_and_two_signs_of_one_are_refused() {
    let one = "[[side]]\nname = \"s\"\ncommand = [\"p\"]\nready_line = \"a\"\n";
    let (_, problems) = read_tier("mine", &format!("{CONFIG}{one}{one}"));
    assert!(
        problems[0].message.contains("are called `s`"),
        "{problems:?}"
    );
    let (_, problems) = read_tier("mine", &format!("{CONFIG}{one}ready_port = 7\n"));
    assert!(
        problems[0].message.contains("must say once"),
        "{problems:?}"
    );
}

#[test]
fn the_launchers_that_cannot_start_a_connectors_tier_say_so_where_it_is_used() {
    let plan = |tier: &str, server: &str| {
        let text = format!(
            "name = \"p\"\nmodel = \"m\"\n[matrix]\ntier = [\"{tier}\"]\nprompt_len = [512]\ngen_len = [1]\n\
                 concurrency = [1]\n[run]\nrequests = 1\n[server]\n{server}\n[tier.mine]\n{CONFIG}"
        );
        let problems = match Plan::parse(&text, "p.toml") {
            Ok(_) => Vec::new(),
            Err(problems) => problems.problems,
        };
        let shown = problems.iter().map(|problem| {
            assert_eq!(&text[problem.span.clone()], "mine");
            problem.message.clone()
        });
        shown.collect::<Vec<String>>()
    };
    for (server, why) in [
        ("launcher = \"sim\"", "the simulator has no connector"),
        ("launcher = \"docker\"\nimage = \"i\"", "not in containers"),
        (
            "launcher = \"external\"\nurl = \"http://h:1\"",
            "does not start an external",
        ),
    ] {
        let problems = plan("mine", server);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(why), "{problems:?}");
        assert_eq!(plan("cpu", server), [""; 0], "it is not used");
    }
    assert_eq!(plan("mine", "launcher = \"process\""), [""; 0]);
}

#[test]
fn records_without_a_connector_are_read_and_a_cell_has_it_in_its_identity() {
    let old = r#"{"name":"cpu","kind":"cpu","settings":{},"template":null}"#;
    let tier: crate::plan::tier::TierSpec = serde_json::from_str(old).unwrap();
    assert_eq!(tier.connector, None);
    assert!(!serde_json::to_string(&tier).unwrap().contains("connector"));
    let (tier, _) = read_tier("mine", CONFIG);
    let tier = tier.unwrap();
    let back: crate::plan::tier::TierSpec =
        serde_json::from_str(&serde_json::to_string(&tier).unwrap()).unwrap();
    assert_eq!(back, tier);
}
