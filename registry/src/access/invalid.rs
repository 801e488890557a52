//! Why a policy is refused.

use super::htpasswd::InvalidHtpasswd;

/// Each is a sentence for who wrote the policy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidPolicy {
    #[error("the policy can't be read: {0}")]
    Syntax(String),
    #[error("the policy has more users than {0}")]
    TooManyUsers(usize),
    #[error("username `{0}` can't be used: it must not be empty nor contain a colon or control characters")]
    Username(String),
    #[error("username `{0}` is there twice")]
    Duplicate(String),
    #[error("username `{0}` has no secret: leave the login out instead")]
    NoSecret(String),
    #[error("username `{0}` has {1} secrets, more than are allowed")]
    TooManySecrets(String, usize),
    #[error("{0}")]
    Htpasswd(#[from] InvalidHtpasswd),
    #[error(
        "path `{0}` can't be used: give a repository's name (`team/app`), all below a path (`team/*`) or everything \
         (`*`)"
    )]
    Path(String),
    #[error("path `{0}` is there twice")]
    DuplicatePath(String),
    #[error("user `{user}` gets nothing in `{path}`: give a role or actions, or leave the entry out")]
    NothingGiven { user: String, path: String },
}
