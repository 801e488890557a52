//! Reading folders: a folder that is not there, or is none, is empty.

use std::{collections::BinaryHeap, fs, io, path::Path};

use crate::storage::{Error, IoContext as _};

/// Names in a folder, in no order. Names that are not UTF-8 are nobody's of ours.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    visit(folder, |name| names.push(name))?;
    Ok(names)
}

/// The first `n` names after `last` in bytewise order, and whether there are more. Memory is that of the page.
pub(super) fn page(folder: &Path, last: Option<&str>, n: usize) -> Result<(Vec<String>, bool), Error> {
    counted_page(folder, last, n).map(|(page, more, _)| (page, more))
}

/// The same, with the number of all names.
pub(super) fn counted_page(
    folder: &Path,
    last: Option<&str>,
    n: usize,
) -> Result<(Vec<String>, bool, usize), Error> {
    expanded_page(folder, last, n, |name, names| names.push(name))
}

/// The same of what `expand` makes of the names.
pub(super) fn expanded_page(
    folder: &Path,
    last: Option<&str>,
    n: usize,
    expand: impl Fn(String, &mut Vec<String>),
) -> Result<(Vec<String>, bool, usize), Error> {
    let mut count = 0;
    let mut smallest = BinaryHeap::new();
    let mut more = false;
    let mut expanded = Vec::new();
    visit(folder, |name| {
        expand(name, &mut expanded);
        count += expanded.len();
        for name in expanded.drain(..) {
            if last.is_some_and(|last| name.as_str() <= last) {
                continue;
            }
            smallest.push(name);
            if smallest.len() > n {
                smallest.pop();
                more = true;
            }
        }
    })?;
    Ok((smallest.into_sorted_vec(), more, count))
}

/// Whether there is anything in a folder.
pub(super) fn is_empty(folder: &Path) -> Result<bool, Error> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(true)
        }
        Err(error) => Err(error).at("list", folder),
    }
}

/// The names in a folder one by one, in no order: for folders that may be large.
pub(super) fn entries(folder: &Path) -> Result<impl Iterator<Item = io::Result<String>> + use<>, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => Some(entries),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
        Err(error) => return Err(error).at("list", folder),
    };
    Ok(entries.into_iter().flatten().filter_map(|entry| match entry {
        Ok(entry) => entry.file_name().into_string().ok().map(Ok),
        Err(error) => Some(Err(error)),
    }))
}

fn visit(folder: &Path, mut each: impl FnMut(String)) -> Result<(), Error> {
    for name in entries(folder)? {
        each(name.at("list", folder)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn pages_together_are_the_folder(names: std::collections::BTreeSet<u8>, n in 1..5_usize) {
            let folder = tempfile::tempdir().unwrap();
            let names: Vec<_> = names.iter().map(|name| format!("{name:03}")).collect();
            for name in &names {
                fs::write(folder.path().join(name), "").unwrap();
            }
            let mut listed: Vec<String> = Vec::new();
            loop {
                let (page, more) = page(folder.path(), listed.last().map(String::as_str), n).unwrap();
                prop_assert!(page.len() == n || !more);
                listed.extend(page);
                if !more {
                    break;
                }
            }
            prop_assert_eq!(listed, names);
        }
    }
}
