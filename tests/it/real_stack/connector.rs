//! LMCache's multi-process connector, written by hand as a tier of the kind `connector`.

use super::{check_ledger, run};
use crate::support::Lab;

#[test]
#[ignore = "needs scripts/install-real-stack.sh, and takes minutes"]
fn lmcache_written_by_hand_as_a_connector_is_proven_by_its_files() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/plans/connector.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let set = |text: String, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    };
    let text = set(text, r#"["baseline", "mine"]"#, r#"["mine"]"#);
    // A restart takes minutes, and is the same for the stand-in.
    let states = r#"["cold", "tier", "restart"]"#;
    let text = set(text, states, r#"["cold", "tier"]"#);
    let lab = Lab::new();
    let alone = "[[matrix.exclude]]\ntier = \"baseline\"\n";
    run(&lab, &format!("{text}\n{alone}"), 0);
    let (folder, cell) = lab.cells().remove(0);
    let passes = cell["passes"].as_array().unwrap();
    assert_eq!(passes.len(), 2, "{cell}");
    for pass in passes {
        assert_eq!(pass["verdict"]["status"], "valid", "{pass}");
        if pass["state"] == "tier" {
            check_ledger(pass, "disk-read", 0.05);
            check_ledger(pass, "connector-hits", 0.05);
        }
    }
    let log = std::fs::read_to_string(folder.join("side-lmcache.log")).unwrap();
    assert!(log.contains("LMCache"), "{log}");
    lab.labrun(&["verify", "out"]).expect_code(0);
    lab.assert_no_server_is_left();
}
