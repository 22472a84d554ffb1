use super::*;
use crate::matrix::Matrix;

mod fit;

/// A valid plan; each test changes one thing.
const GOOD: &str = r#"
name = "t"
model = "m"

[matrix]
tier = ["baseline", "cpu"]
prompt_len = [512, 1024]
gen_len = [8]
concurrency = [1, 4]
label = ["rag"]

[run]
repeats = 2

[workload.rag]
kind = "shared-prefix"
question_len = 32

[server]
launcher = "sim"
"#;

/// The plan's cells, or its problems: `LINE:COLUMN message | hint`.
#[track_caller]
fn cells_of(text: &str) -> Vec<String> {
    let expanded = Plan::parse(text, "t.toml").and_then(|plan| Matrix::expand(&plan));
    match expanded {
        Ok(matrix) => matrix
            .cells
            .iter()
            .map(|cell| cell.coordinates.slug())
            .collect(),
        Err(problems) => problems
            .problems
            .iter()
            .map(|p| {
                let before = &problems.text[..p.span.start];
                let line = before.matches('\n').count() + 1;
                let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
                format!("{line}:{column} {} | {}", p.message, p.hint)
            })
            .collect(),
    }
}

#[track_caller]
fn problem_of(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "the plan has no `{from}`");
    let mut problems = cells_of(&GOOD.replace(from, to));
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

#[test]
fn a_plan_is_the_product_of_its_axes_and_repeats() {
    let cells = cells_of(GOOD);
    assert_eq!(cells.len(), 2 * 2 * 2 * 2);
    let first_repeat = cells.iter().take(8).all(|cell| cell.ends_with("-r1"));
    assert!(
        first_repeat,
        "interleaved runs repeat 1 of all cells first: {cells:?}"
    );
    // Interleaved: neighbours differ in the tier, at equal load.
    assert_eq!(
        cells[0].replace("baseline", "cpu"),
        cells[1].replace("baseline", "cpu")
    );
    assert_ne!(cells[0], cells[1]);
}

#[test]
fn the_tier_order_rotates_with_the_repeat() {
    let cells = cells_of(GOOD);
    assert_ne!(
        cells[0].contains("baseline"),
        cells[8].contains("baseline"),
        "{cells:?}"
    );
}

#[test]
fn grouped_keeps_a_server_together_and_reuse_saves_starts() {
    let text = GOOD.replace(
        "repeats = 2",
        "repeats = 2\norder = \"grouped\"\nreuse = \"server\"",
    );
    let matrix = Matrix::expand(&Plan::parse(&text, "t").unwrap()).unwrap();
    let tiers: Vec<String> = matrix.cells.iter().map(|c| c.coordinates.tier).collect();
    assert!(tiers[..8].iter().all(|tier| *tier == tiers[0]), "{tiers:?}");
    assert_eq!(matrix.server_starts(), 2);
    let one_each = Matrix::expand(&Plan::parse(GOOD, "t").unwrap()).unwrap();
    assert_eq!(one_each.server_starts(), 16);
}

/// Rates are the load's: servers of one tier are equal at each of them. Chunk sizes are the tier's own.
#[test]
fn cells_of_one_server_follow_each_other_whatever_else_they_differ_in() {
    let starts = |axis: &str, run: &str| {
        let text = GOOD
            .replace("[run]", &format!("{axis}\n[run]"))
            .replace("repeats = 2", &format!("repeats = 2\n{run}"));
        let matrix = Matrix::expand(&Plan::parse(&text, "t").unwrap()).unwrap();
        matrix.server_starts()
    };
    let rates = "\"load.total_timeout_s\" = [10, 20, 30]";
    let chunks = "\"tier.cpu.chunk_size\" = [64, 256]";
    for (axis, order, expected) in [
        (rates, "grouped", 2),
        // The second repeat begins with the tier that the first ended with.
        (rates, "interleaved", 2 * 2 - 1),
        (chunks, "grouped", 1 + 2),
        (chunks, "interleaved", 2 * (1 + 2)),
    ] {
        let run = format!("order = \"{order}\"\nreuse = \"server\"");
        assert_eq!(starts(axis, &run), expected, "{axis}, {order}");
    }
}

