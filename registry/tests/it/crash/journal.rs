//! What the journal's files say of the server that had them.

use std::path::Path;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::server::Server;

const HEADER: usize = 8 + 16 + 32;

fn file(root: &Path, name: &str) -> Vec<u8> {
    std::fs::read(root.join("journal").join(name)).unwrap()
}

/// Grows by one with each file that is begun anew: by two with a start, by one with a checkpoint.
pub(super) fn number(root: &Path) -> u64 {
    let number = |name| u64::from_le_bytes(*file(root, name).first_chunk().unwrap());
    number("0").max(number("1"))
}

/// Whether both files hold a record.
pub(super) fn is_in_both_files(root: &Path) -> bool {
    ["0", "1"].iter().all(|name| holds_a_record(&file(root, name)))
}

fn holds_a_record(file: &[u8]) -> bool {
    let (nonce, Some((length, rest))) = (&file[8..24], file[HEADER..].split_first_chunk()) else {
        return false;
    };
    let (bound, rest) = rest.split_at(32);
    let Some(record) = rest.get(..u32::from_le_bytes(*length) as usize) else { return false };
    let bytes = [nonce, length, &Sha256::digest(record)].concat();
    Sha256::digest(bytes)[..] == *bound
}

/// Changes that this server did again when it started.
pub(super) fn done_again(server: &Server) -> u64 {
    let log = server.log();
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut changes = events.filter(|event| event["message"] == "what the journal held was done again");
    changes.next().map_or(0, |event| event["changes"].as_u64().unwrap())
}
