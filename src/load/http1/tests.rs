use proptest::prelude::*;

use super::*;

fn decode(framing: Framing, parts: &[&[u8]]) -> Result<(Vec<u8>, bool), String> {
    let mut decoder = BodyDecoder::new(framing);
    let mut body = Vec::new();
    for part in parts {
        decoder.decode::<String>(part, |bytes| {
            body.extend_from_slice(bytes);
            Ok(())
        })?;
    }
    Ok((body, decoder.is_done()))
}

#[test]
fn heads_of_vllm_are_read() {
    let text = b"HTTP/1.1 200 OK\r\ndate: Tue\r\ncontent-type: text/event-stream; \
                 charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\nrest";
    let (head, length) = parse_head(text).unwrap().unwrap();
    assert_eq!(length, text.len() - 4);
    assert_eq!(
        head,
        Head {
            status: 200,
            framing: Framing::Chunked,
            keep_alive: true,
            event_stream: true,
            coding: String::new(),
            location: None,
        }
    );
    assert_eq!(parse_head(&text[..40]), Ok(None));
    let (head, _) = parse_head(b"HTTP/1.1 404 Not Found\r\nContent-Length: 22\r\n\r\n")
        .unwrap()
        .unwrap();
    assert_eq!((head.status, head.framing), (404, Framing::Length(22)));
    let (head, _) = parse_head(b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n")
        .unwrap()
        .unwrap();
    assert_eq!(
        (head.keep_alive, head.framing),
        (false, Framing::UntilClose)
    );
}

#[test]
fn codings_and_targets_are_read() {
    let head = |lines: &str| {
        let text = format!("HTTP/1.1 307 Moved\r\n{lines}\r\n\r\n");
        parse_head(text.as_bytes()).unwrap().unwrap().0
    };
    let moved = head("Location: http://h/v1/ \r\nconnection: Upgrade, Close");
    assert_eq!(moved.location.as_deref(), Some("http://h/v1/"));
    assert!(!moved.keep_alive);
    assert_eq!(head("content-encoding: gzip").coding, "gzip");
    let both = head("transfer-encoding: gzip, chunked");
    assert_eq!(
        (both.coding.as_str(), both.framing),
        ("gzip", Framing::Chunked)
    );
}

#[test]
fn extensions_and_trailers_without_an_end_are_refused() {
    for begin in ["5;x=", "0\r\nx: "] {
        let endless = format!("{begin}{}", "y".repeat(EXTRA_BYTES as usize + 2));
        let error = decode(Framing::Chunked, &[endless.as_bytes()]).unwrap_err();
        assert!(error.contains("longer than 16384 bytes"), "{error}");
    }
    let lines = "x: y\r\n".repeat(EXTRA_BYTES as usize);
    let endless = format!("0\r\n{lines}");
    assert!(decode(Framing::Chunked, &[endless.as_bytes()]).is_err());
}

#[test]
fn what_is_not_http_is_refused() {
    assert!(parse_head(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
    assert!(parse_head(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n").is_err());
    let endless = [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &[b'y'; HEAD_BYTES]].concat();
    assert!(parse_head(&endless).is_err());
}

#[test]
fn chunks_extensions_and_trailers() {
    let text = b"5;x=1\r\nhello\r\n6\r\n world\r\n0\r\ntrailer: 1\r\n\r\nnext";
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let mut body = Vec::new();
    let taken = decoder
        .decode::<String>(text, |bytes| {
            body.extend_from_slice(bytes);
            Ok(())
        })
        .unwrap();
    assert_eq!(body, b"hello world");
    assert!(decoder.is_done());
    assert_eq!(&text[taken..], b"next");
}

#[test]
fn broken_chunks_are_refused() {
    for text in [
        &b"zz\r\n"[..],
        b"3\r\nabcd\r\n",
        b"\r\n",
        b"fffffffffffffffff\r\n",
        b"1!\r\n",
    ] {
        assert!(decode(Framing::Chunked, &[text]).is_err(), "{text:?}");
    }
}

#[test]
fn a_cut_is_distinguished_from_an_end() {
    let mut decoder = BodyDecoder::new(Framing::Length(10));
    decoder.decode::<String>(b"12345", |_| Ok(())).unwrap();
    assert!(!decoder.may_end_with_connection());
    assert!(BodyDecoder::new(Framing::UntilClose).may_end_with_connection());
}

proptest! {
    #[test]
    fn any_chunking_and_any_cut_give_the_body(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..10),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let mut wire = Vec::new();
        for chunk in &chunks {
            wire.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\n\r\n");
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut % wire.len()).collect();
        places.sort_unstable();
        places.push(wire.len());
        let mut from = 0;
        let mut parts = Vec::new();
        for place in places {
            parts.push(&wire[from..place]);
            from = place;
        }
        prop_assert_eq!(decode(Framing::Chunked, &parts), Ok((chunks.concat(), true)));
    }
}

#[test]
fn long_and_old_heads_are_read() {
    let many: Vec<String> = (0..100).map(|at| format!("x-{at}: v\r\n")).collect();
    for more in [many.concat().as_str(), "x-a: b\r\n  c\r\n", "x-a : b\r\n"] {
        let text = format!("HTTP/1.1 200 OK\r\n{more}content-length: 5\r\n\r\n");
        let (head, length) = parse_head(text.as_bytes()).unwrap().unwrap();
        assert_eq!((head.framing, length), (Framing::Length(5), text.len()));
    }
}
