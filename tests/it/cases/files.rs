//! Files as other programs write them: traces, results, tables, `.env`.

use serde_json::{Value, json};

use super::statuses;
use crate::support::{Ended, Lab};

const PLAN: &str = r#"
name = "files"
model = "m"
[matrix]
tier = ["cpu"]
prompt_len = [512]
gen_len = [4]
concurrency = [1]
label = ["w"]
[run]
requests = @REQUESTS@
canaries = 1
warmup = 1
states = ["cold"]
time_limit_s = 60
[workload.w]
kind = "trace"
path = "data"
@MORE@
[load]
arrival = "trace"
[server]
launcher = "sim"
[server.sim]
start_ms = 1
"#;

/// `labrun plan` and then the run of a trace of this text.
fn replay(data: &str, more: &str) -> (Lab, Ended, Ended) {
    let lab = Lab::new();
    lab.write("data", data);
    let requests = data.lines().count().min(4).to_string();
    let plan = PLAN
        .replace("@MORE@", more)
        .replace("@REQUESTS@", &requests);
    lab.write("plan.toml", &plan);
    let shown = lab.labrun(&["plan", "plan.toml"]);
    let ran = lab.labrun(&["plan.toml", "--out", "out", "--quiet"]);
    (lab, shown, ran)
}

#[test]
fn traces_are_read_as_programs_write_them() {
    for (name, data, more) in [
        (
            "a byte order mark",
            "\u{feff}timestamp_ms,input_length,output_length\n0,600,4\n100,600,4\n",
            "",
        ),
        (
            "quotes around everything",
            "\"timestamp_ms\",\"input_length\",\"output_length\"\n\"0\",\"600\",\"4\"\n\"100\",\"600\",\"4\"\n",
            "",
        ),
        (
            "a session with a comma",
            "timestamp_ms,input_length,output_length,session\n0,600,4,\"a,b\"\n100,600,4,c\n",
            "",
        ),
        (
            "a time in seconds that the plan names",
            "{\"timestamp\":0,\"input_length\":40,\"output_length\":4,\"hash_ids\":[1,2,3]}\n\
             {\"timestamp\":0.2,\"input_length\":40,\"output_length\":4,\"hash_ids\":[1,2,4]}\n",
            "block_len = 16\ntime_unit = \"s\"",
        ),
    ] {
        let (lab, _, ran) = replay(data, more);
        ran.expect_code(0);
        assert_eq!(
            statuses(&lab),
            ["valid"],
            "{name}: {}",
            super::complaints(&lab)
        );
    }
}

#[test]
fn traces_that_cannot_be_meant_are_refused_before_a_server_starts() {
    let bailian = |chat: &str| {
        let line = |at: f64, ids: &str| {
            format!(
                "{{{chat}\"timestamp\":{at},\"input_length\":40,\"output_length\":4,\"hash_ids\":{ids}}}\n"
            )
        };
        [
            line(0.0, "[1,2,3]"),
            line(1.5, "[1,2,4]"),
            line(3.0, "[1,5,6]"),
        ]
        .concat()
    };
    for (data, more, expected) in [
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n",
            "",
            "`timestamp_ms`",
        ),
        (
            &bailian("\"chat_id\":1,\"parent_chat_id\":-1,\"turn\":1,"),
            "block_len = 16",
            "time_unit",
        ),
        (&bailian(""), "time_unit = \"s\"", "block_len"),
        (
            "timestamp_ms,input_length,output_length\n0,600,4\n1e300,700,4\n",
            "",
            "is its unit right?",
        ),
        (
            "timestamp_ms,input_length,output_length\n0,600,4\n\"1,700,4\n2,600,4\n",
            "",
            "row 3",
        ),
    ] {
        let (lab, shown, ran) = replay(data, more);
        for refused in [shown.expect_code(2), ran.expect_code(2)] {
            assert!(
                refused.stderr.contains(expected),
                "{expected}: {}",
                refused.stderr
            );
            assert!(refused.stderr.contains("data"), "{}", refused.stderr);
        }
        assert!(!lab.path("out").exists());
    }
}

