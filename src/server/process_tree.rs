//! Which processes belong to a server: those of its groups and containers, and what they started.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::proc_stat::ProcStat;

/// The living processes of the servers that `leaders` lead, each with its leader: what is in a
/// leader's process group, descends from it (a profiler starts the server in a session of its own),
/// or lives in its container, where processes may lead groups of their own.
pub(crate) fn of(leaders: &[u32]) -> BTreeMap<u32, u32> {
    if leaders.is_empty() {
        return BTreeMap::new();
    }
    let own = pid_namespace(std::process::id());
    let containers: BTreeMap<PathBuf, u32> = leaders
        .iter()
        .filter_map(|leader| Some((pid_namespace(*leader)?, *leader)))
        .filter(|(namespace, _)| Some(namespace) != own.as_ref())
        .collect();
    let contained = |pid| {
        let known = !containers.is_empty();
        known.then(|| containers.get(&pid_namespace(pid)?).copied())?
    };
    assign(&ProcStat::all().collect(), leaders, contained)
}

fn assign(
    all: &BTreeMap<u32, ProcStat>,
    leaders: &[u32],
    contained: impl Fn(u32) -> Option<u32>,
) -> BTreeMap<u32, u32> {
    let is_leader = |pid: &u32| leaders.contains(pid);
    // A chain of parents ends at 0; a reused pid could close it to a circle, hence the limit.
    let ancestry = |pid| {
        let parent = |pid: &u32| all.get(pid).map(|stat| stat.parent);
        std::iter::successors(Some(pid), parent).take(64)
    };
    let leader_of = |pid: u32, stat: &ProcStat| {
        let by_descent = ancestry(pid).find(is_leader);
        let by_group = || Some(stat.group).filter(is_leader);
        by_descent.or_else(by_group).or_else(|| contained(pid))
    };
    let living = all.iter().filter(|(_, stat)| stat.lives);
    living
        .filter_map(|(pid, stat)| Some((*pid, leader_of(*pid, stat)?)))
        .collect()
}

/// `pid:[4026531836]` (namespaces(7)); `None` where it may not be read.
fn pid_namespace(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(parent: u32, group: u32, lives: bool) -> ProcStat {
        ProcStat {
            lives,
            parent,
            group,
            started: 1,
        }
    }

    #[test]
    fn a_process_belongs_by_descent_by_group_or_by_container() {
        let all = BTreeMap::from([
            (1, stat(0, 1, true)),
            // A profiler, its launcher, and the server in a session of its own.
            (20, stat(1, 20, true)),
            (21, stat(20, 20, true)),
            (22, stat(21, 22, true)),
            // Its parent is gone.
            (23, stat(1, 20, true)),
            (24, stat(22, 22, false)),
            // Another leader, and one of its container.
            (30, stat(1, 30, true)),
            (31, stat(1, 31, true)),
            (40, stat(1, 40, true)),
        ]);
        let assigned = assign(&all, &[20, 30], |pid| (pid == 31).then_some(30));
        let expected = [(20, 20), (21, 20), (22, 20), (23, 20), (30, 30), (31, 30)];
        assert_eq!(assigned, BTreeMap::from(expected));
    }

    #[test]
    fn a_leader_under_another_leads_its_own() {
        let all = BTreeMap::from([
            (20, stat(1, 20, true)),
            (21, stat(20, 21, true)),
            (22, stat(21, 21, true)),
        ]);
        let assigned = assign(&all, &[20, 21], |_| None);
        assert_eq!(assigned, BTreeMap::from([(20, 20), (21, 21), (22, 21)]));
    }

    #[test]
    fn parents_in_a_circle_end() {
        let all = BTreeMap::from([(5, stat(6, 5, true)), (6, stat(5, 6, true))]);
        assert_eq!(assign(&all, &[20], |_| None), BTreeMap::new());
        assert_eq!(of(&[]), BTreeMap::new());
    }
}
