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
    let bar = styled(ProgressBar::new(0));
    loop {
        show(&bar, &tally.progress());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn styled(bar: ProgressBar) -> ProgressBar {
    // The template is right, as every run shows.
    match ProgressStyle::with_template("{wide_bar} {pos}/{len} images{msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn show(bar: &ProgressBar, progress: &Progress) {
    bar.set_length(progress.total);
    bar.set_position(progress.done + progress.skipped + progress.failed);
    bar.set_message(message(progress));
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
    use std::sync::{Arc, Mutex};

    use channel::replication::{Failure, Problem, Reason};
    use indicatif::{ProgressDrawTarget, TermLike};

    use super::*;

    /// A terminal of 60 columns, and what was written to it.
    #[derive(Clone, Debug, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            60
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            self.0.lock().unwrap().clear();
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn half() -> Progress {
        let failure = Failure { reason: "no".into(), attempts: 3, last_try: String::new() };
        Progress {
            phase: Phase::Copying,
            total: 10,
            done: 3,
            skipped: 1,
            failed: 1,
            bytes_moved: 1536,
            bytes_skipped: 10,
            failures: [("a:1".to_owned(), failure)].into(),
            problem: Some(Problem { reason: Reason::ImagesFailed, message: "look".into() }),
            ..Progress::default()
        }
    }

    #[test]
    fn a_terminal_shows_a_bar_and_what_it_is_doing() {
        let screen = Screen::default();
        let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
        let bar = styled(ProgressBar::with_draw_target(Some(0), target));
        show(&bar, &half());
        bar.force_draw();
        let drawn = screen.0.lock().unwrap().clone();
        assert!(drawn.contains("█░"), "{drawn}");
        assert!(drawn.contains("5/10 images, 1 failed, 1.5 KiB sent, copying"), "{drawn}");
    }

    #[test]
    fn at_the_end_it_says_what_failed_and_why() {
        let said = summary(&half());
        let lines: Vec<_> = said.lines().collect();
        let first = "10 images: 3 copied, 1 skipped, 1 failed, 0 deleted; 1.5 KiB sent, 10 bytes were there";
        assert_eq!(lines, [first, "a:1: no", "look"]);
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
    }
}
