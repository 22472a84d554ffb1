//! What Docker reports about a container, and how its end is worded.

use bollard::models::{ContainerInspectResponse, ContainerState};

use super::image::Image;
use crate::record::schema::ContainerRecord;

/// Whether it is the server under test, not a sidecar.
pub(crate) fn is_server(container: &ContainerRecord) -> bool {
    matches!(container.role.as_str(), "vllm" | "sim")
}

/// Of a container that was started from `image`.
pub(super) fn started(
    role: &str,
    image: &Image,
    inspected: &ContainerInspectResponse,
) -> ContainerRecord {
    let state = inspected.state.as_ref();
    let image_id = inspected.image.clone();
    ContainerRecord {
        role: role.to_owned(),
        image: image.name.clone(),
        image_id: image_id.unwrap_or_else(|| image.id.clone()),
        digest: image.digest.clone(),
        started_at: state.and_then(|state| state.started_at.clone()),
        ..ContainerRecord::default()
    }
}

/// Adds what is known once it has ended.
pub(super) fn note_end(container: &mut ContainerRecord, inspected: &ContainerInspectResponse) {
    container.restart_count = inspected.restart_count.unwrap_or(0);
    let Some(state) = &inspected.state else {
        return;
    };
    container.oom_killed = state.oom_killed.unwrap_or(false);
    container.started_at.clone_from(&state.started_at);
    if state.running != Some(true) {
        container.exit_code = state.exit_code;
        container.finished_at.clone_from(&state.finished_at);
    }
}

/// How it ended, for a message.
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
    fn an_end_is_reported_with_its_cause() {
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
