//! What Docker says of a container, and how its end reads.

use bollard::models::{ContainerInspectResponse, ContainerState};

use super::image::Image;

/// What is known of a container, as it is kept with a cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerFacts {
    /// `vllm`, `sim`, `lmcache` or `redis`.
    pub role: &'static str,
    /// The image, as the plan names it.
    pub image: String,
    /// The id of its content.
    pub image_id: String,
    /// The registry's digest of it; absent for images made on this machine.
    pub digest: Option<String>,
    /// When it started, as Docker says it (RFC 3339).
    pub started_at: Option<String>,
    /// When it ended; absent while it runs.
    pub finished_at: Option<String>,
    /// What it ended with; absent while it runs.
    pub exit_code: Option<i64>,
    /// Whether the kernel killed it for its memory.
    pub oom_killed: bool,
    /// How often Docker restarted it: 0, since labrun asks for none.
    pub restart_count: i64,
}

impl ContainerFacts {
    /// Whether it is the server under test, and no sidecar.
    pub fn is_server(&self) -> bool {
        matches!(self.role, "vllm" | "sim")
    }

    /// Of one that was started from `image`.
    pub(super) fn of(role: &'static str, image: &Image, found: &ContainerInspectResponse) -> Self {
        let state = found.state.as_ref();
        Self {
            role,
            image: image.name.clone(),
            image_id: found.image.clone().unwrap_or_else(|| image.id.clone()),
            digest: image.digest.clone(),
            started_at: state.and_then(|state| state.started_at.clone()),
            ..Self::default()
        }
    }

    /// Adds what is known once it has ended.
    pub(super) fn note_end(&mut self, found: &ContainerInspectResponse) {
        self.restart_count = found.restart_count.unwrap_or(0);
        let Some(state) = &found.state else { return };
        self.oom_killed = state.oom_killed.unwrap_or(false);
        self.started_at.clone_from(&state.started_at);
        if state.running != Some(true) {
            self.exit_code = state.exit_code;
            self.finished_at.clone_from(&state.finished_at);
        }
    }
}

/// How it ended, in words.
pub(super) fn end_of(state: &ContainerState) -> String {
    let code = state.exit_code.unwrap_or_default();
    let error = state.error.as_deref().filter(|error| !error.is_empty());
    match (state.oom_killed, code, error) {
        (Some(true), ..) => {
            "was killed by the kernel: out of memory (raise `memory` in [server])".to_owned()
        }
        (_, _, Some(error)) => format!("failed: {error}"),
        (_, 143, _) => "was terminated".to_owned(),
        (_, 129..=159, _) => format!("ended by signal {}", code - 128),
        _ => format!("exited with code {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_by_its_cause() {
        let state = |code, oom_killed, error: &str| ContainerState {
            exit_code: Some(code),
            oom_killed: Some(oom_killed),
            error: Some(error.to_owned()),
            ..ContainerState::default()
        };
        assert_eq!(end_of(&state(3, false, "")), "exited with code 3");
        assert_eq!(end_of(&state(139, false, "")), "ended by signal 11");
        assert_eq!(end_of(&state(143, false, "")), "was terminated");
        assert!(end_of(&state(137, true, "")).contains("out of memory"));
        assert!(end_of(&state(127, false, "no such file")).contains("no such file"));
    }
}
