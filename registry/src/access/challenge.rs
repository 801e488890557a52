//! How clients are asked for credentials, and where they get tokens: under whatever name they reached the registry.
//!
//! Only Bearer is offered. Docker, where both are, takes Basic and then can't pull anonymously; all other clients
//! would take Bearer anyway. Who sends Basic without being asked is welcome all the same.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderValue, Uri, header};

/// Where a client sees this registry: `https://registry.example:5000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin(String);

impl Origin {
    /// As the client wrote it, or as the proxy in front says that the client wrote it. It decides on nothing but
    /// the answer to this same client. None where nobody says a usable name.
    pub(crate) fn of(headers: &HeaderMap, uri: &Uri, tls: bool) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let first = |list: &str| list.split(',').next().unwrap_or_default().trim().to_owned();
        let forwarded = |key: &str| forwarded(&first(text("forwarded")?), key);
        let host = forwarded("host")
            .or_else(|| text("x-forwarded-host").map(first))
            .or_else(|| uri.authority().map(ToString::to_string))
            .or_else(|| text(header::HOST.as_str()).map(str::to_owned))
            .filter(|host| is_host(host))?;
        let scheme = forwarded("proto").or_else(|| text("x-forwarded-proto").map(first));
        let scheme = match scheme.map(|scheme| scheme.to_ascii_lowercase()).as_deref() {
            Some("https") => "https",
            Some("http") => "http",
            _ if tls => "https",
            _ => "http",
        };
        Some(Self(format!("{scheme}://{host}")))
    }
}

/// One parameter of an element of a Forwarded header (RFC 7239, 4).
fn forwarded(element: &str, key: &str) -> Option<String> {
    let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.eq_ignore_ascii_case(key))?;
    Some(value.trim_matches('"').to_owned())
}

/// Whether it can stand in a URL and in a header. That it exists is the client's business.
fn is_host(host: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    (1..=300).contains(&host.len()) && host.bytes().all(usual)
}

/// The header that asks for credentials. `scope` is what the request needed, `error` what was wrong with its token
/// (RFC 6750, 3.1).
pub(crate) fn ask(origin: Option<&Origin>, scope: Option<&str>, error: Option<&str>) -> HeaderValue {
    let Some(Origin(origin)) = origin else {
        return BASIC;
    };
    let mut challenge = format!(r#"Bearer realm="{origin}/token",service="berth""#);
    for (name, value) in [("scope", scope), ("error", error)] {
        if let Some(value) = value {
            let _ = write!(challenge, r#",{name}="{value}""#);
        }
    }
    HeaderValue::from_str(&challenge).unwrap_or(BASIC)
}

/// Asks for a username and password right here.
pub(crate) const BASIC: HeaderValue = HeaderValue::from_static(r#"Basic realm="berth", charset="UTF-8""#);

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn origin(headers: &[(&'static str, &str)], uri: &str, tls: bool) -> Option<String> {
        let headers = headers.iter().map(|(name, value)| {
            (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        });
        Origin::of(&headers.collect(), &uri.parse().unwrap(), tls).map(|origin| origin.0)
    }

    #[rstest]
    #[case::service(&[("host", "demo.apps.svc:5000")], "https://demo.apps.svc:5000")]
    #[case::cluster_ip(&[("host", "10.96.0.7:5000")], "https://10.96.0.7:5000")]
    #[case::port_forward(&[("host", "localhost:41234")], "https://localhost:41234")]
    #[case::ipv6(&[("host", "[::1]:5000")], "https://[::1]:5000")]
    #[case::ingress(
        &[("host", "10.1.2.3"), ("x-forwarded-host", "r.example, proxy"), ("x-forwarded-proto", "https, http")],
        "https://r.example"
    )]
    #[case::plain_outside(&[("host", "r.example"), ("x-forwarded-proto", "http")], "http://r.example")]
    #[case::rfc_7239(
        &[("host", "10.1.2.3"), ("forwarded", r#"for=1.2.3.4;Host="r.example:8443";proto=https, for=x"#)],
        "https://r.example:8443"
    )]
    #[case::nonsense_scheme(&[("host", "r.example"), ("x-forwarded-proto", "gopher")], "https://r.example")]
    fn p33_the_realm_follows_the_host_that_the_client_used(
        #[case] headers: &[(&'static str, &str)],
        #[case] expected: &str,
    ) {
        assert_eq!(origin(headers, "/v2/", true).as_deref(), Some(expected));
    }

    #[test]
    fn other_ways_to_say_a_host() {
        assert_eq!(origin(&[("host", "a:1")], "/v2/", false).as_deref(), Some("http://a:1"));
        assert_eq!(origin(&[], "https://b:2/v2/", true).as_deref(), Some("https://b:2"), "HTTP/2");
        assert_eq!(origin(&[], "/v2/", true), None);
        for host in ["", "a b", "a\"b", "a/b", "a\\b", "user@host", "a,b"] {
            assert_eq!(origin(&[("host", host)], "/v2/", true), None, "{host}");
        }
    }

    #[test]
    fn what_is_asked_for() {
        let origin = Origin("https://a:5000".into());
        let all = ask(Some(&origin), Some("repository:a:pull"), Some("invalid_token"));
        let expected = concat!(
            r#"Bearer realm="https://a:5000/token",service="berth","#,
            r#"scope="repository:a:pull",error="invalid_token""#
        );
        assert_eq!(all, expected);
        assert_eq!(ask(Some(&origin), None, None), r#"Bearer realm="https://a:5000/token",service="berth""#);
        assert_eq!(ask(None, None, None), BASIC);
    }
}
