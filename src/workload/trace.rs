//! Requests recorded elsewhere: lengths, times and what they share, of a Mooncake or Bailian trace
//! (JSON lines) or a CSV.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};

use super::file::{WorkloadFile, refused};
use super::prompt::{Draft, Segment};
use super::shapes::{QUESTION_LEN, question};
use super::{BuildError, Pass, Start, Workload};
use crate::csv_table::{Row, Table};
use crate::plan::workload_spec::{TimeUnit, WorkloadKind};
use crate::units::span_of_seconds;

/// Tokens a block of the Mooncake traces, which name no length.
const MOONCAKE_BLOCK_LEN: u32 = 512;
/// Times without a unit are Mooncake's milliseconds only where the requests come slower than this.
const MAX_CERTAIN_RATE_RPS: f64 = 100.0;
/// Seconds since 1970 from 2001 to 2286; as milliseconds they would be of January 1970.
const EPOCH_SECONDS: std::ops::Range<f64> = 1e9..1e10;
/// Microseconds since 1970 after 1973; as milliseconds they would be after the year 5000.
const EPOCH_MICROSECONDS: f64 = 1e14;
/// The longest replay, seconds. Longer ones have the wrong unit, or no end.
const MAX_SPAN_S: f64 = 31.0 * 86_400.0;
/// Fields that would change what is sent, and which labrun does not send.
const REFUSED: [&str; 7] = [
    "text_input",
    "prompt",
    "messages",
    "tools",
    "images",
    "audio",
    "priority",
];

/// The plan's part of a trace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) block_len: Option<u32>,
    pub(crate) speed: f64,
    pub(crate) time_unit: Option<TimeUnit>,
    /// Whether requests are sent at the trace's times.
    pub(crate) replays_times: bool,
}

/// A trace that was read, its requests in the order of their times.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    pub(crate) lines: Vec<Line>,
    /// Tokens that one hash id stands for.
    block_len: u32,
    pub(crate) unused_fields: BTreeSet<String>,
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    when: When,
    /// Replayed from the trace's first request on, at the plan's speed.
    at: Duration,
    input_len: u32,
    output_len: u32,
    /// One id for each block of the prompt: the same id, the same tokens.
    hash_ids: Vec<String>,
    /// Requests of one session share their front.
    session: Option<String>,
}

/// When a request is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    /// At its time.
    At,
    /// When the session's earlier request, by its index, has ended, and then some.
    After { request: u32, pause: Duration },
}

/// A line as it stands in the file.
#[derive(Debug, Default, Deserialize)]
struct RawLine {
    timestamp: Option<f64>,
    #[serde(deserialize_with = "whole")]
    input_length: u32,
    #[serde(deserialize_with = "whole")]
    output_length: u32,
    #[serde(default, deserialize_with = "ids")]
    hash_ids: Vec<String>,
    session: Option<Value>,
    session_id: Option<Value>,
    chat_id: Option<Value>,
    parent_chat_id: Option<Value>,
    turn: Option<IgnoredAny>,
    /// After the session's earlier request has ended.
    delay: Option<f64>,
    /// The kind of content: it changes nothing of lengths and times.
    #[serde(rename = "type")]
    _type: Option<IgnoredAny>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// A whole number, also where pandas wrote `1024.0`.
fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let number = Number::deserialize(from)?;
    let whole = number.as_f64().filter(|number| number.fract() == 0.0);
    whole
        .filter(|number| (0.0..=f64::from(u32::MAX)).contains(number))
        .map(|number| number as u32)
        .ok_or_else(|| {
            let expected = "a whole number of at least 0";
            D::Error::custom(format_args!(
                "invalid length `{number}`: expected {expected}"
            ))
        })
}

