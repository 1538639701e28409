//! How much memory this process may use, and what of it is for what.

use gainsay_engine::Options;
use std::path::Path;
use std::sync::OnceLock;

/// Bytes of keys and values where nothing is known of the machine.
const USUAL_CACHE: u64 = 4 << 30;

/// What a party's memory is for, in bytes, where nothing else is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// What is there, if the system says so.
    pub available: Option<u64>,
    /// All loaded models together: half of what is there.
    pub models: u64,
    /// The layers of one job: a quarter, and no more than the largest job takes.
    pub job: u64,
    /// Keys and values of one model's running generations: an eighth.
    pub cache: u64,
}

impl MemoryPlan {
    /// The plan for this machine, as it was when it was first asked for.
    #[must_use]
    pub fn of_this_machine() -> Self {
        static PLAN: OnceLock<MemoryPlan> = OnceLock::new();
        *PLAN.get_or_init(|| Self::of(available(Path::new("/"))))
    }

    fn of(available: Option<u64>) -> Self {
        let usual = Self {
            available,
            models: Options::DEFAULT_MEMORY,
            job: Options::DEFAULT_MEMORY,
            cache: USUAL_CACHE,
        };
        available.map_or(usual, |bytes| Self {
            models: bytes / 2,
            job: (bytes / 4).min(Options::DEFAULT_MEMORY),
            cache: bytes / 8,
            ..usual
        })
    }
}

/// The memory that may still be taken: what the machine has to give, or less where a control group leaves less.
fn available(root: &Path) -> Option<u64> {
    let machine = field(&read(root, "proc/meminfo"), "MemAvailable:").map(|kib| kib << 10);
    machine.into_iter().chain(left_by_groups(root)).min()
}

/// What the control groups of this process leave of their limits, the least of them. Pages of files that were read once
/// count as used, though they are given up when memory is short; so they are not counted here.
fn left_by_groups(root: &Path) -> Option<u64> {
    let mine = read(root, "proc/self/cgroup");
    let path = mine.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let groups = Path::new(path).ancestors();
    let left = groups.filter_map(|group| {
        let file = |name: &str| read(&root.join("sys/fs/cgroup").join(group), name);
        let number = |name: &str| file(name).trim().parse::<u64>().ok();
        // Without a limit it says "max".
        let limit = number("memory.max")?;
        let files = field(&file("memory.stat"), "inactive_file").unwrap_or(0);
        let used = number("memory.current").unwrap_or(0).saturating_sub(files);
        Some(limit.saturating_sub(used))
    });
    left.min()
}

/// The number in the line that begins with this name.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next()? == name).then(|| words.next()?.parse().ok())?)
}

fn read(folder: &Path, file: &str) -> String {
    std::fs::read_to_string(folder.join(file)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A folder that looks like a machine.
    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("gainsay-machine-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&root);
            for (path, content) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal:       16384 kB\nMemFree:  100 kB\nMemAvailable:    8192 kB\n");

    #[test]
    fn what_the_machine_has_to_give_counts_where_no_group_has_a_limit() {
        let machine = Machine::new(
            "free",
            &[MEMINFO, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")],
        );
        assert_eq!(available(&machine.0), Some(8192 << 10));
        assert_eq!(available(Path::new("/nowhere")), None);
    }

    #[test]
    fn the_group_that_leaves_least_counts_and_what_was_read_from_files_is_free() {
        let machine = Machine::new(
            "groups",
            &[
                MEMINFO,
                ("proc/self/cgroup", "0::/outer/inner\n"),
                ("sys/fs/cgroup/outer/inner/memory.max", "max\n"),
                ("sys/fs/cgroup/outer/memory.max", "4194304\n"),
                ("sys/fs/cgroup/outer/memory.current", "3000000\n"),
                ("sys/fs/cgroup/outer/memory.stat", "anon 900000\ninactive_file 2000000\n"),
            ],
        );
        assert_eq!(available(&machine.0), Some(4_194_304 - 1_000_000));
    }

    #[test]
    fn all_parts_together_leave_something_over() {
        for bytes in [0, 1 << 20, 8 << 30, 1 << 40] {
            let MemoryPlan { models, job, cache, .. } = MemoryPlan::of(Some(bytes));
            assert!(models + job + cache <= bytes - bytes / 8, "{bytes}");
            assert!(job <= Options::DEFAULT_MEMORY);
        }
        let unknown = MemoryPlan::of(None);
        assert_eq!((unknown.job, unknown.cache), (Options::DEFAULT_MEMORY, 4 << 30));
    }
}
