//! Decisions by a policy, for those who measure what they cost.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use channel::policy::{Action, Policy};
use http::HeaderMap;
use oci::RepoName;

use crate::access::{Access, Away, Reviewer, Rules, Scopes};

/// A policy that decides.
#[derive(Debug)]
pub struct Decisions(Access);

impl Decisions {
    /// By this policy; every token for its audience is that of this `ServiceAccount`.
    ///
    /// # Panics
    ///
    /// Where the policy can't be used.
    #[must_use]
    pub fn by(policy: &Policy, account: &'static str) -> Self {
        let access = Access::reviewed_by(Some(Arc::new(Always(account))), b"key");
        let access = access.expect("there are random numbers");
        access.install(Rules::new(policy).expect("the policy can be used"));
        Self(access)
    }

    /// A token for who shows these headers.
    ///
    /// # Panics
    ///
    /// Where they are not right.
    pub async fn token(&self, headers: &HeaderMap, scope: &str) -> String {
        let scopes = Scopes::parse([scope]).expect("one scope");
        let issued = self.0.issue_token(None, headers, HERE, &scopes).await;
        issued.expect("there is a policy").unwrap_or_else(|refusal| panic!("{refusal:?}")).token
    }

    /// Whether who shows these headers may do this: what each request goes through before storage is touched.
    pub async fn decide(&self, headers: &HeaderMap, action: Action, repository: &RepoName) -> bool {
        self.0.authenticate(headers, HERE).await.is_ok_and(|caller| caller.may(action, repository))
    }
}

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A cluster in which every token is that of one account.
#[derive(Debug)]
struct Always(&'static str);

#[async_trait::async_trait]
impl Reviewer for Always {
    async fn review(&self, _: &str, _: &str) -> Result<Option<String>, Away> {
        Ok(Some(self.0.into()))
    }
}
