use proptest::prelude::*;

use super::*;
use crate::csv_table::push_row;
use crate::record::frame::read_parquet;
use crate::record::reader::read_run;

const HEAD: &str = "ttft,avg_itl,e2e,prompt_len,gen_len,tier,label";
const ROW: &str = "0.1,0.01,0.5,1024,8,cpu,rag";

fn write(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn read_one(bytes: &[u8]) -> Result<Vec<Imported>> {
    let (_folder, path) = write("a.csv", bytes);
    read(&[path], &Defaults::default())
}

fn refusal(bytes: &[u8]) -> String {
    format!("{:#}", read_one(bytes).unwrap_err())
}

#[test]
fn a_csv_is_read_in_each_form_that_programs_write() {
    let text = format!("{HEAD}\n{ROW}\n");
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let quoted = |line: &str| format!("\"{}\"\r\n", line.replace(',', "\",\""));
    for bytes in [
        text.clone().into_bytes(),
        format!("\u{feff}{text}").into_bytes(),
        [&[0xFF, 0xFE][..], &utf16].concat(),
        (quoted(HEAD) + &quoted(ROW)).into_bytes(),
        text.replace("8,cpu", "8.0,cpu").into_bytes(),
        text.replace("0.01", "NaN").into_bytes(),
        format!(",{HEAD},note\n0,{ROW},x\n").into_bytes(),
    ] {
        let passes = read_one(&bytes).unwrap();
        assert_eq!((passes.len(), passes[0].rows.len()), (1, 1));
        let row = &passes[0].rows[0];
        assert_eq!((row.ttft_ms, row.e2e_ms), (Some(100.0), Some(500.0)));
        assert_eq!((row.prompt_len, row.gen_len), (1024, 8));
        assert_eq!((passes[0].state, passes[0].source), (None, None));
        assert!(!passes[0].is_concurrency_known);
    }
}

#[test]
fn odd_tables_are_refused_with_row_and_column() {
    let more = |column: &str, value: &str| format!("{HEAD},{column}\n{ROW},\n{ROW},{value}\n");
    for (text, expected) in [
        (HEAD.to_owned(), "it has no row under its head"),
        (String::new(), "it is empty"),
        (
            format!("# run on box A\n{HEAD}\n{ROW}\n"),
            "row 2 has 7 fields under 1 names",
        ),
        (
            format!("{HEAD}\n{ROW},9\n"),
            "row 2 has 8 fields under 7 names",
        ),
        (
            format!("{HEAD}\n\"{ROW}\n{ROW}\n"),
            "row 2 opens a quote that is never closed",
        ),
        (
            more("state", "warm"),
            "row 3, column `state`: invalid value `warm`: expected one of cold, gpu, tier, restart",
        ),
        (
            more("source", "x"),
            "row 3, column `source`: invalid value `x`",
        ),
        (
            more("outcome", "lost"),
            "row 3, column `outcome`: invalid value `lost`",
        ),
        (
            more("http_status", "99999"),
            "row 3, column `http_status`: invalid value `99999`: expected an HTTP status",
        ),
        (more("http_status", "0"), "row 3, column `http_status`"),
        (
            more("concurrency", "0"),
            "row 3, column `concurrency`: invalid value `0`: expected at least 1",
        ),
        (more("repeat", "1.5"), "row 3, column `repeat`"),
        (more("output_tokens", "-1"), "row 3, column `output_tokens`"),
        (
            format!("{HEAD}\n{}\n", ROW.replace("1024", "512.5")),
            "row 2, column `prompt_len`: invalid value `512.5`",
        ),
        (
            format!("{HEAD}\n{}\n", ROW.replace("1024", "0")),
            "row 2, column `prompt_len`: invalid value `0`: expected at least 1",
        ),
        (
            format!("{HEAD}\n{}\n", ROW.replace("1024", "")),
            "row 2 has no `prompt_len`",
        ),
        (
            format!("{HEAD}\n{}\n", ROW.replace("0.1,", "-0.1,")),
            "row 2, column `ttft`: invalid value `-0.1`: expected a time",
        ),
        (HEAD.replace(',', ";"), "no column `ttft`"),
    ] {
        let refusal = refusal(text.as_bytes());
        let (file, why) = refusal.split_once(": ").unwrap();
        assert!(
            file.starts_with("cannot import `") && why.starts_with(expected),
            "{refusal}"
        );
    }
}

#[test]
fn an_import_that_was_killed_can_be_repeated() {
    let (folder, path) = write("a.csv", format!("{HEAD}\n{ROW}\n{ROW}\n").as_bytes());
    let out = folder.path().join("run");
    // What a killed one left.
    let left = folder.path().join(".run.import-4194305");
    fs::create_dir_all(left.join("cells/.tmp-x")).unwrap();
    fs::write(left.join("cells/.tmp-x/cell.json"), "{").unwrap();
    let files = [path];
    assert_eq!(import(&files, &Defaults::default(), &out).unwrap(), 1);
    assert!(!left.exists());
    let run = read_run(&out).unwrap();
    let requests = out
        .join("cells")
        .join(&run.cells[0].id)
        .join("requests.parquet");
    assert_eq!(read_parquet(&requests).unwrap().len(), 2);
    let again = import(&files, &Defaults::default(), &out)
        .unwrap_err()
        .to_string();
    assert!(
        again.ends_with("has a run already; name another folder with --out"),
        "{again}"
    );
    // An empty folder is as good as none.
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(import(&files, &Defaults::default(), &empty).unwrap(), 1);
}

#[test]
fn results_of_two_models_are_not_repeats_of_each_other() {
    let result = |model: &str| {
        json!({"completed": 2, "duration": 1.0, "total_input_tokens": 20, "total_output_tokens": 8,
               "max_concurrency": 1, "model_id": model})
    };
    let text = format!("{}\n{}\n", result("a"), result("b"));
    let (folder, path) = write("a.json", text.as_bytes());
    let out = folder.path().join("run");
    let error = import(&[path], &Defaults::default(), &out)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("the results are of several models (`a`, `b`)"),
        "{error}"
    );
    assert!(!out.exists());
}

proptest! {
    /// What labrun writes of requests, it reads back, whatever their names.
    #[test]
    fn labels_tiers_and_axes_come_back(
        label in "[=@+',\"\n a-z-]{1,8}", tier in "[=@+',\"\n a-z-]{1,8}", axis in "[=@+', a-z-]{1,5}",
    ) {
        let mut text = String::new();
        push_row(&mut text, &["ttft", "e2e", "prompt_len", "gen_len", "tier", "label", "server.args.x"]);
        push_row(&mut text, &["0.1", "0.5", "1024", "8", &tier, &label, &axis]);
        let passes = read_one(text.as_bytes()).unwrap();
        let at = &passes[0].at;
        prop_assert_eq!((&at.tier, &at.label, &at.extra["server.args.x"]), (&tier, &label, &axis));
    }
}
