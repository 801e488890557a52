//! The registry over object storage: the tests of its API once more, against two instances in this process that share one
//! bucket in memory, as strict as S3. Their clients ask the instances in turn, request by request.
//!
//! In `tests/it` only:
//!
//! - `crash`, `full`, `layout`, `maintenance`, `sending`: files, disks and orders through a socket, which a bucket has not;
//! - `drain`, `standalone`: how the process starts and ends;
//! - `connections`, `half_open`: what ends before storage hears of it; memory would be that of all tests here;
//! - `feed`, `state`: a bucket keeps neither stamps nor a feed, which `stamps` holds;
//! - `usage`: what is told was counted within ten seconds, and two instances may exceed a quota, see ARCHITECTURE.md;
//! - `service_accounts`: each instance asks the cluster by itself, and those tests count how often it was asked;
//! - `programs`: real clients speak to one address, and so to one instance.
#![expect(clippy::unwrap_used, reason = "a test that can't go on should say where")]

#[path = "../it/access.rs"]
mod access;
#[path = "../it/blobs.rs"]
mod blobs;
#[path = "../it/client.rs"]
mod client;
#[path = "../it/disconnects.rs"]
mod disconnects;
#[path = "../it/guests.rs"]
mod guests;
#[path = "../it/image.rs"]
mod image;
#[path = "../it/immutable.rs"]
mod immutable;
#[path = "../it/limits.rs"]
mod limits;
#[path = "../it/lists.rs"]
mod lists;
#[path = "../it/managed.rs"]
mod managed;
#[path = "../it/manifests.rs"]
mod manifests;
#[path = "../it/pki.rs"]
mod pki;
#[path = "../it/policy_file.rs"]
mod policy_file;
#[path = "../it/protocol.rs"]
mod protocol;
#[path = "../it/purge.rs"]
mod purge;
#[path = "../it/quota.rs"]
mod quota;
mod server;
mod sessions;
#[path = "../it/sparse.rs"]
mod sparse;
mod stamps;
#[path = "../it/tokens.rs"]
mod tokens;
#[path = "../it/uploads.rs"]
mod uploads;
#[path = "../it/wire.rs"]
mod wire;
