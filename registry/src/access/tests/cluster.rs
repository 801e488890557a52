//! A cluster that says whose tokens are by what stands in them.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::UNIX_EPOCH,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use serde_json::{Value, json};

use super::*;

pub(in crate::access) const AUDIENCE: &str = "berth.dev/apps/demo";
pub(in crate::access) const CI: &str = "system:serviceaccount:apps:ci";
pub(in crate::access) const NODE: &str = "system:serviceaccount:berth-system:node";

/// A token that the cluster made for somebody, which says that it lives so long.
pub(in crate::access) fn token_of(name: &str, left: Duration) -> String {
    signed(name, left, "right")
}

/// One that somebody made up.
pub(in crate::access) fn forged(name: &str) -> String {
    signed(name, Duration::from_secs(3600), "wrong")
}

fn signed(name: &str, left: Duration, signature: &str) -> String {
    let expires = (SystemTime::now() + left).duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({"aud": [AUDIENCE], "exp": expires, "sub": name});
    format!("e30.{}.{signature}", BASE64.encode(claims.to_string()))
}

#[derive(Debug, Default)]
pub(in crate::access) struct Cluster {
    /// Questions so far.
    pub(in crate::access) asked: AtomicUsize,
    pub(in crate::access) at_once: AtomicUsize,
    pub(in crate::access) most_at_once: AtomicUsize,
    /// How long an answer takes.
    pub(in crate::access) takes: Duration,
    pub(in crate::access) away: std::sync::atomic::AtomicBool,
    /// Whoever it says it is, whatever stands in the token.
    pub(in crate::access) says: Option<&'static str>,
}

impl Cluster {
    pub(in crate::access) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait::async_trait]
impl Reviewer for Cluster {
    async fn review(
        &self,
        token: &str,
        audience: &str,
    ) -> Result<Option<String>, crate::access::reviews::Away> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        if !self.takes.is_zero() {
            tokio::time::sleep(self.takes).await;
        }
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return Err(crate::access::reviews::Away);
        }
        assert_eq!(audience, AUDIENCE);
        let claims = token.split('.').nth(1).unwrap();
        let claims: Value = serde_json::from_slice(&BASE64.decode(claims).unwrap()).unwrap();
        let name = self.says.map_or_else(|| claims["sub"].as_str().unwrap().to_owned(), str::to_owned);
        Ok((token.rsplit('.').next() == Some("right")).then_some(name))
    }
}
