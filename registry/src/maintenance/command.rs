//! `berth-registry gc` and `berth-registry check`: the work is done by the server that has the root, or here where none
//! has. What goes wrong is a sentence on standard error.

use std::{
    io::{self, BufRead as _, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;

use super::{Event, Order, Schedule, Summary, control, perform};
use crate::storage::{Limits, OpenError, Problem, Severity, Storage};

/// What `check` ends with where damage is left.
const DAMAGED: u8 = 3;
const DAY: u64 = 24 * 3600;

/// What a server does by itself.
#[expect(clippy::struct_field_names, reason = "options say their unit")]
#[derive(Debug, Args)]
pub struct ScheduleArgs {
    /// How often what nothing references is collected, in seconds; 0 for only when `berth-registry gc` asks.
    #[arg(long, env = "BERTH_GC_INTERVAL_SECONDS", value_name = "N", default_value_t = 3600)]
    gc_interval_seconds: u64,

    /// How long something must have lain untouched before it is collected, in seconds: blobs that no manifest of
    /// their repository needs, content that no repository has, uploads to which nothing is sent. Longer than any
    /// client takes from its first blob to its manifest.
    #[arg(long, env = "BERTH_GC_GRACE_SECONDS", value_name = "N", default_value_t = DAY)]
    gc_grace_seconds: u64,

    /// How often all content is read and compared with its digests, in seconds; 0 for only when `berth-registry check`
    /// asks. It takes a tenth of a core at most while it runs.
    #[arg(long, env = "BERTH_SCRUB_INTERVAL_SECONDS", value_name = "N", default_value_t = 30 * DAY)]
    scrub_interval_seconds: u64,
}

impl From<ScheduleArgs> for Schedule {
    fn from(args: ScheduleArgs) -> Self {
        let ScheduleArgs { gc_interval_seconds, gc_grace_seconds, scrub_interval_seconds } = args;
        let every = |seconds: u64| (seconds > 0).then(|| Duration::from_secs(seconds));
        Self {
            collect_every: every(gc_interval_seconds),
            grace: Duration::from_secs(gc_grace_seconds),
            scrub_every: every(scrub_interval_seconds),
        }
    }
}

/// `berth-registry gc`.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// The registry's folder. A server may be running on it: then it does the work, beside its requests.
    #[arg(long, env = "BERTH_ROOT", value_name = "DIR")]
    root: PathBuf,

    /// Only say what would go.
    #[arg(long)]
    dry_run: bool,

    /// How long something must have lain untouched, in seconds. A day by default, or what the server was told.
    #[arg(long, value_name = "N")]
    grace_seconds: Option<u64>,

    /// One JSON object a line: `collected` for each thing, and at the end `done` or `failed`.
    #[arg(long)]
    json: bool,
}

/// `berth-registry check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The registry's folder. A server may be running on it: then it does the work, beside its requests.
    #[arg(long, env = "BERTH_ROOT", value_name = "DIR")]
    root: PathBuf,

    /// Rebuild what can be rebuilt, and move to quarantine what can't be used.
    #[arg(long)]
    repair: bool,

    /// One JSON object a line: `problem` for each, and at the end `done` or `failed`.
    #[arg(long)]
    json: bool,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{} is no root of a registry: there is no berth.json in it", .0.display())]
    NoRoot(PathBuf),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the process that has {} in use can't be reached: {source}", root.display())]
    Unreachable { root: PathBuf, source: io::Error },
    #[error("the server ended before the work was done")]
    Cut,
    #[error("{0}")]
    Failed(String),
    #[error("failed to write to standard output: {0}")]
    Output(io::Error),
}

