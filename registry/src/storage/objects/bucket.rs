//! What the rest builds on: values that are only ever replaced by who knows what they were, entries that are written
//! once under names that were never there, and lists in no order.
//!
//! A value is an object: a line that is new each time it is written, so that no two are alike and a version that is a
//! hash of the content, as S3's are, tells them apart, then its content. Stores can't delete on a condition, so a value is *buried*: replaced
//! by nothing, an empty object, which any later write replaces again. Collection takes the graves away: it replaces them
//! by a *seal* that nobody else touches for [`LONGEST`], and deletes them within that time.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use object_store::{
    Error as StoreError, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode,
    PutOptions, UpdateVersion, multipart::MultipartStore, path::Path,
};
use uuid::Uuid;

use crate::storage::Error;

/// Longer than any request takes from its first look to its last write, and than clocks differ. Requests keep to half
/// of it ([`Bucket::check_time`]).
pub(crate) const LONGEST: Duration = Duration::from_secs(1800);
/// Objects that are shorter hold no value: each begins with a UUID.
pub(super) const LEAST_VALUE: u64 = 36;
/// Seals begin with it, and then say since when.
const SEAL: u8 = b'-';
/// How often something is tried again that others changed meanwhile.
const ATTEMPTS: u32 = 60;

/// What a store must be able to do.
pub(crate) trait Backend: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Backend for T {}

/// What time it is.
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    #[default]
    System,
    /// Seconds since 1970.
    #[cfg(test)]
    Manual(Arc<std::sync::atomic::AtomicU64>),
}

impl Clock {
    pub(super) fn now(&self) -> u64 {
        match self {
            Self::System => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            #[cfg(test)]
            Self::Manual(seconds) => seconds.load(std::sync::atomic::Ordering::SeqCst),
        }
    }
}

#[derive(Clone)]
pub(super) struct Bucket {
    pub(super) store: Arc<dyn Backend>,
    pub(super) clock: Clock,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({})", self.store)
    }
}

/// A value as it was read.
#[derive(Debug)]
pub(super) struct Slot {
    key: Path,
    /// None where there is nothing, never was or no more.
    pub(super) content: Option<Bytes>,
    /// None where there is no object.
    version: Option<UpdateVersion>,
    /// Bytes of the whole content, of which only the first may have been read.
    pub(super) size: u64,
    /// Somebody is taking it away right now.
    is_sealed: bool,
}

/// A value as it was written: only what wrote it can replace it.
#[derive(Debug)]
pub(super) struct Written(Slot);

impl Slot {
    /// Where there is nothing, under a name that is new.
    pub(super) fn absent(key: &Path) -> Self {
        Self::nothing(key, None)
    }

    /// What it holds, as JSON.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        let Some(content) = &self.content else { return Ok(None) };
        serde_json::from_slice(content).map(Some).map_err(|_| self.damaged("it should hold JSON"))
    }

    pub(super) fn damaged(&self, what: &'static str) -> Error {
        Error::Damaged { path: self.key.to_string().into(), what }
    }
}

impl Written {
    pub(super) fn slot(&self) -> &Slot {
        &self.0
    }
}

/// How often somebody else was faster.
#[derive(Debug, Default)]
pub(super) struct Attempts(u32);

impl Attempts {
    /// Waits a little, longer each time; fails where it was often.
    pub(super) async fn again(&mut self, key: &Path) -> Result<(), Error> {
        self.0 += 1;
        if self.0 > ATTEMPTS {
            return Err(Error::Contended { key: key.to_string() });
        }
        if self.0 > 2 {
            let random = u64::from(Uuid::new_v4().as_bytes()[0]);
            tokio::time::sleep(Duration::from_millis(random * u64::from(self.0.min(16)) / 32)).await;
        }
        Ok(())
    }
}

/// A name that was never there.
pub(super) fn nonce() -> String {
    Uuid::new_v4().to_string()
}

impl Bucket {
    /// Reads a value.
    pub(super) async fn read(&self, key: &Path) -> Result<Slot, Error> {
        self.read_range(key, None).await
    }

    /// Reads the first bytes of a value: what comes of it can't be told from one that is shorter, but for its size.
    pub(super) async fn read_first(&self, key: &Path, bytes: u64) -> Result<Slot, Error> {
        self.read_range(key, Some(GetRange::Bounded(0..LEAST_VALUE + 1 + bytes))).await
    }

