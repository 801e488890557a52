//! Programs of this machine, run to their end; what they said is in the error when they fail.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::{io::AsyncWriteExt as _, process::Command};

/// Runs the program and returns what it wrote to standard output. It dies with the future.
pub async fn run(program: &str, arguments: &[&str]) -> Result<Vec<u8>> {
    run_with_input(program, arguments, b"").await
}

/// Like [`run`], with `input` on standard input.
pub async fn run_with_input(program: &str, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("failed to start {program}: is it installed?"))?;
    let mut stdin = child.stdin.take().context("the program has no standard input")?;
    // A program that does not read its input closes it early: then its exit code tells more than the broken pipe.
    let (_, output) = tokio::join!(
        async move {
            let written = stdin.write_all(input).await;
            drop(stdin);
            written
        },
        child.wait_with_output()
    );
    let output = output.with_context(|| format!("failed to run {program}"))?;
    ensure!(
        output.status.success(),
        "`{program} {}` failed ({}): {}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}
