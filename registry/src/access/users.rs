//! Who there is, and what proves it. A name that does not exist costs an attempt as much as one that does.

use std::{collections::HashMap, sync::Arc};

use channel::policy::{Login, Policy, SecretHash};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::{
    basic::Credentials,
    htpasswd,
    invalid::{BadLogins, InvalidPolicy},
    permissions::Permissions,
};

/// More users than a registry has any use for.
const MAX_USERS: usize = 100_000;
/// While a rotation overlaps there are two; more than this is a mistake.
const MAX_SECRETS: usize = 16;

/// One of the users of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct UserId(u32);

/// Says in a token which secret or password it was got with, so that the token goes when that goes. Tells nothing of
/// the secret: what is hashed here carries 128 bits or more that nobody else knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 16]);

#[derive(Default)]
pub(super) struct Users {
    by_name: HashMap<Arc<str>, UserId>,
    all: Vec<User>,
    /// The hash that takes longest, for attempts that have none of their own.
    decoy: Option<(u32, Arc<str>)>,
}

struct User {
    name: Arc<str>,
    proof: Proof,
    /// What the user may do in every repository.
    everywhere: Permissions,
}

enum Proof {
    Secrets(Box<[Secret]>),
    Password(Arc<str>),
}

struct Secret {
    hash: SecretHash,
    /// From when on it opens nothing; none where it does for good.
    until: Option<Timestamp>,
}

impl Secret {
    /// With the first end that is said of it.
    fn new(login: &Login, hash: SecretHash) -> Result<Self, InvalidPolicy> {
        let end = login.ends.iter().filter(|end| end.secret == hash).map(|end| end.until.parse());
        let unreadable = |_| InvalidPolicy::End(login.username.escape_debug().to_string());
        let until = end.collect::<Result<Vec<Timestamp>, _>>().map_err(unreadable)?.into_iter().min();
        Ok(Self { hash, until })
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| now >= until)
    }
}

/// What looking at credentials gave.
pub(super) enum Attempt {
    /// A generated secret, and it is right.
    Right(UserId, Fingerprint),
    /// Wrong, and there is nothing more to look at.
    Wrong,
    /// The password decides, by this hash. Without a user it is only there to take the time.
    Password(Option<UserId>, Arc<str>),
}

impl Users {
    pub(super) fn new(policy: &Policy, bad: &mut BadLogins) -> Result<Self, InvalidPolicy> {
        let mut users = Self::robots(&policy.logins, bad)?;
        for entry in htpasswd::parse(policy.htpasswd.as_str()) {
            bad.judge(entry.map_err(Into::into).and_then(|entry| users.add_person(&entry)))?;
        }
        Ok(users)
    }

    /// Those who have generated secrets.
    pub(super) fn robots(logins: &[Login], bad: &mut BadLogins) -> Result<Self, InvalidPolicy> {
        let mut users = Self::default();
        for login in logins {
            bad.judge(users.add_robot(login))?;
        }
        Ok(users)
    }

    fn add_robot(&mut self, login: &Login) -> Result<(), InvalidPolicy> {
        let many = login.secrets.len();
        if many == 0 {
            return Err(InvalidPolicy::NoSecret(login.username.escape_debug().to_string()));
        } else if many > MAX_SECRETS {
            return Err(InvalidPolicy::TooManySecrets(login.username.escape_debug().to_string(), many));
        }
        let secrets: Result<_, _> = login.secrets.iter().map(|hash| Secret::new(login, *hash)).collect();
        self.add(&login.username, Proof::Secrets(secrets?), Permissions::role(login.role))
    }

    fn add_person(&mut self, entry: &htpasswd::Entry<'_>) -> Result<(), InvalidPolicy> {
        let hash: Arc<str> = entry.hash.into();
        let proof = Proof::Password(Arc::clone(&hash));
        self.add(entry.username, proof, Permissions::default())?;
        if self.decoy.as_ref().is_none_or(|(cost, _)| *cost < entry.cost) {
            self.decoy = Some((entry.cost, hash));
        }
        Ok(())
    }