#[test]
fn every_problem_is_reported_at_its_place() {
    let text = GOOD
        .replace("name = \"t\"", "nam = \"t\"")
        .replace("[8]", "[8, 8]")
        .replace("[1, 4]", "[0]")
        .replace("repeats", "repeets");
    assert_eq!(
        cells_of(&text),
        [
            "2:1 unknown key `nam` in the plan | did you mean `name`?",
            "8:15 `8` stands twice on axis `gen_len` | remove one; use `repeats` to repeat",
            "9:16 each item of `concurrency` in [matrix] must be an integer \
             from 1 to 100,000 | this is the integer 0",
            "13:1 unknown key `repeets` in [run] | did you mean `repeats`?",
        ]
    );
}

#[test]
fn a_simulated_tier_that_would_outlive_a_real_server_takes_no_restart_but_files_behind_ram() {
    let restart = GOOD.replace("repeats = 2", "states = [\"cold\", \"restart\"]");
    let of = |tier: &str| cells_of(&restart.replace("\"cpu\"]", &format!("\"{tier}\"]")));
    for tier in ["cpu", "native+fs", "simple+disk"] {
        assert!(
            of(tier).iter().all(|line| !line.contains("restart")),
            "{tier}"
        );
    }
    assert_eq!(
        of("redis"),
        [
            "13:10 the cache state `after-restart` cannot be reached: the simulator keeps the tier `redis` in \
             its own process | remove it, or use `launcher = \"process\"` or \"docker\""
        ]
    );
}

/// What is changed in a good plan, into what, and the problem that this makes.
const BAD_VALUES: &[(&str, &str, &str)] = &[
    (
        "[\"baseline\", \"cpu\"]",
        "[\"baseline\", \"gpu\"]",
        "6:21 tier `gpu` is not defined | GPU only is `baseline`",
    ),
    (
        "label = [\"rag\"]",
        "label = [\"rga\"]",
        "10:10 workload `rga` is not defined | add [workload.rga], or: did you mean `rag`?",
    ),
    (
        "prompt_len = [512, 1024]",
        "prompt_len = []",
        "7:14 `prompt_len` in [matrix] must be an array that is not empty | \
         this is an empty array",
    ),
    (
        "gen_len = [8]",
        "gen_len = 8",
        "8:11 axis `gen_len` must be an array | this is the integer 8",
    ),
    (
        "launcher = \"sim\"",
        "launcher = \"simm\"",
        "20:12 `launcher` in [server] is `simm` | did you mean `sim`?",
    ),
    (
        "launcher = \"sim\"",
        "launcher = \"external\"",
        "19:1 an external server needs `url` | add `url = \"http://HOST:PORT\"`",
    ),
    (
        "question_len = 32",
        "question_len = 512",
        "15:11 workload `rag` asks questions of 512 tokens in prompts of 512 | \
         lower `question_len`, or raise `prompt_len`",
    ),
    (
        "repeats = 2",
        "states = [\"cold\", \"warm\"]",
        "13:19 unknown cache state `warm` in [run] | \
         valid: `cold`, `gpu-hit`, `tier-hit`, `after-restart`",
    ),
    (
        "launcher = \"sim\"",
        "launcher = \"process\"\nargs.port = 8000",
        "21:6 `port` in [server.args] is labrun's to set | labrun picks a free port",
    ),
    (
        "launcher = \"sim\"",
        "launcher = \"sim\"\n[tier.cpu]\nmax_local_cpu_sise = 3",
        "22:1 unknown key `max_local_cpu_sise` in [tier.cpu] | \
         did you mean `max_local_cpu_size`?",
    ),
    (
        "launcher = \"sim\"",
        "launcher = \"sim\"\n[tier.cpu]\nmax_local_cpu_size = 0",
        "22:22 `max_local_cpu_size` in [tier.cpu] must be a number of GiB above 0 | \
         this is the integer 0",
    ),
    (
        "prompt_len = [512, 1024]",
        "prompt_len = [512, \"1024\"]",
        "7:20 each item of `prompt_len` in [matrix] must be an integer from 1 to 10,000,000 | \
         this is text: write 1024",
    ),
    (
        "launcher = \"sim\"",
        "launcher = \"sim\"\n[tier.cpu]\nmax_local_cpu_size = \"30GB\"",
        "22:22 `max_local_cpu_size` in [tier.cpu] must be a number of GiB above 0 | \
         this is text: write 30",
    ),
    (
        "gen_len = [8]",
        "gen_len = [8]\nchunk_size = [64]",
        "9:1 unknown key `chunk_size` in [matrix] | \
         a key of a tier is an axis as `\"tier.cpu.chunk_size\" = [...]`",
    ),
    (
        "launcher = \"sim\"",
        "launcher = \"process\"\nargs.hf-token = \"x\"",
        "21:6 `hf-token` in [server.args] looks like a secret, and plans are stored with their \
         results | set it in the environment or in `.env`; servers inherit HF_TOKEN, and what \
         `process.inherit` of the settings or, for containers, `secrets` names",
    ),
];