    async fn read_range(&self, key: &Path, range: Option<GetRange>) -> Result<Slot, Error> {
        let options = GetOptions { range: range.clone(), ..GetOptions::default() };
        let found = match self.store.get_opts(key, options).await {
            Ok(found) => found,
            Err(StoreError::NotFound { .. }) => return Ok(Slot::nothing(key, None)),
            // A range of something empty.
            Err(_) if range.is_some() => return Box::pin(self.read_range(key, None)).await,
            Err(error) => return Err(failed("read", key, error)),
        };
        let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        let size = found.meta.size;
        let bytes = found.bytes().await.map_err(|error| failed("read", key, error))?;
        let nothing = Slot::nothing(key, Some(version.clone()));
        match split(&bytes) {
            Split::Nothing => Ok(nothing),
            Split::Seal(since) => Ok(Slot { is_sealed: !self.is_past(since, LONGEST), ..nothing }),
            Split::Value(content) => {
                let size = size - (bytes.len() - content.len()) as u64;
                Ok(Slot { content: Some(content), size, ..nothing })
            }
            Split::Nonsense => Err(nothing.damaged("it is no value of this registry's")),
        }
    }

    /// Replaces a value. None where it is no longer what was read.
    pub(super) async fn swap(&self, slot: &Slot, content: &[u8]) -> Result<Option<Written>, Error> {
        let value: Bytes = [nonce().as_bytes(), b"\n", content].concat().into();
        let Some(version) = self.put(slot, value.clone()).await? else {
            return Ok(None);
        };
        let written = Slot {
            key: slot.key.clone(),
            content: Some(value.slice(value.len() - content.len()..)),
            version: Some(version),
            size: content.len() as u64,
            is_sealed: false,
        };
        Ok(Some(Written(written)))
    }

    pub(super) async fn swap_json(
        &self,
        slot: &Slot,
        content: &impl serde::Serialize,
    ) -> Result<Option<Written>, Error> {
        self.swap(slot, &serde_json::to_vec(content).map_err(Error::Encode)?).await
    }

    /// Replaces a value by nothing. False where it is no longer what was read.
    pub(super) async fn bury(&self, slot: &Slot) -> Result<bool, Error> {
        Ok(self.put(slot, Bytes::new()).await?.is_some())
    }

