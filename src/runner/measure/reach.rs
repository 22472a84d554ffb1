//! Brings the caches into a state, and shows it by a prompt of its own before the clock starts.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::{Measuring, Results};
use crate::load::{Endpoint, RequestRecord};
use crate::plan::server::LmcacheMode;
use crate::plan::state::CacheState;
use crate::plan::tier::TierKind;
use crate::record::schema::Phase;
use crate::runner::event::Event;
use crate::runner::log_marks::LogMarks;
use crate::runner::page_cache;
use crate::runner::session::{Failure, Overwritten};
use crate::runner::snapshot::{COUNTED_LIMIT, Snapshot};
use crate::server::control::Reset;
use crate::server::vllm_tier;
use crate::verdict::answers::{cache_unit, whole_units};
use crate::verdict::{BySource, PageCache, Probe, Stores};
use crate::workload::Schedule;

/// A state as it was reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    pub(super) state: CacheState,
    pub(super) page_cache: Option<PageCache>,
    pub(super) probe: Option<Probe>,
    /// Whether the tier had stored all that earlier requests left.
    pub(super) stores: Stores,
}

impl Measuring<'_> {
    /// Brings the caches into `state` and probes it.
    pub(super) async fn reach(
        &mut self,
        state: CacheState,
        after_restart: Option<&Arc<Schedule>>,
        probe: Option<&Arc<Schedule>>,
        results: &mut Results<'_>,
    ) -> Result<Reached, Failure> {
        (self.on_event)(Event::PhaseStarted {
            phase: Phase::Warm,
            state: Some(state),
        });
        let mut page_cache = None;
        let mut stores = Stores::Finished;
        match state {
            // Every prompt of the cell is new to the server, and after the cold pass or the fill
            // its documents are in the GPU cache as far as they fit.
            CacheState::Cold | CacheState::Gpu => {}
            CacheState::Tier => {
                stores = self.wait_until_stored(results).await;
                self.overwrite_gpu(results).await?;
                page_cache = self.keep_page_cache_out(results);
                let cleared = self.clear_all_but_the_tier().await;
                cleared.map_err(Failure::of(Phase::Warm))?;
            }
            CacheState::Restart => {
                stores = self.wait_until_stored(results).await;
                self.restart().await?;
                if let Some(warmup) = after_restart {
                    self.unmeasured(warmup, "warm-up", results).await?;
                    // What the restart's own warm-up left is asked for by no pass.
                    let _finished = self.wait_until_stored(results).await;
                }
                page_cache = self.keep_page_cache_out(results);
            }
        }
        let probe = self.probe(state, probe).await?;
        if state == CacheState::Cold && self.counts_stores_late() {
            // Stores of what was asked until now would be counted as the pass's.
            let _finished = self.wait_until_stored(results).await;
        }
        Ok(Reached {
            state,
            page_cache,
            probe,
            stores,
        })
    }

    /// Waits until nothing that counts stores moves any more, and returns whether that was in time.
    pub(super) async fn wait_until_stored(&mut self, results: &mut Results<'_>) -> Stores {
        if self.cell.tier.kind == TierKind::Baseline {
            return Stores::Finished;
        }
        let server = &self.cell.resolved.server;
        // LMCache publishes its in-process counters every 10 s; files show it sooner.
        let pause = if server.is_simulated() {
            Duration::from_millis(25)
        } else {
            Duration::from_millis(250)
        };
        let waited = server.store_timeout;
        match tokio::time::timeout(waited, self.quiet(pause)).await {
            Ok(()) => Stores::Finished,
            Err(_) => {
                let warning = format!(
                    "the tier was still storing after {} s (raise `store_timeout_s` in [server])",
                    waited.as_secs()
                );
                if !results.warnings.contains(&warning) {
                    results.warnings.push(warning);
                }
                Stores::Unfinished { waited }
            }
        }
    }

    /// Whether stores are counted only once they ended, long after their bytes moved.
    fn counts_stores_late(&self) -> bool {
        let server = &self.cell.resolved.server;
        server.lmcache == LmcacheMode::MultiProcess && self.cell.tier.kind.uses_lmcache()
    }

    async fn quiet(&self, pause: Duration) {
        let mut last = None;
        let mut equal = 0;
        while equal < 3 {
            let snapshot = Snapshot::take(self.session).await;
            let now = (snapshot.store_progress(), self.session.files_progress());
            let same = last.as_ref() == Some(&now) && snapshot.stores_ended();
            equal = if same { equal + 1 } else { 0 };
            last = Some(now);
            tokio::time::sleep(pause).await;
        }
    }

    /// Overwrites the GPU's KV blocks with other text, once a start of the server: a reset of the
    /// prefix cache forgets them and erases nothing, so what was not loaded might still be there.
    async fn overwrite_gpu(&mut self, results: &mut Results<'_>) -> Result<(), Failure> {
        let Some(schedule) = self.overwrite.take() else {
            return Ok(());
        };
        let began = tokio::time::Instant::now();
        self.unmeasured(&schedule, "overwriting", results).await?;
        let tokens = schedule.requests.iter();
        let tokens = tokens.filter_map(|planned| planned.prompt_tokens);
        self.session.overwritten = Some(Overwritten {
            tokens: tokens.map(f64::from).sum(),
            took: began.elapsed(),
        });
        Ok(())
    }

    async fn clear_all_but_the_tier(&self) -> Result<()> {
        let server = &self.cell.resolved.server;
        let kind = self.cell.tier.kind;
        if kind == TierKind::NativeFs {
            // Its RAM is emptied too, and its files stay.
            self.session
                .control
                .reset_prefix_cache(Reset::WithConnector)
                .await?;
        } else if server.gpu_prefix_cache() {
            self.session.control.reset_prefix_cache(Reset::Gpu).await?;
        }
        if let Some(reset) = self
            .session
            .server
            .watched()
            .and_then(|it| it.reset.as_ref())
        {
            self.session
                .control
                .reset_tier(&reset.url, reset.body.as_ref())
                .await?;
        }
        if let Some(url) = self.session.server.lmcache_url()
            && server.lmcache == LmcacheMode::MultiProcess
            && kind.is_second_layer_alone()
        {
            self.session.control.clear_lmcache_l1(url).await?;
        }
        Ok(())
    }

    /// Stops the server and starts it again. Redis and the tier's files stay.
    async fn restart(&mut self) -> Result<(), Failure> {
        self.session.restart(self.cell, self.scope).await?;
        let url = &self.session.control.endpoint().url;
        self.endpoint = Endpoint::parse(url).map_err(|error| Failure {
            phase: Phase::Ready,
            error: error.into(),
        })?;
        Ok(())
    }

    /// A disk tier that does not read with `O_DIRECT` would be read from RAM. Its pages are dropped
    /// whatever it says: LMCache reads objects of odd sizes, such as sealed ones, through the page cache
    /// in spite of it.
    fn keep_page_cache_out(&self, results: &mut Results<'_>) -> Option<PageCache> {
        if !self.cell.tier.uses_disk() {
            return None;
        }
        let is_bypassed = match &self.session.rendered {
            // Nobody says how an unknown connector reads its files.
            None if self.cell.tier.connector.is_some() => false,
            Some(rendered) => page_cache::is_bypassed(&rendered.text),
            None => {
                let log = LogMarks::take(self.session.logs());
                !vllm_tier::is_buffered(&log.text_since(&LogMarks::default()))
            }
        };
        match page_cache::drop_files(self.session.tier_folder()) {
            _ if is_bypassed => Some(PageCache::Direct),
            Ok(files) => Some(PageCache::Dropped { files }),
            Err(error) => {
                let warning =
                    format!("the page cache of the tier's files was not dropped: {error:#}");
                results.warnings.push(warning);
                None
            }
        }
    }

    /// Asks a prompt whose document was asked about before, and sees where its tokens come from.
    /// The first time, in a cold state or a fill, that must be nowhere.
    pub(super) async fn probe(
        &mut self,
        state: CacheState,
        probe: Option<&Arc<Schedule>>,
    ) -> Result<Option<Probe>, Failure> {
        // One whose document could not be filled shows nothing of a later state.
        let Some(schedule) = probe.filter(|_| self.probe_filled != Some(false)) else {
            return Ok(None);
        };
        let before = Snapshot::take(self.session).await;
        let (load, died) = self
            .drive(schedule)
            .await
            .map_err(Failure::of(Phase::Warm))?;
        if let Some(how) = died {
            let error = anyhow!("{how} while the state `{}` was probed", state.title());
            return Err(Failure {
                phase: Phase::Warm,
                error,
            });
        }
        let answered = load.counts().ok > 0;
        self.probe_filled.get_or_insert(answered);
        if !answered {
            // What is wrong with the server shows in the pass.
            return Ok(None);
        }
        let counted = load.records.iter().filter_map(RequestRecord::prompt_tokens);
        let tokens = counted.map(f64::from).sum();
        let Some(sources) = self.counted(&before, tokens).await else {
            return Ok(None);
        };
        let unit = cache_unit(self.cell, state);
        let expected = schedule
            .requests
            .iter()
            .map(|planned| f64::from(whole_units(planned, unit)));
        let expected_tokens = expected.sum();
        let is_cold = state == CacheState::Cold;
        Ok((is_cold || expected_tokens > 0.0).then_some(Probe {
            expected_tokens,
            sources,
        }))
    }

    /// The engine's counters since `before`, once they count `tokens`.
    async fn counted(&self, before: &Snapshot, tokens: f64) -> Option<BySource> {
        let began = tokio::time::Instant::now();
        loop {
            let now = Snapshot::take(self.session).await;
            let sources = now.by_source(before)?;
            if sources.total() + 0.5 >= tokens || began.elapsed() > COUNTED_LIMIT {
                return Some(sources);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
