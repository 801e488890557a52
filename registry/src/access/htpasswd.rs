//! Password files as Apache's `htpasswd -B` writes them. Only bcrypt is taken: all else that such files may hold is
//! guessed too fast once the file leaks.

use std::str::FromStr as _;

use bcrypt::HashParts;

/// 2^16 rounds take a core some seconds; more would only stop the registry.
const MAX_COST: u32 = 16;

/// One line.
#[derive(PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) username: &'a str,
    pub(super) hash: &'a str,
    pub(super) cost: u32,
}

/// Why a file is refused. Hashes are not repeated.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidHtpasswd {
    #[error("line {0} of the password file is not `username:hash`")]
    Line(usize),
    #[error(
        "line {0} of the password file has a hash that is not bcrypt: write it with `htpasswd -B`, so that it starts \
         with `$2y$`"
    )]
    NotBcrypt(usize),
    #[error("line {0} of the password file has bcrypt cost {1}, at most {MAX_COST} is allowed")]
    Cost(usize, u32),
}

/// The lines of a file; empty ones and comments are skipped.
pub(super) fn parse(file: &str) -> impl Iterator<Item = Result<Entry<'_>, InvalidHtpasswd>> {
    let lines = file.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| entry(number, line))
}

fn entry(number: usize, line: &str) -> Result<Entry<'_>, InvalidHtpasswd> {
    let (username, hash) = line.split_once(':').ok_or(InvalidHtpasswd::Line(number))?;
    if username.is_empty() {
        return Err(InvalidHtpasswd::Line(number));
    }
    let parts = HashParts::from_str(hash).map_err(|_| InvalidHtpasswd::NotBcrypt(number))?;
    match parts.get_cost() {
        cost @ 4..=MAX_COST => Ok(Entry { username, hash, cost }),
        cost => Err(InvalidHtpasswd::Cost(number, cost)),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Of "secret", by `htpasswd -nbB -C 4`.
    const HASH: &str = "$2y$04$abcdefghijklmnopqrstuuK1gYqqx/1Vbc0yTBMkaJXX4dxkNAHKu";

    #[test]
    fn lines() {
        let file = format!("# people\n\nalice:{HASH}\r\n  bob:{HASH}");
        let entries: Vec<_> = parse(&file).map(|entry| entry.ok().unwrap()).collect();
        let names: Vec<_> = entries.iter().map(|entry| (entry.username, entry.cost)).collect();
        assert_eq!(names, [("alice", 4), ("bob", 4)]);
        assert_eq!(entries[0].hash, HASH);
        assert!(parse("").next().is_none());
    }

    #[rstest]
    #[case("alice", InvalidHtpasswd::Line(1))]
    #[case(":x", InvalidHtpasswd::Line(1))]
    #[case("\nalice:", InvalidHtpasswd::NotBcrypt(2))]
    #[case("alice:secret", InvalidHtpasswd::NotBcrypt(1))]
    #[case("alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", InvalidHtpasswd::NotBcrypt(1))]
    #[case("alice:$apr1$abcdefgh$abcdefghijklmnopqrstuv", InvalidHtpasswd::NotBcrypt(1))]
    #[case(
        "alice:$2y$31$abcdefghijklmnopqrstuuK1gYqqx/1Vbc0yTBMkaJXX4dxkNAHKu",
        InvalidHtpasswd::Cost(1, 31)
    )]
    fn refusals_name_the_line_and_never_the_hash(#[case] file: &str, #[case] expected: InvalidHtpasswd) {
        assert_eq!(parse(file).next().unwrap().err(), Some(expected));
    }
}
