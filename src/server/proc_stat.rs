//! The fields of `/proc/<pid>/stat` (proc(5)) that labrun asks for.

use std::fs;

/// One process, as the kernel describes it in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcStat {
    /// Whether it runs still: one that has ended and was not waited for yet does not.
    pub lives: bool,
    /// The process that started it, or 1 where that is gone.
    pub parent: u32,
    /// Id of its process group.
    pub group: u32,
    /// When it started, clock ticks since boot.
    pub started: u64,
}

impl ProcStat {
    /// Reads it; `None` where there is no such process.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Every process that can be read now, with its pid.
    pub(crate) fn all() -> impl Iterator<Item = (u32, Self)> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, Self::read(pid)?))
        })
    }

    /// State is field 3, the parent 4, the group 5, the start 22. The command name, field 2, stands in
    /// parentheses and may hold spaces and parentheses; fields count on after its last one.
    fn parse(stat: &str) -> Option<Self> {
        let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
        let state = fields.next()?;
        Some(Self {
            lives: !matches!(state, "Z" | "X"),
            parent: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
            started: fields.nth(16)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_count_on_after_the_name() {
        let stat = "7 (a) b (c) S 1 42 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987 19 20\n";
        let parsed = ProcStat::parse(stat).unwrap();
        assert_eq!(
            (parsed.lives, parsed.parent, parsed.group, parsed.started),
            (true, 1, 42, 987)
        );
        assert!(!ProcStat::parse(&stat.replace(" S ", " Z ")).unwrap().lives);
        assert_eq!(ProcStat::parse("7 (torn"), None);
    }

    #[test]
    fn this_process_is_among_all() {
        let own = std::process::id();
        let (_, stat) = ProcStat::all().find(|(pid, _)| *pid == own).unwrap();
        assert!(stat.lives && stat.started > 0);
        assert_eq!(ProcStat::read(4_194_304), None);
    }
}
