//! Who logs in: files, which are read again for each token, since whoever rotates a password replaces them.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use base64::Engine as _;
use serde::Deserialize;

use super::endpoint::Endpoint;

/// Where a login lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// A username, and the file with its password or token.
    Password {
        /// As the registry knows it.
        username: String,
        /// Holds the password; a line break at its end does not count.
        file: PathBuf,
    },
    /// A folder with the files `username` and `password`.
    Folder(PathBuf),
    /// A file as Docker's `config.json`.
    DockerConfig(PathBuf),
}

/// A login, as it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Who.
    pub username: String,
    /// The proof; never shown.
    pub password: String,
}

/// Why there is no login.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// A file can't be read.
    #[error("failed to read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not what `docker login` writes.
    #[error("{} is not a file as Docker's config.json: {source}", path.display())]
    Config {
        /// Which.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// It is for other registries.
    #[error("{} holds no username and password for {host}", path.display())]
    Missing {
        /// Which.
        path: PathBuf,
        /// The registry.
        host: String,
    },
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.username)
    }
}

impl Credentials {
    /// What the files say now.
    pub fn read(&self, endpoint: &Endpoint) -> Result<Login, Unreadable> {
        match self {
            Self::Password { username, file } => {
                Ok(Login { username: username.clone(), password: read_line(file.clone())? })
            }
            Self::Folder(folder) => Ok(Login {
                username: read_line(folder.join("username"))?,
                password: read_line(folder.join("password"))?,
            }),
            Self::DockerConfig(path) => {
                let config: DockerConfig = serde_json::from_str(&read(path.clone())?)
                    .map_err(|source| Unreadable::Config { path: path.clone(), source })?;
                config.login(endpoint).ok_or_else(|| Unreadable::Missing {
                    path: path.clone(),
                    host: endpoint.origin().authority(),
                })
            }
        }
    }
}

fn read(path: PathBuf) -> Result<String, Unreadable> {
    std::fs::read_to_string(&path).map_err(|source| Unreadable::Read { path, source })
}

fn read_line(path: PathBuf) -> Result<String, Unreadable> {
    let text = read(path)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl DockerConfig {
    /// The entry whose path fits best; where none does, the only one for the host.
    fn login(&self, endpoint: &Endpoint) -> Option<Login> {
        let host = endpoint.origin().authority();
        let entries = self.auths.iter().filter_map(|(key, entry)| {
            let (of, path) = split_key(key);
            (of == host).then_some((path, entry))
        });
        let entries: Vec<_> = entries.collect();
        let fits =
            |path: &str| path.is_empty() || endpoint.path().is_some_and(|own| is_below(own.as_str(), path));
        let best = entries.iter().filter(|(path, _)| fits(path)).max_by_key(|(path, _)| path.len());
        let (_, entry) = best.or_else(|| entries.first().filter(|_| entries.len() == 1))?;
        entry.login()
    }
}

fn is_below(name: &str, path: &str) -> bool {
    name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Host and path of a key, which may be a whole URL.
fn split_key(key: &str) -> (&str, &str) {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let host = if matches!(host, "docker.io" | "index.docker.io") { "registry-1.docker.io" } else { host };
    let path = path.trim_end_matches('/');
    (host, if matches!(path, "v1" | "v2") { "" } else { path })
}

impl Entry {
    fn login(&self) -> Option<Login> {
        if let Some(auth) = self.auth.as_deref().filter(|auth| !auth.is_empty()) {
            let decoded = base64::engine::general_purpose::STANDARD.decode(auth).ok()?;
            let text = String::from_utf8(decoded).ok()?;
            let (username, password) = text.split_once(':')?;
            return Some(Login { username: username.to_owned(), password: password.to_owned() });
        }
        Some(Login { username: self.username.clone()?, password: self.password.clone()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn docker(config: &str, url: &str) -> Option<String> {
        let config: DockerConfig = serde_json::from_str(config).unwrap();
        let login = config.login(&url.parse().unwrap())?;
        Some(format!("{}:{}", login.username, login.password))
    }

    #[test]
    fn dockers_file() {
        // `YTpi` is `a:b`, `YzpkOmU=` is `c:d:e`.
        let config = r#"{"auths": {
            "r.example:5000": {"auth": "YTpi"},
            "r.example:5000/team": {"auth": "YzpkOmU="},
            "https://index.docker.io/v1/": {"username": "u", "password": "p"},
            "one.example/deep": {"auth": "YTpi"},
            "helper.example": {}
        }, "credsStore": "x"}"#;
        assert_eq!(docker(config, "https://r.example:5000").as_deref(), Some("a:b"));
        assert_eq!(docker(config, "https://r.example:5000/team/app").as_deref(), Some("c:d:e"));
        assert_eq!(docker(config, "https://r.example:5000/teams").as_deref(), Some("a:b"));
        assert_eq!(docker(config, "https://docker.io").as_deref(), Some("u:p"));
        assert_eq!(docker(config, "https://one.example").as_deref(), Some("a:b"));
        assert_eq!(docker(config, "https://r.example"), None, "another port");
        assert_eq!(docker(config, "https://helper.example"), None);
        assert_eq!(docker("{}", "https://r.example"), None);
    }

    #[test]
    fn files_are_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let endpoint: Endpoint = "https://r.example".parse().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let credentials = Credentials::Folder(folder.path().to_owned());
        assert!(matches!(credentials.read(&endpoint), Err(Unreadable::Read { .. })));
        write("username", "u\n");
        for password in ["one", "two"] {
            write("password", password);
            let login = credentials.read(&endpoint).unwrap();
            assert_eq!((login.username.as_str(), login.password.as_str()), ("u", password));
            assert!(!format!("{login:?}").contains(password));
        }
    }
}
