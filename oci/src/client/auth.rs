//! Proving who one is: basic authentication, or tokens from where the registry says.
//!
//! A login is sent to the registry itself (basic), or to the realm that it names where that is the same machine, a
//! domain above it, or Docker Hub's; and over TLS, unless the registry itself is called without. What is neither gets
//! no login: with one the request fails, without one a token is asked for anonymously, over TLS only. So neither a
//! registry nor whoever speaks for it can have a login sent elsewhere.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::Engine as _;
use http::{HeaderValue, Uri};
use serde::Deserialize;

use super::{Client, challenge::Challenge, credentials::Login, endpoint::Origin, error::Error, retry::Gate};
use crate::RepoName;

/// Clients take this where a token does not say how long it lives.
const LIFETIME: Duration = Duration::from_secs(60);
/// No token is used for longer, whatever it says.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// How long a login is believed that goes along with each request.
const BASIC_LIFETIME: Duration = Duration::from_secs(10);
/// Tokens that are remembered; one for each repository.
const MAX_TOKENS: usize = 10_000;

/// The rights that a request needs, as tokens name them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope(String);

impl Scope {
    /// None in particular.
    #[must_use]
    pub fn none() -> Self {
        Self(String::new())
    }

    /// Reading a repository.
    #[must_use]
    pub fn pull(repository: &RepoName) -> Self {
        Self(format!("repository:{repository}:pull"))
    }

    /// Writing to a repository.
    #[must_use]
    pub fn push(repository: &RepoName) -> Self {
        Self(format!("repository:{repository}:pull,push"))
    }

    /// Writing to a repository what another one has.
    #[must_use]
    pub fn mount(repository: &RepoName, from: &RepoName) -> Self {
        Self(format!("repository:{repository}:pull,push repository:{from}:pull"))
    }

    /// Deleting in a repository.
    #[must_use]
    pub fn delete(repository: &RepoName) -> Self {
        Self(format!("repository:{repository}:pull,delete"))
    }

    /// Listing repositories.
    #[must_use]
    pub fn catalog() -> Self {
        Self("registry:catalog:*".to_owned())
    }
}

/// What is known of how a registry wants to be told who calls.
#[derive(Default)]
pub(super) struct Auth {
    way: Mutex<Option<Way>>,
    tokens: Mutex<HashMap<Scope, Arc<Slot>>>,
    /// Before the realm, which may be another host than the registry and be busy by itself.
    gate: Gate,
}

/// The token for one scope. Whoever finds none gets one, for all who wait.
type Slot = tokio::sync::Mutex<Option<Token>>;

/// How a registry wants to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

struct Token {
    value: HeaderValue,
    until: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Auth {
    /// Keeps what a 401 says. False where it says nothing that can be done.
    fn learn(&self, challenges: &[Challenge], has_login: bool) -> bool {
        let way = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service, scope } => {
                Some(Way::Bearer { realm: realm.clone(), service: service.clone(), scope: scope.clone() })
            }
            Challenge::Basic => has_login.then_some(Way::Basic),
        });
        let known = way.is_some();
        *lock(&self.way) = way;
        known
    }

    fn way(&self) -> Option<Way> {
        lock(&self.way).clone()
    }

    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    fn slot(&self, scope: &Scope) -> Arc<Slot> {
        let mut tokens = lock(&self.tokens);
        if tokens.len() > MAX_TOKENS {
            tokens.clear();
        }
        Arc::clone(tokens.entry(scope.clone()).or_default())
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// What to send along for these rights; nothing as long as nobody has asked.
    pub(super) async fn authorization(&self, scope: &Scope) -> Result<Option<HeaderValue>, Error> {
        let Some(way) = self.auth().way() else { return Ok(None) };
        // A login that goes along with each request is the same for all.
        let key = if way == Way::Basic { Scope::none() } else { scope.clone() };
        let slot = self.auth().slot(&key);
        let mut slot = slot.lock().await;
        if let Some(token) = slot.as_ref().filter(|token| Instant::now() < token.until) {
            return Ok(Some(token.value.clone()));
        }
        let token = match way {
            Way::Basic => Token { value: basic(&self.login()?)?, until: Instant::now() + BASIC_LIFETIME },
            Way::Bearer { realm, service, scope: asked } => {
                self.token(&realm, service.as_deref(), &[Some(scope.0.as_str()), asked.as_deref()]).await?
            }
        };
        Ok(Some(slot.insert(token).value.clone()))
    }

    /// Takes in a 401: the token that was refused is not used again. False where another try makes no sense.
    pub(super) async fn refused(
        &self,
        scope: &Scope,
        used: Option<&HeaderValue>,
        challenges: &[Challenge],
    ) -> bool {
        let known = self.auth().learn(challenges, self.credentials().is_some());
        let scopes = [scope.clone(), Scope::none()];
        for slot in scopes.iter().map(|scope| self.auth().slot(scope)) {
            slot.lock().await.take_if(|token| Some(&token.value) == used);
        }
        known
    }

    fn login(&self) -> Result<Login, Error> {
        let none = || Error::Unauthorized {
            host: self.host(),
            what: "access without a login".to_owned(),
            message: "it asks for a username and password".to_owned(),
        };
        Ok(self.credentials().ok_or_else(none)?.read(self.endpoint())?)
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scopes: &[Option<&str>],
    ) -> Result<Token, Error> {
        let uri = token_uri(realm, service, scopes).ok_or_else(|| Error::Answer {
            host: self.host(),
            what: "a request without a token".to_owned(),
            reason: format!("`{realm}` is not where tokens can be"),
        })?;
        let login = match pinned(self.endpoint().origin(), &uri) {
            Pinned::Own => self.credentials().map(|_| basic(&self.login()?)).transpose()?,
            Pinned::Foreign if self.credentials().is_none() => None,
            Pinned::Foreign | Pinned::Never => {
                return Err(Error::ForeignRealm { host: self.host(), realm: realm.to_owned() });
            }
        };
        let answer: TokenAnswer = self.fetch_token(uri, login).await?;
        let value = answer.token.or(answer.access_token).unwrap_or_default();
        let mut value = HeaderValue::try_from(format!("Bearer {value}")).map_err(|_| Error::Answer {
            host: self.host(),
            what: "the request of a token".to_owned(),
            reason: "it is no token".to_owned(),
        })?;
        value.set_sensitive(true);
        let lifetime = answer.expires_in.map_or(LIFETIME, Duration::from_secs).min(LONGEST);
        // What takes a while should not begin with the last second of a token.
        Ok(Token { value, until: Instant::now() + lifetime.mul_f32(0.8) })
    }
}

