//! Power failures: a disk that forgets what was not synced. Everything that clients do is written down, and for each
//! moment roots are made from what a disk may have kept: the names in each folder as they were at its last sync or any
//! time since, in no order between folders; of each file its content at its last sync, or all, or a part.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    super::disk::faults::Done,
    failing::{Acknowledged, assert_kept, filled, push_and_delete},
    racing::Dice,
    *,
};

/// Roots made for each moment.
const GUESSES: u64 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Node(usize);

#[derive(Clone, Debug)]
enum Content {
    File {
        bytes: Vec<u8>,
        synced: Vec<u8>,
    },
    /// What names it had since its last sync, oldest first.
    Folder(Vec<BTreeMap<String, Node>>),
}

/// A disk.
#[derive(Clone, Debug)]
struct Model {
    nodes: Vec<Content>,
}

const ROOT: Node = Node(0);

impl Model {
    /// Of what is there, all on the disk.
    fn of(root: &Path) -> Self {
        let mut model = Self { nodes: vec![Content::Folder(vec![BTreeMap::new()])] };
        model.take(root, ROOT);
        model
    }

    fn take(&mut self, folder: &Path, node: Node) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let is_folder = entry.file_type().unwrap().is_dir();
            let content = if is_folder {
                Content::Folder(vec![BTreeMap::new()])
            } else {
                let bytes = fs::read(entry.path()).unwrap();
                Content::File { synced: bytes.clone(), bytes }
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
                let node = self.add(Content::File { bytes: Vec::new(), synced: Vec::new() });
                self.change(&below(path), |names, name| names.insert(name, node));
            }
            Done::MadeFolder(path) => {
                let node = self.add(Content::Folder(vec![BTreeMap::new()]));
                self.change(&below(path), |names, name| names.insert(name, node));
            }
            Done::Wrote(path, written) => {
                let Node(file) = self.find(&below(path));
                let Content::File { bytes, .. } = &mut self.nodes[file] else {
                    panic!("{path:?} is a folder")
                };
                bytes.extend(written);
            }
            Done::Truncated(path, length) => {
                let Node(file) = self.find(&below(path));
                let Content::File { bytes, .. } = &mut self.nodes[file] else {
                    panic!("{path:?} is a folder")
                };
                bytes.truncate(usize::try_from(*length).unwrap());
            }
            Done::Synced(path) => {
                let Node(node) = self.find(&below(path));
                match &mut self.nodes[node] {
                    Content::File { bytes, synced } => synced.clone_from(bytes),
                    Content::Folder(versions) => drop(versions.drain(..versions.len() - 1)),
                }
            }
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

    /// Makes what the disk may hold after a power failure.
    fn make(&self, node: Node, at: &Path, dice: &mut Dice) {
        match &self.nodes[node.0] {
            Content::File { bytes, synced } => {
                let kept = match dice.roll(3) {
                    0 => synced,
                    1 => bytes,
                    _ if bytes.len() > synced.len() => &bytes[..=synced.len()],
                    _ => synced,
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

#[test]
fn whenever_the_power_fails_what_was_acknowledged_stays_and_nothing_is_torn() {
    let (root, store) = filled();
    let mut model = Model::of(root.path());
    let faults = std::sync::Arc::clone(&store.durable.disk.faults);
    faults.record();
    let mut moments = Vec::new();
    push_and_delete(&store, &mut Acknowledged::default(), &mut |now| {
        moments.push((faults.done().len(), now.clone()));
    })
    .unwrap();
    let mut acknowledged = Acknowledged::default();
    let mut moments = moments.into_iter().peekable();
    let done = faults.done();
    assert!(done.len() > 100, "clients did more than {}", done.len());
    for moment in 0..=done.len() {
        while let Some((_, now)) = moments.next_if(|(when, _)| *when <= moment) {
            acknowledged = now;
        }
        for guess in 0..GUESSES {
            let kept = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
            model.make(ROOT, kept.path(), &mut Dice::new(moment as u64 * GUESSES + guess));
            let store = Store::open(kept.path()).unwrap();
            assert_kept(&store, &acknowledged);
        }
        if let Some(done) = done.get(moment) {
            model.apply(root.path(), done);
        }
    }
}
