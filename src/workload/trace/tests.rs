use proptest::prelude::*;

use super::*;
use crate::plan::load_spec::Arrival;
use crate::plan::state::CacheState;
use crate::workload::testing::{Fixture, ids};

const COLD: Pass = Pass::State(CacheState::Cold);

const MOONCAKE: &str = r#"
{"timestamp": 3000, "input_length": 1100, "output_length": 7, "hash_ids": [1, 2, 9]}
{"timestamp": 1000, "input_length": 1024, "output_length": 5, "hash_ids": [1, 2]}
"#;

fn asked() -> Asked {
    Asked {
        block_len: None,
        speed: 1.0,
        time_unit: None,
        replays_times: true,
    }
}

fn kind(block_len: Option<u32>, speed: f64, time_unit: Option<TimeUnit>) -> WorkloadKind {
    WorkloadKind::Trace {
        path: "t".to_owned(),
        block_len,
        speed,
        time_unit,
    }
}

fn fixture(text: &str, kind: WorkloadKind) -> Fixture {
    let mut fixture = Fixture::new(kind);
    fixture.arrival = Arrival::Trace;
    fixture.read(text);
    fixture
}

fn read(text: &str) -> Fixture {
    fixture(text, kind(None, 1.0, None))
}

fn refusal(text: &str, asked: Asked) -> String {
    Trace::parse(text, asked).unwrap_err().to_string()
}

/// Milliseconds at which a trace's requests are sent.
fn starts_ms(text: &str, asked: Asked) -> Vec<u128> {
    let trace = Trace::parse(text, asked).unwrap();
    trace.lines.iter().map(|line| line.at.as_millis()).collect()
}

#[test]
fn mooncake_lines_share_blocks_and_keep_times_and_lengths() {
    let fixture = fixture(MOONCAKE, kind(None, 2.0, None));
    let schedule = fixture.build(COLD).unwrap();
    let starts: Vec<_> = schedule.requests.iter().map(|r| r.start).collect();
    assert_eq!(
        starts,
        [Start::At(Duration::ZERO), Start::At(Duration::from_secs(1))]
    );
    let lengths: Vec<_> = schedule
        .requests
        .iter()
        .map(|r| (r.prompt_tokens, r.gen_len))
        .collect();
    assert_eq!(lengths, [(Some(1024), 5), (Some(1100), 7)]);
    let (first, second) = (ids(&schedule.requests[0]), ids(&schedule.requests[1]));
    assert_eq!(
        first[..992],
        second[..992],
        "two blocks, but for the fresh tokens"
    );
    assert_ne!(first[992..], second[992..1024]);
}

/// What the requests of each trace repeat of earlier ones: their common tokens.
#[test]
fn what_a_trace_repeats_is_counted_in_tokens() {
    let head = "timestamp_ms,input_length,output_length,session\n";
    let grows = format!("{head}0,600,4,a\n200,900,4,a\n400,1200,4,a\n600,600,4,b\n");
    let shrinks = format!("{head}0,900,4,a\n200,600,4,a\n");
    let json = |lengths: &[(u32, &str)]| -> String {
        let line = |(at, (len, ids)): (usize, &(u32, &str))| {
            format!(
                "{{\"timestamp\":{},\"input_length\":{len},\"output_length\":4,\"hash_ids\":{ids}}}\n",
                at * 100
            )
        };
        lengths.iter().enumerate().map(line).collect()
    };
    for (text, expected) in [
        (grows, vec![0, 568, 868, 0]),
        (shrinks, vec![0, 568]),
        // The last block grows under one id.
        (json(&[(600, "[1,2]"), (900, "[1,2]")]), vec![0, 568]),
        (json(&[(900, "[1,2]"), (600, "[1,2]")]), vec![0, 568]),
        // Then another block follows where the first prompt ended within its own.
        (json(&[(700, "[1,2]"), (1100, "[1,2,3]")]), vec![0, 668]),
        (
            json(&[(600, "[1,2]"), (600, "[1,3]"), (600, "[4,2]")]),
            vec![0, 512, 0],
        ),
    ] {
        let schedule = read(&text).build(COLD).unwrap();
        let repeated: Vec<u32> = schedule
            .requests
            .iter()
            .map(|r| r.repeated_tokens)
            .collect();
        assert_eq!(repeated, expected, "{text}");
        let prompts: Vec<_> = schedule.requests.iter().map(ids).collect();
        for (at, repeated) in repeated.iter().enumerate() {
            let common = |other: &Vec<u32>| {
                prompts[at]
                    .iter()
                    .zip(other)
                    .take_while(|(a, b)| a == b)
                    .count() as u32
            };
            let most = prompts[..at].iter().map(common).max().unwrap_or(0);
            assert_eq!(most, *repeated, "{text}");
        }
    }
}

