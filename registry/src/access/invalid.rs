//! Why a policy is refused, or a part of it left out.

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
    #[error("username `{0}` has a secret that ends at no time: give one such as 2026-01-31T12:00:00Z")]
    End(String),
    #[error("{0}")]
    Htpasswd(#[from] InvalidHtpasswd),
    #[error("`serviceAccounts` needs an audience")]
    Audience,
    #[error("`{0}` is no ServiceAccount of nodes: give system:serviceaccount:<namespace>:<name>")]
    Nodes(String),
    #[error(
        "path `{0}` can't be used: give a repository's name (`team/app`), all below a path (`team/*`) or everything \
         (`*`)"
    )]
    Path(String),
    #[error("primary `{0}` can't be used: it needs a name of its own, without a colon")]
    Primary(String),
    #[error("path `{0}` is there twice")]
    DuplicatePath(String),
    #[error("user `{user}` gets nothing in `{path}`: give a role or actions, or leave the entry out")]
    NothingGiven { user: String, path: String },
}

/// What becomes of logins that can't be used.
#[derive(Debug)]
pub(super) enum BadLogins {
    /// The policy is refused: who wrote it is at hand.
    Refuse,
    /// They don't count, and all else does: a program sends the policy, and a login that came into it by mistake must
    /// not keep another in that is to go.
    LeaveOut(Vec<InvalidPolicy>),
}

impl BadLogins {
    /// Says what becomes of one.
    pub(super) fn judge<T>(&mut self, login: Result<T, InvalidPolicy>) -> Result<Option<T>, InvalidPolicy> {
        match (login, self) {
            (Ok(login), _) => Ok(Some(login)),
            (Err(error), Self::Refuse) => Err(error),
            (Err(error), Self::LeaveOut(reasons)) => {
                reasons.push(error);
                Ok(None)
            }
        }
    }
}
