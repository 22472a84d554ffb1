//! Requests recorded elsewhere: the Mooncake trace format and a plain CSV.

use std::collections::HashMap;

use serde::Deserialize;

use super::prompt::{Draft, Segment};
use super::shapes::{QUESTION_LEN, question};
use super::{BuildError, Pass, Start, Workload};
use crate::plan::workload_spec::WorkloadKind;
use crate::units::{MAX_SECONDS, span_of_seconds};

/// One line of a trace.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Line {
    /// Milliseconds.
    timestamp: f64,
    input_length: u32,
    output_length: u32,
    /// One id for each block of the prompt: the same id, the same tokens.
    #[serde(default)]
    hash_ids: Vec<u64>,
    /// Requests of one session share their front.
    #[serde(default)]
    session: Option<String>,
}

/// Reads a trace: CSV if it begins with a header of names, else JSON lines.
pub(crate) fn read(text: &str) -> Result<Vec<Line>, BuildError> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.trim()));
    let mut entries = Vec::new();
    let bad = |line, why: &dyn std::fmt::Display| BuildError::BadLine {
        line,
        why: why.to_string(),
    };
    let is_csv = !text.trim_start().starts_with('{');
    let columns = if is_csv {
        let (number, header) = lines.next().unwrap_or((1, ""));
        Columns::of(header).map_err(|why| bad(number, &why))?
    } else {
        Columns::default()
    };
    for (number, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let entry: Line = if is_csv {
            columns.read(line).map_err(|why| bad(number, &why))?
        } else {
            serde_json::from_str(line).map_err(|why| bad(number, &why))?
        };
        if entry.input_length == 0 || entry.output_length == 0 {
            return Err(bad(number, &"lengths must be at least 1"));
        }
        if !entry.timestamp.is_finite() || entry.timestamp < 0.0 {
            return Err(bad(number, &"the timestamp must be a number of at least 0"));
        }
        entries.push(entry);
    }
    if entries.is_empty() {
        return Err(BuildError::EmptyFile);
    }
    entries.sort_by(|a, b| a.timestamp.total_cmp(&b.timestamp));
    Ok(entries)
}

/// Where the columns of a CSV stand.
#[derive(Debug, Default)]
struct Columns {
    timestamp: usize,
    input_length: usize,
    output_length: usize,
    session: Option<usize>,
}

impl Columns {
    fn of(header: &str) -> Result<Self, String> {
        let names: Vec<&str> = header.split(',').map(str::trim).collect();
        let place = |name: &str| {
            let found = names
                .iter()
                .position(|column| column.eq_ignore_ascii_case(name));
            found.ok_or_else(|| {
                format!(
                    "no column `{name}`: a header must name `timestamp_ms`, `input_length`, \
                     `output_length` and may name `session`"
                )
            })
        };
        Ok(Self {
            timestamp: place("timestamp_ms")?,
            input_length: place("input_length")?,
            output_length: place("output_length")?,
            session: place("session").ok(),
        })
    }

    fn read(&self, line: &str) -> Result<Line, String> {
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        let cell = |at: usize| {
            cells
                .get(at)
                .copied()
                .ok_or_else(|| format!("no column {} here", at + 1))
        };
        let number = |at: usize| {
            let text = cell(at)?;
            text.parse::<f64>()
                .map_err(|_| format!("`{text}` is not a number"))
        };
        let length = |at: usize| {
            let text = cell(at)?;
            text.parse::<u32>()
                .map_err(|_| format!("`{text}` is not a length"))
        };
        Ok(Line {
            timestamp: number(self.timestamp)?,
            input_length: length(self.input_length)?,
            output_length: length(self.output_length)?,
            hash_ids: Vec::new(),
            session: self.session.map(cell).transpose()?.map(str::to_owned),
        })
    }
}