#[test]
fn a_session_may_be_named_in_each_way() {
    let bailian = r#"{"chat_id":1,"parent_chat_id":-1,"timestamp":0.5,"input_length":100,"output_length":5,"turn":1,"type":"text"}
{"chat_id":7,"parent_chat_id":1,"timestamp":2.5,"input_length":200,"output_length":5,"turn":2,"type":"text"}
{"chat_id":8,"parent_chat_id":-1,"timestamp":3,"input_length":100,"output_length":5,"turn":1,"type":"text"}
"#;
    let named = |field: &str| {
        format!(
            "{{\"timestamp\":0,\"input_length\":100,\"output_length\":5,\"{field}\":\"a\"}}\n\
             {{\"timestamp\":2000,\"input_length\":200,\"output_length\":5,\"{field}\":\"a\"}}\n\
             {{\"timestamp\":2500,\"input_length\":100,\"output_length\":5,\"{field}\":4}}\n"
        )
    };
    let seconds = kind(None, 1.0, Some(TimeUnit::S));
    for (text, kind) in [
        (bailian.to_owned(), seconds.clone()),
        (named("session"), kind(None, 1.0, None)),
        (named("session_id"), kind(None, 1.0, None)),
        (
            "\u{feff}\"timestamp_s\",\"input_length\",\"output_length\",\"session_id\"\r\n\
             \"0\",\"100\",\"5\",\"a,b\"\r\n\r\n\"2\",\"200\",\"5\",\"a,b\"\r\n\"2.5\",\"100\",\"5\",\"c\"\r\n"
                .trim_start_matches('\u{feff}')
                .to_owned(),
            seconds,
        ),
    ] {
        let schedule = fixture(&text, kind).build(COLD).unwrap();
        let prompts: Vec<_> = schedule.requests.iter().map(ids).collect();
        assert_eq!(prompts[0][..68], prompts[1][..68], "{text}");
        assert_ne!(prompts[0][..68], prompts[2][..68], "{text}");
        let starts: Vec<_> = schedule.requests.iter().map(|r| r.start).collect();
        let at = |ms| Start::At(Duration::from_millis(ms));
        assert_eq!(starts, [at(0), at(2000), at(2500)], "{text}");
    }
}

#[test]
fn a_delay_follows_the_sessions_earlier_request() {
    let text = r#"{"session_id":"a","timestamp":0,"input_length":100,"output_length":5}
{"session_id":"b","timestamp":3000,"input_length":100,"output_length":5}
{"session_id":"a","delay":500,"input_length":200,"output_length":5}
"#;
    let schedule = fixture(text, kind(None, 2.0, None)).build(COLD).unwrap();
    let starts: Vec<_> = schedule.requests.iter().map(|r| r.start).collect();
    let after = Start::After {
        request: 0,
        think: Duration::from_millis(250),
    };
    let at = |ms| Start::At(Duration::from_millis(ms));
    assert_eq!(starts, [at(0), after, at(1500)]);
}

#[test]
fn the_unit_of_times_is_asked_for_where_it_is_not_certain() {
    let line = |time: &str, more: &str| {
        format!("{{\"timestamp\":{time},\"input_length\":600,\"output_length\":4{more}}}\n")
    };
    let fractions = line("0", "") + &line("1.5", "");
    let chats = line("0", ",\"chat_id\":1") + &line("61", ",\"chat_id\":2");
    let fast: String = (0..500).map(|at| line(&at.to_string(), "")).collect();
    let since_1970 = line("1700000000", "") + &line("1700000060", "");
    let micros = line("1700000000000000", "") + &line("1700000060000000", "");
    let millis = line("1700000000000", "") + &line("1700000060000", "");
    assert_eq!(starts_ms(&millis, asked()), [0, 60_000]);
    let slow: String = (0..50).map(|at| line(&(at * 20).to_string(), "")).collect();
    for (text, why) in [
        (&fractions, "its timestamps have fractions"),
        (&chats, "it has `chat_id`, as traces in seconds do"),
        (&fast, "in milliseconds it would be very fast"),
        (&since_1970, "they are seconds since 1970 by their size"),
        (
            &micros,
            "they are micro- or nanoseconds since 1970 by their size: divide them first",
        ),
    ] {
        assert_eq!(
            refusal(text, asked()),
            format!(
                "the unit of its times is not certain ({why}): write `time_unit = \"s\"` or \"ms\""
            )
        );
        // Where times are not used, their unit does not matter.
        let closed = Asked {
            replays_times: false,
            ..asked()
        };
        assert!(Trace::parse(text, closed).is_ok(), "{why}");
    }
    assert_eq!(starts_ms(&slow, asked())[1], 20);
    for (unit, expected) in [(TimeUnit::S, 1500), (TimeUnit::Ms, 1)] {
        let asked = Asked {
            time_unit: Some(unit),
            ..asked()
        };
        assert_eq!(starts_ms(&fractions, asked), [0, expected]);
    }
    let csv = "timestamp_ms,input_length,output_length\n0,5,1\n";
    let seconds = Asked {
        time_unit: Some(TimeUnit::S),
        ..asked()
    };
    assert!(refusal(csv, seconds).contains("its column of times says \"ms\""));
}