    async fn put(&self, slot: &Slot, value: Bytes) -> Result<Option<UpdateVersion>, Error> {
        if slot.is_sealed {
            return Ok(None);
        }
        let mode = slot.version.clone().map_or(PutMode::Create, PutMode::Update);
        let put = self.store.put_opts(&slot.key, value.clone().into(), PutOptions::from(mode)).await;
        match put {
            Ok(put) => Ok(Some(put.into())),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) if value.is_empty() => {
                Ok(None)
            }
            // A client that lost the answer asked again, and found what it had written itself.
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
                match self.store.get(&slot.key).await {
                    Ok(found) => {
                        let version = UpdateVersion {
                            e_tag: found.meta.e_tag.clone(),
                            version: found.meta.version.clone(),
                        };
                        let bytes = found.bytes().await.map_err(|error| failed("read", &slot.key, error))?;
                        Ok((bytes == value).then_some(version))
                    }
                    Err(StoreError::NotFound { .. }) => Ok(None),
                    Err(error) => Err(failed("read", &slot.key, error)),
                }
            }
            Err(error) => Err(failed("write", &slot.key, error)),
        }
    }

    /// Takes away what is left of a value that was buried. False where it holds something, or somebody else does it.
    pub(super) async fn remove_grave(&self, key: &Path) -> Result<bool, Error> {
        let slot = self.read(key).await?;
        if slot.content.is_some() || slot.version.is_none() {
            return Ok(false);
        }
        let sealed = self.clock.now();
        // Like values, no two are alike, but they are shorter.
        let seal: Bytes = format!("{}{sealed}-{}", char::from(SEAL), &nonce()[..13]).into();
        if self.put(&slot, seal).await?.is_none() {
            return Ok(false);
        }
        self.check_time(sealed)?;
        self.delete(key).await?;
        Ok(true)
    }

    /// Writes an object under a key that is only ever used for this.
    pub(super) async fn write(&self, key: &Path, bytes: Bytes) -> Result<(), Error> {
        self.store.put(key, bytes.into()).await.map(|_| ()).map_err(|error| failed("write", key, error))
    }

    /// Writes an entry, which says since when it is there.
    pub(super) async fn write_entry(&self, key: &Path) -> Result<(), Error> {
        self.write(key, self.clock.now().to_string().into()).await
    }

    /// Whether an entry is so old that nobody is about to make true what it says. One that is not there is.
    pub(super) async fn is_stale(&self, entry: &Path) -> Result<bool, Error> {
        let found = match self.store.get(entry).await {
            Ok(found) => found.bytes().await.map_err(|error| failed("read", entry, error))?,
            Err(StoreError::NotFound { .. }) => return Ok(true),
            Err(error) => return Err(failed("read", entry, error)),
        };
        let since = std::str::from_utf8(&found).ok().and_then(|since| since.parse().ok()).unwrap_or_default();
        Ok(self.is_past(since, LONGEST))
    }

    /// An object's bytes; none where there is none.
    pub(super) async fn get(&self, key: &Path) -> Result<Option<Bytes>, Error> {
        match self.store.get(key).await {
            Ok(found) => found.bytes().await.map(Some).map_err(|error| failed("read", key, error)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed("read", key, error)),
        }
    }

    /// An object's size; none where there is none.
    pub(super) async fn size(&self, key: &Path) -> Result<Option<u64>, Error> {
        match self.store.head(key).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed("look at", key, error)),
        }
    }

    /// Deletes an object under a key that is never used again.
    pub(super) async fn delete(&self, key: &Path) -> Result<(), Error> {
        match self.store.delete(key).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("delete", key, error)),
        }
    }

    /// Deletes what does no harm where it stays.
    pub(super) async fn forget(&self, keys: impl IntoIterator<Item = Path>) {
        let keys: Vec<_> = keys.into_iter().collect();
        let deletes: Vec<_> = keys.iter().map(|key| self.delete(key)).collect();
        let mut deletes = futures::stream::iter(deletes).buffer_unordered(AT_ONCE);
        while let Some(deleted) = deletes.next().await {
            if let Err(error) = deleted {
                tracing::warn!(%error, "an object that nothing needs any more is left");
            }
        }
    }

    /// Everything below a key, in no order.
    pub(super) fn list(&self, below: &Path) -> BoxStream<'static, Result<ObjectMeta, Error>> {
        let key = below.clone();
        self.store
            .list(Some(below))
            .map(move |found| found.map_err(|error| failed("list", &key, error)))
            .boxed()
    }

    /// The names right below a key under which there is more, sorted.
    pub(super) async fn folders(&self, below: &Path) -> Result<Vec<String>, Error> {
        let found = self.store.list_with_delimiter(Some(below)).await;
        let found = found.map_err(|error| failed("list", below, error))?;
        let names = found.common_prefixes.iter().filter_map(Path::filename).map(str::to_owned);
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn is_past(&self, since: u64, time: Duration) -> bool {
        self.clock.now().saturating_sub(since) >= time.as_secs()
    }

    /// Fails where a request that began then has taken so long that others no longer count with it.
    pub(super) fn check_time(&self, began: u64) -> Result<(), Error> {
        if self.clock.now().saturating_sub(began) * 2 <= LONGEST.as_secs() {
            Ok(())
        } else {
            Err(Error::TooSlow)
        }
    }
}

/// Requests to the store that one request here makes at once.
pub(super) const AT_ONCE: usize = 16;

impl Slot {
    fn nothing(key: &Path, version: Option<UpdateVersion>) -> Self {
        Self { key: key.clone(), content: None, version, size: 0, is_sealed: false }
    }
}

enum Split {
    Nothing,
    Seal(u64),
    Value(Bytes),
    Nonsense,
}

fn split(bytes: &Bytes) -> Split {
    match bytes.first() {
        None => Split::Nothing,
        Some(&SEAL) => {
            let since =
                std::str::from_utf8(&bytes[1..]).ok().and_then(|seal| seal.split('-').next()?.parse().ok());
            since.map_or(Split::Nonsense, Split::Seal)
        }
        Some(_) => match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) if end as u64 == LEAST_VALUE => Split::Value(bytes.slice(end + 1..)),
            _ => Split::Nonsense,
        },
    }
}

pub(super) fn failed(action: &'static str, key: &Path, source: StoreError) -> Error {
    Error::Object { action, key: key.to_string(), source: Box::new(source) }
}