    /// The first of a name is the one that counts.
    fn add(&mut self, username: &str, proof: Proof, everywhere: Permissions) -> Result<(), InvalidPolicy> {
        if username.is_empty() || username.contains(|c: char| c == ':' || c.is_control()) {
            return Err(InvalidPolicy::Username(username.escape_debug().to_string()));
        }
        if self.by_name.contains_key(username) {
            return Err(InvalidPolicy::Duplicate(username.to_owned()));
        }
        let id = u32::try_from(self.all.len()).ok().filter(|_| self.all.len() < MAX_USERS);
        let id = UserId(id.ok_or(InvalidPolicy::TooManyUsers(MAX_USERS))?);
        let name: Arc<str> = username.into();
        self.by_name.insert(Arc::clone(&name), id);
        self.all.push(User { name, proof, everywhere });
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn find(&self, username: &str) -> Option<UserId> {
        self.by_name.get(username).copied()
    }

    pub(super) fn name(&self, user: UserId) -> Option<Arc<str>> {
        self.get(user).map(|user| Arc::clone(&user.name))
    }

    pub(super) fn everywhere(&self, user: UserId) -> Permissions {
        self.get(user).map(|user| user.everywhere).unwrap_or_default()
    }

    /// Compares every byte of every secret of the user, or of as good as one where there is no such user.
    pub(super) fn attempt(&self, credentials: &Credentials) -> Attempt {
        let secret = SecretHash::of(&credentials.secret);
        let id = std::str::from_utf8(&credentials.username).ok().and_then(|name| self.find(name));
        let mut right = None;
        match id.and_then(|id| self.get(id)).map(|user| &user.proof) {
            Some(Proof::Password(hash)) => return Attempt::Password(id, Arc::clone(hash)),
            Some(Proof::Secrets(secrets)) => {
                let now = Timestamp::now();
                for known in secrets {
                    if bool::from(equal(&known.hash, &secret)) && !known.is_over(now) {
                        right = Some(fingerprint(known.hash.as_bytes()));
                    }
                }
            }
            None => {
                std::hint::black_box(equal(&SecretHash::of(b""), &secret));
            }
        }
        match (id.zip(right), &self.decoy) {
            (Some((id, fingerprint)), _) => Attempt::Right(id, fingerprint),
            (None, Some((_, hash))) => Attempt::Password(None, Arc::clone(hash)),
            (None, None) => Attempt::Wrong,
        }
    }

    /// Whether the secret or password with this fingerprint still opens the user.
    pub(super) fn still_has(&self, user: UserId, known: Fingerprint) -> bool {
        match self.get(user).map(|user| &user.proof) {
            Some(Proof::Secrets(secrets)) => {
                let now = Timestamp::now();
                let is_it = |secret: &Secret| fingerprint(secret.hash.as_bytes()) == known;
                secrets.iter().any(|secret| is_it(secret) && !secret.is_over(now))
            }
            Some(Proof::Password(hash)) => fingerprint(hash.as_bytes()) == known,
            None => false,
        }
    }

    fn get(&self, user: UserId) -> Option<&User> {
        self.all.get(usize::try_from(user.0).ok()?)
    }
}

/// Hashes stay out of logs.
impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Users({})", self.all.len())
    }
}

impl Fingerprint {
    pub(super) fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    pub(super) fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

/// Of a secret's hash, or of a password's.
pub(super) fn fingerprint(hash: &[u8]) -> Fingerprint {
    let digest = Sha256::new().chain_update(b"berth credential\0").chain_update(hash).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Fingerprint(bytes)
}

fn equal(a: &SecretHash, b: &SecretHash) -> Choice {
    a.as_bytes().ct_eq(b.as_bytes())
}