#[test]
fn bad_values_name_the_key_and_what_to_do() {
    for (from, to, expected) in BAD_VALUES {
        assert_eq!(problem_of(from, to), *expected);
    }
}

#[test]
fn the_keys_that_there_are_are_named_once_each() {
    assert_eq!(
        problem_of("repeats = 2", "ready_timeout_s = 9"),
        "13:1 unknown key `ready_timeout_s` in [run] | valid: `requests`, `time_limit_s`, \
         `cell_time_limit_s`, `cooldown_below_c`, `cooldown_limit_s`, `aa`, `auto`, `repeats`, \
         `states`, `order`, `reuse`, `seed`, `warmup`, `canaries`, `canaries_in_load`, `overwrite_gpu`, `controls`"
    );
}

/// What makes a plan, and nothing else.
const SMALLEST: &str = "model = \"m\"\n[matrix]\ntier = [\"cpu\"]\nprompt_len = [4096]\n\
                        [server]\nlauncher = \"sim\"\n";

#[test]
fn what_a_plan_leaves_out_has_a_default_and_the_same_cells() {
    let ids = |text: &str, file: &str| {
        let plan = Plan::parse(text, file).unwrap_or_else(|wrong| panic!("{wrong}"));
        let cells = Matrix::expand(&plan).unwrap().cells;
        (
            plan.name,
            cells.iter().map(|cell| cell.id).collect::<Vec<_>>(),
        )
    };
    let (name, small) = ids(SMALLEST, "plans/my plan.toml");
    assert_eq!(name, "my-plan");
    assert!(
        small[0].starts_with("rag-cpu-p4096-g100-c1-r1-"),
        "{small:?}"
    );
    for (from, to) in [
        ("[server]", "gen_len = [100]\nconcurrency = [1]\n[server]"),
        (
            "[server]",
            "label = [\"rag\"]\n[workload.rag]\nkind = \"shared-prefix\"\n[server]",
        ),
        ("[server]", "workload = [\"rag\"]\n[workload.rag]\n[server]"),
        ("[server]", "[workload.rag]\n[server]"),
        (
            "[server]",
            "[[matrix.exclude]]\ntier = \"baseline\"\n[server]",
        ),
    ] {
        assert_eq!(ids(&SMALLEST.replace(from, to), "x.toml").1, small, "{to}");
    }
    let one = SMALLEST.replace("[server]", "[workload.mine]\nquestion_len = 9\n[server]");
    assert!(ids(&one, "x.toml").1[0].starts_with("mine-cpu-"));
    // The text of a plan from before there were defaults.
    let old = ids(GOOD, "old.toml");
    assert_eq!(old.1[0], OLD_ID);
}

/// The id of the first cell of [`GOOD`], as the first version with ids of this form made it.
const OLD_ID: &str = "rag-cpu-p512-g8-c1-r1-8298741f7e";

