//! `requests.parquet`: request rows as a columnar file and back.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use polars::prelude::{
    Column, DataFrame, DataType, Float64Type, IntoColumn as _, ListBuilderTrait as _, ListChunked,
    ListPrimitiveChunkedBuilder,
};
use polars_io::SerReader as _;
use polars_io::parquet::read::ParquetReader;
use polars_io::parquet::write::{ParquetCompression, ParquetWriter};

use crate::bounded;
use crate::plan::state::CacheState;
use crate::record::schema::{RequestOutcome, RequestRow};

/// Writes `rows` to `path` as Parquet (zstd), in their order.
pub fn write_parquet(rows: &[RequestRow], path: &Path) -> Result<()> {
    let mut frame = to_frame(rows).context("cannot put the requests into columns")?;
    save_frame(&mut frame, path)
}

/// Writes `frame` to `path` as Parquet (zstd). Through memory: the writer would report a full disk
/// as a malformed file.
pub(crate) fn save_frame(frame: &mut DataFrame, path: &Path) -> Result<()> {
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes)
        .with_compression(ParquetCompression::Zstd(None))
        .finish(frame)
        .with_context(|| format!("cannot make `{}`", path.display()))?;
    std::fs::write(path, bytes).with_context(|| format!("cannot write `{}`", path.display()))
}

/// Reads the rows that [`write_parquet`] wrote, in their order.
pub fn read_parquet(path: &Path) -> Result<Vec<RequestRow>> {
    let frame = load_frame(path)?;
    from_frame(&frame).with_context(|| format!("`{}` is not a request file", path.display()))
}

/// The file as a frame, for aggregation without a detour over rows.
pub(crate) fn load_frame(path: &Path) -> Result<DataFrame> {
    let file = bounded::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
    finish(ParquetReader::new(file)).with_context(|| format!("cannot read `{}`", path.display()))
}

/// Reads it all. The reader panics on some damaged files.
fn finish(reader: ParquetReader<File>) -> Result<DataFrame> {
    match catch_unwind(AssertUnwindSafe(|| reader.finish())) {
        Ok(read) => Ok(read?),
        Err(_) => Err(anyhow!("it is damaged")),
    }
}

/// Some of the file's columns.
pub(crate) fn load_columns(path: &Path, columns: &[&str]) -> Result<DataFrame> {
    let file = bounded::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
    let names = columns.iter().map(|name| (*name).to_owned()).collect();
    finish(ParquetReader::new(file).with_columns(Some(names)))
        .with_context(|| format!("cannot read `{}`", path.display()))
}

/// The times of a request that a timeline shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FirstToken {
    /// The pass that it belongs to.
    pub state: CacheState,
    /// When the request was written, milliseconds since the pass began.
    pub sent_ms: f64,
    /// From then to its first token, milliseconds; absent where none came.
    pub ttft_ms: Option<f64>,
}

/// When the requests of the file were sent and answered, without their gaps.
pub(crate) fn read_first_tokens(path: &Path) -> Result<Vec<FirstToken>> {
    let frame = load_columns(path, &["state", "sent_ms", "ttft_ms"])?;
    let (state, sent) = (frame.column("state")?.str()?, frame.column("sent_ms")?);
    let (sent, ttft) = (sent.f64()?, frame.column("ttft_ms")?.f64()?);
    let row = |at: usize| {
        Some(FirstToken {
            state: state.get(at).and_then(CacheState::from_name)?,
            sent_ms: sent.get(at)?,
            ttft_ms: ttft.get(at),
        })
    };
    let wrong = |at| format!("`{}`: row {at} has no state or time", path.display());
    (0..frame.height())
        .map(|at| row(at).with_context(|| wrong(at)))
        .collect()
}

