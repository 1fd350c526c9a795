//! Progress bars for long operations.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that counts bytes. It is hidden if `json` is set or standard error is not a terminal.
pub(crate) fn bytes_bar(what: &'static str, json: bool) -> ProgressBar {
    bar(what, "{msg} {bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left", json)
}

/// A bar that counts items, hidden in the same cases as [`bytes_bar`].
pub(crate) fn count_bar(what: &'static str, json: bool) -> ProgressBar {
    bar(what, "{msg} {bar:40} {human_pos} of {human_len}, {eta} left", json)
}

fn bar(what: &'static str, template: &str, json: bool) -> ProgressBar {
    let target = if json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(0), target).with_style(style).with_message(what)
}

/// Moves `bar` to `done` of `total`.
pub(crate) fn show(bar: &ProgressBar, done: u64, total: u64) {
    bar.set_length(total);
    bar.set_position(done);
}
