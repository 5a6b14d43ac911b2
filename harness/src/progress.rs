//! Progress bars on standard error: shown only where somebody looks, and only for what takes a while.

use std::sync::LazyLock;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Bars may be shown at the same time (a run's, and a model's that it scores): they share the terminal's last lines.
static BARS: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8)));

/// A bar that counts bytes up to `total`; `what` stands in front of it. Hidden where standard error is no terminal.
pub fn bytes(total: u64, what: &str) -> ProgressBar {
    bar(total, what, "{msg} [{bar:32}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left")
}

/// A bar that counts things (windows, repetitions) up to `total`; `what` stands in front of it.
pub fn count(total: u64, what: &str) -> ProgressBar {
    bar(total, what, "{msg} [{bar:32}] {pos} of {len}, {eta} left")
}

fn bar(total: u64, what: &str, template: &str) -> ProgressBar {
    let bar = BARS.add(ProgressBar::new(total));
    // A template that does not parse would only cost the bar its looks.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    bar.set_message(what.to_string());
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}
