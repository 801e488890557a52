//! What containerd is told about one registry: `hosts.toml`, from values that were checked so that nothing but
//! what is meant here can come out.
//!
//! Everything is said at the file's top level, about `server`: then it is the only host that containerd asks. With
//! `[host]` sections it asks those first, in their order, each with what its own section says, and `server` last; where
//! there is none, the image reference's own name, which nodes can't resolve. So `[host]` sections are there only where
//! the registry has fallbacks: the first is the registry itself, then come the fallbacks, and the last to be asked is
//! the registry again. Of errors that came equally far containerd shows the first, which is the registry's.
//!
//! containerd 1.7 and 2.x read all of it the same way; 1.7 knows no `dial_timeout` and ignores it.

use std::{collections::HashMap, net::SocketAddr};

use channel::{
    client,
    node_access::{Fallback, Host},
};

use super::credentials::Credential;

/// First line of every file of ours. Who deletes it keeps the file for himself.
pub(super) const MARKER: &str =
    "# Managed by Berth, which overwrites changes. Delete this line to keep the file as it is.";

/// Host names longer than this would not leave room for a suffix in a file name.
const MAX_HOST: usize = 200;

/// Certificates that sign the registry's.
pub(super) const CA: &str = "ca.crt";
/// How the names of the files begin with those that sign the fallbacks'.
pub(super) const FALLBACK: &str = "fallback-";
/// How long a connection may take to come about.
const ALONE: &str = "5s";
/// The same where there is another registry to turn to.
const WITH_FALLBACKS: &str = "2s";

/// A host whose every part is safe to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    name: String,
    address: SocketAddr,
    registry: Server,
    fallbacks: Vec<Server>,
}

/// Where images are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    /// Host and port.
    authority: String,
    /// PEM; none where containerd trusts it anyway.
    ca: Option<String>,
    audience: Option<String>,
    credential: Option<Credential>,
}

impl Entry {
    /// Checks what the operator sent; the error says what is wrong with it.
    pub(super) fn parse(host: &Host) -> Result<Self, String> {
        let Host { host: name, server, ca, audience, fallbacks } = host;
        if !is_host_and_port(name) {
            return Err(format!("'{name}' is no host name and port, such as demo.apps.svc:5000"));
        }
        let registry = Server::parse(server, Some(ca), audience.as_ref())?;
        let address = registry.authority.parse();
        let address = address.map_err(|_| format!("'{server}' is no address of a Service"))?;
        let mut entry = Self { name: name.clone(), address, registry, fallbacks: Vec::new() };
        for Fallback { server, ca, audience } in fallbacks {
            let fallback = Server::parse(server, ca.as_ref(), audience.as_ref())?;
            // A section that is there twice would make the whole file worthless.
            if entry.servers().all(|known| known.authority != fallback.authority) {
                entry.fallbacks.push(fallback);
            }
        }
        Ok(entry)
    }

    /// The same, to be pulled from with these, by audience.
    pub(super) fn with(mut self, credentials: &HashMap<String, Credential>) -> Self {
        for server in std::iter::once(&mut self.registry).chain(&mut self.fallbacks) {
            let audience = server.audience.as_ref();
            server.credential = audience.and_then(|audience| credentials.get(audience)).cloned();
        }
        self
    }

    fn servers(&self) -> impl Iterator<Item = &Server> {
        std::iter::once(&self.registry).chain(&self.fallbacks)
    }

    /// The host as image references have it, which is also its folder's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where the registry really is.
    pub(super) fn server(&self) -> SocketAddr {
        self.address
    }

    /// Certificates that sign the registry's, PEM.
    pub(super) fn ca(&self) -> &str {
        self.registry.ca.as_deref().unwrap_or_default()
    }

    /// Names and contents of the CAs' files. Text outside of the certificates is no part of PEM.
    pub(super) fn ca_files(&self) -> impl Iterator<Item = (String, String)> {
        let names = (0..).map(ca_name);
        names
            .zip(self.servers())
            .filter_map(|(name, server)| Some((name, format!("{MARKER}\n{}\n", server.ca.as_ref()?))))
    }

    /// Content of `hosts.toml`. CAs' paths are relative to the file, so that they hold wherever the folder is mounted.
    /// The credential is sent first; where the registry asks for another, containerd goes on with the pod's pull secret.
    pub(super) fn hosts_file(&self) -> String {
        let server = self.address;
        let top = format!("{MARKER}\nserver = \"https://{server}\"\n");
        if self.fallbacks.is_empty() {
            return top + &self.registry.fields(CA, ALONE, "header");
        }
        let sections = self.servers().enumerate().map(|(number, server)| {
            let key = format!("host.\"https://{}\"", server.authority);
            let fields = server.fields(&ca_name(number), WITH_FALLBACKS, &format!("{key}.header"));
            format!("\n[{key}]\n{fields}")
        });
        top + &self.registry.fields(CA, WITH_FALLBACKS, "header") + &sections.collect::<String>()
    }
}

impl Server {
    fn parse(server: &str, ca: Option<&String>, audience: Option<&String>) -> Result<Self, String> {
        let authority = server
            .strip_prefix("https://")
            .filter(|host| host.parse::<SocketAddr>().is_ok() || is_host_and_port(host))
            .ok_or_else(|| format!("'{server}' is no host and port, such as https://10.96.0.20:5000"))?;
        if let Some(ca) = ca {
            client::anonymous(ca).map_err(|error| format!("the CA of {server} can't be used: {error}"))?;
        }
        let ca = ca.map(|ca| ca.trim_end().to_owned());
        Ok(Self { authority: authority.to_owned(), ca, audience: audience.cloned(), credential: None })
    }

    /// What is said of it, with the name of the table of headers.
    fn fields(&self, ca: &str, dial_timeout: &str, headers: &str) -> String {
        let header = self.credential.as_ref().map_or_else(String::new, |credential| {
            format!("\n[{headers}]\nAuthorization = [\"{}\"]\n", credential.header())
        });
        let ca = self.ca.as_ref().map_or_else(String::new, |_| format!("ca = \"{ca}\"\n"));
        format!(
            r#"capabilities = ["pull", "resolve"]
{ca}dial_timeout = "{dial_timeout}"
{header}"#
        )
    }
}

/// Name of the file with the CA of the registry, or of its fallback of this number.
fn ca_name(number: usize) -> String {
    if number == 0 { CA.to_owned() } else { format!("{FALLBACK}{number}.crt") }
}

/// Lower-case DNS labels, a colon, a port. Nothing else becomes a folder's name.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    let is_port = port.parse::<u16>().is_ok_and(|number| number > 0 && number.to_string() == port);
    text.len() <= MAX_HOST && is_port && host.split('.').all(is_label)
}

#[cfg(test)]
pub(super) mod tests;
