//! A plan of one's own in a minute: what may be left out, flags instead of a file or over it, and
//! `labrun init`.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::{Ended, Lab};

const SMALLEST: &str = "model = \"m\"\n[matrix]\ntier = [\"cpu\"]\nprompt_len = [1024]\n";

/// What makes a run on the simulator short.
const SHORT: [&str; 8] = [
    "--set",
    "server.sim.start_ms=1",
    "--set",
    "run.requests=2",
    "--set",
    "run.canaries=1",
    "--set",
    "matrix.gen_len=[4]",
];

/// labrun on a machine without Docker, vLLM and models.
fn bare(lab: &Lab, arguments: &[&str]) -> Command {
    let mut command = lab.command(arguments);
    command
        .env("PATH", "/no/such/folder")
        .env("DOCKER_HOST", "unix:///no/such/docker.sock")
        .env("HF_HOME", lab.path("huggingface"))
        .env_remove("HF_HUB_CACHE");
    command
}

fn ended(mut command: Command, code: i32) -> Ended {
    Ended::of(&command.output().unwrap()).expect_code(code)
}

/// The ids of the cells that `labrun plan` lists, sorted.
fn ids(shown: &str) -> Vec<String> {
    let is_id = |word: &&str| word.contains("-p") && word.contains("-r1-");
    let mut ids: Vec<String> = shown
        .lines()
        .filter_map(|line| line.split_whitespace().last().filter(is_id))
        .map(str::to_owned)
        .collect();
    ids.sort();
    ids
}

