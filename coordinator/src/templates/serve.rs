//! The child: takes tasks from its standard input, one after the other, within limits that it sets itself first.

use std::io;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::wire::{self, Task};

/// The one argument of a program that is to render templates.
pub(super) const ARGUMENT: &str = "render-templates";
/// Address space: the program itself, and many times what a template may use up by the count of its engine.
#[cfg(target_os = "linux")]
const MEMORY_BYTES: u64 = 1 << 30;
/// Seconds of the processor for one task; it has up to one more, as the system counts whole ones.
const TASK_SECONDS: u64 = 1;

/// Renders chat templates until its standard input ends, if this process was started for that. A program that carries a
/// coordinator calls this before it does anything else.
#[must_use]
pub fn serve_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ARGUMENT || arguments.next().is_some() {
        return None;
    }
    Some(if serve().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn serve() -> io::Result<()> {
    limit()?;
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    while let Some(task) = wire::read::<Task>(&mut input)? {
        allow_one_task()?;
        wire::write(&mut output, &task.run())?;
    }
    Ok(())
}

fn limit() -> io::Result<()> {
    // Other systems take limits on address space and do not hold programs to them, or refuse any.
    #[cfg(target_os = "linux")]
    set(Resource::As, MEMORY_BYTES, MEMORY_BYTES)?;
    set(Resource::Core, 0, 0)?;
    set(Resource::Fsize, 0, 0)?;
    // No file can be opened besides the three that are.
    set(Resource::Nofile, 3, 3)?;
    allow_one_task()
}

/// Moves the end of this process's time on: the limit is on all that it has used.
fn allow_one_task() -> io::Result<()> {
    let used = clock_gettime(ClockId::ProcessCPUTime).tv_sec.unsigned_abs();
    let most = getrlimit(Resource::Cpu).maximum;
    let end = used + 1 + TASK_SECONDS;
    Ok(setrlimit(
        Resource::Cpu,
        Rlimit { current: Some(most.map_or(end, |most| end.min(most))), maximum: most },
    )?)
}

fn set(resource: Resource, current: u64, maximum: u64) -> io::Result<()> {
    // A limit that is lower already stays.
    let known = getrlimit(resource).maximum;
    let lower = |value: u64| Some(known.map_or(value, |known| known.min(value)));
    Ok(setrlimit(resource, Rlimit { current: lower(current), maximum: lower(maximum) })?)
}