/// A result of `vllm bench serve` of 300 requests, 1000 tokens to 270.
fn bench_result(change: &Value) -> String {
    let mut result = json!({
        "date": "20250102-030405", "backend": "vllm", "model_id": "org/model",
        "tokenizer_id": "org/model", "num_prompts": 300, "request_rate": "inf", "burstiness": 1.0,
        "max_concurrency": 8, "duration": 30.0, "completed": 300, "failed": 0,
        "total_input_tokens": 300_000, "total_output_tokens": 81_000, "request_throughput": 10.0,
        "output_throughput": 2700.0, "total_token_throughput": 12700.0,
        "mean_ttft_ms": 50.0, "median_ttft_ms": 50.0, "std_ttft_ms": 1.0, "p99_ttft_ms": 90.0,
        "mean_tpot_ms": 5.0, "median_tpot_ms": 5.0, "std_tpot_ms": 1.0, "p99_tpot_ms": 9.0,
    });
    for (name, value) in change.as_object().cloned().unwrap_or_default() {
        match value {
            Value::String(absent) if absent == "absent" => {
                drop(result.as_object_mut().unwrap().remove(&name));
            }
            value => result[&name] = value,
        }
    }
    result.to_string()
}

/// What a cell is but for its repeat.
fn places(lab: &Lab) -> Vec<String> {
    let place = |cell: &Value| {
        let mut at = cell["coordinates"].clone();
        at["repeat"] = Value::Null;
        at.to_string()
    };
    let mut places: Vec<_> = lab.cells().iter().map(|(_, cell)| place(cell)).collect();
    places.sort();
    places.dedup();
    places
}

#[test]
fn results_of_other_tools_keep_what_sets_them_apart() {
    let rate = |rate: f64| bench_result(&json!({"request_rate": rate, "max_concurrency": null}));
    let both = format!(
        "{}\n{}\n",
        bench_result(&json!({})),
        bench_result(&json!({"max_concurrency": 16}))
    );
    for (files, more, cells) in [
        (vec![rate(10.0), rate(30.0)], "--concurrency 64", 2),
        (vec![both], "", 2),
        (vec![format!("\u{feff}{}", bench_result(&json!({})))], "", 1),
        (
            vec![bench_result(&json!({"model_id": "absent"}))],
            "--model org/model",
            1,
        ),
    ] {
        let lab = Lab::new();
        let names: Vec<_> = (0..files.len()).map(|at| format!("{at}.json")).collect();
        for (name, text) in names.iter().zip(&files) {
            lab.write(name, text);
        }
        let mut arguments = vec!["import", "--out", "out"];
        arguments.extend(names.iter().map(String::as_str));
        arguments.extend(more.split(' ').filter(|word| !word.is_empty()));
        lab.labrun(&arguments).expect_code(0);
        assert_eq!(places(&lab).len(), cells, "{more}");
    }
}

#[test]
fn answers_that_ended_where_they_liked_are_compared_by_the_length_asked_for() {
    let lab = Lab::new();
    for (name, tokens, ttft) in [("a", 81_050, 50.0), ("b", 81_500, 20.0)] {
        let file = format!("{name}.json");
        lab.write(
            &file,
            &bench_result(&json!({"total_output_tokens": tokens, "median_ttft_ms": ttft})),
        );
        let import = ["import", &file, "--out", name, "--tier", "cpu"];
        let refused = lab.labrun(&import).expect_code(2).stderr;
        assert!(refused.contains("--gen-len"), "{refused}");
        lab.labrun(&[&import[..], &["--gen-len", "500"]].concat())
            .expect_code(0);
    }
    lab.labrun(&["diff", "a", "b", "--allow", "inconclusive"])
        .expect_code(0);
}

