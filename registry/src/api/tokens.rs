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

use super::{incoming::whole, query::Query, record::Record};
use crate::{
    access::{Access, BASIC, Credentials, Scopes, TOKEN_LIFETIME, Wanted},
    error::Error,
};

/// The path of the endpoint.
pub(super) const PATH: &str = "/token";
/// Largest form.
const MAX_FORM: usize = 8 << 10;
/// A form is small; who takes longer to send one is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn issue(
    access: &Access,
    request: Request,
    source: IpAddr,
    record: &mut Record,
) -> Result<Response, Error> {
    let (parts, body) = request.into_parts();
    let (parameters, credentials) = match parts.method {
        Method::GET | Method::HEAD => (Query::parse(parts.uri.query()), None),
        Method::POST => {
            let form = Query::parse(Some(&read(body).await?));
            let credentials = form_credentials(&form)?;
            (form, credentials)
        }
        other => return Err(Error::Method(other, "GET, HEAD, POST")),
    };
    let scopes = Scopes::parse(parameters.all("scope"));
    let scopes = scopes.map_err(|error| Error::Parameter(error.to_string()))?;
    match access.issue_token(credentials, &parts.headers, source, &scopes).await {
        None => Err(oci::route::InvalidRoute::Unknown.into()),
        Some(Ok(issued)) => {
            record.login(issued.login);
            Ok(answer(&issued.token, &scopes))
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

async fn read(body: Body) -> Result<String, Error> {
    let form = whole(body, MAX_FORM, PATIENCE).await?;
    let form = form.ok_or_else(|| Error::Parameter(format!("the form is larger than {MAX_FORM} bytes")))?;
    String::from_utf8(form.into()).map_err(|_| Error::Parameter("the form is not UTF-8".into()))
}

/// Some clients read `token`, others `access_token`.
fn answer(token: &str, scopes: &Scopes) -> Response {
    let body = json!({
        "token": token,
        "access_token": token,
        "expires_in": TOKEN_LIFETIME.as_secs(),
        "scope": scopes.as_str(),
    });
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from(body.to_string())).into_response()
}