#[test]
fn what_has_no_default_is_asked_for() {
    let problems = |from: &str, to: &str| cells_of(&SMALLEST.replace(from, to));
    for (from, to, expected) in [
        (
            "[server]\nlauncher = \"sim\"\n",
            "",
            "1:1 how are the servers started? `launcher` is missing in [server] | add [server] with \
             `launcher = \"docker\"` (and `image`) or `\"process\"`; `--set server.launcher=sim` rehearses \
             on the simulator",
        ),
        (
            "[server]",
            "[workload.a]\n[workload.b]\n[server]",
            "2:1 axis `workload` is missing in [matrix], and the plan has several workloads | \
             add `workload = [\"a\", \"b\"]`, or some of them",
        ),
        (
            "[server]",
            "label = [\"a\"]\nworkload = [\"a\"]\n[workload.a]\n[server]",
            "6:12 `label` and `workload` are one axis | remove one",
        ),
        (
            "model = \"m\"",
            "model = \"m\"\ngen_len = [9]",
            "2:1 unknown key `gen_len` in the plan | it is an axis: put `gen_len = [...]` into [matrix]",
        ),
        (
            "prompt_len = [4096]\n",
            "",
            "2:1 axis `prompt_len` is missing in [matrix] | add `prompt_len = [...]`",
        ),
    ] {
        assert_eq!(problems(from, to), [expected]);
    }
    let nameless = Plan::parse(SMALLEST, "-").unwrap_err();
    assert_eq!(
        nameless.problems[0].message,
        "`name` is missing in the plan, and none can be made of `-`"
    );
}

#[test]
fn a_name_is_made_of_what_a_file_name_has() {
    for (file, expected) in [
        ("plans/long_context.toml", Some("long_context")),
        ("a b.v2.toml", Some("a-b.v2")),
        (".hidden.toml", Some("hidden")),
        ("-x-.toml", Some("x")),
        ("\u{43f}\u{43b}\u{430}\u{43d}.toml", None),
        ("-", None),
        ("..", None),
    ] {
        assert_eq!(name_of_file(file).as_deref(), expected, "{file}");
    }
}

#[test]
fn a_syntax_error_is_the_only_problem() {
    let problems = cells_of("name = \"t\nmodel = 1");
    assert!(problems[0].starts_with("1:"), "{problems:?}");
}

#[test]
fn excluding_everything_or_nothing_is_a_problem() {
    let exclude = |what: &str| format!("[[matrix.exclude]]\n{what}\n\n[run]");
    let all = GOOD.replace("[run]", &exclude("label = \"rag\""));
    assert_eq!(
        cells_of(&all),
        ["5:1 the matrix has no cell | `matrix.exclude` takes every one out"]
    );
    let none = problem_of("[run]", &exclude("concurrency = 3"));
    assert_eq!(
        none,
        "12:1 this `matrix.exclude` takes no cell out | each value must stand on its axis, and the keys of a tier or a workload concern its own cells alone"
    );
    let some = cells_of(&GOOD.replace("[run]", &exclude("tier = \"cpu\"\nprompt_len = 512")));
    assert_eq!(some.len(), 12);
}

#[test]
fn including_what_is_there_is_a_problem() {
    let include = "[[matrix.include]]\ntier = \"cpu\"\nprompt_len = 512\n\n[run]";
    assert_eq!(
        cells_of(&GOOD.replace("[run]", include)),
        [
            "12:1 this `matrix.include` adds no cell | its cells stand on the axes already; remove it"
        ]
    );
}

#[test]
fn an_included_cell_may_leave_the_axes() {
    let include = "[[matrix.include]]\ntier = \"disk\"\nprompt_len = 4096\n\n[run]";
    let cells = cells_of(&GOOD.replace("[run]", include));
    assert_eq!(cells.len(), 16 + 4);
    assert_eq!(
        cells
            .iter()
            .filter(|cell| cell.contains("disk-p4096"))
            .count(),
        4
    );
}

#[test]
fn a_further_axis_names_any_key_of_the_plan() {
    let text = GOOD
        .replace(
            "[run]",
            "\"server.args.max-num-batched-tokens\" = [2048, 8192]\n\n[run]\ncontrols = false",
        )
        .replace("\"sim\"", "\"process\"");
    let plan = Plan::parse(&text, "t").unwrap();
    let values: Vec<_> = plan
        .variants
        .iter()
        .map(|v| v.resolved.server.args["max-num-batched-tokens"].clone())
        .collect();
    assert_eq!(values, [2048, 8192]);
    assert_eq!(Matrix::expand(&plan).unwrap().cells.len(), 32);
    let wrong = GOOD.replace("[run]", "\"run.sead\" = [1]\n\n[run]");
    let problems = cells_of(&wrong);
    assert_eq!(
        problems,
        ["12:1 at run.sead = 1: unknown key `sead` in [run] | did you mean `seed`?"]
    );
}