/// Ids of whatever type: what matters is which of them are equal.
fn ids<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let ids = Option::<Vec<Value>>::deserialize(from)?.unwrap_or_default();
    if let Some(odd) = ids.iter().find(|id| !id.is_number() && !id.is_string()) {
        let expected = "numbers or strings";
        return Err(D::Error::custom(format_args!(
            "invalid hash id `{odd}`: expected {expected}"
        )));
    }
    Ok(ids.iter().map(id_text).collect())
}

/// A line with its number and the unit of times that its form names.
struct Numbered {
    number: usize,
    raw: RawLine,
}

impl Trace {
    /// Reads a trace: JSON lines where it begins with `{`, else CSV.
    pub(crate) fn parse(text: &str, asked: Asked) -> Result<Self, BuildError> {
        let (lines, named_unit) = match text.trim_start().chars().next() {
            None => return Err(BuildError::EmptyFile),
            Some('{') => (json_lines(text)?, None),
            Some('[') => return Err(BuildError::JsonList),
            Some(_) => csv_lines(text)?,
        };
        if lines.is_empty() {
            return Err(BuildError::EmptyFile);
        }
        for line in &lines {
            line.check()?;
        }
        let block_len = block_len(&lines, asked.block_len)?;
        let unit = time_unit(&lines, named_unit, asked)?;
        let names = lines.iter().flat_map(|line| line.raw.other.keys().cloned());
        Ok(Self {
            unused_fields: names.collect(),
            lines: placed(lines, unit, asked.speed)?,
            block_len,
        })
    }

    /// From the first to the last of the first `requests` requests.
    pub(crate) fn span(&self, requests: u32) -> Duration {
        let sent = self.lines.iter().take(requests as usize);
        sent.map(|line| line.at).max().unwrap_or_default()
    }
}

fn bad(line: usize, why: impl Into<String>) -> BuildError {
    BuildError::BadLine {
        line,
        why: why.into(),
    }
}

fn json_lines(text: &str) -> Result<Vec<Numbered>, BuildError> {
    let lines = (1..).zip(text.lines().map(str::trim));
    lines
        .filter(|(_, line)| !line.is_empty())
        .map(|(number, line)| {
            let raw = serde_json::from_str(line).map_err(|why| bad(number, why.to_string()))?;
            Ok(Numbered { number, raw })
        })
        .collect()
}

/// The lines of a CSV and the unit that the name of its column of times states.
fn csv_lines(text: &str) -> Result<(Vec<Numbered>, Option<TimeUnit>), BuildError> {
    let table = Table::parse(text).map_err(|why| BuildError::BadTable(format!("{why:#}")))?;
    let column = |wanted: &str| {
        let mut names = table.names().iter();
        names.find(|name| name.eq_ignore_ascii_case(wanted))
    };
    let times = [
        ("timestamp_ms", Some(TimeUnit::Ms)),
        ("timestamp_s", Some(TimeUnit::S)),
        ("timestamp", None),
    ];
    let time = times.into_iter().find(|(name, _)| column(name).is_some());
    let lengths = ["input_length", "output_length"];
    let missing = lengths.into_iter().find(|name| column(name).is_none());
    let missing = time.is_none().then_some("timestamp_ms").or(missing);
    let Some((time, unit)) = time.filter(|_| missing.is_none()) else {
        return Err(BuildError::BadTable(format!(
            "no column `{}`: row 1 must name `timestamp_ms`, `input_length` and `output_length`, and \
             may name `session`; it names `{}`",
            missing.unwrap_or("timestamp_ms"),
            table.names().join("`, `")
        )));
    };
    let rows = table.rows.iter().map(|row| {
        let number = row.line as usize;
        let raw = csv_line(row, time, &column).map_err(|why| bad(number, format!("{why:#}")))?;
        Ok(Numbered { number, raw })
    });
    Ok((rows.collect::<Result<_, _>>()?, unit))
}

