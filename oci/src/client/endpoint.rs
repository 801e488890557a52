//! Where a registry is: the scheme, host and port that its credentials belong to, and a path before all repositories.

use std::{fmt, str::FromStr};

use http::Uri;

use crate::{RepoName, name::InvalidName};

/// Who a URL leads to. Credentials go to the registry's own origin only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Over TLS.
    pub https: bool,
    /// Lowercase.
    pub host: String,
    /// Also where the URL leaves it out.
    pub port: u16,
}

impl Origin {
    /// None where the URL is not an absolute one of HTTP.
    #[must_use]
    pub fn of(uri: &Uri) -> Option<Self> {
        let https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        // What stands before an `@` would be sent as credentials by some, and as a host by others.
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let host = authority.host().to_ascii_lowercase();
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        (!host.is_empty()).then_some(Self { https, host, port })
    }

    /// `host`, or `host:port` where the port is not the usual one.
    #[must_use]
    pub fn authority(&self) -> String {
        let usual = if self.https { 443 } else { 80 };
        if self.port == usual { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.authority())
    }
}

/// A registry, or what lies below a path of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    origin: Origin,
    path: Option<RepoName>,
}

/// Text that is no registry's URL.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// Something else.
    #[error(
        "`{0}` is not the URL of a registry: give https://host, perhaps with :port and a path that stands before all \
         repositories (http:// is for registries without TLS)"
    )]
    Url(String),
    /// Its path can't be the beginning of a repository's name.
    #[error("the path of `{url}` can't stand before repositories: {source}")]
    Path {
        /// The URL.
        url: String,
        /// What is wrong with it.
        source: InvalidName,
    },
}

impl Endpoint {
    /// Who is called.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What stands before all repositories.
    #[must_use]
    pub fn path(&self) -> Option<&RepoName> {
        self.path.as_ref()
    }

    /// The repository as the registry knows it.
    pub fn inside(&self, name: &str) -> Result<RepoName, InvalidName> {
        match &self.path {
            Some(path) => format!("{path}/{name}").parse(),
            None => name.parse(),
        }
    }

    /// The other way round; none where the repository lies elsewhere.
    #[must_use]
    pub fn outside<'a>(&self, name: &'a str) -> Option<&'a str> {
        match &self.path {
            Some(path) => name.strip_prefix(path.as_str())?.strip_prefix('/'),
            None => Some(name),
        }
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let invalid = || InvalidEndpoint::Url(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| invalid())?;
        if uri.query().is_some() || text.contains('#') {
            return Err(invalid());
        }
        let mut origin = Origin::of(&uri).ok_or_else(invalid)?;
        // Docker's registry answers under another name than the one that everybody writes.
        if matches!(origin.host.as_str(), "docker.io" | "index.docker.io") {
            "registry-1.docker.io".clone_into(&mut origin.host);
        }
        let path = uri.path().trim_matches('/');
        let path = if path.is_empty() { None } else { Some(path.parse()) };
        let path =
            path.transpose().map_err(|source| InvalidEndpoint::Path { url: text.to_owned(), source })?;
        Ok(Self { origin, path })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin.fmt(f)?;
        self.path.as_ref().map_or(Ok(()), |path| write!(f, "/{path}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://registry.example", "https://registry.example")]
    #[case("https://Registry.Example:443/", "https://registry.example")]
    #[case("http://127.0.0.1:5000/team/app", "http://127.0.0.1:5000/team/app")]
    #[case("https://[::1]:5000", "https://[::1]:5000")]
    #[case("https://docker.io/library", "https://registry-1.docker.io/library")]
    fn registries(#[case] text: &str, #[case] canonical: &str) {
        assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), canonical);
    }

    #[rstest]
    #[case("registry.example")]
    #[case("registry.example:5000")]
    #[case("ftp://registry.example")]
    #[case("https://")]
    #[case("https:///team")]
    #[case("https://user:password@registry.example")]
    #[case("https://registry.example?x=y")]
    #[case("https://registry.example/#team")]
    #[case("https://registry.example/../x")]
    #[case("https://registry.example/Team")]
    fn no_registries(#[case] text: &str) {
        assert!(text.parse::<Endpoint>().is_err());
    }

    #[test]
    fn names_below_a_path() {
        let below: Endpoint = "https://r.example/team".parse().unwrap();
        assert_eq!(below.inside("app").unwrap().as_str(), "team/app");
        assert_eq!(below.outside("team/app"), Some("app"));
        assert_eq!(below.outside("teams/app"), None);
        let whole: Endpoint = "https://r.example".parse().unwrap();
        assert_eq!(whole.inside("app").unwrap().as_str(), "app");
        assert_eq!(whole.outside("team/app"), Some("team/app"));
        assert!(whole.inside("../app").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_parses(text in r"https?://[a-zA-Z0-9.:@\[\]/?#-]{0,24}|\PC{0,24}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
            }
        }
    }
}