/// Rows to columns, one a field of [`RequestRow`] and of its name.
pub(crate) fn to_frame(rows: &[RequestRow]) -> Result<DataFrame> {
    let times = |name: &str, pick: fn(&RequestRow) -> f64| {
        Column::new(name.into(), rows.iter().map(pick).collect::<Vec<f64>>())
    };
    let some_times = |name: &str, pick: fn(&RequestRow) -> Option<f64>| {
        Column::new(
            name.into(),
            rows.iter().map(pick).collect::<Vec<Option<f64>>>(),
        )
    };
    let counts = |name: &str, pick: fn(&RequestRow) -> u32| {
        Column::new(name.into(), rows.iter().map(pick).collect::<Vec<u32>>())
    };
    let some_counts = |name: &str, pick: fn(&RequestRow) -> Option<u32>| {
        Column::new(
            name.into(),
            rows.iter().map(pick).collect::<Vec<Option<u32>>>(),
        )
    };
    let words = |name: &str, pick: fn(&RequestRow) -> Option<&str>| {
        Column::new(
            name.into(),
            rows.iter().map(pick).collect::<Vec<Option<&str>>>(),
        )
    };
    let columns = vec![
        words("state", |row| Some(row.state.name())),
        counts("request", |row| row.request),
        times("intended_ms", |row| row.intended_ms),
        times("sent_ms", |row| row.sent_ms),
        times("lateness_ms", |row| row.lateness_ms),
        some_times("connect_ms", |row| row.connect_ms),
        some_times("ttft_ms", |row| row.ttft_ms),
        some_times("e2e_ms", |row| row.e2e_ms),
        some_times("tpot_ms", |row| row.tpot_ms),
        gaps_column(rows),
        counts("prompt_len", |row| row.prompt_len),
        counts("gen_len", |row| row.gen_len),
        some_counts("prompt_tokens", |row| row.prompt_tokens),
        some_counts("cached_tokens", |row| row.cached_tokens),
        some_counts("output_tokens", |row| row.output_tokens),
        counts("frames", |row| row.frames),
        counts("coalesced_frames", |row| row.coalesced_frames),
        some_counts("token_events", |row| row.token_events),
        words("outcome", |row| Some(row.outcome.name())),
        words("error", |row| row.error.as_deref()),
        some_counts("http_status", |row| row.http_status.map(u32::from)),
    ];
    Ok(DataFrame::new(rows.len(), columns)?)
}

fn gaps_column(rows: &[RequestRow]) -> Column {
    let values = rows.iter().map(|row| row.gaps_ms.len()).sum();
    let mut builder = ListPrimitiveChunkedBuilder::<Float64Type>::new(
        "gaps_ms".into(),
        rows.len(),
        values,
        DataType::Float64,
    );
    for row in rows {
        builder.append_slice(&row.gaps_ms);
    }
    builder.finish().into_column()
}

fn from_frame(frame: &DataFrame) -> Result<Vec<RequestRow>> {
    (0..frame.height())
        .map(|at| row_at(&Row { frame, at }))
        .collect()
}

/// One row of a frame, its fields by column name.
struct Row<'a> {
    frame: &'a DataFrame,
    at: usize,
}

impl Row<'_> {
    fn time(&self, name: &str) -> Result<Option<f64>> {
        Ok(self.frame.column(name)?.f64()?.get(self.at))
    }

    fn count(&self, name: &str) -> Result<Option<u32>> {
        Ok(self.frame.column(name)?.u32()?.get(self.at))
    }

    /// A count of a column that older files do not have.
    fn count_if_there(&self, name: &str) -> Result<Option<u32>> {
        if self.frame.get_column_index(name).is_some() {
            self.count(name)
        } else {
            Ok(None)
        }
    }

    fn word(&self, name: &str) -> Result<Option<&str>> {
        Ok(self.frame.column(name)?.str()?.get(self.at))
    }

    /// A value that every row has.
    fn needed<T>(&self, name: &str, value: Option<T>) -> Result<T> {
        value.with_context(|| format!("row {} has no usable `{name}`", self.at))
    }
}

fn row_at(row: &Row<'_>) -> Result<RequestRow> {
    let time = |name| row.needed(name, row.time(name)?);
    let count = |name| row.needed(name, row.count(name)?);
    let state = row.word("state")?.and_then(CacheState::from_name);
    let outcome = row.word("outcome")?.and_then(outcome_of);
    Ok(RequestRow {
        state: row.needed("state", state)?,
        request: count("request")?,
        intended_ms: time("intended_ms")?,
        sent_ms: time("sent_ms")?,
        lateness_ms: time("lateness_ms")?,
        connect_ms: row.time("connect_ms")?,
        ttft_ms: row.time("ttft_ms")?,
        e2e_ms: row.time("e2e_ms")?,
        tpot_ms: row.time("tpot_ms")?,
        gaps_ms: gaps_of(row.frame.column("gaps_ms")?.list()?, row.at)?,
        prompt_len: count("prompt_len")?,
        gen_len: count("gen_len")?,
        prompt_tokens: row.count("prompt_tokens")?,
        cached_tokens: row.count("cached_tokens")?,
        output_tokens: row.count("output_tokens")?,
        frames: count("frames")?,
        coalesced_frames: count("coalesced_frames")?,
        token_events: row.count_if_there("token_events")?,
        outcome: row.needed("outcome", outcome)?,
        error: row.word("error")?.map(str::to_owned),
        http_status: row.count("http_status")?.map(u16::try_from).transpose()?,
    })
}

