//! What comes out, and what is refused.

use rstest::rstest;

use super::*;

/// A registry at `server` that a new CA signs for.
pub(in crate::node_agent) fn host(name: &str, server: &str) -> Host {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap().pem();
    Host { host: name.into(), server: server.into(), ca, audience: None, fallbacks: Vec::new() }
}

/// The same with this to turn to.
pub(in crate::node_agent) fn fallback(server: &str) -> Fallback {
    let Host { server, ca, audience, .. } = host("other.apps.svc:5000", server);
    Fallback { server, ca: Some(ca), audience }
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
        Entry::parse(&host(&format!("{}:5000", "a".repeat(MAX_HOST)), "https://10.96.0.20:5000")).is_err()
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
    let mut host = host("demo.apps.svc:5000", "https://10.96.0.20:5000");
    host.audience = Some("demo".into());
    let entry = Entry::parse(&host).unwrap().with(&credentials());
    let end = "\n[header]\nAuthorization = [\"Basic bm9kZTp0b2tlbg==\"]\n";
    assert!(entry.hosts_file().ends_with(end), "{}", entry.hosts_file());
    assert!(!format!("{entry:?}").contains("bm9kZ"), "credentials stay out of logs");
    let (name, ca) = entry.ca_files().next().unwrap();
    assert_eq!(name, "ca.crt");
    assert!(ca.starts_with(&format!("{MARKER}\n-----BEGIN CERTIFICATE-----\n")));
}

/// For the registry `demo` and its fallback `other`.
fn credentials() -> HashMap<String, Credential> {
    ["demo", "other"].map(|audience| (audience.to_owned(), Credential::for_test())).into()
}

#[test]
fn fallbacks_come_after_the_registry_and_then_it_is_asked_again() {
    let mut host = host("demo.apps.svc:5000", "https://10.96.0.20:5000");
    host.audience = Some("demo".into());
    let servers = ["https://10.96.0.30:5000", "https://[fd00::40]:443", "https://10.96.0.30:5000"];
    host.fallbacks = servers.map(fallback).into();
    // That is there already.
    host.fallbacks.push(fallback("https://10.96.0.20:5000"));
    host.fallbacks[0].audience = Some("other".into());
    let entry = Entry::parse(&host).unwrap().with(&credentials());
    insta::assert_snapshot!(entry.hosts_file(), @r#"
    # Managed by Berth, which overwrites changes. Delete this line to keep the file as it is.
    server = "https://10.96.0.20:5000"
    capabilities = ["pull", "resolve"]
    ca = "ca.crt"
    dial_timeout = "2s"

    [header]
    Authorization = ["Basic bm9kZTp0b2tlbg=="]

    [host."https://10.96.0.20:5000"]
    capabilities = ["pull", "resolve"]
    ca = "ca.crt"
    dial_timeout = "2s"

    [host."https://10.96.0.20:5000".header]
    Authorization = ["Basic bm9kZTp0b2tlbg=="]

    [host."https://10.96.0.30:5000"]
    capabilities = ["pull", "resolve"]
    ca = "fallback-1.crt"
    dial_timeout = "2s"

    [host."https://10.96.0.30:5000".header]
    Authorization = ["Basic bm9kZTp0b2tlbg=="]

    [host."https://[fd00::40]:443"]
    capabilities = ["pull", "resolve"]
    ca = "fallback-2.crt"
    dial_timeout = "2s"
    "#);
    let names: Vec<_> = entry.ca_files().map(|(name, _)| name).collect();
    assert_eq!(names, ["ca.crt", "fallback-1.crt", "fallback-2.crt"]);
    assert_ne!(entry.ca_files().next().unwrap().1, entry.ca_files().nth(1).unwrap().1);
}

#[test]
fn a_fallback_outside_of_the_cluster_may_have_a_name_and_be_trusted_anyway() {
    let mut host = host("demo.apps.svc:5000", "https://10.96.0.20:5000");
    let known = Fallback { ca: None, ..fallback("https://eu.example.com:443") };
    host.fallbacks = vec![known, fallback("https://us.example.com:5000")];
    let entry = Entry::parse(&host).unwrap().with(&credentials());
    let file = entry.hosts_file();
    let (_, fallbacks) = file.split_at(file.find("[host.\"https://eu").unwrap());
    insta::assert_snapshot!(fallbacks, @r#"
    [host."https://eu.example.com:443"]
    capabilities = ["pull", "resolve"]
    dial_timeout = "2s"

    [host."https://us.example.com:5000"]
    capabilities = ["pull", "resolve"]
    ca = "fallback-2.crt"
    dial_timeout = "2s"
    "#);
    let names: Vec<_> = entry.ca_files().map(|(name, _)| name).collect();
    assert_eq!(names, ["ca.crt", "fallback-2.crt"]);
}

#[test]
fn a_fallback_that_can_not_be_used_is_said() {
    let mut host = host("demo.apps.svc:5000", "https://10.96.0.20:5000");
    host.fallbacks = vec![fallback("http://10.96.0.30:5000")];
    assert!(Entry::parse(&host).is_err());
    host.fallbacks = vec![fallback("https://eu.example.com\"]:5000")];
    assert!(Entry::parse(&host).is_err());
    host.fallbacks = vec![Fallback { ca: Some("none".into()), ..fallback("https://10.96.0.30:5000") }];
    assert!(Entry::parse(&host).is_err());
}
