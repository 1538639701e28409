//! What a program that serves nobody has done so far, in a file that others may read.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often it is written.
const PERIOD: Duration = Duration::from_secs(10);

/// Writes a status file again and again until `stop` is cancelled: counters in Prometheus' text format, for the textfile
/// collector of its node exporter, and a sign of life for [`check_status_file`](crate::check_status_file).
pub async fn keep_status_file(
    path: PathBuf,
    counters: impl Fn() -> Vec<(&'static str, u64)>,
    stop: CancellationToken,
) {
    let mut timer = interval(PERIOD);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_failing = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        let written = write(&path, &render(&counters()));
        if let Err(error) = &written
            && !is_failing
        {
            tracing::warn!(%error, path = %path.display(), "the status file cannot be written");
        }
        is_failing = written.is_err();
    }
}

fn render(counters: &[(&'static str, u64)]) -> String {
    let mut text = String::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    for (name, value) in counters {
        writeln!(text, "# TYPE {name} counter\n{name} {value}").expect("a text can be written to");
    }
    let name = "gainsay_status_timestamp_seconds";
    writeln!(text, "# TYPE {name} gauge\n{name} {now}").expect("a text can be written to");
    text
}

/// Beside it and renamed, so that nobody reads half of it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    File::create(&beside)?.write_all(text.as_bytes())?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check_status_file;

    #[tokio::test]
    async fn a_status_is_whole_and_new() {
        let path = std::env::temp_dir().join(format!("gainsay-status-{}", uuid::Uuid::now_v7().simple()));
        assert!(check_status_file(&path).is_err(), "nothing was written yet");
        let stop = CancellationToken::new();
        let keeping =
            tokio::spawn(keep_status_file(path.clone(), || vec![("gainsay_x_total", 7)], stop.clone()));
        while check_status_file(&path).is_err() {
            tokio::task::yield_now().await;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("# TYPE gainsay_x_total counter\ngainsay_x_total 7\n"), "{text}");
        stop.cancel();
        keeping.await.unwrap();
        let old = SystemTime::now() - Duration::from_secs(300);
        File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        assert!(check_status_file(&path).unwrap_err().to_string().contains("300 s old"));
        std::fs::remove_file(&path).unwrap();
    }
}
