//! Telling people and programs how far a run is: a bar on a terminal, lines of JSON elsewhere.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    time::Duration,
};

use channel::replication::{Phase, Progress};
use indicatif::{ProgressBar, ProgressStyle};

use super::tally::{Tally, shortened};

/// Bytes that Kubernetes keeps of a termination message, with some to spare.
const MOST_TERMINATION: usize = 4000;

/// Tells until it is dropped; never ends by itself.
pub(super) async fn tell(tally: Tally) {
    if io::stdout().is_terminal() { draw(tally).await } else { print(tally).await }
}

async fn draw(tally: Tally) {
    let bar = ProgressBar::new(0);
    // The template is right, as every run shows.
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} images{msg}") {
        bar.set_style(style);
    }
    loop {
        let progress = tally.progress();
        bar.set_length(progress.total);
        bar.set_position(progress.done + progress.skipped + progress.failed);
        bar.set_message(message(&progress));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn message(progress: &Progress) -> String {
    let failed = if progress.failed > 0 { format!(", {} failed", progress.failed) } else { String::new() };
    let doing = match progress.phase {
        Phase::Comparing => "comparing",
        Phase::Copying => "copying",
        Phase::Following => "following",
        Phase::Ended => "ended",
    };
    format!("{failed}, {} sent, {doing}", bytes(progress.bytes_moved))
}

async fn print(tally: Tally) {
    let mut last = String::new();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let line = shortened(tally.progress(), usize::MAX);
        if line != last {
            // Where nobody reads, nobody is told.
            let _ = writeln!(io::stdout(), "{line}");
            last = line;
        }
    }
}

/// The last word.
pub(super) fn end(progress: &Progress, termination_log: Option<&Path>) {
    let mut out = io::stdout();
    let said = if out.is_terminal() {
        writeln!(out, "{}", summary(progress))
    } else {
        writeln!(out, "{}", shortened(progress.clone(), usize::MAX))
    };
    if let Err(error) = said {
        tracing::warn!(%error, "failed to write to standard output");
    }
    if let Some(path) = termination_log
        && let Err(error) = std::fs::write(path, shortened(progress.clone(), MOST_TERMINATION))
    {
        tracing::error!(path = %path.display(), %error, "failed to write the termination log");
    }
}

fn summary(progress: &Progress) -> String {
    let Progress { total, done, skipped, failed, deleted, bytes_moved, bytes_skipped, .. } = progress;
    let mut text = format!(
        "{total} images: {done} copied, {skipped} skipped, {failed} failed, {deleted} deleted; {} sent, {} were there",
        bytes(*bytes_moved),
        bytes(*bytes_skipped)
    );
    for (image, failure) in &progress.failures {
        text += "\n";
        text += &[image.as_str(), ": ", &failure.reason].concat();
    }
    if let Some(problem) = &progress.problem {
        text += "\n";
        text += &problem.message;
    }
    text
}

/// `3.4 MiB`
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = "bytes";
    for next in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
    }
}