#[test]
fn a_value_of_an_axis_has_its_own_problem_whatever_the_plan_has_there() {
    let text = GOOD.replace("[run]", "\"run.requests\" = [4, 0]\n\n[run]\nrequests = 0");
    let problems = cells_of(&text);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("12:1 at run.requests = 0: `requests` in [run]"));
    assert!(
        problems[1].starts_with("15:12 `requests` in [run]"),
        "{problems:?}"
    );
}

#[test]
fn partial_cells_name_values_of_a_further_axis_at_every_point_of_it() {
    let text = |value: u32| {
        let partial = format!("{{ tier = \"cpu\", \"run.requests\" = {value} }}");
        GOOD.replace(
            "[run]",
            &format!(
                "\"run.requests\" = [4, 5, 6]\nexclude = [{partial}]\n\n[run]\ncontrols = false"
            ),
        )
    };
    // 8 cells of either tier at each of three points, without those of cpu at one of them.
    assert_eq!(cells_of(&text(5)).len(), 48 - 8);
    assert_eq!(
        cells_of(&text(7)),
        ["13:45 `7` in [matrix.exclude] is not on axis `run.requests` | valid: `4`, `5`, `6`"]
    );
}

#[test]
fn an_axis_that_names_no_key_is_one_problem_however_many_values_it_has() {
    for (key, expected) in [
        ("matrix.tier", "cannot name the matrix itself"),
        ("name.x", "goes through `name`, which is not a table"),
    ] {
        let text = GOOD.replace("[run]", &format!("\"{key}\" = [1, 2, 3]\n\n[run]"));
        let problems = cells_of(&text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(expected), "{problems:?}");
    }
}

#[test]
fn the_simulator_takes_0_where_that_is_its_default_and_nowhere_else() {
    let with = |keys: &str| {
        GOOD.replace(
            "launcher = \"sim\"",
            &format!("launcher = \"sim\"\n[server.sim]\n{keys}"),
        )
    };
    let plan = Plan::parse(&with("seed = 0\nlmcache_metrics_interval_ms = 0"), "t").unwrap();
    assert_eq!(plan.variants[0].resolved.server.sim.seed, 0);
    for key in ["start_ms", "gpu_kv_tokens"] {
        assert!(
            Plan::parse(&with(&format!("{key} = 0")), "t").is_err(),
            "{key}"
        );
    }
}

#[test]
fn an_id_changes_with_what_decides_the_result_and_with_nothing_else() {
    let ids = |text: &str| {
        let matrix = Matrix::expand(&Plan::parse(text, "t").unwrap()).unwrap();
        let mut ids: Vec<String> = matrix.cells.iter().map(|cell| cell.id).collect();
        ids.sort();
        ids
    };
    let base = ids(GOOD);
    let commented = ids(&GOOD.replace("name = \"t\"", "name = \"other\" # only a name"));
    assert_eq!(base, commented);
    let unused_tier = ids(&format!("{GOOD}[tier.disk]\nmax_local_disk_size = 9\n"));
    assert_eq!(base, unused_tier);
    let seeded = ids(&GOOD.replace("repeats = 2", "repeats = 2\nseed = 7"));
    assert!(base.iter().all(|id| !seeded.contains(id)));
    let bigger = ids(&format!("{GOOD}[tier.cpu]\nmax_local_cpu_size = 9\n"));
    let changed = base.iter().filter(|id| !bigger.contains(id)).count();
    assert_eq!(changed, 8, "only the cpu cells change");
}

#[test]
fn prompts_are_seeded_by_coordinates_without_the_tier() {
    let matrix = Matrix::expand(&Plan::parse(GOOD, "t").unwrap()).unwrap();
    let mut seeds: Vec<u64> = matrix.cells.iter().map(|cell| cell.seed().0).collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 8, "two tiers share each seed");
}