fn gaps_of(gaps: &ListChunked, at: usize) -> Result<Vec<f64>> {
    let Some(series) = gaps.get_as_series(at) else {
        return Ok(Vec::new());
    };
    let values: Vec<f64> = series.f64()?.iter().flatten().collect();
    ensure!(
        values.len() == series.len(),
        "row {at} has a gap without a value"
    );
    Ok(values)
}

fn outcome_of(name: &str) -> Option<RequestOutcome> {
    [
        RequestOutcome::Ok,
        RequestOutcome::Failed,
        RequestOutcome::Unfinished,
    ]
    .into_iter()
    .find(|outcome| outcome.name() == name)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A request that went well, for tests to change.
    pub(crate) fn good_row(request: u32, ttft_ms: f64) -> RequestRow {
        RequestRow {
            state: CacheState::Cold,
            request,
            intended_ms: 0.0,
            sent_ms: 0.25,
            lateness_ms: 0.25,
            connect_ms: None,
            ttft_ms: Some(ttft_ms),
            e2e_ms: Some(ttft_ms + 30.0),
            tpot_ms: Some(10.0),
            gaps_ms: vec![5.0, 10.0, 15.0],
            prompt_len: 1024,
            gen_len: 4,
            prompt_tokens: Some(1030),
            cached_tokens: Some(0),
            output_tokens: Some(4),
            frames: 4,
            coalesced_frames: 0,
            token_events: Some(4),
            outcome: RequestOutcome::Ok,
            error: None,
            http_status: Some(200),
        }
    }

    /// A request that was refused.
    pub(crate) fn failed_row(request: u32) -> RequestRow {
        RequestRow {
            ttft_ms: None,
            e2e_ms: None,
            tpot_ms: None,
            gaps_ms: vec![],
            prompt_tokens: None,
            cached_tokens: None,
            output_tokens: None,
            frames: 0,
            outcome: RequestOutcome::Failed,
            error: Some("http-500".to_owned()),
            http_status: Some(500),
            ..good_row(request, 0.0)
        }
    }

    #[test]
    fn rows_survive_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("requests.parquet");
        let mut late = good_row(2, 12.5);
        late.state = CacheState::Restart;
        late.connect_ms = Some(1.5);
        late.outcome = RequestOutcome::Unfinished;
        late.http_status = None;
        let rows = vec![good_row(0, 10.0), failed_row(1), late];
        write_parquet(&rows, &path).unwrap();
        assert_eq!(read_parquet(&path).unwrap(), rows);
        assert_eq!(load_frame(&path).unwrap().width(), 21);
    }

    #[test]
    fn no_rows_survive_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("requests.parquet");
        write_parquet(&[], &path).unwrap();
        assert_eq!(read_parquet(&path).unwrap(), []);
    }

    #[test]
    fn a_file_of_before_events_were_counted_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("requests.parquet");
        let row = good_row(0, 10.0);
        let mut frame = to_frame(std::slice::from_ref(&row)).unwrap();
        frame.drop_in_place("token_events").unwrap();
        save_frame(&mut frame, &path).unwrap();
        let older = RequestRow {
            token_events: None,
            ..row
        };
        assert_eq!(read_parquet(&path).unwrap(), [older]);
    }

    #[test]
    fn a_foreign_file_is_named_with_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("foreign.parquet");
        let mut frame = DataFrame::new(1, vec![Column::new("x".into(), [1.0])]).unwrap();
        ParquetWriter::new(File::create(&path).unwrap())
            .finish(&mut frame)
            .unwrap();
        let error = format!("{:#}", read_parquet(&path).unwrap_err());
        assert!(
            error.contains("foreign.parquet") && error.contains("state"),
            "{error}"
        );
        let missing = format!(
            "{:#}",
            read_parquet(&folder.path().join("none")).unwrap_err()
        );
        assert!(missing.starts_with("cannot open `"), "{missing}");
    }
}
