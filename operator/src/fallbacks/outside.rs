//! Registries outside of the cluster: nodes are sent only to those that the operator's configuration names.

use channel::client;
use crds::registry::FallbackEndpoint;

use super::Outside;
use crate::conditions::Answer;

/// The port of `https` where none is written.
const HTTPS: u16 = 443;

/// The registry, if nodes may be sent to it.
pub(super) fn granted(endpoint: &FallbackEndpoint, granted: &[String]) -> Result<Outside, Answer> {
    let FallbackEndpoint { url, ca } = endpoint;
    let Some((host, port)) = url.strip_prefix("https://").and_then(host_and_port) else {
        let sentence = format!("{url} is no registry that nodes can reach: write https://host:port");
        return Err(Answer::no("InvalidEndpoint", sentence));
    };
    if let Some(Err(error)) = ca.as_ref().map(|ca| client::anonymous(ca)) {
        let sentence = format!("the CA of {url} can't be used: {error}: give its certificates as PEM");
        return Err(Answer::no("InvalidEndpoint", sentence));
    }
    if !granted.iter().any(|pattern| grants(pattern, host, port)) {
        let sentence = format!(
            "nodes are not sent to {host}:{port}: ask those who run the cluster to add it to BERTH_FALLBACK_HOSTS of the operator, or take it out of spec.fallbacks"
        );
        return Err(Answer::no("HostNotGranted", sentence));
    }
    Ok(Outside { authority: format!("{host}:{port}"), ca: ca.clone() })
}

fn grants(pattern: &str, host: &str, port: u16) -> bool {
    host_and_port(pattern).is_some_and(|(name, granted)| {
        let is_below = |above: &str| host.strip_suffix(above).is_some_and(|below| below.ends_with('.'));
        granted == port && (name == host || name.strip_prefix("*.").is_some_and(is_below))
    })
}

fn host_and_port(text: &str) -> Option<(&str, u16)> {
    match text.split_once(':') {
        None if text.is_empty() => None,
        None => Some((text, HTTPS)),
        Some((host, port)) => Some((host, port.parse().ok().filter(|port| *port > 0)?)),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn what_nodes_could_not_use_is_refused_before_they_see_it() {
        let _installed_before = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let endpoint = FallbackEndpoint { url: "https://eu.example.com".into(), ca: Some("none".into()) };
        let answer = granted(&endpoint, &["eu.example.com".into()]).unwrap_err();
        assert_eq!(answer.reason, "InvalidEndpoint");
        assert!(answer.message.contains("as PEM"), "{}", answer.message);
    }

    #[rstest]
    #[case::none("https://eu.example.com", &[""], "HostNotGranted")]
    #[case::same("https://eu.example.com", &["", "eu.example.com"], "eu.example.com:443")]
    #[case::usual_port("https://eu.example.com:443", &["eu.example.com"], "eu.example.com:443")]
    #[case::port("https://eu.example.com:5000", &["eu.example.com:5000"], "eu.example.com:5000")]
    #[case::other_port("https://eu.example.com:22", &["eu.example.com:5000"], "HostNotGranted")]
    #[case::below("https://eu.example.com", &["*.example.com"], "eu.example.com:443")]
    #[case::far_below("https://a.eu.example.com", &["*.example.com"], "a.eu.example.com:443")]
    #[case::above("https://example.com", &["*.example.com"], "HostNotGranted")]
    #[case::only_looks_so("https://badexample.com", &["*.example.com"], "HostNotGranted")]
    #[case::everything_is_too_much("https://eu.example.com", &["*"], "HostNotGranted")]
    #[case::no_port("https://eu.example.com:70000", &["eu.example.com"], "InvalidEndpoint")]
    #[case::no_https("http://eu.example.com", &["eu.example.com"], "InvalidEndpoint")]
    fn nodes_are_sent_only_where_they_may_go(
        #[case] url: &str,
        #[case] hosts: &[&str],
        #[case] expected: &str,
    ) {
        let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
        let endpoint = FallbackEndpoint { url: url.into(), ca: None };
        let said = match granted(&endpoint, &hosts) {
            Ok(outside) => outside.authority,
            Err(answer) => answer.reason.into_owned(),
        };
        assert_eq!(said, expected);
    }
}
