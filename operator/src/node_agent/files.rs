//! The certs folder of a node: brings our files in line with what is wanted, and touches nothing else.
//!
//! - A file is ours when its first line is [`MARKER`], or when its name ends in [`TEMPORARY`]. Everything else belongs
//!   to somebody and stays, even in our way: that is a conflict, reported with what to do.
//! - containerd reads at any moment and we can be killed at any moment. A host's folder appears whole and, where only
//!   our files are in it, goes whole; files change by rename, the CA before the `hosts.toml` that needs it. What is cut
//!   short is cleaned by the next run.
//! - Where everything is as wanted nothing is written.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use channel::node_access::Host;

use super::{
    credentials::Credential,
    hosts_toml::{Entry, FALLBACK, MARKER},
};

const HOSTS: &str = "hosts.toml";
/// End of the names of files and folders that are still being written, or already being removed.
const TEMPORARY: &str = ".berth-tmp";

/// Why a host could not be set up; for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Something that is not ours is in the way.
    Conflict(String),
    /// The file system refused.
    Failed(String),
}

/// containerd's folder with one folder a host.
#[derive(Debug)]
pub(super) struct CertsFolder {
    mount: PathBuf,
    shown: PathBuf,
    /// By audience.
    credentials: HashMap<String, Credential>,
}

impl CertsFolder {
    /// The folder at `mount`, which people know as `shown`.
    pub(super) fn new(mount: PathBuf, shown: PathBuf) -> Self {
        Self { mount, shown, credentials: HashMap::new() }
    }

    /// From now on hosts are pulled from with these, by audience.
    pub(super) fn pull_with(&mut self, credentials: HashMap<String, Credential>) {
        self.credentials = credentials;
    }

    /// Writes what is wanted and removes what of ours is not; the outcomes are in the order of `wanted`.
    pub(super) fn sync(&self, wanted: &[Host]) -> Vec<Result<Entry, Trouble>> {
        let names: Vec<_> = wanted.iter().map(|host| host.host.as_str()).collect();
        if let Err(error) = self.remove_all_but(&names) {
            tracing::error!(%error, folder = %self.shown.display(), "failed to remove files that are no longer wanted");
        }
        let set_up = |host: &Host| {
            let entry = Entry::parse(host).map_err(Trouble::Failed)?.with(&self.credentials);
            self.set_up(&entry).map(|()| entry)
        };
        wanted.iter().map(set_up).collect()
    }

    /// Removes every file of ours.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.remove_all_but(&[])
    }

    /// Removes what a run that was cut short left behind, and nothing that is in use.
    pub(super) fn tidy(&self) -> io::Result<()> {
        each(&folders(&self.mount)?, |folder| {
            if is_temporary(folder) {
                remove(folder)
            } else {
                remove_files(folder, &our_files(folder, is_temporary)?)
            }
        })
    }

    fn remove_all_but(&self, wanted: &[&str]) -> io::Result<()> {
        let tidied = self.tidy();
        let mut unwanted = folders(&self.mount)?;
        unwanted.retain(|folder| !wanted.iter().any(|name| folder.ends_with(name)));
        each(&unwanted, remove).and(tidied)
    }

    fn set_up(&self, entry: &Entry) -> Result<(), Trouble> {
        match self.in_the_way(entry) {
            Ok(None) => {}
            Ok(Some(path)) => return Err(Trouble::Conflict(conflict(&self.shown.join(path)))),
            Err(error) => return Err(self.failed(entry, &error)),
        }
        self.write(entry).map_err(|error| self.failed(entry, &error))
    }

    fn failed(&self, entry: &Entry, error: &io::Error) -> Trouble {
        Trouble::Failed(format!("failed to write {}: {error}", self.shown.join(entry.name()).display()))
    }

    /// What keeps us from setting up the host, relative to the certs folder.
    fn in_the_way(&self, entry: &Entry) -> io::Result<Option<PathBuf>> {
        let folder = PathBuf::from(entry.name());
        // containerd looks for `<host>_<port>_` first and then never at `<host>:<port>`.
        let preferred = PathBuf::from(format!("{}_", entry.name().replace(':', "_")));
        let exists = |path: &Path| self.mount.join(path).symlink_metadata().is_ok();
        if exists(&preferred) {
            return Ok(Some(preferred));
        }
        if exists(&folder) && !self.mount.join(&folder).symlink_metadata()?.is_dir() {
            return Ok(Some(folder));
        }
        let names = std::iter::once(HOSTS.to_owned()).chain(entry.ca_files().map(|(name, _)| name));
        for file in names.map(|name| folder.join(name)) {
            if exists(&file) && !is_ours(&self.mount.join(&file))? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    fn write(&self, entry: &Entry) -> io::Result<()> {
        let folder = self.mount.join(entry.name());
        if folder.is_dir() {
            return write_files(&folder, entry);
        }
        let unfinished = temporary(&folder);
        fs::create_dir(&unfinished)?;
        write_files(&unfinished, entry)?;
        fs::rename(&unfinished, &folder)?;
        persist(&self.mount)
    }
}

fn conflict(path: &Path) -> String {
    let path = path.display();
    format!(
        "{path} was not written by Berth and stays as it is, so this node pulls as it says: remove it and Berth sets up \
         the node, or turn off nodeAccess for the registry"
    )
}

fn write_files(folder: &Path, entry: &Entry) -> io::Result<()> {
    let cas: Vec<_> = entry.ca_files().collect();
    cas.iter().try_for_each(|(name, content)| replace(&folder.join(name), content))?;
    replace(&folder.join(HOSTS), &entry.hosts_file())?;
    let unused = |path: &Path| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        name.starts_with(FALLBACK) && cas.iter().all(|(used, _)| used != name)
    };
    remove_files(folder, &our_files(folder, unused)?)
}

