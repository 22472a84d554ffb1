//! Entry points of fuzzers: bytes of a server, in one piece and cut anywhere.

use std::time::Duration;

use super::http1::{BodyDecoder, Framing, parse_head};
use super::reading::Reading;
use super::record::{Outcome, RequestRecord};
use crate::workload::Keep;

/// A body of events: what an answer is must not depend on how its bytes were cut. The first byte
/// chooses the cuts.
pub(crate) fn sse(data: &[u8]) {
    let Some((cut, body)) = data.split_first() else {
        return;
    };
    let whole = read(body, body.len());
    let pieces = read(body, usize::from(*cut));
    assert_eq!(whole.0, pieces.0);
    assert_eq!(whole.1.answer, pieces.1.answer);
    assert_eq!(whole.1.token_events, pieces.1.token_events);
    assert_eq!(whole.1.usage, pieces.1.usage);
}

fn read(body: &[u8], piece: usize) -> (Outcome, RequestRecord) {
    let mut record = RequestRecord::begun(0, Duration::ZERO, Duration::ZERO);
    let mut reading = Reading::new(Keep::Text, 4, &mut record);
    for (number, piece) in body.chunks(piece.max(1)).enumerate() {
        let mark = reading.mark(&record);
        reading.take(piece, &mut record);
        let at = Duration::from_micros(number as u64);
        reading.close_frame(mark, at, &mut record);
    }
    let outcome = reading.finish(None, Duration::ZERO, &mut record);
    (outcome, record)
}

/// A whole answer: its head, then its body in whatever framing the head names.
pub(crate) fn http(data: &[u8]) {
    let (framing, body) = match parse_head(data) {
        Ok(Some((head, length))) => (head.framing, &data[length..]),
        _ => (Framing::Chunked, data),
    };
    let whole = decode(framing, body, body.len());
    assert_eq!(whole, decode(framing, body, 1));
}

fn decode(framing: Framing, body: &[u8], piece: usize) -> (Result<(), String>, Vec<u8>, bool) {
    let mut decoder = BodyDecoder::new(framing);
    let mut decoded = Vec::new();
    let mut fed = Ok(());
    for piece in body.chunks(piece.max(1)) {
        let taken = decoder.decode::<String>(piece, |bytes| {
            decoded.extend_from_slice(bytes);
            Ok(())
        });
        if let Err(error) = taken {
            fed = Err(error);
            break;
        }
    }
    (fed, decoded, decoder.is_done())
}
