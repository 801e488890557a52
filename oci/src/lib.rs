//! The words of the OCI specifications as types: what was parsed is valid. [`client`] speaks to registries, [`copy`]
//! copies between them; nothing else here does I/O.
//!
//! A handler that holds a [`RepoName`], a [`Tag`], a [`Digest`] or a [`Route`] holds something that the grammar
//! allows and that is safe as a file name: no `..`, no slash where none belongs, no control characters, bounded
//! length.

pub mod client;
pub mod content_range;
pub mod copy;
pub mod digest;
pub mod error;
pub mod manifest;
pub mod name;
pub mod route;

pub use content_range::ContentRange;
pub use digest::{Algorithm, Digest, Hasher};
pub use error::{Denial, ErrorCode, ErrorList};
pub use manifest::{Descriptor, Manifest};
pub use name::{Reference, RepoName, Tag};
pub use route::Route;