fn csv_line<'a>(
    row: &Row,
    time: &str,
    column: &impl Fn(&str) -> Option<&'a String>,
) -> anyhow::Result<RawLine> {
    // No column is called by the second name: an unnamed one has the name "".
    let name = |wanted: &str| column(wanted).map_or("\0", String::as_str);
    let text = |wanted: &str| row.get(name(wanted)).map(|text| Value::from(text.trim()));
    let length = |wanted: &str| row.required(wanted, row.count(name(wanted))?);
    let hash_ids = match row.get(name("hash_ids")) {
        Some(list) => serde_json::from_str::<Value>(list)
            .and_then(ids)
            .map_err(|_| anyhow::anyhow!(row.wrong("hash_ids", "a list such as `[1, 2]`")))?,
        None => Vec::new(),
    };
    let known = [
        time,
        "input_length",
        "output_length",
        "hash_ids",
        "session",
        "session_id",
        "chat_id",
        "parent_chat_id",
        "turn",
        "delay",
        "type",
    ];
    let is_other = |name: &str| !known.iter().any(|known| known.eq_ignore_ascii_case(name));
    let other = row
        .fields()
        .filter(|(name, _)| is_other(name) && !name.is_empty());
    Ok(RawLine {
        timestamp: row.number(name(time))?,
        input_length: length("input_length")?,
        output_length: length("output_length")?,
        hash_ids,
        session: text("session"),
        session_id: text("session_id"),
        chat_id: text("chat_id"),
        parent_chat_id: text("parent_chat_id"),
        turn: text("turn").map(|_| IgnoredAny),
        delay: row.number(name("delay"))?,
        _type: None,
        other: other
            .map(|(name, _)| (name.to_owned(), Value::Null))
            .collect(),
    })
}

impl Numbered {
    fn check(&self) -> Result<(), BuildError> {
        let raw = &self.raw;
        let bad = |why: String| Err(bad(self.number, why));
        if raw.input_length == 0 || raw.output_length == 0 {
            return bad("lengths must be at least 1".to_owned());
        }
        let times = [raw.timestamp, raw.delay];
        if times
            .iter()
            .flatten()
            .any(|time| !time.is_finite() || *time < 0.0)
        {
            return bad("times must be at least 0".to_owned());
        }
        let sessions = [&raw.session, &raw.session_id, &raw.chat_id];
        let sessions = sessions.iter().filter(|id| id.is_some()).count();
        if sessions > 1 {
            return bad(
                "more than one of `session`, `session_id` and `chat_id` names its session"
                    .to_owned(),
            );
        }
        if let Some(name) = refused(raw.other.keys(), &REFUSED) {
            return bad(format!(
                "labrun does not send `{name}`: it makes prompts of the recorded lengths; remove the \
                 field"
            ));
        }
        for (name, is_there) in [("turn", raw.turn.is_some()), ("delay", raw.delay.is_some())] {
            if is_there && sessions == 0 {
                return bad(format!("`{name}` needs `session` or `chat_id` beside it"));
            }
        }
        match (raw.timestamp, raw.delay) {
            (None, None) => bad("it has no `timestamp`".to_owned()),
            (Some(_), Some(_)) => bad(
                "`timestamp` and `delay` both set when it is sent: remove one of them".to_owned(),
            ),
            _ => Ok(()),
        }
    }
}

/// Tokens that a hash id stands for: the plan's number or else Mooncake's, where the prompts have
/// as many blocks as that makes.
fn block_len(lines: &[Numbered], asked: Option<u32>) -> Result<u32, BuildError> {
    let block_len = asked.unwrap_or(MOONCAKE_BLOCK_LEN);
    let misfit = lines.iter().find(|line| {
        let (tokens, ids) = (line.raw.input_length, line.raw.hash_ids.len() as u64);
        let most = u64::from(tokens.div_ceil(block_len));
        // An id more or less than blocks is another length; fewer may be on purpose.
        ids > most || (asked.is_none() && ids > 0 && ids < u64::from(tokens / block_len))
    });
    let Some(line) = misfit else {
        return Ok(block_len);
    };
    let (tokens, ids) = (line.raw.input_length, line.raw.hash_ids.len());
    let fits = match fitting_block_len(lines) {
        Some(fits) => format!("`block_len = {fits}` fits every line"),
        None => "write `block_len`, the tokens that one hash id stands for".to_owned(),
    };
    Err(bad(
        line.number,
        format!("{ids} hash ids of {block_len} tokens do not make a prompt of {tokens}: {fits}"),
    ))
}

