//! What one copy's login is opened with: its password, when it came, the one that comes next, and what is still accepted
//! beside it.
//!
//! All of it stands in the Secret itself, under a seal over which Secret it is, whose it is and what it holds. What does
//! not match the seal was edited, moved, put back or made by somebody else, and is not believed: such a copy gets another
//! password, and none that it had before is accepted any longer.
//!
//! A rotation has two steps, and each is one write. The next password is announced: it is accepted, and nobody uses it
//! yet. Once every replica knows it, it is what the Secret gives, and the former one is accepted for [`OVERLAP`] more. So
//! whoever uses what the Secret gives is never refused.

use std::{collections::BTreeMap, time::Duration};

use channel::policy::{End, SecretHash};
use k8s_openapi::{ByteString, api::core::v1::Secret, jiff::Timestamp};
use kube::ResourceExt as _;
use serde_json::Value;

use super::{password::Password, placement::Placement};
use crate::{certificate::text, keys::RegistryKey};

/// The key of a `kubernetes.io/dockerconfigjson` Secret.
pub(super) const CONFIG: &str = ".dockerconfigjson";
/// The key of a password that is announced.
const NEXT: &str = "next-password";

const SEAL: &str = "berth.dev/seal";
const ISSUED: &str = "berth.dev/issued-at";
const ANNOUNCED: &str = "berth.dev/announced-at";
const ROTATED_FOR: &str = "berth.dev/rotated-for";
const FORMER: &str = "berth.dev/former";

/// How long a password is accepted after another took its place: whoever has read it may be using it.
pub(super) const OVERLAP: Duration = Duration::from_secs(60 * 60);
/// How long an announced password waits for replicas. One that stays away longer serves nobody, as a rule, and must not
/// keep all others from a new password.
pub(super) const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// So many former passwords are accepted at once; who rotates more often within [`OVERLAP`] means to end the oldest.
const FORMERS: usize = 4;

/// What a copy's login is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Credential {
    /// What the Secret gives to whoever uses it.
    pub(super) password: Password,
    issued: Timestamp,
    next: Option<Next>,
    /// The demand for which its newest password was made, or empty.
    rotated_for: String,
    /// The newest first.
    former: Vec<Former>,
}

/// A password that is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Next {
    password: Password,
    announced: Timestamp,
}

/// A password that another one has replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Former {
    hash: SecretHash,
    until: Timestamp,
}

impl Credential {
    /// The first of a copy, or the first that anybody can believe. It is given at once: before, there was nothing to use.
    pub(super) fn new(password: Password, placement: &Placement, now: Timestamp) -> Self {
        let rotated_for = placement.rotation_demanded().unwrap_or_default();
        Self { password, issued: whole_seconds(now), next: None, rotated_for, former: Vec::new() }
    }

    /// What the Secret holds, where it is as we made it and where we put it.
    pub(super) fn read(secret: &Secret, placement: &Placement, key: &RegistryKey) -> Option<Self> {
        if (secret.namespace().as_deref(), &secret.name_any())
            != (Some(placement.namespace), &placement.secret.name)
        {
            return None;
        }
        let annotation = |name| secret.annotations().get(name).map_or("", String::as_str);
        let data = secret.data.as_ref()?;
        let config = text(data, CONFIG)?;
        let next = if data.contains_key(NEXT) { text(data, NEXT)? } else { String::new() };
        let sealed = Sealed {
            uid: &secret.uid()?,
            config: &config,
            next: &next,
            announced: annotation(ANNOUNCED),
            issued: annotation(ISSUED),
            rotated_for: annotation(ROTATED_FOR),
            former: annotation(FORMER),
        };
        if annotation(SEAL) != sealed.seal(placement, key) {
            return None;
        }
        let former = sealed.former.split(',').filter(|former| !former.is_empty());
        Some(Self {
            password: password(&config)?,
            issued: sealed.issued.parse().ok()?,
            next: Next::parse(&next, sealed.announced)?,
            rotated_for: sealed.rotated_for.to_owned(),
            former: former.map(Former::parse).collect::<Option<_>>()?,
        })
    }

