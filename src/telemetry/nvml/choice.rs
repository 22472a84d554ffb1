//! Which GPUs of this machine are watched: those that the server under test may use.

use std::collections::BTreeSet;

use super::live;
use crate::plan::docker_spec;
use crate::server::process_tree;

/// Which GPUs are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Gpus {
    /// None: the server under test has none.
    #[default]
    None,
    /// Every one that the library lists.
    All,
    /// Those on which anything computes, or all where nothing does or the driver does not report it.
    Used,
    /// The GPUs with these indices.
    These(Vec<u32>),
    /// Those that the server may use, or does.
    Serving {
        /// Those that its container gets; `None` for a server without one.
        container: Option<docker_spec::Gpus>,
        /// `CUDA_VISIBLE_DEVICES` in its environment.
        visible: Option<String>,
    },
}

/// A GPU as the library lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// NVML's index.
    pub index: u32,
    /// Its UUID; empty where unknown.
    pub uuid: String,
    /// Processes that compute on it.
    pub pids: Vec<u32>,
}

/// The indices of the GPUs in `gpus`, for a server with the process trees of `leaders`.
pub(crate) fn chosen(gpus: &Gpus, leaders: &[u32]) -> Result<Vec<u32>, String> {
    match gpus {
        Gpus::None => Ok(Vec::new()),
        Gpus::These(these) => Ok(these.clone()),
        Gpus::All => Ok(indices(&live::listed()?)),
        Gpus::Used => Ok(used(live::listed()?)),
        Gpus::Serving { container, visible } => {
            let ours = process_tree::of(leaders).into_keys().collect();
            serving(
                container.as_ref(),
                visible.as_deref(),
                &live::listed()?,
                &ours,
            )
        }
    }
}

fn used(all: Vec<Listed>) -> Vec<u32> {
    let (used, idle): (Vec<_>, Vec<_>) = all.into_iter().partition(|gpu| !gpu.pids.is_empty());
    indices(if used.is_empty() { &idle } else { &used })
}

fn indices(gpus: &[Listed]) -> Vec<u32> {
    gpus.iter().map(|gpu| gpu.index).collect()
}

/// Those of `all` that a server may use. Its container limits them first; `visible` chooses among the
/// rest, by positions in the rest. Without either they are those on which its processes `ours` compute,
/// or all where that is unknown (process ids differ between containers).
fn serving(
    container: Option<&docker_spec::Gpus>,
    visible: Option<&str>,
    all: &[Listed],
    ours: &BTreeSet<u32>,
) -> Result<Vec<u32>, String> {
    let given = match container {
        None => all.to_vec(),
        Some(gpus) => given(gpus, all)?,
    };
    if let Some(visible) = visible {
        let seen = visible_among(visible, &given);
        let wants_some = !matches!(visible.trim(), "" | "-1" | "NoDevFiles");
        if seen.is_empty() && wants_some {
            return Err(format!(
                "`CUDA_VISIBLE_DEVICES={visible}` names none of the {} GPUs that the server has",
                given.len()
            ));
        }
        return Ok(seen);
    }
    let computes = |gpu: &&Listed| gpu.pids.iter().any(|pid| ours.contains(pid));
    let is_limited = match container {
        // All that a container gets is the server's, used or not.
        Some(gpus) => *gpus != docker_spec::Gpus::None,
        None => false,
    };
    if is_limited {
        return Ok(indices(&given));
    }
    // Without a request of its own a container may still get GPUs, by a default runtime.
    let used: Vec<Listed> = all.iter().filter(computes).cloned().collect();
    if used.is_empty() && container.is_none() {
        return Ok(indices(all));
    }
    Ok(indices(&used))
}

/// The GPUs of a container, in the order in which it counts them.
fn given(gpus: &docker_spec::Gpus, all: &[Listed]) -> Result<Vec<Listed>, String> {
    match gpus {
        docker_spec::Gpus::None | docker_spec::Gpus::All => Ok(all.to_vec()),
        // Docker takes them in the order of their indices.
        docker_spec::Gpus::Count(count) => Ok(all.iter().take(*count as usize).cloned().collect()),
        docker_spec::Gpus::Ids(ids) => {
            if ids.iter().any(|id| device_of(id) == "all") {
                return Ok(all.to_vec());
            }
            let mut chosen = Vec::new();
            for id in ids {
                let named = all.iter().find(|gpu| is_named(gpu, device_of(id)));
                chosen.push(named.cloned().ok_or_else(|| {
                    format!(
                        "`{id}` in `gpus` is none of this machine's {} GPUs",
                        all.len()
                    )
                })?);
            }
            // A container counts its GPUs by their place in the machine.
            chosen.sort_by_key(|gpu| gpu.index);
            chosen.dedup();
            Ok(chosen)
        }
    }
}

/// The device of an id: what stands behind `=` in a CDI name (`nvidia.com/gpu=0`), and the GPU of a
/// MIG device (`0:1`).
fn device_of(id: &str) -> &str {
    let name = id.rsplit_once('=').map_or(id, |(_, device)| device);
    name.split_once(':').map_or(name, |(gpu, _)| gpu).trim()
}