/// Makes the file hold this content, at once and for good.
fn replace(path: &Path, content: &str) -> io::Result<()> {
    match fs::read(path) {
        Ok(there) if there == content.as_bytes() => return Ok(()),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let unfinished = temporary(path);
    // Nobody else on the node may read the credential.
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    path.parent().map_or(Ok(()), persist)
}

/// Removes our files from the folder, and the folder where nothing else is in it.
fn remove(folder: &Path) -> io::Result<()> {
    let ours = our_files(folder, |_| true)?;
    if ours.is_empty() && !is_temporary(folder) {
        return Ok(());
    }
    if ours.len() < fs::read_dir(folder)?.count() {
        return remove_files(folder, &ours);
    }
    let going = if is_temporary(folder) { folder.to_owned() } else { temporary(folder) };
    fs::rename(folder, &going)?;
    remove_files(&going, &ours)?;
    if let Err(error) = fs::remove_dir(&going) {
        // Somebody has just put a file there: it stays where its owner meant it to be.
        tracing::warn!(%error, folder = %folder.display(), "kept a folder that somebody else began to use");
        fs::rename(&going, folder)?;
    }
    folder.parent().map_or(Ok(()), persist)
}

fn remove_files(folder: &Path, names: &[PathBuf]) -> io::Result<()> {
    names.iter().try_for_each(|name| fs::remove_file(folder.join(name)))?;
    if names.is_empty() { Ok(()) } else { persist(folder) }
}

/// Does it for every folder, also after one has failed; the first error is the result.
fn each(folders: &[PathBuf], mut act: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    folders.iter().map(|folder| act(folder)).fold(Ok(()), io::Result::and)
}

/// Whether the error says that the thing is somebody else's, or gone: root without capabilities opens only its own.
fn is_none_of_ours(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound)
}

/// Names of the files in the folder that are ours and chosen, `hosts.toml` before the CA that it needs.
fn our_files(folder: &Path, chosen: impl Fn(&Path) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut ours = Vec::new();
    let files = match fs::read_dir(folder) {
        Err(error) if is_none_of_ours(&error) => return Ok(ours),
        files => files?,
    };
    for file in files {
        let file = file?;
        if chosen(&file.path()) && is_ours(&file.path())? {
            ours.push(PathBuf::from(file.file_name()));
        }
    }
    ours.sort_by_key(|name| name.as_os_str() != HOSTS);
    Ok(ours)
}

fn is_ours(path: &Path) -> io::Result<bool> {
    match starts_as_ours(path) {
        Err(error) if is_none_of_ours(&error) => Ok(false),
        answer => answer,
    }
}

fn starts_as_ours(path: &Path) -> io::Result<bool> {
    if !path.symlink_metadata()?.is_file() {
        return Ok(false);
    }
    if is_temporary(path) {
        return Ok(true);
    }
    let mut start = Vec::new();
    File::open(path)?.take(MARKER.len() as u64 + 1).read_to_end(&mut start)?;
    Ok(start == format!("{MARKER}\n").as_bytes())
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(TEMPORARY.as_bytes()))
}

/// Where a file or folder is while it is not whole.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    path.with_file_name(format!(".{name}{TEMPORARY}"))
}

/// The folders in a folder; links to folders are none.
fn folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}

