//! Where clients exchange credentials for a token (Docker's token protocol): GET with basic authentication, or POST
//! with a form (OAuth 2, `grant_type=password`). Without credentials there is a token too, for what is public.

use std::{net::IpAddr, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use http::{Method, header};
use serde_json::json;

use super::{
    Api,
    incoming::whole,
    query::Query,
    record::Record,
    shares::{Memory, Shares, Who},
};
use crate::{
    access::{BASIC, Credentials, Issued, Scopes, Wanted},
    error::Error,
};

/// The path of the endpoint.
pub(super) const PATH: &str = "/token";
/// Largest form: a ServiceAccount's token may have 16 KiB.
const MAX_FORM: usize = 32 << 10;
/// KiB of forms that are held in memory at once: nobody has proved who they are yet.
const FORMS: usize = 8 << 10;
/// Taken for a form at once.
const STEP: usize = 4 << 10;
/// A form is small; who takes longer to send one is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// Forms that are on their way.
#[derive(Debug)]
pub(crate) struct Forms(Shares);

impl Default for Forms {
    fn default() -> Self {
        Self(Shares::new(FORMS))
    }
}

impl Forms {
    fn memory(&self, source: IpAddr) -> Memory {
        Memory::new(self.0.of(&Who::of(None, source)), STEP)
    }

    /// Leaves nothing for others.
    #[cfg(test)]
    pub(super) async fn take_all(&self) -> [super::shares::Taken; 2] {
        let half = u32::try_from(FORMS / 2).unwrap();
        let take = async |name: &str| self.0.of(&Who::Login(name.into())).take(half).await.unwrap();
        [take("one").await, take("two").await]
    }
}

pub(super) async fn issue(
    api: &Api,
    request: Request,
    source: IpAddr,
    record: &mut Record,
) -> Result<Response, Error> {
    let (parts, body) = request.into_parts();
    let (parameters, credentials) = match parts.method {
        Method::GET | Method::HEAD => (Query::parse(parts.uri.query()), None),
        Method::POST => {
            let form = Query::parse(Some(&read(body, &mut api.forms.memory(source)).await?));
            let credentials = form_credentials(&form)?;
            (form, credentials)
        }
        other => return Err(Error::Method(other, "GET, HEAD, POST")),
    };
    let scopes = Scopes::parse(parameters.all("scope"));
    let scopes = scopes.map_err(|error| Error::Parameter(error.to_string()))?;
    match api.access.issue_token(credentials, &parts.headers, source, &scopes).await {
        None => Err(oci::route::InvalidRoute::Unknown.into()),
        Some(Ok(issued)) => {
            let answer = answer(&issued, &scopes);
            record.login(issued.login);
            Ok(answer)
        }
        Some(Err(refusal)) => Err(match Error::refused(refusal, Wanted::Entry, None) {
            // Whoever fails here needs other credentials, not a token.
            Error::Unauthorized { message, .. } => Error::Unauthorized { message, challenge: BASIC },
            error => error,
        }),
    }
}

/// What stands in a form in place of basic authentication.
fn form_credentials(form: &Query) -> Result<Option<Credentials>, Error> {
    match form.get("grant_type") {
        None | Some("password") => {}
        Some(_) => {
            return Err(Error::Parameter(
                "only `grant_type=password` is possible here: this registry gives out no refresh tokens"
                    .into(),
            ));
        }
    }
    let credentials = form.get("username").zip(form.get("password"));
    Ok(credentials.map(|(username, secret)| Credentials { username: username.into(), secret: secret.into() }))
}

async fn read(body: Body, memory: &mut Memory) -> Result<String, Error> {
    let form = whole(body, MAX_FORM, memory, PATIENCE).await?;
    let form = form.ok_or_else(|| Error::Parameter(format!("the form is larger than {MAX_FORM} bytes")))?;
    String::from_utf8(form.into()).map_err(|_| Error::Parameter("the form is not UTF-8".into()))
}

/// Some clients read `token`, others `access_token`.
fn answer(Issued { token, lifetime, login: _ }: &Issued, scopes: &Scopes) -> Response {
    let body = json!({
        "token": token,
        "access_token": token,
        "expires_in": lifetime.as_secs(),
        "scope": scopes.as_str(),
    });
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from(body.to_string())).into_response()
}