/// An index, or a UUID by its begin.
fn is_named(gpu: &Listed, name: &str) -> bool {
    name.parse() == Ok(gpu.index) || (name.starts_with("GPU-") && gpu.uuid.starts_with(name))
}

/// The indices that a `CUDA_VISIBLE_DEVICES` names among `given`: places in that list, or UUIDs by
/// their begin. As in CUDA, the first that names none ends the list.
fn visible_among(visible: &str, given: &[Listed]) -> Vec<u32> {
    let named = |name: &str| match name.parse::<usize>() {
        Ok(place) => given.get(place).map(|gpu| gpu.index),
        Err(_) => given
            .iter()
            .find(|gpu| is_named(gpu, name))
            .map(|gpu| gpu.index),
    };
    visible
        .split(',')
        .map_while(|name| named(name.trim()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Vec<Listed> {
        let uuids = ["GPU-aaaa-1", "GPU-bbbb-2", "GPU-cccc-3", "GPU-dddd-4"];
        let listed = |(index, uuid): (u32, &str)| Listed {
            index,
            uuid: uuid.to_owned(),
            pids: vec![1000 + index],
        };
        (0..).zip(uuids).map(listed).collect()
    }

    fn watched(container: Option<&docker_spec::Gpus>, visible: Option<&str>) -> Vec<u32> {
        serving(container, visible, &machine(), &BTreeSet::from([1002])).unwrap()
    }

    fn ids(ids: &[&str]) -> docker_spec::Gpus {
        let ids = ids.iter().map(|id| (*id).to_owned());
        docker_spec::Gpus::Ids(ids.collect())
    }

    #[test]
    fn visible_devices_are_places_or_uuids() {
        assert_eq!(watched(None, Some("2, 0")), [2, 0]);
        assert_eq!(watched(None, Some("GPU-bbbb")), [1]);
        assert_eq!(watched(None, Some("1,-1,0")), [1], "the rest is hidden");
        for none in ["", "-1"] {
            assert_eq!(watched(None, Some(none)), [] as [u32; 0]);
        }
        let unknown = serving(None, Some("MIG-1"), &machine(), &BTreeSet::new());
        let why = unknown.unwrap_err();
        assert!(why.contains("CUDA_VISIBLE_DEVICES=MIG-1"), "{why}");
    }

    #[test]
    fn without_a_word_it_is_the_gpus_that_the_server_computes_on_else_all() {
        assert_eq!(watched(None, None), [2]);
        let others = serving(None, None, &machine(), &BTreeSet::from([7]));
        assert_eq!(others.unwrap(), [0, 1, 2, 3]);
    }

    #[test]
    fn of_a_server_that_others_started_it_is_the_gpus_in_use_else_all() {
        let mut all = machine();
        for gpu in &mut all {
            gpu.pids = if gpu.index == 1 { vec![7] } else { vec![] };
        }
        assert_eq!(used(all.clone()), [1]);
        all[1].pids.clear();
        assert_eq!(used(all), [0, 1, 2, 3]);
    }

    #[test]
    fn the_gpus_of_a_container_are_watched_and_no_others() {
        assert_eq!(watched(Some(&ids(&["0", "2"])), None), [0, 2]);
        assert_eq!(watched(Some(&ids(&["GPU-dddd", "1"])), None), [1, 3]);
        assert_eq!(watched(Some(&ids(&["nvidia.com/gpu=3"])), None), [3]);
        assert_eq!(
            watched(Some(&ids(&["nvidia.com/gpu=all"])), None),
            [0, 1, 2, 3]
        );
        assert_eq!(
            watched(Some(&ids(&["1:0"])), None),
            [1],
            "a MIG device is its GPU's"
        );
        assert_eq!(watched(Some(&docker_spec::Gpus::Count(2)), None), [0, 1]);
        assert_eq!(watched(Some(&docker_spec::Gpus::All), None), [0, 1, 2, 3]);
    }

    #[test]
    fn a_container_without_a_request_has_the_gpus_that_it_is_seen_on() {
        assert_eq!(watched(Some(&docker_spec::Gpus::None), None), [2]);
        let container = Some(&docker_spec::Gpus::None);
        let unseen = serving(container, None, &machine(), &BTreeSet::new());
        assert_eq!(unseen.unwrap(), [] as [u32; 0]);
    }

    #[test]
    fn visible_devices_in_a_container_count_what_it_gets() {
        assert_eq!(watched(Some(&ids(&["1", "3"])), Some("1")), [3]);
        assert_eq!(
            watched(Some(&ids(&["3", "1"])), Some("0")),
            [1],
            "counted by place"
        );
        assert_eq!(watched(Some(&ids(&["1", "3"])), Some("GPU-dddd")), [3]);
    }

    #[test]
    fn an_id_that_this_machine_does_not_have_is_an_error() {
        let container = ids(&["0", "9"]);
        let wrong = serving(Some(&container), None, &machine(), &BTreeSet::new());
        let why = wrong.unwrap_err();
        assert!(why.contains("`9` in `gpus`"), "{why}");
    }
}