/// Takes away what nothing references.
#[must_use]
pub fn gc(args: GcArgs) -> ExitCode {
    let GcArgs { root, dry_run, grace_seconds, json } = args;
    let order = Order::Collect { dry_run, grace_seconds };
    let verb = if dry_run { "would remove" } else { "removed" };
    let done = carry_out(&root, &order, json, verb);
    match done {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Verifies everything.
#[must_use]
pub fn check(args: CheckArgs) -> ExitCode {
    let CheckArgs { root, repair, json } = args;
    match carry_out(&root, &Order::Check { repair }, json, "") {
        Ok(Summary { damage: 0, .. }) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(DAMAGED),
        Err(error) => failed(&error),
    }
}

fn failed(error: &Error) -> ExitCode {
    // Where this fails too there is nobody to tell.
    let _ = writeln!(io::stderr(), "error: {error}");
    ExitCode::FAILURE
}

/// Has an order carried out and prints what comes of it.
fn carry_out(root: &Path, order: &Order, json: bool, verb: &str) -> Result<Summary, Error> {
    if !root.join("berth.json").exists() {
        return Err(Error::NoRoot(root.to_owned()));
    }
    let mut out = io::stdout().lock();
    let mut print = |event: &Event| {
        let written = if json { print_json(&mut out, event) } else { print_text(&mut out, event, verb) };
        written.map_err(Error::Output)
    };
    let storage = match Storage::open(root, Limits::default()) {
        Ok(storage) => storage,
        Err(OpenError::Locked { .. }) => return through_server(root, order, print),
        Err(error) => return Err(error.into()),
    };
    let mut printed = Ok(());
    let mut tell = |event: Event| {
        if printed.is_ok() {
            printed = print(&event);
        }
    };
    let done = perform(&storage, order, Duration::from_secs(DAY), &mut tell, &mut || true);
    printed?;
    let event = done.map_or_else(|error| Event::Failed(error.to_string()), Event::Done);
    print(&event)?;
    match event {
        Event::Done(summary) => Ok(summary),
        Event::Failed(error) => Err(Error::Failed(error)),
        Event::Collected(_) | Event::Problem(_) => Err(Error::Cut),
    }
}

fn through_server(
    root: &Path,
    order: &Order,
    mut print: impl FnMut(&Event) -> Result<(), Error>,
) -> Result<Summary, Error> {
    let unreachable = |source| Error::Unreachable { root: root.to_owned(), source };
    let path = root.join("control.sock");
    let mut stream = control::at(&path, |short| UnixStream::connect(short)).map_err(unreachable)?;
    let line = serde_json::to_string(order).map_err(|error| unreachable(error.into()))?;
    stream.write_all(format!("{line}\n").as_bytes()).map_err(unreachable)?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(unreachable)?;
        let event = serde_json::from_str(&line).map_err(|error| unreachable(error.into()))?;
        print(&event)?;
        match event {
            Event::Done(summary) => return Ok(summary),
            Event::Failed(error) => return Err(Error::Failed(error)),
            Event::Collected(_) | Event::Problem(_) => {}
        }
    }
    Err(Error::Cut)
}

fn print_json(out: &mut impl Write, event: &Event) -> io::Result<()> {
    serde_json::to_writer(&mut *out, event)?;
    writeln!(out)
}

fn print_text(out: &mut impl Write, event: &Event, verb: &str) -> io::Result<()> {
    match event {
        Event::Collected(collected) => {
            let super::Collected { kind, path, bytes } = collected;
            writeln!(out, "{verb} {kind} {path}, {bytes} bytes")
        }
        Event::Problem(Problem { severity, path, what, done }) => {
            let word = if *severity == Severity::Damage { "damage" } else { "leftover" };
            let done = done.as_deref().map(|done| format!(" ({done})")).unwrap_or_default();
            writeln!(out, "{word}: {path}: {what}{done}")
        }
        Event::Done(Summary { collected, bytes, .. }) if !verb.is_empty() => {
            writeln!(out, "{verb} {collected} in all, {bytes} bytes")
        }
        Event::Done(Summary { problems, damage, .. }) => {
            writeln!(out, "{problems} problems, of which {damage} are damage that is left")
        }
        // Told on standard error.
        Event::Failed(_) => Ok(()),
    }
}