/// The one power of two that every line fits.
fn fitting_block_len(lines: &[Numbered]) -> Option<u32> {
    let fits = |block_len: &u32| {
        lines.iter().all(|line| {
            let (tokens, ids) = (line.raw.input_length, line.raw.hash_ids.len() as u64);
            let whole = u64::from(tokens / block_len);
            ids == 0 || ids == whole || ids == u64::from(tokens.div_ceil(*block_len))
        })
    };
    let mut fitting = (0..20).map(|power| 1_u32 << power).filter(fits);
    fitting.next().filter(|_| fitting.next().is_none())
}

/// The unit of the trace's times: the plan's, the one of the column's name, or Mooncake's
/// milliseconds where nothing speaks against them.
fn time_unit(
    lines: &[Numbered],
    named: Option<TimeUnit>,
    asked: Asked,
) -> Result<TimeUnit, BuildError> {
    match (asked.time_unit, named) {
        (Some(plan), Some(column)) if plan != column => {
            return Err(BuildError::UnitContradicted {
                plan: plan.name(),
                column: column.name(),
            });
        }
        (Some(unit), _) | (None, Some(unit)) => return Ok(unit),
        (None, None) => {}
    }
    let times: Vec<f64> = lines.iter().filter_map(|line| line.raw.timestamp).collect();
    let uses_times = asked.replays_times || lines.iter().any(|line| line.raw.delay.is_some());
    let span = times.iter().copied().fold(0.0, f64::max)
        - times.iter().copied().fold(f64::INFINITY, f64::min);
    let rate_rps = times.len() as f64 / (span.max(1.0) / 1e3);
    let latest = times.iter().copied().fold(0.0, f64::max);
    let why = if times.iter().any(|time| time.fract() != 0.0) {
        "its timestamps have fractions"
    } else if lines.iter().any(|line| line.raw.chat_id.is_some()) {
        "it has `chat_id`, as traces in seconds do"
    } else if EPOCH_SECONDS.contains(&latest) {
        "they are seconds since 1970 by their size"
    } else if latest >= EPOCH_MICROSECONDS {
        "they are micro- or nanoseconds since 1970 by their size: divide them first"
    } else if span > 0.0 && rate_rps > MAX_CERTAIN_RATE_RPS {
        "in milliseconds it would be very fast"
    } else {
        return Ok(TimeUnit::Ms);
    };
    if uses_times {
        return Err(BuildError::UnknownUnit(why));
    }
    Ok(TimeUnit::Ms)
}

