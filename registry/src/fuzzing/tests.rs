//! The checks on random bytes, and on seeds with something changed.

use std::path::{Path, PathBuf};

use proptest::{collection::vec, prelude::*, sample::Index, test_runner::TestRunner};

use super::TARGETS;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// Text for a target to start from. What was once found to break it is kept there too.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = folder().join("seeds").join(name);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Another piece instead of one that is there.
#[derive(Clone, Debug)]
struct Edit {
    from: Index,
    length: usize,
    instead: Vec<u8>,
}

impl Edit {
    fn any() -> impl Strategy<Value = Self> {
        let piece =
            prop_oneof![vec(any::<u8>(), 0..4), vec(b' '..=b'~', 0..4), r"\PC{0,3}".prop_map(Vec::from)];
        (any::<Index>(), 0..6_usize, piece).prop_map(|(from, length, instead)| Self { from, length, instead })
    }

    fn apply(&self, text: &mut Vec<u8>) {
        let from = self.from.index(text.len() + 1);
        let to = text.len().min(from + self.length);
        text.splice(from..to, self.instead.iter().copied());
    }
}

fn inputs(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let edits = (proptest::sample::select(seeds), vec(Edit::any(), 0..4));
    let edited = edits.prop_map(|(mut text, edits)| {
        for edit in edits {
            edit.apply(&mut text);
        }
        text
    });
    prop_oneof![1 => vec(any::<u8>(), 0..200), 4 => edited]
}

#[test]
fn whatever_comes_in_the_checks_hold() {
    for &(name, check) in TARGETS {
        let seeds = seeds(name);
        for seed in &seeds {
            check(seed);
        }
        let mut runner = TestRunner::default();
        let ran = runner.run(&inputs(seeds), |input| {
            check(&input);
            Ok(())
        });
        ran.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// `make fuzz` runs what is here, and nothing else.
#[test]
fn every_check_is_a_fuzz_target() {
    let cargo = std::fs::read_to_string(folder().join("Cargo.toml")).unwrap();
    for &(name, _) in TARGETS {
        assert!(cargo.contains(&format!("name = \"{name}\"\npath = \"targets/{name}.rs\"\n")), "{name}");
        let target = std::fs::read_to_string(folder().join(format!("targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("registry::fuzzing::{name}(bytes)")), "{name}");
    }
    assert_eq!(cargo.matches("[[bin]]").count(), TARGETS.len());
}
