//! The id by which other registries know this one: made once, with the root.

use super::{Store, durable::Durable, layout::Layout, read_if_there};
use crate::storage::{Error, stamp::Origin};

impl Store {
    /// The id that no other registry has.
    pub(crate) fn id(&self) -> &Origin {
        &self.id
    }
}

/// Makes the id where there is none yet.
pub(super) fn own_id(layout: &Layout, durable: &Durable) -> Result<Origin, Error> {
    let path = layout.id();
    if let Some(bytes) = read_if_there(&path)? {
        let id = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim_end().parse().ok());
        return id.ok_or(Error::Damaged {
            path,
            what: "it should hold the registry's id: remove it, and a new one is made",
        });
    }
    let id = Origin::random();
    durable.write(&path, format!("{id}\n").as_bytes())?;
    Ok(id)
}