/// The requests of a trace, at its times where the load asks for them.
pub(crate) fn drafts(workload: &Workload<'_>, pass: Pass) -> Result<Vec<Draft>, BuildError> {
    let WorkloadKind::Trace {
        path,
        block_len,
        speed,
    } = &workload.spec.kind
    else {
        return Ok(Vec::new());
    };
    let lines = read(
        workload
            .file
            .ok_or_else(|| BuildError::NoFile(path.clone()))?,
    )?;
    let first_ms = lines.first().map_or(0.0, |line| line.timestamp);
    let mut visits: HashMap<&str, u32> = HashMap::new();
    let lines = lines.iter().take(workload.requests.get() as usize);
    (0..)
        .zip(lines)
        .map(|(number, line)| {
            let session = line.session.as_deref().unwrap_or_default();
            let nth = visits.entry(session).or_default();
            let fresh_len = QUESTION_LEN.min((line.input_length / 2).max(1));
            let mut segments = front(workload, line, number, *block_len, fresh_len);
            segments.push(question(workload, pass, (number, *nth), fresh_len));
            *nth += 1;
            let gen_len = if pass == Pass::Fill {
                1
            } else {
                line.output_length
            };
            let mut draft = Draft::of_segments(segments, gen_len, number);
            let at_s = (line.timestamp - first_ms) / speed / 1e3;
            if at_s > MAX_SECONDS {
                return Err(BuildError::BadTime { at_s: at_s as u64 });
            }
            draft.start = match pass {
                Pass::Fill => Start::Slot,
                _ => Start::At(span_of_seconds(at_s)),
            };
            Ok(draft)
        })
        .collect()
}

/// The prompt up to its fresh tokens, which take the place of the trace's own last ones: no
/// prompt may be held by a cache whole.
fn front(
    workload: &Workload<'_>,
    line: &Line,
    number: u32,
    block_len: u32,
    fresh_len: u32,
) -> Vec<Segment> {
    let seed = workload.seed.derive("trace");
    let mut left = line.input_length - fresh_len;
    let mut segments = Vec::with_capacity(line.hash_ids.len() + 2);
    for id in &line.hash_ids {
        let len = left.min(block_len);
        left -= len;
        segments.push(Segment::new(seed.derive(&format!("block/{id}")), len));
    }
    // What no block covers: one stream a session, of which each request takes its length.
    let rest = match &line.session {
        Some(session) => seed.derive(&format!("session/{session}")),
        None => seed.derive(&format!("line/{number}")),
    };
    segments.push(Segment::new(rest, left));
    segments.retain(|segment| segment.len > 0);
    segments
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::workload::testing::{Fixture, ids};

    const MOONCAKE: &str = r#"
{"timestamp": 3000, "input_length": 1100, "output_length": 7, "hash_ids": [1, 2, 9]}
{"timestamp": 1000, "input_length": 1024, "output_length": 5, "hash_ids": [1, 2]}
"#;

    fn fixture(text: &'static str) -> Fixture {
        let mut fixture = Fixture::new(WorkloadKind::Trace {
            path: "t".to_owned(),
            block_len: 512,
            speed: 2.0,
        });
        fixture.file = Some(text);
        fixture.arrival = crate::plan::load_spec::Arrival::Trace;
        fixture
    }

    #[test]
    fn mooncake_lines_share_blocks_and_keep_times_and_lengths() {
        let schedule = fixture(MOONCAKE)
            .build(Pass::State(crate::plan::state::CacheState::Cold))
            .unwrap();
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

    #[test]
    fn csv_sessions_share_their_front() {
        let text =
            "timestamp_ms,input_length,output_length,session\n0,100,5,a\n1,200,5,a\n2,100,5,b\n";
        let schedule = fixture(text)
            .build(Pass::State(crate::plan::state::CacheState::Cold))
            .unwrap();
        let prompts: Vec<_> = schedule.requests.iter().map(ids).collect();
        assert_eq!(prompts[0][..68], prompts[1][..68]);
        assert_ne!(prompts[0][..68], prompts[2][..68]);
        assert_eq!(prompts[1].len(), 200);
    }

    #[test]
    fn bad_lines_are_named() {
        let bad = |text: &'static str| read(text).unwrap_err().to_string();
        assert!(
            bad("{\"timestamp\":0}\n").starts_with("line 1"),
            "{}",
            bad("{\"timestamp\":0}\n")
        );
        assert!(bad("timestamp_ms,input_length\n").contains("no column `output_length`"));
        let text = "timestamp_ms,input_length,output_length\n0,5,1\n0,x,1\n";
        assert!(bad(text).starts_with("line 3") && bad(text).contains("`x`"));
        assert!(bad("timestamp_ms,input_length,output_length\n0,0,1").contains("at least 1"));
        assert_eq!(read("  "), Err(read("").unwrap_err()));
    }
}
