use super::*;
use crate::report::timeline::model::TimeLine;
use crate::report::timeline::panels::{IN, OUT};

fn panel(steps: Vec<(f64, f64, f64)>, dots: Vec<(f64, f64)>) -> TimePanel {
    TimePanel {
        title: "disk, MB/s".to_owned(),
        lines: vec![TimeLine {
            name: "read",
            colour: IN,
            steps,
        }],
        ticks: dots.iter().map(|dot| dot.0).collect(),
        dots,
    }
}

fn timeline(panels: Vec<TimePanel>) -> Timeline {
    Timeline {
        title: "<script>alert(1)</script> on \"cpu\"".to_owned(),
        subtitle: "simulated numbers; cell <b>".to_owned(),
        span: (0.0, 310.0),
        phases: vec![(0.0, 100.0, "cold".to_owned())],
        panels,
    }
}

#[test]
fn a_series_is_one_path_and_what_stays_equal_one_stroke() {
    let steps = vec![(0.0, 100.0, 10.0), (100.0, 310.0, 5.0)];
    let svg = strip(&timeline(vec![panel(steps, vec![])]));
    // 10 is at 44, 5 at 74: a column is three units wide.
    let path = r#"<path class="a" d="M56 44h300v30h630h-630v-30h-300z"/>"#;
    assert!(svg.contains(path), "{svg}");
    let two = vec![(0.0, 10.0, 10.0), (20.0, 30.0, 10.0)];
    let svg = strip(&timeline(vec![panel(two, vec![])]));
    let path = r#"d="M56 44h30h-30zM116 44h30h-30z"/>"#;
    assert!(svg.contains(path), "a pause is drawn as one: {svg}");
}

#[test]
fn what_the_run_is_called_is_no_markup() {
    let svg = strip(&timeline(vec![panel(vec![], vec![(5.0, 1.0)])]));
    for text in [&svg, &alone(&svg, "<script>")] {
        assert!(!text.contains("<script") && !text.contains("<b>"), "{text}");
        assert!(text.contains("&lt;script&gt;"));
        assert!(text.contains("on &quot;cpu&quot;; simulated numbers; cell &lt;b&gt;"));
    }
    assert!(alone(&svg, "t").starts_with(r#"<svg xmlns="http://www.w3.org/2000/svg""#));
    assert!(svg.starts_with("<svg viewBox"));
}

#[test]
fn the_noisiest_series_of_a_long_cell_stay_small() {
    let noise = |salt: u32| -> Vec<_> {
        let value = |at: u32| f64::from(at.wrapping_mul(2_654_435_761).wrapping_add(salt) % 997);
        (0..50_000)
            .map(|at| {
                let from = f64::from(at) * 310.0 / 50_000.0;
                (from, from + 0.0062, value(at))
            })
            .collect()
    };
    let panels = (0..5).map(|at| {
        let mut one = panel(noise(at), vec![]);
        one.lines.push(TimeLine {
            name: "written",
            colour: OUT,
            steps: noise(at + 7),
        });
        one
    });
    let mut panels: Vec<_> = panels.collect();
    let dots = (0..20_000).map(|at| (f64::from(at) / 100.0, f64::from(at % 700)));
    panels.insert(0, panel(vec![], dots.collect()));
    let svg = strip(&timeline(panels));
    assert!(svg.len() < 54_000, "{} bytes", svg.len());
    assert!(svg.contains(r#"<path class="r" d="M56 104v-5M59 104v-5M62 "#));
    assert!(svg.contains(">TTFT, ms; 20000 requests, least to most<"));
    assert!(svg.contains(r#"<path class="r f" d="M56 "#));
}

#[test]
fn few_requests_are_ticks_and_their_first_tokens_dots() {
    let mut one = panel(vec![], vec![(0.0, 100.0), (155.0, 50.0)]);
    // No token came.
    one.ticks.push(310.0);
    let svg = strip(&timeline(vec![one]));
    assert!(
        svg.contains(r#"<path class="r" d="M56 104v-5M521 104v-5M986 104v-5"/>"#),
        "{svg}"
    );
    assert!(
        svg.contains(r#"<path class="d" d="M56 44h0M521 74h0"/>"#),
        "{svg}"
    );
}

#[test]
fn the_time_axis_of_a_short_cell_has_distinct_ticks() {
    let short = Timeline {
        span: (0.0, 0.3),
        ..timeline(vec![panel(vec![], vec![(0.1, 1.0)])])
    };
    let svg = strip(&short);
    for tick in [">0.00<", ">0.05<", ">0.10<", ">0.30<"] {
        assert!(svg.contains(tick), "{tick} in {svg}");
    }
    assert_eq!(
        resolution(&short),
        "Each series from its least to its most in every 1.0 ms."
    );
}

#[test]
fn axes_end_on_round_numbers() {
    for (value, end) in [
        (0.0, 1.0),
        (0.3, 0.5),
        (1.0, 1.0),
        (47.0, 50.0),
        (51.0, 100.0),
    ] {
        assert!((round_up(value) - end).abs() < 1e-9, "{value}");
    }
}
