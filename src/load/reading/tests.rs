use proptest::prelude::*;

use super::*;

fn record() -> RequestRecord {
    let mut record = RequestRecord::begun(0, Duration::ZERO, Duration::ZERO);
    record.sent = Some(Duration::ZERO);
    record
}

/// Reads frames that arrive one millisecond apart.
fn read(keep: Keep, frames: &[&str]) -> (Outcome, RequestRecord) {
    let mut record = record();
    let mut reading = Reading::new(keep, 4, &mut record);
    for (number, frame) in frames.iter().enumerate() {
        let mark = reading.mark(&record);
        reading.take(frame.as_bytes(), &mut record);
        reading.close_frame(mark, Duration::from_millis(number as u64), &mut record);
    }
    let last = Duration::from_millis(frames.len() as u64 - 1);
    let outcome = reading.finish(None, last, &mut record);
    (outcome, record)
}

const TOKEN: &str = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":9}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn kind(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok => "ok".to_owned(),
        Outcome::Unfinished => "unfinished".to_owned(),
        Outcome::Failed(failure) => failure.kind.name().into_owned(),
    }
}

#[test]
fn tokens_of_one_frame_share_one_arrival() {
    let two = format!("{TOKEN}{TOKEN}");
    let last = format!("{TOKEN}{USAGE}{DONE}");
    let (outcome, record) = read(Keep::Hash, &[TOKEN, &two, ": keep-alive\n\n", &last]);
    assert_eq!(outcome, Outcome::Ok);
    assert_eq!(record.arrivals_ns, [0, 1_000_000, 3_000_000]);
    assert_eq!(
        (record.frames, record.coalesced_frames, record.token_events),
        (3, 1, 4)
    );
    assert_eq!(record.output_tokens(), Some(9), "by usage, not by events");
}

#[test]
fn a_frame_that_cuts_an_event_counts_where_the_event_ends() {
    let (first, second) = TOKEN.split_at(20);
    let (_, record) = read(Keep::Hash, &[first, second, DONE]);
    assert_eq!(record.arrivals_ns, [1_000_000]);
    assert_eq!(record.frames, 2);
}

#[test]
fn each_bad_end_has_its_name() {
    let error = "data: {\"error\":{\"message\":\"out of memory\",\"code\":500}}\n\n";
    assert_eq!(
        kind(&read(Keep::Hash, &[TOKEN, error, DONE]).0),
        "stream-error"
    );
    assert_eq!(kind(&read(Keep::Hash, &[TOKEN]).0), "cut-stream");
    assert_eq!(kind(&read(Keep::Hash, &[USAGE, DONE]).0), "empty-answer");
    assert_eq!(
        kind(&read(Keep::Hash, &["data: {nonsense\n\n", DONE]).0),
        "bad-event"
    );
    assert_eq!(
        kind(&read(Keep::Hash, &[TOKEN, DONE, "data: x\n\n"]).0),
        "ok",
        "after the end"
    );
}

#[test]
fn the_hash_is_of_the_whole_text() {
    let piece = "x".repeat(300);
    let small = format!("data: {{\"choices\":[{{\"text\":\"{piece}\"}}]}}\n\n");
    let large = format!("data: {{\"choices\":[{{\"text\":\"{piece}{piece}\"}}]}}\n\n");
    let (_, record) = read(Keep::Hash, &[&small, &small, &large, &small, DONE]);
    let whole = blake3::hash(piece.repeat(5).as_bytes());
    assert_eq!(record.answer, Answer::Hash(whole));
}

#[test]
fn equal_texts_have_equal_hashes_however_they_were_cut() {
    let whole = "data: {\"choices\":[{\"text\":\"aa\"}]}\n\n";
    let (_, one) = read(Keep::Hash, &[whole, DONE]);
    let (_, two) = read(Keep::Hash, &[TOKEN, TOKEN, DONE]);
    assert_eq!(one.answer, two.answer);
    let with_ids = "data: {\"choices\":[{\"text\":\"b\",\"token_ids\":[1,2]}]}\n\n";
    let (_, whole) = read(Keep::Text, &[TOKEN, with_ids, DONE]);
    assert_eq!(
        whole.answer,
        Answer::Whole {
            text: "ab".to_owned(),
            token_ids: vec![1, 2],
            scores: Vec::new(),
        }
    );
    assert_eq!(whole.output_tokens(), Some(2), "by ids, without usage");
}