#[test]
fn the_length_of_a_block_is_asked_for_where_512_does_not_fit() {
    let bailian = r#"{"timestamp":0,"input_length":59,"output_length":4,"hash_ids":[1,2,3,4]}
{"timestamp":1000,"input_length":300,"output_length":4,"hash_ids":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19]}
"#;
    assert_eq!(
        refusal(bailian, asked()),
        "line 1: 4 hash ids of 512 tokens do not make a prompt of 59: `block_len = 16` fits every \
         line"
    );
    let sixteen = Asked {
        block_len: Some(16),
        ..asked()
    };
    assert!(Trace::parse(bailian, sixteen).is_ok());
    let odd = r#"{"timestamp":0,"input_length":5000,"output_length":4,"hash_ids":[1,2,3,4,5,6,7]}"#;
    assert!(refusal(odd, asked()).contains("write `block_len`, the tokens"));
    // Fewer ids than blocks may be on purpose where the plan says how long a block is.
    assert!(Trace::parse(odd, sixteen).is_ok());
}

#[test]
fn odd_lines_are_refused_with_their_number() {
    let json =
        |more: &str| format!("{{\"timestamp\":0,\"input_length\":5,\"output_length\":1{more}}}\n");
    for (text, expected) in [
        (
            "{\"timestamp\":0}\n".to_owned(),
            "line 1: missing field `input_length`",
        ),
        (
            "{\"input_length\":5,\"output_length\":1}\n".to_owned(),
            "line 1: it has no `timestamp`",
        ),
        (
            json(",\"delay\":1,\"session\":1"),
            "line 1: `timestamp` and `delay` both",
        ),
        (
            json(",\"turn\":1"),
            "line 1: `turn` needs `session` or `chat_id`",
        ),
        (
            json(",\"session\":1,\"chat_id\":1"),
            "line 1: more than one of `session`",
        ),
        (
            json(",\"tools\":[]"),
            "line 1: labrun does not send `tools`",
        ),
        (
            json(",\"text_input\":\"x\""),
            "line 1: labrun does not send `text_input`",
        ),
        (json("") + "{", "line 2: "),
        (
            json("").replace(":5", ":5.5"),
            "line 1: invalid length `5.5`: expected a whole number",
        ),
        (
            json("").replace(":5", ":-5"),
            "line 1: invalid length `-5`: expected a whole number",
        ),
        (
            json(",\"hash_ids\":[[1]]"),
            "line 1: invalid hash id `[1]`: expected numbers or strings",
        ),
        (
            json("").replace(":0", ":-1"),
            "line 1: times must be at least 0",
        ),
        (
            json("").replace(":0", ":\"now\""),
            "line 1: invalid type: string",
        ),
    ] {
        let refusal = refusal(&text, asked());
        assert!(refusal.starts_with(expected), "{text:?}: {refusal}");
    }
}

#[test]
fn odd_tables_are_refused_with_their_row() {
    let csv = |rows: &str| format!("timestamp_ms,input_length,output_length\n0,5,1\n{rows}");
    for (text, expected) in [
        ("[{}]".to_owned(), "it is a JSON list"),
        (
            "timestamp_ms,input_length\n".to_owned(),
            "no column `output_length`",
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n1,2,3\n".to_owned(),
            "no column `input_length`",
        ),
        (
            "a,b\n1,2\n".to_owned(),
            "no column `timestamp_ms`: row 1 must name",
        ),
        (
            csv("0,x,1\n"),
            "line 3: row 3, column `input_length`: invalid value `x`",
        ),
        (csv("0,0,1\n"), "line 3: lengths must be at least 1"),
        (csv("0,1.5,1\n"), "line 3: row 3, column `input_length`"),
        (
            csv("1e300,5,1\n"),
            "line 3: its time is more than 31 days away",
        ),
        (csv("0,5\n"), "row 3 has 2 fields under 3 names"),
        (csv("\"0,5,1\n"), "row 3 opens a quote that is never closed"),
        ("  \n".to_owned(), "it holds no request"),
        (
            "timestamp_ms,input_length,output_length\n".to_owned(),
            "it holds no request",
        ),
    ] {
        let refusal = refusal(&text, asked());
        assert!(refusal.starts_with(expected), "{text:?}: {refusal}");
    }
    let endless = Asked {
        speed: 1e-300,
        ..asked()
    };
    assert!(refusal(&csv("9,5,1\n"), endless).contains("31 days"));
}