fn basic(login: &Login) -> Result<HeaderValue, Error> {
    let text = format!("{}:{}", login.username, login.password);
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    let value = HeaderValue::try_from(format!("Basic {encoded}"));
    let mut value = value.map_err(|error| Error::Authorities(error.to_string()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn token_uri(realm: &str, service: Option<&str>, scopes: &[Option<&str>]) -> Option<Uri> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(service) = service {
        query.append_pair("service", service);
    }
    let mut named = Vec::new();
    for scope in
        scopes.iter().flatten().flat_map(|scopes| scopes.split(' ')).filter(|scope| !scope.is_empty())
    {
        if !named.contains(&scope) {
            named.push(scope);
            query.append_pair("scope", scope);
        }
    }
    let query = query.finish();
    let separator = if realm.contains('?') { "&" } else { "?" };
    let uri: Uri = format!("{realm}{separator}{query}").parse().ok()?;
    Origin::of(&uri).map(|_| uri)
}

/// Whether a realm may see a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pinned {
    /// It may.
    Own,
    /// It may be asked for a token without one.
    Foreign,
    /// It is not even called.
    Never,
}

fn pinned(registry: &Origin, realm: &Uri) -> Pinned {
    let Some(realm) = Origin::of(realm) else { return Pinned::Never };
    if realm == *registry {
        return Pinned::Own;
    }
    if !realm.https {
        return Pinned::Never;
    }
    let own = realm.host == registry.host
        || is_above(&realm.host, &registry.host)
        || (registry.host == "registry-1.docker.io" && realm.host == "auth.docker.io");
    if own { Pinned::Own } else { Pinned::Foreign }
}

/// `example.com` is above `registry.example.com`: whoever has it decides what is below. Names of one label and
/// addresses are above nothing.
fn is_above(domain: &str, host: &str) -> bool {
    let below = host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    below && domain.contains('.') && host.parse::<std::net::IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::client::Endpoint;

    #[rstest]
    #[case("https://r.example:5000", "https://r.example:5000/token", Pinned::Own)]
    #[case("https://r.example:5000", "https://r.example/auth", Pinned::Own)]
    #[case("http://127.0.0.1:5000", "http://127.0.0.1:5000/token", Pinned::Own)]
    #[case("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", Pinned::Own)]
    #[case("https://docker.io", "https://auth.docker.io/token", Pinned::Own)]
    #[case::downgraded("https://r.example", "http://r.example/token", Pinned::Never)]
    #[case::another_port("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", Pinned::Never)]
    #[case::sibling("https://a.azurecr.io", "https://b.azurecr.io/token", Pinned::Foreign)]
    #[case::below("https://example.com", "https://evil.example.com/token", Pinned::Foreign)]
    #[case::suffix("https://r.example.com", "https://ple.com/token", Pinned::Foreign)]
    #[case::top("https://r.com", "https://com/token", Pinned::Foreign)]
    #[case::address("https://10.0.0.1", "https://0.0.1/token", Pinned::Foreign)]
    #[case::elsewhere("https://r.example", "https://evil.example/token", Pinned::Foreign)]
    #[case::disguised("https://r.example", "https://r.example@evil.example/token", Pinned::Never)]
    #[case::docker_for_others("https://r.example", "https://auth.docker.io/token", Pinned::Foreign)]
    fn where_a_login_may_go(#[case] registry: &str, #[case] realm: &str, #[case] expected: Pinned) {
        let endpoint: Endpoint = registry.parse().unwrap();
        assert_eq!(pinned(endpoint.origin(), &realm.parse().unwrap()), expected);
    }

    #[test]
    fn what_is_asked_of_a_realm() {
        let uri = |realm, scopes: &[Option<&str>]| token_uri(realm, Some("s"), scopes).unwrap().to_string();
        let pull = Some("repository:a:pull");
        assert_eq!(uri("https://a/t", &[pull, pull]), "https://a/t?service=s&scope=repository%3Aa%3Apull");
        assert_eq!(uri("https://a/t?x=y", &[Some(""), None]), "https://a/t?x=y&service=s");
        assert_eq!(uri("https://a/t", &[Some("b c")]), "https://a/t?service=s&scope=b&scope=c");
        assert!(token_uri("nowhere", None, &[]).is_none());
    }
}
