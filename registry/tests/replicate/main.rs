//! `berth-registry replicate` between real registries: the binary at both ends and in between, and a proxy before each
//! end that writes down what is asked and breaks what it is told to break.
#![expect(clippy::unwrap_used, reason = "a test that can't go on should say where")]

mod berth;
mod channel;
mod circles;
#[expect(dead_code, reason = "the other tests need more of it")]
#[path = "../it/client.rs"]
mod client;
mod convergence;
mod copying;
mod crash;
mod debian;
mod deletions;
mod distribution;
mod faults;
mod filters;
mod following;
#[expect(dead_code, reason = "the other tests need more of it")]
#[path = "../it/image.rs"]
mod image;
mod logins;
mod memory;
#[expect(dead_code, reason = "the other tests need more of it")]
#[path = "../it/pki.rs"]
mod pki;
mod proxy;
mod random;
mod refusals;
mod requests;
#[expect(dead_code, reason = "the other tests need more of it")]
#[path = "../it/server.rs"]
mod server;
mod trees;
mod world;