#[test]
fn the_smallest_plan_runs_and_is_stored_as_the_plan_that_ran() {
    let lab = Lab::new();
    lab.write("mine.toml", SMALLEST);
    let arguments = [
        &["mine.toml", "--set", "server.launcher=sim", "--out", "out"],
        &SHORT[..],
    ]
    .concat();
    let run = lab.labrun(&arguments).expect_code(0);
    assert!(
        run.stderr.contains("tier `baseline` is added"),
        "{}",
        run.stderr
    );
    let tiers: Vec<String> = lab
        .cells()
        .iter()
        .map(|(_, cell)| cell["coordinates"]["tier"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(tiers, ["baseline", "cpu"]);
    let stored = lab.read("out/plan.toml");
    for expected in [
        "# changed by --set server.launcher=sim\n",
        "name = \"mine\" # the file's name\n",
        "tier = [\"baseline\", \"cpu\"] # baseline added",
        "launcher = \"sim\" # --set\n",
    ] {
        assert!(stored.contains(expected), "no `{expected}` in:\n{stored}");
    }
    let again = lab.labrun(&["run", "--resume", "out"]).expect_code(0);
    assert!(
        again.stderr.contains("2 of 2 cells are finished"),
        "{}",
        again.stderr
    );
}

#[test]
fn what_is_left_out_and_what_says_the_same_have_equal_cells() {
    let lab = Lab::new();
    let server = "[server]\nlauncher = \"sim\"\n";
    lab.write("small.toml", &format!("{SMALLEST}{server}"));
    lab.write(
        "full.toml",
        &format!(
            "name = \"full\"\nmodel = \"m\"\n[matrix]\ntier = [\"baseline\", \"cpu\"]\n\
             prompt_len = [1024]\ngen_len = [100]\nconcurrency = [1]\nlabel = [\"rag\"]\n\
             [workload.rag]\nkind = \"shared-prefix\"\n{server}"
        ),
    );
    lab.write(
        "alias.toml",
        &format!("{SMALLEST}workload = [\"rag\"]\n[workload.rag]\n{server}"),
    );
    let plan = |file: &str| lab.labrun(&["plan", file, "--cells"]).expect_code(0).stdout;
    let small = plan("small.toml");
    assert!(small.contains("note: tier `baseline` is added"), "{small}");
    assert_eq!(ids(&small).len(), 2, "{small}");
    assert_eq!(ids(&small), ids(&plan("full.toml")));
    assert_eq!(ids(&small), ids(&plan("alias.toml")));
    let alone = "prompt_len = [1024]\n[[matrix.exclude]]\ntier = \"baseline\"\n";
    let alone = SMALLEST.replace("prompt_len = [1024]\n", alone);
    lab.write("alone.toml", &format!("{alone}{server}"));
    assert_eq!(ids(&plan("alone.toml")).len(), 1);
}

#[test]
fn a_plan_that_says_everything_is_measured_as_it_stands() {
    let lab = Lab::new();
    let matrix = [
        "name = \"full\"\nmodel = \"m\"\n[matrix]\ntier = [\"cpu\"]\nprompt_len = [1024]\n",
        "gen_len = [100]\n",
        "concurrency = [1]\n",
        "[server]\nlauncher = \"sim\"\n",
    ];
    let cells = |text: &str| {
        lab.write("plan.toml", text);
        let shown = lab.labrun(&["plan", "plan.toml", "--cells"]).expect_code(0);
        ids(&shown.stdout).len()
    };
    assert_eq!(cells(&matrix.concat()), 1, "no baseline is added");
    // One thing left out makes it a short plan.
    for left_out in 1..matrix.len() - 1 {
        let mut short = matrix.to_vec();
        short.remove(left_out);
        assert_eq!(cells(&short.concat()), 2, "without {}", matrix[left_out]);
    }
    let nameless = matrix.concat().replacen("name = \"full\"\n", "", 1);
    assert_eq!(cells(&nameless), 2, "without a name");
}

#[test]
fn a_launcher_is_chosen_by_what_is_there_or_asked_for() {
    let lab = Lab::new();
    lab.write("mine.toml", SMALLEST);
    let asked = ended(bare(&lab, &["mine.toml"]), 2).stderr;
    for expected in [
        "how are the servers started?",
        "server.launcher=sim",
        "mine.toml:1:1",
    ] {
        assert!(asked.contains(expected), "{asked}");
    }
    assert!(!lab.path("results").exists());
    lab.write("bin/vllm", "");
    lab.write("box.toml", "[process]\nbin_dir = \"bin\"\n");
    let shown = ended(
        bare(&lab, &["plan", "mine.toml", "--config", "box.toml"]),
        0,
    )
    .stdout;
    assert!(
        shown.contains("note: launcher `process`: `vllm` is `bin/vllm`"),
        "{shown}"
    );
}

#[test]
fn a_plan_from_standard_input_must_name_itself() {
    let lab = Lab::new();
    let plan = |text: &str| {
        let mut command = bare(&lab, &["plan", "-"]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        drop(input);
        Ended::of(&child.wait_with_output().unwrap())
    };
    let text = format!("{SMALLEST}[server]\nlauncher = \"sim\"\n");
    let refused = plan(&text).expect_code(2).stderr;
    assert!(refused.contains("none can be made of `-`"), "{refused}");
    let shown = plan(&format!("name = \"n\"\n{text}")).expect_code(0).stdout;
    assert!(shown.starts_with("n: 2 cells"), "{shown}");
}

const WIDE: &str = "model = \"m\"\n[matrix]\ntier = [\"baseline\", \"cpu\", \"disk\"]\n\
                    prompt_len = [512, 1024]\n[server]\nlauncher = \"sim\"\n";

#[test]
fn a_wrong_setting_is_shown_in_its_line_and_a_wrong_part_names_the_nearest() {
    let lab = Lab::new();
    lab.write("wide.toml", WIDE);
    for (arguments, expected) in [
        (["--set", "run.requests=0"], "requests = 0 # --set"),
        (["--set", "run.reqests=4"], "did you mean `requests`?"),
        (
            ["--set", "gen_len=4"],
            "put `gen_len = [...]` into [matrix]",
        ),
        (
            ["--set", "model.x=4"],
            "`--set model.x=4` cannot be: `model` is a value",
        ),
        (["--only", "tire=cpu"], "did you mean `tier`?"),
        (["--only", "tier=dsk"], "did you mean `disk`?"),
    ] {
        for command in [
            &["run", "wide.toml"][..],
            &["plan", "wide.toml"],
            &["doctor", "wide.toml"],
        ] {
            let all = [command, &arguments].concat();
            let refused = lab.labrun(&all).expect_code(2).stderr;
            assert!(refused.contains(expected), "{all:?}: {refused}");
        }
    }
    assert!(!lab.path("results").exists());
}

#[test]
fn a_part_of_the_matrix_is_measured_and_stays_that_part_when_continued() {
    let lab = Lab::new();
    lab.write("wide.toml", WIDE);
    let only = [
        "wide.toml",
        "--only",
        "tier=cpu,prompt_len=1024",
        "--out",
        "out",
    ];
    let arguments = [&only[..], &SHORT].concat();
    let dry = lab
        .labrun(&[&["run", "--dry-run"], &arguments[..]].concat())
        .expect_code(0);
    assert!(!lab.path("out").exists() && !lab.path("results").exists());
    assert!(dry.stdout.starts_with("wide: 2 cells"), "{}", dry.stdout);
    assert!(
        dry.stdout.contains("note: tier `baseline` stays"),
        "{}",
        dry.stdout
    );
    let changes: Vec<&str> = arguments
        .iter()
        .copied()
        .filter(|it| !["--out", "out"].contains(it))
        .collect();
    let changes = [&["plan"], &changes[..]].concat();
    let plan = lab.labrun(&changes).expect_code(0);
    assert_eq!(dry.stdout, plan.stdout);
    let plan = lab
        .labrun(&[&changes[..], &["--cells"]].concat())
        .expect_code(0);
    lab.labrun(&arguments).expect_code(0);
    let mut measured: Vec<String> = lab
        .cells()
        .iter()
        .map(|(path, _)| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    measured.sort();
    assert_eq!(measured, ids(&plan.stdout));
    // The same cells as those of the whole matrix.
    let whole = [&["plan", "wide.toml", "--cells"], &SHORT[..]].concat();
    let whole = ids(&lab.labrun(&whole).expect_code(0).stdout);
    assert!(whole.len() == 6 && measured.iter().all(|id| whole.contains(id)));
    let gone = lab.cells().remove(0).0;
    std::fs::remove_dir_all(&gone).unwrap();
    lab.labrun(&["run", "--resume", "out"]).expect_code(0);
    assert_eq!(lab.cells().len(), 2);
    for (arguments, expected) in [
        (
            &[
                "wide.toml",
                "--only",
                "tier=disk",
                "--resume",
                "--out",
                "out",
            ][..],
            "holds another part of the matrix",
        ),
        (
            &["run", "--resume", "out", "--only", "tier=disk"],
            "is continued with its own plan",
        ),
    ] {
        let refused = lab.labrun(arguments).expect_code(2).stderr;
        assert!(refused.contains(expected), "{refused}");
    }
    assert_eq!(lab.cells().len(), 2);
}

/// The flags of the lab's earlier scripts.
const SEED: [&str; 14] = [
    "run",
    "--tier",
    "disk",
    "--prompt-len",
    "5000",
    "--gen-len",
    "4",
    "--label",
    "long_context",
    "--model",
    "org/m",
    "--num-requests",
    "2",
    "--launcher",
];

#[test]
fn flags_alone_are_a_run_and_can_be_saved_as_a_plan() {
    let lab = Lab::new();
    let more = [
        "sim",
        "--set",
        "server.sim.start_ms=1",
        "--out",
        "out",
        "--save",
        "saved.toml",
    ];
    let arguments = [&SEED[..], &more].concat();
    lab.labrun(&arguments).expect_code(0);
    let cells = lab.cells();
    assert_eq!(cells.len(), 2);
    let at = &cells[1].1["coordinates"];
    assert_eq!(
        (&at["tier"], &at["label"]),
        (&"disk".into(), &"long_context".into())
    );
    assert_eq!(
        (&at["prompt_len"], &at["gen_len"]),
        (&5000.into(), &4.into())
    );
    let saved = lab.read("saved.toml");
    assert!(
        saved.starts_with("name = \"saved\"\nmodel = \"org/m\"\n"),
        "{saved}"
    );
    let shown = lab.labrun(&["plan", "saved.toml"]).expect_code(0).stdout;
    assert!(shown.starts_with("saved: 2 cells"), "{shown}");
    let again = lab.labrun(&[&SEED[..], &["sim", "--dry-run", "--save", "saved.toml"]].concat());
    let again = again.expect_code(2).stderr;
    assert!(again.contains("`saved.toml` exists"), "{again}");
    assert_eq!(lab.read("saved.toml"), saved);
    let k = [
        "--model",
        "m",
        "--tier",
        "cpu",
        "--prompt-len",
        "4k,16k",
        "--requests",
        "2",
        "--launcher",
        "sim",
        "--dry-run",
    ];
    let shown = lab.labrun(&k).expect_code(0).stdout;
    assert!(shown.contains("prompt_len   4096, 16384"), "{shown}");
}

#[test]
fn flags_of_a_run_without_a_plan_are_refused_beside_one() {
    let lab = Lab::new();
    lab.write("wide.toml", WIDE);
    for (arguments, expected) in [
        (
            &["wide.toml", "--requests", "4"][..],
            "to change a value of `wide.toml`, use `--set run.requests=4`",
        ),
        (
            &["run", "--model", "m"],
            "--tier and --prompt-len must be given too",
        ),
        (&["run"], "no plan: name a TOML file"),
        (&["run", "--resume"], "nothing to continue"),
        (
            &["run", "--model", "m", "--tier", "cpu", "--prompt-len", "4x"],
            "`4x` is no number of tokens",
        ),
    ] {
        let refused = lab.labrun(arguments).expect_code(2).stderr;
        assert!(refused.contains(expected), "{arguments:?}: {refused}");
    }
    let gpu = [
        "--model",
        "m",
        "--tier",
        "gpu",
        "--prompt-len",
        "512",
        "--launcher",
        "sim",
    ];
    let refused = lab.labrun(&gpu).expect_code(2).stderr;
    assert!(
        refused.contains("the command line:") && refused.contains("GPU only is `baseline`"),
        "{refused}"
    );
}

#[test]
fn init_writes_a_plan_that_runs_on_this_machine_and_overwrites_nothing() {
    let lab = Lab::new();
    let wrote = ended(bare(&lab, &["init", "mine.toml"]), 0);
    assert!(
        wrote.stderr.contains("it runs on the simulator"),
        "{}",
        wrote.stderr
    );
    let text = lab.read("mine.toml");
    let refused = ended(bare(&lab, &["init", "mine.toml", "--model", "x"]), 2).stderr;
    assert!(refused.contains("`mine.toml` exists"), "{refused}");
    assert_eq!(lab.read("mine.toml"), text);
    lab.write("lab.toml", "[paths]\nmodels = \"models\"\n");
    let with = ["init", "other.toml", "--config", "lab.toml"];
    let wrote = ended(bare(&lab, &with), 0).stderr;
    assert!(
        wrote.contains("run it with `labrun other.toml --config lab.toml`"),
        "{wrote}"
    );
    // The longest prompts are those that a tier may be too small for.
    let run = ["mine.toml", "--only", "prompt_len=4128", "--out", "out"];
    lab.labrun(&run).expect_code(0);
    assert_eq!(lab.cells().len(), 3);
    let stored = lab.read("out/plan.toml");
    assert!(
        stored.contains("name = \"mine\" # the file's name"),
        "{stored}"
    );
}

#[test]
fn every_plan_of_init_is_one_that_labrun_finds_no_problem_with() {
    let lab = Lab::new();
    for workload in ["rag", "agent", "chat"] {
        let file = format!("{workload}.toml");
        let arguments = [
            "init",
            &file,
            "--workload",
            workload,
            "--tiers",
            "cpu,redis",
        ];
        ended(bare(&lab, &arguments), 0);
        let shown = lab.labrun(&["plan", &file]).expect_code(0).stdout;
        assert!(shown.starts_with(&format!("{workload}: ")), "{shown}");
        assert!(!shown.contains("problem:"), "{shown}");
    }
    let wrong = ended(bare(&lab, &["init", "wrong.toml", "--tiers", "cpi"]), 2).stderr;
    assert!(wrong.contains("did you mean `cpu`?"), "{wrong}");
    assert!(!lab.path("wrong.toml").exists());
    let docker = [
        "init",
        "docker.toml",
        "--launcher",
        "docker",
        "--model",
        "org/m",
    ];
    ended(bare(&lab, &docker), 0);
    assert!(
        lab.read("docker.toml")
            .contains("launcher = \"docker\" # --launcher")
    );
}
