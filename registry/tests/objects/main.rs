//! The registry over object storage: the tests of its API once more, against two instances in this process that share one
//! bucket in memory, as strict as S3. Their clients ask the instances in turn, request by request.
//!
//! What is about files, full disks, or the process itself is in `tests/it` only.
#![expect(clippy::unwrap_used, reason = "a test that can't go on should say where")]

#[path = "../it/access.rs"]
mod access;
#[path = "../it/blobs.rs"]
mod blobs;
#[path = "../it/client.rs"]
mod client;
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