const HEAD: &str = "ttft,avg_itl,e2e,prompt_len,gen_len,tier,label";
const ROW: &str = "0.1,0.01,0.5,1024,8,cpu,rag";

/// Twelve rows under a head.
fn table(head: &str, row: &str) -> String {
    format!("{head}\n{}", format!("{row}\n").repeat(12))
}

#[test]
fn tables_are_read_by_import_as_by_plot_or_refused_with_their_row() {
    for (text, expected) in [
        (format!("\u{feff}{}", table(HEAD, ROW)), None),
        (table(HEAD, ROW).replace('\n', "\r\n"), None),
        (format!("{HEAD}\n"), Some("no row")),
        (
            table(&format!("{HEAD},state"), &format!("{ROW},warm")),
            Some("warm"),
        ),
        (format!("# run on box A\n{}", table(HEAD, ROW)), Some("")),
        (table(HEAD, &ROW.replace("1024", "512.5")), Some("512.5")),
        (table(HEAD, &ROW.replace("1024", "0")), Some("prompt_len")),
        (table(HEAD, &format!("{ROW},7")), Some("")),
    ] {
        let lab = Lab::new();
        lab.write("a.csv", &text);
        let imported = lab.labrun(&["import", "a.csv", "--out", "out"]);
        let drawn = lab.labrun(&["plot", "--input", "a.csv"]);
        let output = format!("{}{}", imported.stderr, drawn.stderr);
        assert!(!output.contains("truncate_ragged_lines"), "{output}");
        match expected {
            None => {
                imported.expect_code(0);
                drawn.expect_code(0);
            }
            Some(expected) => {
                let refused = imported.expect_code(2).stderr;
                assert!(
                    refused.contains(expected) && refused.contains("a.csv"),
                    "{refused}"
                );
                assert!(lab.cells().is_empty());
            }
        }
    }
}

#[test]
fn a_dot_env_is_read_as_docker_reads_it_and_is_no_matter_of_others() {
    let lab = Lab::new();
    lab.write("a.csv", &table(HEAD, ROW));
    lab.write(
        ".env",
        "HF_TOKEN\nVLLM_EXTRA=--max-model-len 8192 --enforce-eager\n",
    );
    lab.labrun(&["plot", "--input", "a.csv"]).expect_code(0);
    // That of a folder above is another project's.
    lab.write(".env", "LABRUN_NO_SUCH_SETTING=1\n");
    lab.write("below/a.csv", &table(HEAD, ROW));
    let mut command = lab.command(&["plot", "--input", "a.csv"]);
    let ended = Ended::of(&command.current_dir(lab.path("below")).output().unwrap());
    ended.expect_code(0);
    lab.write(".env", "A='torn\n");
    let refused = lab.labrun(&["doctor"]).expect_code(2).stderr;
    assert!(refused.contains(".env:1"), "{refused}");
}

#[test]
fn what_is_no_file_is_refused_and_never_waited_for() {
    let lab = Lab::new();
    let pipe = lab.path("pipe");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap();
    assert!(made.success());
    for name in ["pipe", "/dev/zero", "."] {
        for arguments in [
            &["plan", name][..],
            &["sim", "--spec", name],
            &["sim", "--lmcache-config", name],
            &["plot", "--input", name],
            &["import", name, "--out", "out"],
            &["doctor", "--config", name],
        ] {
            let ended = lab.labrun(arguments).expect_code(2);
            let output = ended.stderr;
            let is_named = ["pipe", "device", "folder"]
                .iter()
                .any(|what| output.contains(what));
            assert!(is_named, "{arguments:?}: {output}");
        }
    }
    std::fs::rename(&pipe, lab.path(".env")).unwrap();
    let refused = lab.labrun(&["doctor"]).expect_code(2).stderr;
    assert!(refused.contains("`.env`"), "{refused}");
}
