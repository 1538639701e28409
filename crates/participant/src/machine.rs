//! What this machine has: processor, device, memory, and what of that is for what.

use crate::ParticipantError;
use gainsay_api::limits::MAX_DEVICE_CHARS;
use gainsay_engine::{
    DeviceChoice, DeviceError, DeviceInfo, Options, SelfTest, devices, lost_device, self_test,
};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

/// Has every operator tried where models are to run, and says in the log where that is and why; so nothing is served, and
/// nobody is challenged, by a device that computes wrongly.
///
/// # Errors
/// [`ParticipantError::Device`]: the device asked for cannot be used, or it gives other bits than it should. Where any would
/// do, one that gives other bits is not passed over in silence: whoever owns it wants to know.
pub async fn try_device(options: &Options) -> Result<DeviceInfo, ParticipantError> {
    let Options { device, simd, .. } = *options;
    let tried = tokio::task::spawn_blocking(move || self_test(device, simd));
    let found = tried.await.expect("a self-test does not panic").map_err(ParticipantError::Device)?;
    let SelfTest { device, passed_over, checks } = found;
    if let Some(error @ DeviceError::Differs { .. }) = passed_over {
        return Err(ParticipantError::Device(error));
    }
    tracing::info!(%device, operators = checks.len(), "the self-test is passed");
    Ok(device)
}

/// How often it is looked whether the device is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Waits until this process can use its device no more. Then nothing that it has promised can be kept but by a new process,
/// which finds on disk what it needs for that.
pub async fn device_lost() -> ParticipantError {
    loop {
        if let Some(reason) = lost_device() {
            return ParticipantError::DeviceLost(reason);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What a party says that it runs on: the kind of processor and its threads, or the device's name and memory.
#[must_use]
pub fn statement(device: &DeviceInfo) -> String {
    let text = match device {
        DeviceInfo::Cpu { .. } => format!("CPU: {}, {} threads", processor(), threads()),
        DeviceInfo::Cuda { name, memory, driver, .. } => {
            format!("{name}, {} GiB, CUDA {driver}", (memory + (1 << 29)) >> 30)
        }
    };
    text.chars().filter(|letter| !letter.is_control()).take(MAX_DEVICE_CHARS).collect()
}

/// What the operating system says of this machine's processor.
#[must_use]
pub fn processor() -> String {
    let listed = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = listed.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_owned()
}

/// Threads that this machine runs at once.
#[must_use]
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

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
    /// The plan for what runs on such a device, by what this machine had to give when it was first asked for, or by the
    /// device's own memory where that is less: a model that finds no room there runs on the CPU.
    #[must_use]
    pub fn for_device(choice: DeviceChoice) -> Self {
        static MACHINE: OnceLock<Option<u64>> = OnceLock::new();
        let machine = *MACHINE.get_or_init(|| available(Path::new("/")));
        Self::of(machine.into_iter().chain(memory_of(choice)).min())
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

/// The memory of the CUDA device that would be chosen.
fn memory_of(choice: DeviceChoice) -> Option<u64> {
    let wanted = match choice {
        DeviceChoice::Cpu => return None,
        DeviceChoice::Auto => 0,
        DeviceChoice::Cuda(index) => index,
    };
    match devices().ok()?.get(wanted)? {
        DeviceInfo::Cuda { memory, .. } => Some(*memory),
        DeviceInfo::Cpu { .. } => None,
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
    use gainsay_engine::Simd;
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
    fn a_statement_is_one_that_a_coordinator_takes() {
        let cuda = |name: String| DeviceInfo::Cuda {
            index: 1,
            name,
            memory: 150_754_820_096,
            capability: (9, 0),
            driver: "13.0".to_owned(),
        };
        assert_eq!(statement(&cuda("NVIDIA H200".to_owned())), "NVIDIA H200, 140 GiB, CUDA 13.0");
        assert_eq!(statement(&cuda("x\n".repeat(500))), "x".repeat(MAX_DEVICE_CHARS));
        assert!(statement(&DeviceInfo::Cpu { simd: Simd::Portable }).starts_with("CPU: "));
    }

    #[tokio::test]
    async fn a_device_that_is_not_there_is_an_error_and_any_will_do_for_auto() {
        let on = |device| Options { device, ..Options::default() };
        assert!(try_device(&on(DeviceChoice::Auto)).await.is_ok());
        let error = try_device(&on(DeviceChoice::Cuda(1000))).await.unwrap_err();
        assert!(matches!(&error, ParticipantError::Device(_)) && !error.is_transient(), "{error}");
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