#[test]
fn hash_ids_may_be_of_any_type_and_lengths_may_have_a_point() {
    let trace = |len: &str, ids: [&str; 3]| -> String {
        let line = |(index, id): (usize, &str)| {
            let at = index * 1000;
            format!(
                "{{\"timestamp\":{at},\"input_length\":{len},\"output_length\":4,\"hash_ids\":{id}}}\n"
            )
        };
        ids.into_iter().enumerate().map(line).collect()
    };
    let plain = read(&trace("1024", ["[1,2]", "[1,3]", "[4,5]"]))
        .build(COLD)
        .unwrap();
    for (len, ids) in [
        ("1024.0", ["[1,2]", "[1,3]", "[4,5]"]),
        ("1024", ["[-1,-2]", "[-1,-3]", "[-4,-5]"]),
        ("1024", [r#"["1","2"]"#, r#"["1","3"]"#, r#"["4","5"]"#]),
        ("1024", ["[1.5e300,2]", "[1.5e300,3]", "[4,5]"]),
    ] {
        let schedule = read(&trace(len, ids)).build(COLD).unwrap();
        let repeated = |schedule: &crate::workload::Schedule| {
            let requests = schedule.requests.iter();
            requests.map(|r| r.repeated_tokens).collect::<Vec<_>>()
        };
        assert_eq!(repeated(&schedule), repeated(&plain), "{ids:?}");
        assert_eq!(repeated(&schedule), [0, 512, 0], "{ids:?}");
    }
    let none = read(&trace("600", ["null", "[]", "null"]))
        .build(COLD)
        .unwrap();
    assert!(none.requests.iter().all(|r| r.repeated_tokens == 0));
}

#[test]
fn an_unnamed_column_is_no_other() {
    let csv = "\n,timestamp_ms,input_length,output_length\n0,0,600,4\n0,1000,600,4\n";
    let schedule = read(csv.trim_start()).build(COLD).unwrap();
    assert_eq!(schedule.requests[1].repeated_tokens, 0);
}

#[test]
fn other_fields_are_named() {
    let json =
        r#"{"timestamp":0,"input_length":5,"output_length":1,"model":"m","id":3,"type":"text"}"#;
    let csv = "timestamp_ms,input_length,output_length,Model,id\n0,5,1,m,3\n";
    for (text, expected) in [(json, ["id", "model"]), (csv, ["Model", "id"])] {
        let trace = Trace::parse(text, asked()).unwrap();
        assert!(
            trace.unused_fields.iter().eq(expected),
            "{:?}",
            trace.unused_fields
        );
    }
}

proptest! {
    /// The same requests as JSON lines and as CSV, quoted or not, with either line end, are the
    /// same trace.
    #[test]
    fn every_form_of_a_trace_is_the_same_trace(
        requests in proptest::collection::vec((0_u32..100_000, 1_u32..2000, 1_u32..99, "[a-c, \"]{1,3}"), 1..9),
        quoted in any::<bool>(),
        crlf in any::<bool>(),
    ) {
        let end = if crlf { "\r\n" } else { "\n" };
        let json: Vec<String> = requests.iter().map(|(time, input, output, session)| {
            let session = Value::from(format!("s{}", session.trim()));
            format!("{{\"timestamp\":{time},\"input_length\":{input},\"output_length\":{output},\"session\":{session}}}{end}")
        }).collect();
        let row = |fields: [String; 4]| {
            let mut text = String::new();
            if quoted {
                let fields = fields.map(|field| format!("\"{}\"", field.replace('"', "\"\"")));
                text = fields.join(",") + "\n";
            } else {
                crate::csv_table::push_row(&mut text, &fields);
            }
            text.strip_suffix('\n').unwrap().to_owned() + end
        };
        let head = ["timestamp_ms", "input_length", "output_length", "session"];
        let rows = requests.iter().map(|(time, input, output, session)| {
            row([time.to_string(), input.to_string(), output.to_string(), format!("s{}", session.trim())])
        });
        let csv = row(head.map(str::to_owned)) + &rows.collect::<String>();
        let asked = Asked { time_unit: Some(TimeUnit::Ms), ..asked() };
        prop_assert_eq!(Trace::parse(&json.concat(), asked).unwrap(), Trace::parse(&csv, asked).unwrap());
    }

    /// No text panics.
    #[test]
    fn any_text_is_read_or_refused(text in "[{}\\[\\]\":,a-z0-9_.\n -]{0,60}") {
        drop(Trace::parse(&text, asked()));
    }
}
