use super::*;

fn read(text: &str) -> Event<'_> {
    Event::read(text.as_bytes()).unwrap().unwrap()
}

fn brings(text: &str) -> Brings {
    let choice = read(text).choice;
    choice.map_or(Brings::Nothing, |choice| choice.brings())
}

#[test]
fn tokens_are_distinguished_from_other_events() {
    use Brings::{EmptyText, Nothing, Token};
    for (choice, expected) in [
        (r#""text":"a""#, Token),
        (
            r#""text":"","logprobs":null,"finish_reason":null,"token_ids":null"#,
            EmptyText,
        ),
        (r#""text":null"#, Nothing),
        (
            r#""finish_reason":null,"content_filter_offsets":{"start_offset":1}"#,
            Nothing,
        ),
        (r#""text":"","token_ids":[5]"#, Token),
        (r#""text":"a","token_ids":[]"#, Nothing),
        (r#""delta":null"#, Nothing),
        (r#""delta":{},"finish_reason":"stop""#, Nothing),
        (r#""delta":{"role":"assistant"}"#, Nothing),
        (r#""delta":{"role":"assistant","content":""}"#, Nothing),
        (
            r#""delta":{"role":"assistant","content":"","tool_calls":[]}"#,
            Nothing,
        ),
        (
            r#""delta":{"role":null,"content":"","tool_calls":null}"#,
            EmptyText,
        ),
        (r#""delta":{"content":null,"reasoning":null}"#, Nothing),
        (r#""delta":{"content":""}"#, EmptyText),
        (r#""delta":{"role":"assistant","content":"Hi"}"#, Token),
        (
            r#""delta":{"role":"assistant","tool_calls":[{"index":0,"id":"x"}]}"#,
            Token,
        ),
        (
            r#""delta":{"tool_calls":[{"function":{"arguments":"{"}}]}"#,
            Token,
        ),
        (r#""delta":{"reasoning_content":"hm"}"#, Token),
        (r#""delta":{"content":"","reasoning":{"text":"hm"}}"#, Token),
        (r#""delta":{"content":[{"type":"text","text":"a"}]}"#, Token),
        (
            r#""delta":{"content":[{"type":"text","text":""}]}"#,
            EmptyText,
        ),
        (r#""delta":{"content":[]}"#, EmptyText),
        (r#""delta":{"refusal":"no"}"#, Token),
        (r#""message":{"content":"a"}"#, Token),
    ] {
        let event = format!(r#"{{"choices":[{{{choice}}}]}}"#);
        assert_eq!(brings(&event), expected, "{choice}");
    }
    for none in [
        r#"{"choices":[]}"#,
        r#"{"choices":null}"#,
        "{}",
        r#"{"choices":{}}"#,
    ] {
        assert_eq!(brings(none), Nothing, "{none}");
    }
}

#[test]
fn failures_are_distinguished_from_empty_errors() {
    let good = r#""choices":[{"text":"a"}]"#;
    for failure in [
        r#"{"error":{"message":"out of memory","code":500}}"#,
        r#"{"error":"out of memory"}"#,
        r#"{"error":{"message":"no"},"choices":[]}"#,
        r#"{"error":{}}"#,
        r#"{"id":"x","error":""}"#,
        r#"{"object":"error","message":"KV cache is full","code":500}"#,
        r#"{"object":"error","message":"no","choices":[]}"#,
        r#"{"type":"error","message":"no"}"#,
        r#"{"text":"no","error_code":50001}"#,
        r#"{"detail":"Internal Server Error"}"#,
        r#"{"code":"InvalidParameter","message":"no"}"#,
        r#"{"code":50501,"message":"busy","data":null}"#,
        r#"{"status":503,"message":"busy"}"#,
        r#"{"choices":[{"text":"","finish_reason":"error"}]}"#,
        r#"{"choices":[{"text":"","finish_reason":"ABORT"}]}"#,
        r#"{"choices":[{"delta":{},"finish_reason":"internal_error"}]}"#,
        r#"{"choices":[{"text":"","finish_reason":{"type":"abort","message":"no"}}]}"#,
        r#"{"choices":[{"delta":{},"error":{"code":502}}]}"#,
        r#"{"choices":null,"usage":null,"code":40303,"message":"quota"}"#,
        r#"{"choices":[],"code":500,"message":"no"}"#,
        r#"{"status":"error","message":"no"}"#,
        r#"{"status":"FAILED","msg":"no"}"#,
        r#"{"success":false,"message":"no"}"#,
        r#"{"errorMessage":"no","errorType":"Sandbox.Timedout"}"#,
        r#"{"error_type":"overloaded","message":"no"}"#,
        r#"{"fault":{"faultstring":"no"}}"#,
        r#"{"exception":"RuntimeError: no"}"#,
        r#"{"err":"no"}"#,
        r#"{"event":"error","data":{"message":"no"}}"#,
        r#"{"type":"server_error","message":"no"}"#,
        r#"{"object":"error.response","message":"no"}"#,
        r#"[{"error":{"code":503,"status":"UNAVAILABLE"}}]"#,
        r#"{"choices":[{"text":"","finish_reason":"oom"}]}"#,
        r#"{"choices":[{"text":"","finish_reason":"overloaded"}]}"#,
        r#"{"choices":[{"text":"","finish_reason":"request_rejected"}]}"#,
        r#"{"choices":[{"text":"","finish_reason":"preempted"}]}"#,
    ] {
        assert!(read(failure).is_failure(), "{failure}");
    }
    for error in [
        "\"\"",
        "{}",
        "false",
        "null",
        "[]",
        "0",
        r#"{"message":"","code":null}"#,
    ] {
        let event = format!(r#"{{{good},"error":{error}}}"#);
        assert!(!read(&event).is_failure(), "{event}");
    }
    for well in [
        r#"{"type":"ping"}"#,
        r#"{"status":"queued","message":"position 3"}"#,
        r#"{"code":0,"message":"success","choices":[{"text":"a"}]}"#,
        r#"{"code":200,"msg":"ok"}"#,
        r#"{"id":"x","error":null}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":1},"error":{}}"#,
        r#"{"choices":[{"text":"","finish_reason":"length"}]}"#,
        r#"{"choices":[{"text":"","finish_reason":""}]}"#,
        r#"{"choices":[{"text":"an error"}],"object":"text_completion"}"#,
    ] {
        assert!(!read(well).is_failure(), "{well}");
    }
}

#[test]
fn counts_are_read_however_they_are_written() {
    let usage = |text: &str| {
        let event = format!(r#"{{"choices":[],"usage":{text}}}"#);
        let found = read(&event).usage().unwrap_or_default();
        (
            found.prompt_tokens,
            found.completion_tokens,
            found.cached_tokens,
        )
    };
    for (text, expected) in [
        (
            r#"{"prompt_tokens":600,"total_tokens":610,"completion_tokens":10,
                "prompt_tokens_details":{"cached_tokens":512}}"#,
            (Some(600), Some(10), Some(512)),
        ),
        (
            r#"{"prompt_tokens":16.0,"completion_tokens":4.0}"#,
            (Some(16), Some(4), None),
        ),
        (
            r#"{"prompt_tokens":"16","completion_tokens":4}"#,
            (Some(16), Some(4), None),
        ),
        (
            r#"{"input_tokens":16,"output_tokens":4}"#,
            (Some(16), Some(4), None),
        ),
        (
            r#"{"prompt_tokens":16,"total_tokens":20}"#,
            (Some(16), Some(4), None),
        ),
        (r#"{"total_tokens":20}"#, (None, None, None)),
        (
            r#"{"prompt_tokens":null,"completion_tokens":null}"#,
            (None, None, None),
        ),
        (
            r#"{"prompt_tokens":-1,"completion_tokens":1.5}"#,
            (None, None, None),
        ),
        (
            r#"{"prompt_tokens":1e300,"completion_tokens":4}"#,
            (None, Some(4), None),
        ),
        ("{}", (None, None, None)),
        ("null", (None, None, None)),
        ("[]", (None, None, None)),
        (
            r#"{"prompt_tokens":1,"completion_tokens":2,"prompt_tokens_details":null}"#,
            (Some(1), Some(2), None),
        ),
    ] {
        assert_eq!(usage(text), expected, "{text}");
    }
    let twice = r#"{"usage":null,"usage":{"prompt_tokens":1,"completion_tokens":2},"usage":{}}"#;
    assert_eq!(read(twice).usage().unwrap().completion_tokens, Some(2));
}

#[test]
fn the_last_whole_usage_counts() {
    let of = |prompt_tokens, completion_tokens| Usage {
        prompt_tokens,
        completion_tokens,
        cached_tokens: None,
    };
    let whole = of(Some(1), Some(2));
    assert_eq!(whole.followed_by(of(Some(9), None)), whole);
    assert_eq!(
        whole.followed_by(of(Some(1), Some(3))),
        of(Some(1), Some(3))
    );
    assert_eq!(of(Some(9), None).followed_by(whole), whole);
    assert_eq!(
        of(None, Some(1)).followed_by(of(None, Some(2))),
        of(None, Some(2))
    );
    assert_eq!(
        of(None, Some(1)).followed_by(Usage::default()),
        of(None, Some(1))
    );
}

#[test]
fn members_that_come_twice_or_hold_other_types_are_read() {
    let texts = |text: &str| -> String {
        let event = Event::read(text.as_bytes()).unwrap().unwrap();
        event.choice.unwrap().texts().collect()
    };
    assert_eq!(texts(r#"{"choices":[{"text":"a","text":"b"}]}"#), "b");
    assert_eq!(
        texts(r#"{"choices":[{"text":"a","text":null}],"choices":[]}"#),
        "a"
    );
    assert_eq!(texts(r#"{"choices":[{"text":"a\n\u00e9"}]}"#), "a\né");
    let parts = r#"{"choices":[{"delta":{"content":[
        {"type":"thinking","thinking":[{"type":"text","text":"a"}]},
        {"type":"text","text":"b"},"c"]}}]}"#;
    assert_eq!(texts(parts), "abc");
    let event = read(r#"{"choices":[{"text":"a","finish_reason":2,"token_ids":[5,6.0]}]}"#);
    let choice = event.choice.unwrap();
    assert_eq!(choice.finish_reason(), Some("2"));
    assert_eq!(choice.token_ids(), Some(&[5, 6][..]));
}

#[test]
fn plain_text_stays_in_the_input() {
    let choice = read(r#"{"choices":[{"text":"ab"}]}"#).choice.unwrap();
    assert!(matches!(choice.text.unwrap().first, Cow::Borrowed("ab")));
}

#[test]
fn other_json_is_not_an_event_and_nonsense_not_json() {
    for other in ["null", "[]", "7", "\"ping\"", "true"] {
        assert!(Event::read(other.as_bytes()).unwrap().is_none(), "{other}");
    }
    assert!(Event::read(b"{\"choices\":[{\"text\":\"\xff\"}]}").is_err());
    assert!(Event::read(b"{}{}").is_err());
}