fn chunk(choice: &str) -> String {
    format!("data: {{\"choices\":[{{{choice}}}]}}\n\n")
}

#[test]
fn keep_alives_are_skipped_and_what_cannot_be_read_is_counted() {
    for (between, odd) in [
        (": ping\n\n", 0),
        ("data:\n\n", 0),
        ("data\n\n", 0),
        ("data: null\n\n", 0),
        ("data: ping\n\n", 0),
        ("event: ping\ndata: {\"type\":\"ping\"}\n\n", 0),
        ("data: {\"usage\":{}}\n\n", 0),
        ("data: {\"choices\":[{\"delta\":null}]}\n\n", 0),
        ("data: [1]\n\n", 1),
        ("data: {\"choices\":[{\"text\":\"a\"}\n\n", 1),
        ("data: STILL PROCESSING\n\n", 1),
        ("data: \x1b[31m\n\n", 1),
    ] {
        let (outcome, record) = read(
            Keep::Text,
            &[between, TOKEN, between, USAGE, "data: [DONE] \n\n"],
        );
        assert_eq!(outcome, Outcome::Ok, "{between}");
        assert_eq!(record.arrivals_ns, [1_000_000], "{between}");
        assert_eq!(record.odd_events, 2 * odd, "{between}");
        assert_eq!(record.output_tokens(), Some(9), "{between}");
    }
    let (_, record) = read(Keep::Hash, &["data: \x1b[31m\n\n", TOKEN, DONE]);
    assert_eq!(record.odd_sample.as_deref(), Some("\\x1b[31m"));
}

