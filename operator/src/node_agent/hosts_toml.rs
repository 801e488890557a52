//! What containerd is told about one registry: `hosts.toml`, from values that were checked so that nothing but
//! what is meant here can come out.
//!
//! Everything is said at the file's top level, about `server`: then it is the only host that containerd asks. With a
//! `[host]` section it would go on to a fallback after each failure, by default the image reference's own name,
//! which nodes can't resolve; and the error people see would be the fallback's. containerd 1.7 and 2.x read both the
//! same way; 1.7 knows no `dial_timeout` and ignores it.

use std::net::SocketAddr;

use channel::{client, node_access::Host};

/// First line of every file of ours. Who deletes it keeps the file for himself.
pub(super) const MARKER: &str =
    "# Managed by Berth, which overwrites changes. Delete this line to keep the file as it is.";

/// Host names longer than this would not leave room for a suffix in a file name.
const MAX_HOST: usize = 200;

/// A host whose every part is safe to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    name: String,
    server: SocketAddr,
    ca: String,
}

impl Entry {
    /// Checks what the operator sent; the error says what is wrong with it.
    pub(super) fn parse(host: &Host) -> Result<Self, String> {
        let Host { host: name, server, ca } = host;
        if !is_host_and_port(name) {
            return Err(format!("'{name}' is no host name and port, such as demo.apps.svc:5000"));
        }
        let server = server
            .strip_prefix("https://")
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| format!("'{server}' is no address and port, such as https://10.96.0.20:5000"))?;
        client::anonymous(ca).map_err(|error| format!("the registry's CA can't be used: {error}"))?;
        Ok(Self { name: name.clone(), server, ca: ca.trim_end().to_owned() })
    }

    /// The host as image references have it, which is also its folder's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where the registry really is.
    pub(super) fn server(&self) -> SocketAddr {
        self.server
    }

    /// Certificates that sign the registry's, PEM.
    pub(super) fn ca(&self) -> &str {
        &self.ca
    }

    /// Content of `ca.crt`. Text outside of the certificates is no part of PEM.
    pub(super) fn ca_file(&self) -> String {
        format!("{MARKER}\n{}\n", self.ca)
    }

    /// Content of `hosts.toml`. The CA's path is relative to the file, so that it holds wherever the folder is mounted.
    pub(super) fn hosts_file(&self) -> String {
        let server = self.server;
        format!(
            r#"{MARKER}
server = "https://{server}"
capabilities = ["pull", "resolve"]
ca = "ca.crt"
dial_timeout = "5s"
"#
        )
    }
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
pub(super) mod tests {
    use rstest::rstest;

    use super::*;

    /// A registry at `server` that a new CA signs for.
    pub(in crate::node_agent) fn host(name: &str, server: &str) -> Host {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().pem();
        Host { host: name.into(), server: server.into(), ca }
    }

    #[rstest]
    #[case("demo.apps.svc:5000", true)]
    #[case("demo:1", true)]
    #[case("demo.apps.svc", false)]
    #[case("demo.apps.svc:0", false)]
    #[case("demo.apps.svc:05000", false)]
    #[case("demo.apps.svc:70000", false)]
    #[case("demo..svc:5000", false)]
    #[case("-demo.svc:5000", false)]
    #[case("Demo.svc:5000", false)]
    #[case("..:5000", false)]
    #[case("../../etc:5000", false)]
    #[case("a/b:5000", false)]
    #[case(":5000", false)]
    #[case("_default", false)]
    #[case("", false)]
    fn only_a_plain_host_and_port_is_taken(#[case] name: &str, #[case] good: bool) {
        assert_eq!(Entry::parse(&host(name, "https://10.96.0.20:5000")).is_ok(), good);
        assert!(
            Entry::parse(&host(&format!("{}:5000", "a".repeat(MAX_HOST)), "https://10.96.0.20:5000"))
                .is_err()
        );
    }

    #[rstest]
    #[case("https://10.96.0.20:5000", true)]
    #[case("https://[fd00::20]:5000", true)]
    #[case("http://10.96.0.20:5000", false)]
    #[case("https://10.96.0.20", false)]
    #[case("https://demo.apps.svc:5000", false)]
    #[case("https://10.96.0.20:5000/\"\nskip_verify = true", false)]
    fn only_an_address_and_port_is_taken(#[case] server: &str, #[case] good: bool) {
        assert_eq!(Entry::parse(&host("demo.apps.svc:5000", server)).is_ok(), good);
    }

    #[test]
    fn a_ca_that_is_none_is_refused() {
        let mut host = host("demo.apps.svc:5000", "https://10.96.0.20:5000");
        for bad in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            host.ca = bad.into();
            assert!(Entry::parse(&host).is_err(), "{bad}");
        }
    }

    #[test]
    fn containerd_is_told_one_server_and_its_ca() {
        let entry = Entry::parse(&host("demo.apps.svc:5000", "https://10.96.0.20:5000")).unwrap();
        insta::assert_snapshot!(entry.hosts_file(), @r#"
        # Managed by Berth, which overwrites changes. Delete this line to keep the file as it is.
        server = "https://10.96.0.20:5000"
        capabilities = ["pull", "resolve"]
        ca = "ca.crt"
        dial_timeout = "5s"
        "#);
        assert!(entry.ca_file().starts_with(&format!("{MARKER}\n-----BEGIN CERTIFICATE-----\n")));
    }
}