/// The lines in the order of their times, with their sessions.
fn placed(mut lines: Vec<Numbered>, unit: TimeUnit, speed: f64) -> Result<Vec<Line>, BuildError> {
    // A turn that follows another comes after it, in the order of the file.
    let mut latest: HashMap<String, f64> = HashMap::new();
    let mut times = Vec::with_capacity(lines.len());
    for line in &lines {
        let session = line.raw.own_session();
        let time = match (
            line.raw.timestamp,
            session.as_ref().and_then(|id| latest.get(id)),
        ) {
            (Some(time), _) => time,
            (None, Some(time)) => *time,
            (None, None) => {
                let why = "`delay` in the first request of a session: it needs a `timestamp`";
                return Err(bad(line.number, why));
            }
        };
        if let Some(session) = session {
            latest.insert(session, time);
        }
        times.push(time);
    }
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.sort_by(|a, b| times[*a].total_cmp(&times[*b]));
    let first = order.first().map_or(0.0, |at| times[*at]);
    let mut roots: HashMap<String, String> = HashMap::new();
    let mut before: HashMap<String, u32> = HashMap::new();
    let mut all = Vec::with_capacity(lines.len());
    for (index, at) in (0_u32..).zip(order) {
        let number = lines[at].number;
        let raw = std::mem::take(&mut lines[at].raw);
        let seconds = |time: f64| {
            let seconds = time * unit.seconds() / speed;
            if seconds > MAX_SPAN_S {
                return Err(bad(
                    number,
                    "its time is more than 31 days away: is its unit right?",
                ));
            }
            Ok(span_of_seconds(seconds))
        };
        let session = raw.session(&mut roots);
        let earlier = session.as_ref().and_then(|id| before.get(id));
        let when = match (raw.delay, earlier) {
            (Some(delay), Some(earlier)) => When::After {
                request: *earlier,
                pause: seconds(delay)?,
            },
            _ => When::At,
        };
        before.extend(session.clone().map(|id| (id, index)));
        all.push(Line {
            when,
            at: seconds(times[at] - first)?,
            input_len: raw.input_length,
            output_len: raw.output_length,
            hash_ids: raw.hash_ids,
            session,
        });
    }
    Ok(all)
}

impl RawLine {
    /// The id of its session that the line itself names.
    fn own_session(&self) -> Option<String> {
        let id = self.session.as_ref().or(self.session_id.as_ref());
        id.or(self.chat_id.as_ref()).map(id_text)
    }

    /// Its session: a chat is in that of its parent. `roots` holds the chats so far.
    fn session(&self, roots: &mut HashMap<String, String>) -> Option<String> {
        let own = self.own_session()?;
        if self.chat_id.is_none() {
            return Some(own);
        }
        let parent = self.parent_chat_id.as_ref().map(id_text);
        let parent = parent.filter(|id| !["-1", "null", ""].contains(&id.as_str()));
        let root = match parent {
            Some(parent) => roots.get(&parent).cloned().unwrap_or(parent),
            None => roots.get(&own).cloned().unwrap_or_else(|| own.clone()),
        };
        roots.insert(own, root.clone());
        Some(root)
    }
}

fn id_text(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

/// The requests of a trace, at its times where the load asks for them.
pub(crate) fn drafts(workload: &Workload<'_>, pass: Pass) -> Result<Vec<Draft>, BuildError> {
    let WorkloadKind::Trace { path, .. } = &workload.spec.kind else {
        return Ok(Vec::new());
    };
    let Some(WorkloadFile::Trace(trace)) = workload.file else {
        return Err(BuildError::NoFile(path.clone()));
    };
    let mut visits: HashMap<&str, u32> = HashMap::new();
    let lines = trace.lines.iter().take(workload.requests.get() as usize);
    let drafts = (0..).zip(lines).map(|(number, line)| {
        let session = line.session.as_deref().unwrap_or_default();
        let nth = visits.entry(session).or_default();
        let fresh_len = QUESTION_LEN.min((line.input_len / 2).max(1));
        let mut segments = front(workload, line, number, trace.block_len, fresh_len);
        segments.push(question(workload, pass, (number, *nth), fresh_len));
        *nth += 1;
        let gen_len = if pass == Pass::Fill {
            1
        } else {
            line.output_len
        };
        let mut draft = Draft::of_segments(segments, gen_len, number);
        draft.start = match (pass, line.when) {
            (Pass::Fill, _) => Start::Slot,
            (_, When::At) => Start::At(line.at),
            (_, When::After { request, pause }) => Start::After {
                request,
                think: pause,
            },
        };
        draft
    });
    Ok(drafts.collect())
}

/// The prompt up to its fresh tokens, which take the place of the trace's own last ones: no
/// prompt may be in a cache whole.
fn front(
    workload: &Workload<'_>,
    line: &Line,
    number: u32,
    block_len: u32,
    fresh_len: u32,
) -> Vec<Segment> {
    let seed = workload.seed.derive("trace");
    let mut left = line.input_len - fresh_len;
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
mod tests;