#[test]
fn what_is_nearly_json_is_a_token_like_others() {
    for (choice, text) in [
        (
            r#""text":"a","logprobs":{"token_logprobs":[NaN,-Infinity]}"#,
            "a",
        ),
        (r#""text":"a\ud83d""#, "a\u{fffd}"),
        ("\"text\":\"a\tb\"", "a\tb"),
    ] {
        let (outcome, record) = read(Keep::Text, &[&chunk(choice), DONE]);
        assert_eq!((outcome, record.odd_events), (Outcome::Ok, 0), "{choice}");
        let text = text.to_owned();
        let token_ids = Vec::new();
        assert_eq!(
            record.answer,
            Answer::Whole {
                text,
                token_ids,
                scores: Vec::new()
            }
        );
    }
}

#[test]
fn a_failure_inside_a_stream_is_never_ok() {
    for failure in [
        "data: {\"object\":\"error\",\"message\":\"KV cache is full\"}\n\n",
        "event: error\ndata: KV cache is full\n\n",
        "event: error\n: KV cache is full\n\n",
        "data: [ERROR] KV cache is full\n\n",
        "data: Error: KV cache is full\n\n",
        "data: \"error: KV cache is full\"\n\n",
        "data: {\"error\": \"KV cache is full\", \"x\": NaN}\n\n",
        "data: {\"error\": \"KV cache is full\"}",
        "data: {\"choices\":[{\"finish_reason\":\"abort\"}],\"why\":\"KV cache is full\"}\n\n",
    ] {
        let frames = [TOKEN, failure, DONE];
        let frames = if failure.ends_with('\n') {
            &frames[..]
        } else {
            &frames[..2]
        };
        let (outcome, record) = read(Keep::Hash, frames);
        let Outcome::Failed(failed) = outcome else {
            panic!("{failure}")
        };
        assert_eq!(failed.kind, ErrorKind::StreamError, "{failure}");
        assert!(failed.message.contains("KV cache is full"), "{failure}");
        assert_eq!(record.e2e(), None);
    }
}

#[test]
fn an_end_without_its_blank_line_or_mark_is_an_end() {
    let finish = chunk(r#""text":"","finish_reason":"length""#);
    let odd = "data: [DONE]\n";
    assert_eq!(read(Keep::Hash, &[TOKEN, USAGE, odd]).0, Outcome::Ok);
    assert_eq!(
        read(Keep::Hash, &[TOKEN, USAGE, "data: [DONE]"]).0,
        Outcome::Ok
    );
    assert_eq!(read(Keep::Hash, &[TOKEN, &finish, USAGE]).0, Outcome::Ok);
    let usage = USAGE.trim_end();
    let (outcome, record) = read(Keep::Hash, &[TOKEN, &finish, usage]);
    assert_eq!((outcome, record.output_tokens()), (Outcome::Ok, Some(9)));
    let (outcome, record) = read(Keep::Hash, &[TOKEN, "data: {\"choi"]);
    assert_eq!(
        (kind(&outcome).as_str(), record.odd_events),
        ("cut-stream", 0)
    );
    let mut record = record;
    let mut reading = Reading::new(Keep::Hash, 4, &mut record);
    reading.take(odd.as_bytes(), &mut record);
    assert!(reading.is_done(), "the rest is not waited for");
}

#[test]
fn an_empty_text_is_a_token_where_the_count_has_room_for_it() {
    let empty = chunk(r#""text":"""#);
    let usage = |tokens: u32| {
        format!("data: {{\"usage\":{{\"prompt_tokens\":7,\"completion_tokens\":{tokens}}}}}\n\n")
    };
    let arrivals = |tokens: u32, frames: &[&str]| {
        let usage = usage(tokens);
        let (outcome, record) = read(Keep::Hash, &[frames, &[&usage, DONE]].concat());
        (kind(&outcome), record.arrivals_ns, record.token_events)
    };
    let ok = "ok".to_owned();
    let both = [empty.as_str(), TOKEN, TOKEN];
    assert_eq!(
        arrivals(3, &both),
        (ok.clone(), vec![0, 1_000_000, 2_000_000], 3)
    );
    assert_eq!(
        arrivals(2, &both),
        (ok.clone(), vec![1_000_000, 2_000_000], 2)
    );
    let last = [TOKEN, empty.as_str()];
    assert_eq!(arrivals(2, &last), (ok.clone(), vec![0, 1_000_000], 2));
    assert_eq!(arrivals(2, &[&empty]), (ok, vec![0], 1));
    let none = ("empty-answer".to_owned(), vec![], 0);
    assert_eq!(arrivals(1, &[&empty, &empty]), none);
    let (outcome, _) = read(Keep::Hash, &[&empty, DONE]);
    assert_eq!(kind(&outcome), "empty-answer", "nothing counted it");
}

#[test]
fn an_empty_text_between_tokens_is_counted_by_the_server() {
    let empty = chunk(r#""text":"""#);
    let last = chunk(r#""text":"","finish_reason":"length""#);
    let arrivals = |end: &str| {
        let frames = [TOKEN, empty.as_str(), TOKEN, &last, end, DONE];
        let (outcome, record) = read(Keep::Hash, &frames);
        assert_eq!(outcome, Outcome::Ok);
        let arrivals_ms = record.arrivals_ns.iter().map(|at| at / 1_000_000);
        (arrivals_ms.collect::<Vec<_>>(), record.token_events)
    };
    let usage = |tokens| format!("data: {{\"usage\":{{\"completion_tokens\":{tokens}}}}}\n\n");
    assert_eq!(arrivals(&usage(2)), (vec![0, 2], 2), "keep-alives");
    assert_eq!(arrivals(&usage(4)), (vec![0, 1, 2, 3], 4), "tokens");
    assert_eq!(arrivals(": no count\n\n"), (vec![0, 1, 2, 3], 4));
}

#[test]
fn an_answer_that_ends_in_another_event_without_being_finished_broke_off() {
    let finish = chunk(r#""text":"","finish_reason":"stop""#);
    for words in [
        r#"{"message":"Internal server error"}"#,
        r#"{"reason":"engine died"}"#,
        "upstream connect error or disconnect/reset before headers",
        "<html>502 Bad Gateway</html>",
        "Traceback (most recent call last):",
    ] {
        let event = format!("data: {words}\n\n");
        let (outcome, _) = read(Keep::Hash, &[TOKEN, &event, DONE]);
        let Outcome::Failed(failure) = outcome else {
            panic!("{words}: {outcome:?}")
        };
        assert!(failure.message.contains(words), "{}", failure.message);
        for end in [finish.as_str(), USAGE, TOKEN] {
            let (outcome, _) = read(Keep::Hash, &[TOKEN, &event, end, DONE]);
            assert_eq!(outcome, Outcome::Ok, "{words}, then {end}");
        }
    }
    let (outcome, _) = read(Keep::Hash, &[TOKEN, "data: {\"choices\":[]}\n\n", DONE]);
    assert_eq!(outcome, Outcome::Ok, "a chunk without a choice");
}

#[test]
fn zeros_in_the_place_of_counts_count_nothing() {
    let zeros = "data: {\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0}}\n\n";
    let (_, record) = read(Keep::Hash, &[zeros, TOKEN, USAGE, zeros, DONE]);
    assert_eq!(record.output_tokens(), Some(9));
    let (_, record) = read(Keep::Hash, &[TOKEN, zeros, DONE]);
    assert_eq!(record.output_tokens(), None);
}

#[test]
fn events_are_read_without_blank_lines_and_behind_a_double_field() {
    let line = TOKEN.trim_end();
    let body = format!("{line}\n{line}\ndata: [DONE]\n\n");
    let double = format!("data: {TOKEN}data: {TOKEN}data: data: [DONE]\n\n");
    for (body, end) in [
        (body, ""),
        (double, ""),
        (TOKEN.repeat(2), "data: \"[DONE]\"\n\n"),
        (TOKEN.repeat(2), "data: [done]\n\n"),
    ] {
        let (outcome, record) = read(Keep::Hash, &[&body, end]);
        assert_eq!((outcome, record.token_events), (Outcome::Ok, 2), "{body}");
        assert_eq!(record.odd_events, 0, "{body}");
    }
}

#[test]
fn an_answer_without_an_end_is_given_up() {
    let many = TOKEN.repeat(1 << 17);
    let (outcome, record) = read(Keep::Hash, &[&many]);
    assert_eq!(kind(&outcome), "endless-answer");
    assert!(record.token_events < 1 << 17);
}

proptest! {
    #[test]
    fn junk_between_good_events_never_fails_an_answer(
        junk in prop::collection::vec(junk(), 5),
        piece in 1_usize..200,
    ) {
        let good = [TOKEN, TOKEN, TOKEN, USAGE];
        let mut body = Vec::new();
        for (good, junk) in good.iter().zip(&junk) {
            body.extend_from_slice(junk);
            body.extend_from_slice(good.as_bytes());
        }
        body.extend_from_slice(&junk[4]);
        body.extend_from_slice(DONE.as_bytes());
        let mut record = record();
        let mut reading = Reading::new(Keep::Text, 4, &mut record);
        for piece in body.chunks(piece) {
            let mark = reading.mark(&record);
            reading.take(piece, &mut record);
            reading.close_frame(mark, Duration::ZERO, &mut record);
        }
        prop_assert_eq!(reading.finish(None, Duration::ZERO, &mut record), Outcome::Ok);
        prop_assert_eq!(record.token_events, 3);
        prop_assert_eq!(record.output_tokens(), Some(9));
        let text = "aaa".to_owned();
        prop_assert_eq!(record.answer, Answer::Whole { text, token_ids: Vec::new(), scores: Vec::new() });
    }
}

/// An event that brings nothing and reports no error.
fn junk() -> impl Strategy<Value = Vec<u8>> {
    let quiet = |bytes: &Vec<u8>| !String::from_utf8_lossy(bytes).to_lowercase().contains('e');
    let no_line_end = |byte: u8| {
        if byte == b'\n' || byte == b'\r' {
            b' '
        } else {
            byte
        }
    };
    let bytes = prop::collection::vec(any::<u8>().prop_map(no_line_end), 0..40);
    let data = |data: &[u8]| [b"data: ", data, b"\n\n"].concat();
    prop_oneof![
        bytes
            .prop_filter("reports no error", quiet)
            .prop_map(move |bytes| data(&bytes)),
        "[ -~]{0,20}".prop_map(|comment| format!(":{comment}\n\n").into_bytes()),
        "(id|retry|x): [ -~]{0,9}".prop_map(|line| format!("{line}\n\n").into_bytes()),
        prop::sample::select(vec![
            "{}",
            "null",
            "[]",
            "{\"choices\":[]}",
            "{\"choices\":[{}]}",
            "{\"choices\":[null]}",
            "{\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}",
            "{\"usage\":null}",
            "{\"a\":",
            "{\"choices\":[{\"text\":\"a\"",
            "{\"usage\":{\"total_tokens\":3}}",
            "ping",
            "",
        ])
        .prop_map(|event| format!("data: {event}\n\n").into_bytes()),
    ]
}
