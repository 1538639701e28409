//! What people see: spinners, bars and lines on stderr, so that stdout stays free for data.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(120);

/// Text of strangers as it may go to a terminal: characters that would steer it are replaced, all but line feeds and tabs.
pub(crate) fn harmless(text: &str) -> String {
    let steers = |letter: &char| letter.is_control() && !matches!(letter, '\n' | '\t');
    text.chars().map(|letter| if steers(&letter) { char::REPLACEMENT_CHARACTER } else { letter }).collect()
}

/// A line that shows that something is being done, until it is finished or dropped.
pub(crate) fn spinner(message: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(message.to_owned());
    bar.set_style(ProgressStyle::with_template("{spinner:.cyan} {msg}").expect("a valid template"));
    bar.enable_steady_tick(TICK);
    bar
}

/// A bar that counts up to `length` bytes.
pub(crate) fn byte_bar(label: &'static str, length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length).with_message(label);
    let template = "  {msg} {bar:32.green/white} {bytes} of {total_bytes}, {bytes_per_sec}";
    bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
    bar
}

/// A bar that counts up to `length`.
pub(crate) fn bar(label: &'static str, length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length).with_message(label);
    bar.set_style(
        ProgressStyle::with_template("  {msg:<8} {bar:32.green/white} {pos}/{len}")
            .expect("a valid template"),
    );
    bar
}