    /// What has to stand beside `config` in the Secret of this UID, so that it is believed later: data and annotations.
    pub(super) fn beside(
        &self,
        config: &str,
        uid: &str,
        placement: &Placement,
        key: &RegistryKey,
    ) -> (BTreeMap<String, ByteString>, BTreeMap<String, String>) {
        let next = self.next.as_ref().map_or("", |next| next.password.reveal());
        let announced = self.next.as_ref().map_or_else(String::new, |next| next.announced.to_string());
        let issued = self.issued.to_string();
        let former = self.former.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let rotated_for = self.rotated_for.clone();
        let sealed = Sealed {
            uid,
            config,
            next,
            announced: &announced,
            issued: &issued,
            rotated_for: &rotated_for,
            former: &former,
        };
        let seal = sealed.seal(placement, key);
        let data =
            self.next.iter().map(|_| (NEXT.to_owned(), ByteString(next.as_bytes().to_owned()))).collect();
        let all = [
            (SEAL, seal),
            (ISSUED, issued),
            (ANNOUNCED, announced),
            (ROTATED_FOR, rotated_for),
            (FORMER, former),
        ];
        let all = all.into_iter().filter(|(_, value)| !value.is_empty());
        (data, all.map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// What it should be at `now`: itself; where its time is over, with `fresh` announced; or with what was announced in
    /// its place, where every replica knows that.
    pub(super) fn at<E>(
        mut self,
        now: Timestamp,
        placement: &Placement,
        is_known: impl Fn(&SecretHash) -> bool,
        fresh: impl FnOnce() -> Result<Password, E>,
    ) -> Result<Self, E> {
        self.former.retain(|former| now < former.until);
        if self.is_over(now, placement) {
            // Whoever demands another password while one is announced may mean that one.
            self.next = Some(Next { password: fresh()?, announced: whole_seconds(now) });
            self.rotated_for = placement.rotation_demanded().unwrap_or_default();
        } else if let Some(next) =
            self.next.take_if(|next| is_known(&next.password.hash()) || next.waited(now))
        {
            let until = whole_seconds(now) + OVERLAP;
            self.former.insert(0, Former { hash: self.password.hash(), until });
            self.former.truncate(FORMERS);
            (self.password, self.issued) = (next.password, whole_seconds(now));
        }
        Ok(self)
    }

    /// Whether another password has to be announced.
    fn is_over(&self, now: Timestamp, placement: &Placement) -> bool {
        let demanded = placement.rotation_demanded().is_some_and(|demand| demand != self.rotated_for);
        // Made in a future that has not come: a clock was wrong, and would keep this password for as long.
        let aged = now >= self.due(placement) || self.issued > now + OVERLAP;
        demanded || (aged && self.next.is_none())
    }

    /// When the time of what it gives is over.
    pub(super) fn due(&self, placement: &Placement) -> Timestamp {
        self.issued.saturating_add(placement.interval()).unwrap_or(Timestamp::MAX)
    }

    /// When something is to be done next though nothing happens: a rotation, its second step, or the end of a former
    /// password.
    pub(super) fn next(&self, placement: &Placement) -> Timestamp {
        let ends = self.former.iter().map(|former| former.until);
        let rotation =
            self.next.as_ref().map_or_else(|| self.due(placement), |next| next.announced + PATIENCE);
        ends.chain([rotation]).min().unwrap_or(Timestamp::MAX)
    }

    /// The password that nobody uses yet.
    pub(super) fn announced(&self) -> Option<SecretHash> {
        self.next.as_ref().map(|next| next.password.hash())
    }

    /// Hashes of the passwords that open the login at `now`, in an order that does not tell which is which: whether
    /// replicas have them is the same when an announced one is given.
    pub(super) fn accepted(&self, now: Timestamp) -> Vec<SecretHash> {
        let former = self.formers(now).map(|former| former.hash);
        let mut accepted: Vec<_> = former.chain([self.password.hash()]).chain(self.announced()).collect();
        accepted.sort_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
        accepted
    }

    /// When those that were replaced are over: replicas look at that themselves.
    pub(super) fn ends(&self, now: Timestamp) -> Vec<End> {
        let end = |former: &Former| End { secret: former.hash, until: former.until.to_string() };
        self.formers(now).map(end).collect()
    }

    fn formers(&self, now: Timestamp) -> impl Iterator<Item = &Former> {
        self.former.iter().filter(move |former| now < former.until)
    }
}

impl Next {
    /// What stands in the Secret: none, or all of it, or it can't be one of ours.
    #[expect(clippy::option_option, reason = "there may rightly be none")]
    fn parse(password: &str, announced: &str) -> Option<Option<Self>> {
        if password.is_empty() && announced.is_empty() {
            return Some(None);
        }
        let (password, announced) = (Password::parse(password)?, announced.parse().ok()?);
        Some(Some(Self { password, announced }))
    }

    /// Whether replicas had their time. That of a clock that was wrong is over as well.
    fn waited(&self, now: Timestamp) -> bool {
        now.duration_since(self.announced).unsigned_abs() >= PATIENCE
    }
}

impl Former {
    fn parse(text: &str) -> Option<Self> {
        let (hash, until) = text.split_once('@')?;
        Some(Self { hash: serde_json::from_value(hash.into()).ok()?, until: until.parse().ok()? })
    }
}

impl std::fmt::Display for Former {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", hex::encode(self.hash.as_bytes()), self.until)
    }
}

/// What the seal is over, beside the placement.
struct Sealed<'a> {
    /// Of the Secret: what is put back after it was deleted has another one.
    uid: &'a str,
    /// It has the password.
    config: &'a str,
    next: &'a str,
    announced: &'a str,
    issued: &'a str,
    rotated_for: &'a str,
    former: &'a str,
}

impl Sealed<'_> {
    fn seal(&self, placement: &Placement, key: &RegistryKey) -> String {
        let Self { uid, config, next, announced, issued, rotated_for, former } = self;
        let Placement { kind, secret, namespace, repository } = placement;
        let (owner, username) = (repository.uid().unwrap_or_default(), placement.username());
        let whose = ["delivery", kind.as_str(), namespace, &secret.name, &owner, &username];
        let holds = [*uid, *config, *next, *announced, *issued, *rotated_for, *former];
        key.seal(&[whose.as_slice(), &holds].concat())
    }
}

/// Whether the Secret may be believed, if its seal is right.
pub(super) fn is_sealed(secret: &Secret) -> bool {
    secret.annotations().contains_key(SEAL)
}

/// All entries have the same one.
fn password(config: &str) -> Option<Password> {
    let config: Value = serde_json::from_str(config).ok()?;
    let entry = config["auths"].as_object()?.values().next()?;
    Password::parse(entry["password"].as_str()?)
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests;
