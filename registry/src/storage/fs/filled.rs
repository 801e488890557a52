//! Which repositories hold a manifest: looked for once, where somebody asks how many there are, then kept up with each
//! push and delete. Lives in memory only, at 16 bytes each: a restart looks anew.
//!
//! Whoever changes what a repository holds says what it holds then, and has the repository's lock until that is said.
//! Whoever looks for them has it as well, for one repository at a time: so the last word on each is true, and neither
//! waits for the other longer than for a look.

use std::{collections::HashSet, sync::Mutex};

use oci::RepoName;
use sha2::{Digest as _, Sha256};

use super::locks::lock;
use crate::storage::Error;

#[derive(Debug, Default)]
pub(super) struct Filled {
    /// None where nobody has begun to look.
    known: Mutex<Option<Known>>,
    /// One looks at a time.
    looking: Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    /// The first half of the hash of each one's name.
    names: HashSet<u128>,
    /// Whether all have been looked at.
    is_whole: bool,
}

impl Filled {
    /// What a repository holds from now on.
    pub(super) fn note(&self, repository: &RepoName, is_filled: bool) {
        if let Some(known) = &mut *lock(&self.known) {
            let name = short(repository);
            if is_filled {
                known.names.insert(name)
            } else {
                known.names.remove(&name)
            };
        }
    }

    /// Something is not known any more.
    pub(super) fn forget(&self) {
        *lock(&self.known) = None;
    }

    /// How many there are; `look` notes all that are there, where that has not been done yet.
    pub(super) fn count(&self, look: impl Fn() -> Result<(), Error>) -> Result<u64, Error> {
        let _alone = lock(&self.looking);
        loop {
            if let Some(known) = lock(&self.known).as_ref().filter(|known| known.is_whole) {
                return Ok(known.names.len() as u64);
            }
            *lock(&self.known) = Some(Known::default());
            look().inspect_err(|_| self.forget())?;
            // Unless it was forgotten meanwhile.
            if let Some(known) = &mut *lock(&self.known) {
                known.is_whole = true;
            }
        }
    }
}

fn short(repository: &RepoName) -> u128 {
    let hash: [u8; 32] = Sha256::digest(repository.as_str()).into();
    hash.iter().take(16).fold(0, |short, byte| short << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u8) -> RepoName {
        format!("r{n}").parse().unwrap()
    }

    #[test]
    fn the_last_word_on_each_counts() {
        let filled = Filled::default();
        filled.note(&name(0), true);
        let count = filled.count(|| {
            // Found, and gone a moment later; the other way round.
            filled.note(&name(1), true);
            filled.note(&name(1), false);
            filled.note(&name(2), false);
            filled.note(&name(2), true);
            filled.note(&name(2), true);
            Ok(())
        });
        assert_eq!(count.unwrap(), 1, "what was noted before somebody looked is looked for");
        filled.note(&name(3), true);
        assert_eq!(filled.count(|| unreachable!("it is kept up")).unwrap(), 2);
    }

    #[test]
    fn what_is_forgotten_or_fails_is_looked_for_again() {
        let filled = Filled::default();
        let looks = std::cell::Cell::new(0);
        let count = filled.count(|| {
            if looks.replace(looks.get() + 1) == 0 {
                filled.note(&name(9), true);
                filled.forget();
            }
            filled.note(&name(1), true);
            Ok(())
        });
        assert_eq!((count.unwrap(), looks.get()), (1, 2));
        filled.forget();
        filled.count(|| Err(Error::TooSlow)).unwrap_err();
        assert_eq!(filled.count(|| Ok(())).unwrap(), 0);
    }
}
