//! A disk that forgets what was not synced, and the roots that it may have kept.

use std::{collections::BTreeMap, path::PathBuf};

use super::{super::racing::Dice, *};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Node(usize);

#[derive(Clone, Debug)]
enum Content {
    File {
        bytes: Vec<u8>,
        synced: Vec<u8>,
        /// Since the last sync, oldest first.
        writes: Vec<(usize, Vec<u8>)>,
    },
    /// What names it had since its last sync, oldest first.
    Folder(Vec<BTreeMap<String, Node>>),
}

/// A disk.
#[derive(Clone, Debug)]
pub(in super::super) struct Model {
    nodes: Vec<Content>,
}

const ROOT: Node = Node(0);

impl Model {
    /// Of what is there, all on the disk.
    pub(in super::super) fn of(root: &Path) -> Self {
        let mut model = Self { nodes: vec![Content::Folder(vec![BTreeMap::new()])] };
        model.take(root, ROOT);
        model
    }

    /// When all this was done below `root`.
    pub(in super::super) fn after(mut self, root: &Path, done: &[Done]) -> Self {
        for done in done {
            self.apply(root, done);
        }
        self
    }

    /// A root that the disk may have kept.
    pub(in super::super) fn kept(&self, seed: u64) -> TempDir {
        let kept = folder();
        self.make(ROOT, kept.path(), &mut Dice::new(seed));
        kept
    }

    fn take(&mut self, folder: &Path, node: Node) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let is_folder = entry.file_type().unwrap().is_dir();
            let content = if is_folder {
                Content::Folder(vec![BTreeMap::new()])
            } else {
                let bytes = fs::read(entry.path()).unwrap();
                Content::File { synced: bytes.clone(), bytes, writes: Vec::new() }
            };
            let child = self.add(content);
            self.names(node).insert(entry.file_name().into_string().unwrap(), child);
            if is_folder {
                self.take(&entry.path(), child);
            }
        }
    }

    fn add(&mut self, content: Content) -> Node {
        self.nodes.push(content);
        Node(self.nodes.len() - 1)
    }

    /// The names in a folder as they are now.
    fn names(&mut self, folder: Node) -> &mut BTreeMap<String, Node> {
        match &mut self.nodes[folder.0] {
            Content::Folder(versions) => versions.last_mut().unwrap(),
            Content::File { .. } => panic!("a file where a folder should be"),
        }
    }

    fn find(&mut self, path: &Path) -> Node {
        path.iter().fold(ROOT, |node, name| self.names(node)[name.to_str().unwrap()])
    }

    /// Changes the names in the folder of `path`.
    fn change(
        &mut self,
        path: &Path,
        change: impl FnOnce(&mut BTreeMap<String, Node>, String) -> Option<Node>,
    ) {
        let folder = self.find(path.parent().unwrap());
        let mut names = self.names(folder).clone();
        change(&mut names, path.file_name().unwrap().to_str().unwrap().to_owned());
        if let Content::Folder(versions) = &mut self.nodes[folder.0] {
            versions.push(names);
        }
    }

    fn apply(&mut self, root: &Path, done: &Done) {
        let below = |path: &PathBuf| path.strip_prefix(root).unwrap().to_owned();
        match done {
            Done::Created(path) => {
                let node = self.add(Content::new_file());
                self.change(&below(path), |names, name| names.insert(name, node));
            }
            Done::MadeFolder(path) => {
                let node = self.add(Content::Folder(vec![BTreeMap::new()]));
                self.change(&below(path), |names, name| names.insert(name, node));
            }
            Done::Wrote(path, written) => {
                let node = self.find(&below(path));
                let end = self.bytes(node).len();
                self.write(node, end, written);
            }
            Done::WroteAt(path, offset, written) => {
                let node = self.find(&below(path));
                self.write(node, usize::try_from(*offset).unwrap(), written);
            }
            Done::Truncated(path, length) => {
                let node = self.find(&below(path));
                self.bytes(node).truncate(usize::try_from(*length).unwrap());
            }
            Done::Synced(path) => {
                let Node(node) = self.find(&below(path));
                self.nodes[node].sync();
            }
            Done::SyncedAll => self.nodes.iter_mut().for_each(Content::sync),
            Done::Renamed(from, to) => {
                let node = self.find(&below(from));
                self.change(&below(from), |names, name| names.remove(&name));
                self.change(&below(to), |names, name| names.insert(name, node));
            }
            Done::Linked(from, to) => {
                let node = self.find(&below(from));
                self.change(&below(to), |names, name| names.insert(name, node));
            }
            Done::Removed(path) => {
                self.change(&below(path), |names, name| names.remove(&name));
            }
        }
    }

    fn bytes(&mut self, file: Node) -> &mut Vec<u8> {
        match &mut self.nodes[file.0] {
            Content::File { bytes, .. } => bytes,
            Content::Folder(_) => panic!("a folder where a file should be"),
        }
    }

    fn write(&mut self, file: Node, offset: usize, written: &[u8]) {
        put(self.bytes(file), offset, written);
        if let Content::File { writes, .. } = &mut self.nodes[file.0] {
            writes.push((offset, written.to_owned()));
        }
    }

    /// Makes what the disk may hold after a power failure.
    fn make(&self, node: Node, at: &Path, dice: &mut Dice) {
        match &self.nodes[node.0] {
            Content::File { bytes, synced, writes } => {
                let kept = match dice.roll(3) {
                    0 => synced.clone(),
                    1 => bytes.clone(),
                    _ => torn(synced.clone(), writes, dice),
                };
                fs::write(at, kept).unwrap();
            }
            Content::Folder(versions) => {
                fs::create_dir_all(at).unwrap();
                let last = versions.len() as u64 - 1;
                let version = match dice.roll(3) {
                    0 => 0,
                    1 => last,
                    _ => dice.roll(last + 1),
                };
                for (name, child) in &versions[usize::try_from(version).unwrap()] {
                    self.make(*child, &at.join(name), dice);
                }
            }
        }
    }
}

impl Content {
    fn new_file() -> Self {
        Self::File { bytes: Vec::new(), synced: Vec::new(), writes: Vec::new() }
    }

    fn sync(&mut self) {
        match self {
            Self::File { bytes, synced, writes } => {
                synced.clone_from(bytes);
                writes.clear();
            }
            Self::Folder(versions) => drop(versions.drain(..versions.len() - 1)),
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    bytes.resize(bytes.len().max(end), 0);
    bytes[offset..end].copy_from_slice(written);
}

/// With any parts of what was written.
fn torn(mut bytes: Vec<u8>, writes: &[(usize, Vec<u8>)], dice: &mut Dice) -> Vec<u8> {
    for (offset, written) in writes {
        let length = usize::try_from(dice.roll(written.len() as u64 + 1)).unwrap();
        match dice.roll(4) {
            0 => {}
            1 => put(&mut bytes, *offset, written),
            2 => put(&mut bytes, *offset, &written[..length]),
            _ => put(&mut bytes, *offset + length, &written[length..]),
        }
    }
    bytes
}

fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Of what was done from a moment on, the root that a disk may have kept at each later moment.
pub(in super::super) fn every_moment(
    mut model: Model,
    root: &Path,
    done: &[Done],
    guesses: u64,
    mut each: impl FnMut(usize, u64, &TempDir),
) {
    for moment in 0..=done.len() {
        for guess in 0..guesses {
            let seed = moment as u64 * guesses + guess;
            each(moment, seed, &model.kept(seed));
        }
        if let Some(done) = done.get(moment) {
            model.apply(root, done);
        }
    }
}
