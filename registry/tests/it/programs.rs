//! Real clients, each pushing images and pulling them back.
//!
//! They are taken from the search path; `registry/tests/clients.sh` brings them. A test without its client, or without
//! another thing that a machine may lack, says on standard error that it was skipped, past the capture of tests that pass;
//! with `BERTH_TEST_CLIENTS=all`, as CI has it, it fails.

mod buildah;
mod containerd;
mod crane;
mod oras;
mod skopeo;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Says that this test goes no further, and why; fails where everything has to be tested.
pub(crate) fn skip(why: &str) {
    let all = std::env::var("BERTH_TEST_CLIENTS").is_ok_and(|wanted| wanted == "all");
    assert!(!all, "not tested, though BERTH_TEST_CLIENTS=all asks for it: {why}");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    // The macros would write to what nobody sees of a test that passes.
    let sentence = format!("\nskipped: {test}: {why}\n");
    std::io::stderr().write_all(sentence.as_bytes()).unwrap();
}

/// Whether this is the superuser.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program with the arguments that all its runs share.
struct Program {
    name: &'static str,
    common: Vec<String>,
    environment: Vec<(&'static str, PathBuf)>,
    folder: Option<PathBuf>,
}

impl Program {
    /// None, and that is said, where it is not installed.
    fn find(name: &'static str) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if std::env::split_paths(&path).any(|folder| folder.join(name).is_file()) {
            return Some(Self { name, common: Vec::new(), environment: Vec::new(), folder: None });
        }
        let how = "registry/tests/clients.sh installs it as root on Debian or Ubuntu";
        skip(&format!("{name} is missing: {how}"));
        None
    }

    /// The same as root, which some need for unpacking.
    fn find_for_root(name: &'static str) -> Option<Self> {
        let program = Self::find(name)?;
        if is_root() {
            return Some(program);
        }
        skip(&format!("{name} unpacks images here or serves them, as root only"));
        None
    }

    fn with(mut self, common: &[&str]) -> Self {
        self.common.extend(common.iter().map(ToString::to_string));
        self
    }

    fn env(mut self, name: &'static str, value: &Path) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    fn within(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.into());
        self
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.name);
        command.args(&self.common).args(arguments);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).output().unwrap()
    }

    /// What it prints; fails where it does.
    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Vec<u8> {
        let output = self.output(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {arguments:?}: {said}", self.name);
        output.stdout
    }

    /// The one line that it prints.
    #[track_caller]
    fn line(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.run(arguments)).unwrap().trim_end().to_owned()
    }

    /// What it says where it has to fail.
    #[track_caller]
    fn fail(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(!output.status.success(), "{} {arguments:?} worked", self.name);
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}