/// Names that were made or removed in the folder survive a power loss from here on.
fn persist(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::fs::MetadataExt as _};

    use rstest::rstest;
    use tempfile::TempDir;

    use super::{
        super::hosts_toml::tests::{fallback, host},
        *,
    };

    const DEMO: &str = "demo.apps.svc:5000";

    /// Two registries that are wanted.
    fn demo_and_other() -> [Host; 2] {
        [host(DEMO, "https://10.96.0.20:5000"), host("other.apps.svc:443", "https://10.96.0.21:443")]
    }

    fn demo() -> [Host; 1] {
        [host(DEMO, "https://10.96.0.20:5000")]
    }

    /// The files of a host, as they should be.
    fn files(host: &Host) -> (String, String) {
        let entry = Entry::parse(host).unwrap();
        (entry.hosts_file(), entry.ca_files().next().unwrap().1)
    }

    fn all_done(outcomes: &[Result<Entry, Trouble>]) -> bool {
        outcomes.iter().all(Result::is_ok)
    }

    fn certs() -> (TempDir, CertsFolder) {
        let folder = TempDir::new().unwrap();
        let certs = CertsFolder::new(folder.path().to_owned(), "/etc/containerd/certs.d".into());
        (folder, certs)
    }

    /// Every path below the folder, with the content of files.
    fn tree(folder: &TempDir) -> BTreeMap<String, Option<String>> {
        fn walk(at: &Path, root: &Path, tree: &mut BTreeMap<String, Option<String>>) {
            for entry in fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                let content = path.is_file().then(|| fs::read_to_string(&path).unwrap());
                tree.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), content);
                if path.is_dir() {
                    walk(&path, root, tree);
                }
            }
        }
        let mut tree_ = BTreeMap::new();
        walk(folder.path(), folder.path(), &mut tree_);
        tree_
    }

    fn names(folder: &TempDir) -> Vec<String> {
        tree(folder).into_keys().collect()
    }

    fn put(folder: &TempDir, path: &str, content: &str) {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[test]
    fn what_is_wanted_is_written_and_what_is_not_goes() {
        let (folder, certs) = certs();
        let [demo, other] = demo_and_other();
        assert!(all_done(&certs.sync(&[demo.clone(), other.clone()])));
        assert_eq!(tree(&folder)["demo.apps.svc:5000/hosts.toml"], Some(files(&demo).0));
        assert_eq!(tree(&folder)["demo.apps.svc:5000/ca.crt"], Some(files(&demo).1));

        assert!(all_done(&certs.sync(&[other])));
        assert_eq!(
            names(&folder),
            ["other.apps.svc:443", "other.apps.svc:443/ca.crt", "other.apps.svc:443/hosts.toml"]
        );
        certs.clear().unwrap();
        assert!(names(&folder).is_empty());
    }

    #[test]
    fn a_change_replaces_the_files() {
        let (folder, certs) = certs();
        certs.sync(&demo());
        let moved = host(DEMO, "https://10.96.0.21:5000");
        assert!(all_done(&certs.sync(std::slice::from_ref(&moved))));
        assert_eq!(tree(&folder)["demo.apps.svc:5000/hosts.toml"], Some(files(&moved).0));
        assert_eq!(tree(&folder)["demo.apps.svc:5000/ca.crt"], Some(files(&moved).1));
        assert_eq!(names(&folder).len(), 3);
    }

    #[test]
    fn fallbacks_have_cas_of_their_own_which_come_and_go_with_them() {
        let (folder, certs) = certs();
        let mut wanted = demo();
        wanted[0].fallbacks = ["https://10.96.0.30:5000", "https://10.96.0.40:5000"].map(fallback).into();
        assert!(all_done(&certs.sync(&wanted)));
        let ca = |number: usize| tree(&folder).remove(&format!("{DEMO}/fallback-{number}.crt")).flatten();
        assert_eq!(
            ca(2).unwrap(),
            format!("{MARKER}\n{}\n", wanted[0].fallbacks[1].ca.as_ref().unwrap().trim_end())
        );
        // Somebody else's are not touched.
        put(&folder, "demo.apps.svc:5000/fallback-3.crt", "mine");
        wanted[0].fallbacks.pop();
        assert!(all_done(&certs.sync(&wanted)));
        assert!(ca(1).is_some() && ca(2).is_none());
        wanted[0].fallbacks.clear();
        assert!(all_done(&certs.sync(&wanted)));
        assert_eq!(tree(&folder)["demo.apps.svc:5000/hosts.toml"], Some(files(&wanted[0]).0));
        assert!(ca(1).is_none());
        certs.clear().unwrap();
        assert_eq!(names(&folder), [DEMO, "demo.apps.svc:5000/fallback-3.crt"]);
    }

    #[test]
    fn a_host_that_cannot_be_used_is_reported_and_keeps_what_it_had() {
        let (folder, certs) = certs();
        let [mut demo, other] = demo_and_other();
        certs.sync(std::slice::from_ref(&demo));
        let before = tree(&folder);
        demo.ca = "none".into();
        let outcomes = certs.sync(&[demo, other]);
        assert!(matches!(outcomes[0], Err(Trouble::Failed(_))), "{outcomes:?}");
        assert!(outcomes[1].is_ok());
        assert!(before.iter().all(|(path, content)| tree(&folder)[path] == *content));
    }

    #[test]
    fn nothing_is_written_where_nothing_changed() {
        let (folder, certs) = certs();
        let demo = demo();
        certs.sync(&demo);
        let state = || {
            ["", DEMO, "demo.apps.svc:5000/hosts.toml", "demo.apps.svc:5000/ca.crt"].map(|path| {
                let data = folder.path().join(path).metadata().unwrap();
                (data.ino(), data.ctime(), data.ctime_nsec())
            })
        };
        let before = state();
        assert!(all_done(&certs.sync(&demo)));
        assert_eq!(state(), before);
    }

    #[rstest]
    #[case("demo.apps.svc:5000/hosts.toml")]
    #[case("demo.apps.svc:5000/ca.crt")]
    #[case("demo.apps.svc_5000_/hosts.toml")]
    #[case("demo.apps.svc:5000")]
    fn what_somebody_else_wrote_stays_and_is_reported(#[case] path: &str) {
        let (folder, certs) = certs();
        put(&folder, path, "server = \"https://example.com\"\n");
        let before = tree(&folder);
        let outcomes = certs.sync(&demo_and_other());
        let Err(Trouble::Conflict(message)) = &outcomes[0] else { panic!("{outcomes:?}") };
        assert!(message.starts_with("/etc/containerd/certs.d/demo.apps.svc"), "{message}");
        assert!(outcomes[1].is_ok());
        certs.clear().unwrap();
        assert_eq!(tree(&folder), before);
    }

    #[test]
    fn a_file_without_its_marker_is_no_longer_ours() {
        let (folder, certs) = certs();
        let demo = demo();
        certs.sync(&demo);
        let kept = files(&demo[0]).0.replace(&format!("{MARKER}\n"), "");
        put(&folder, "demo.apps.svc:5000/hosts.toml", &kept);
        assert!(matches!(certs.sync(&demo)[0], Err(Trouble::Conflict(_))));
        certs.clear().unwrap();
        assert_eq!(tree(&folder)["demo.apps.svc:5000/hosts.toml"], Some(kept));
    }

    #[test]
    fn foreign_files_and_folders_outlive_ours() {
        let (folder, certs) = certs();
        put(&folder, "docker.io/hosts.toml", "server = \"https://mirror\"\n");
        put(&folder, "docker.io/ca.crt", "");
        put(&folder, "a file", "");
        fs::create_dir(folder.path().join("empty.example:443")).unwrap();
        std::os::unix::fs::symlink("docker.io", folder.path().join("linked")).unwrap();
        let before = tree(&folder);
        certs.sync(&demo());
        put(&folder, "demo.apps.svc:5000/notes", "mine");
        certs.sync(&[]);
        let mut after = tree(&folder);
        assert_eq!(after.remove("demo.apps.svc:5000/notes"), Some(Some("mine".into())));
        assert_eq!(after.remove(DEMO), Some(None));
        assert_eq!(after, before);
    }

    #[test]
    fn a_link_in_our_way_is_not_followed() {
        let (folder, certs) = certs();
        let elsewhere = TempDir::new().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join(DEMO)).unwrap();
        assert!(matches!(certs.sync(&demo())[0], Err(Trouble::Conflict(_))));
        assert!(names(&elsewhere).is_empty());
    }

    #[rstest]
    // Cut short while a new host's folder was being filled, …
    #[case(".demo.apps.svc:5000.berth-tmp/.ca.crt.berth-tmp")]
    // … while a file was being replaced, …
    #[case("demo.apps.svc:5000/.hosts.toml.berth-tmp")]
    // … while a folder was on its way out.
    #[case(".gone.apps.svc:5000.berth-tmp/ca.crt")]
    fn leftovers_are_cleaned(#[case] leftover: &str) {
        let (folder, certs) = certs();
        let demo = demo();
        let mut content = MARKER.to_owned();
        if !leftover.contains("/.") {
            content.push('\n');
        }
        put(&folder, leftover, &content);
        certs.tidy().unwrap();
        assert!(tree(&folder).values().all(Option::is_none), "{:?}", names(&folder));

        put(&folder, leftover, &content);
        assert!(all_done(&certs.sync(&demo)));
        assert_eq!(names(&folder), [DEMO, "demo.apps.svc:5000/ca.crt", "demo.apps.svc:5000/hosts.toml"]);
        put(&folder, leftover, &content);
        certs.clear().unwrap();
        assert!(names(&folder).is_empty());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_reported() {
        let missing = CertsFolder::new("/nowhere/certs.d".into(), "/etc/containerd/certs.d".into());
        let outcome = &missing.sync(&demo())[0];
        let Err(Trouble::Failed(message)) = outcome else { panic!("{outcome:?}") };
        assert!(
            message.starts_with("failed to write /etc/containerd/certs.d/demo.apps.svc:5000: "),
            "{message}"
        );
        assert!(missing.clear().is_err());
    }
}
