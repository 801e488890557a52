//! Writes the definitions of every kind to `manifests/crds/`.

use std::{io, path::Path};

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
    std::fs::create_dir_all(&folder)?;
    for (name, yaml) in crds::definitions().map_err(io::Error::other)? {
        std::fs::write(folder.join(name), yaml)?;
    }
    Ok(())
}
