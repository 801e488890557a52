//! What a method on a route means, and which action that is.

use http::Method;
use oci::Route;
use prometheus_client::encoding::EncodeLabelValue;

use crate::{
    access::{Action, Wanted},
    error::Error,
};

/// Everything that the API can do. Also a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Operation {
    /// Not known, or not got so far.
    Other,
    IssueToken,
    Ping,
    ListRepositories,
    ListTags,
    ListReferrers,
    ReadState,
    FollowFeed,
    CheckBlob,
    PullBlob,
    DeleteBlob,
    CheckManifest,
    PullManifest,
    PushManifest,
    DeleteManifest,
    StartUpload,
    CheckUpload,
    AppendUpload,
    FinishUpload,
    CancelUpload,
}

impl Operation {
    pub(super) fn of(method: &Method, route: &Route) -> Result<Self, Error> {
        let (operations, allowed): (&[_], _) = match route {
            Route::Base => (&[(Method::GET, Self::Ping), (Method::HEAD, Self::Ping)], "GET, HEAD"),
            Route::Catalog => (
                &[(Method::GET, Self::ListRepositories), (Method::HEAD, Self::ListRepositories)],
                "GET, HEAD",
            ),
            Route::Tags(_) => (&[(Method::GET, Self::ListTags), (Method::HEAD, Self::ListTags)], "GET, HEAD"),
            Route::Referrers(..) => {
                (&[(Method::GET, Self::ListReferrers), (Method::HEAD, Self::ListReferrers)], "GET, HEAD")
            }
            Route::State(_) => {
                (&[(Method::GET, Self::ReadState), (Method::HEAD, Self::ReadState)], "GET, HEAD")
            }
            Route::Feed => {
                (&[(Method::GET, Self::FollowFeed), (Method::HEAD, Self::FollowFeed)], "GET, HEAD")
            }
            Route::Blob(..) => (
                &[
                    (Method::GET, Self::PullBlob),
                    (Method::HEAD, Self::CheckBlob),
                    (Method::DELETE, Self::DeleteBlob),
                ],
                "GET, HEAD, DELETE",
            ),
            Route::Manifest(..) => (
                &[
                    (Method::GET, Self::PullManifest),
                    (Method::HEAD, Self::CheckManifest),
                    (Method::PUT, Self::PushManifest),
                    (Method::DELETE, Self::DeleteManifest),
                ],
                "GET, HEAD, PUT, DELETE",
            ),
            Route::Uploads(_) => (&[(Method::POST, Self::StartUpload)], "POST"),
            Route::Upload(..) => (
                &[
                    (Method::GET, Self::CheckUpload),
                    (Method::PATCH, Self::AppendUpload),
                    (Method::PUT, Self::FinishUpload),
                    (Method::DELETE, Self::CancelUpload),
                ],
                "GET, PATCH, PUT, DELETE",
            ),
        };
        let found = operations.iter().find(|(known, _)| known == method);
        found.map(|(_, operation)| *operation).ok_or_else(|| Error::Method(method.clone(), allowed))
    }

    /// Whether it changes something.
    pub(super) fn changes(self) -> bool {
        matches!(self.action(), Some(Action::ContentWrite | Action::ContentDelete))
            && self != Self::CheckUpload
    }

    /// What is decided on before anything else happens.
    pub(super) fn wanted(self, route: &Route) -> Wanted<'_> {
        match (self.action(), route.repository()) {
            (_, Some(repository)) if self == Self::PushManifest => Wanted::Manifest(repository),
            (Some(action), Some(repository)) => Wanted::Action(action, repository),
            _ => match self {
                Self::ListRepositories => Wanted::Catalog,
                Self::FollowFeed => Wanted::Feed,
                _ => Wanted::Entry,
            },
        }
    }

    /// The one action that decides.
    fn action(self) -> Option<Action> {
        match self {
            // What the catalog and the feed show is decided for each repository.
            Self::Other | Self::IssueToken | Self::Ping | Self::ListRepositories | Self::FollowFeed => None,
            Self::ListTags | Self::ListReferrers | Self::ReadState => Some(Action::MetadataRead),
            Self::CheckBlob | Self::PullBlob | Self::CheckManifest | Self::PullManifest => {
                Some(Action::ContentRead)
            }
            Self::PushManifest
            | Self::StartUpload
            | Self::CheckUpload
            | Self::AppendUpload
            | Self::FinishUpload
            | Self::CancelUpload => Some(Action::ContentWrite),
            Self::DeleteBlob | Self::DeleteManifest => Some(Action::ContentDelete),
        }
    }
}
