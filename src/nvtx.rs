//! Ranges for NVIDIA's profilers (NVTX): run, cell, phase and, of each request, prefill and decode.
//!
//! With the feature `nvtx` they appear in Nsight Systems in the domain `labrun`, when labrun runs
//! under it; without a profiler one costs a branch. Without the feature all of
//! it compiles to nothing. Ranges show when the client waited for what, not which kernels served it:
//! see `docs/profiling.md`.
//!
//! They are start/end ranges, which belong to the process: one may begin on one thread and end on
//! another, across any wait. Their messages are constant, because a domain stores each message that
//! it has ever seen. The payload of a range identifies its request or cell.

/// What a range is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A run. Its payload counts the cells that are to run.
    Run,
    /// A cell. Its payload, and that of its phases, is the cell's place in the order, from 1.
    Cell,
    /// Rendering files and starting processes.
    Launch,
    /// Waiting for the first real token.
    Ready,
    /// Sending requests that are not measured.
    Warm,
    /// Sending the measured requests.
    Load,
    /// Reading counters and asking canaries.
    Verify,
    /// Stopping the server and its helpers.
    Stop,
    /// A request from its write to its first token. Its payload, and that of its decode, is the
    /// request's index in the pass.
    Prefill,
    /// A request from its first token to its last.
    Decode,
}

/// A request's two ranges: prefill until its first token, then decode. Dropping it ends both.
#[derive(Debug)]
pub(crate) struct RequestRange {
    index: u32,
    current: Option<Range>,
}

impl RequestRange {
    /// The request is about to be written.
    #[inline]
    pub(crate) fn sent(index: u32) -> Self {
        let current = Some(start(Kind::Prefill, index.into()));
        Self { index, current }
    }

    /// Its first token is here.
    #[inline]
    pub(crate) fn first_token(&mut self) {
        // One ends before the other begins.
        drop(self.current.take());
        self.current = Some(start(Kind::Decode, self.index.into()));
    }

    /// Its last token is here.
    #[inline]
    pub(crate) fn end(&mut self) {
        drop(self.current.take());
    }
}

#[cfg(feature = "nvtx")]
pub(crate) use tool::{Range, prepare, start};

#[cfg(not(feature = "nvtx"))]
pub(crate) use no_tool::{Range, prepare, start};

#[cfg(not(feature = "nvtx"))]
mod no_tool {
    use super::Kind;

    /// Stands for a range without the feature.
    #[derive(Debug)]
    pub(crate) struct Range;

    impl Drop for Range {
        /// Does nothing. Callers drop a range to end it, and that needs a `Drop` here too.
        #[inline]
        fn drop(&mut self) {}
    }

    #[inline]
    pub(crate) fn prepare() {}

    #[inline]
    pub(crate) fn start(_kind: Kind, _payload: u64) -> Range {
        Range
    }
}

#[cfg(feature = "nvtx")]
mod tool {
    use std::ffi::CStr;
    use std::sync::OnceLock;

    use ::nvtx::Domain;
    use ::nvtx::domain::{Category, RegisteredString};

    use super::Kind;

    /// A range that ends when it is dropped.
    pub(crate) type Range = ::nvtx::domain::Range<'static>;

    /// Messages in the order of [`Kind`].
    const MESSAGES: [&CStr; 10] = [
        c"Run", c"Cell", c"Launch", c"Ready", c"Warm", c"Load", c"Verify", c"Stop", c"Prefill",
        c"Decode",
    ];

    struct Labels {
        domain: &'static Domain,
        messages: [RegisteredString<'static>; MESSAGES.len()],
        experiment: Category<'static>,
        phase: Category<'static>,
        request: Category<'static>,
    }

    fn labels() -> &'static Labels {
        static DOMAIN: OnceLock<Domain> = OnceLock::new();
        static LABELS: OnceLock<Labels> = OnceLock::new();
        LABELS.get_or_init(|| {
            let domain = DOMAIN.get_or_init(|| Domain::new(c"labrun"));
            Labels {
                domain,
                messages: domain.register_strings(MESSAGES),
                experiment: domain.register_category(c"experiment"),
                phase: domain.register_category(c"phase"),
                request: domain.register_category(c"request"),
            }
        })
    }

    /// Registers domain, messages and categories once. Call it before a clock starts: the first range
    /// would do it otherwise.
    pub(crate) fn prepare() {
        labels();
    }

    /// Begins a range of this kind, which ends when it is dropped.
    #[inline]
    pub(crate) fn start(kind: Kind, payload: u64) -> Range {
        let labels = labels();
        let category = match kind {
            Kind::Run | Kind::Cell => labels.experiment,
            Kind::Prefill | Kind::Decode => labels.request,
            _ => labels.phase,
        };
        // All of it is on the stack: names are handles.
        let attributes = labels
            .domain
            .event_attributes_builder()
            .category(category)
            .payload(payload)
            .message(labels.messages[kind as usize])
            .build();
        labels.domain.range(attributes)
    }
}
