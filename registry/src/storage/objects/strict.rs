//! A bucket in memory for tests, as strict as S3: what one of the stores would refuse it refuses, and what they do not
//! promise it does not do.
//!
//! - Versions are hashes of the content: the same bytes have the same one, whatever was there in between.
//! - Parts but the last have at least 5 MiB, and are completed by the names that they got.
//! - Lists come in another order each time.
//! - Nothing is copied, renamed, or given attributes.
//!
//! It counts what it is asked for, and fails when it is told to, before or after it has done it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
    memory::InMemory,
    multipart::{MultipartStore, PartId},
    path::Path,
};
use oci::{Algorithm, Digest};
use uuid::Uuid;

/// S3's.
const LEAST_PART: usize = 5 << 20;

/// The bucket. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Strict {
    objects: Arc<InMemory>,
    /// Whoever writes looks first, and nobody else writes in between.
    writing: Arc<tokio::sync::Mutex<()>>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    uploads: HashMap<MultipartId, Multipart>,
    operations: u64,
    by_name: BTreeMap<&'static str, u64>,
    failing: Option<(u64, Failing)>,
    /// Keys that ever held data: there is nothing to write there again.
    data: HashSet<Path>,
    versions: HashMap<Path, String>,
}

#[derive(Debug)]
struct Multipart {
    key: Path,
    parts: BTreeMap<usize, (String, Bytes)>,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// It is not done.
    Before,
    /// It is done, and nobody hears of it.
    After,
}

impl Strict {
    /// Operations so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Operations so far by their names: `get`, `head`, `put`, `list`, …
    #[must_use]
    pub fn by_name(&self) -> BTreeMap<&'static str, u64> {
        self.state().by_name.clone()
    }

    /// Lets the operation after so many others fail, once.
    pub fn fail_after(&self, operations: u64, how: Failing) {
        let mut state = self.state();
        state.failing = Some((state.operations + operations, how));
    }

    /// Whether what was asked for by [`Self::fail_after`] did not come to pass; it will not any more.
    #[must_use]
    pub fn no_failure(&self) -> bool {
        self.state().failing.take().is_some()
    }

    /// The keys below one at which there is more than an empty object, sorted.
    pub async fn keys(&self, below: &str) -> Vec<String> {
        let found = self.objects.list(Some(&below.into()));
        let found =
            found.try_filter_map(async |found| Ok((found.size > 0).then(|| found.location.to_string())));
        let mut keys: Vec<_> = found.try_collect().await.unwrap_or_default();
        keys.sort();
        keys
    }

    /// Multipart uploads that were neither completed nor aborted.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.state().uploads.len()
    }

    /// An object's bytes.
    pub async fn bytes(&self, key: &str) -> Option<Bytes> {
        self.objects.get(&key.into()).await.ok()?.bytes().await.ok()
    }

    /// Puts other bytes behind the registries' backs.
    pub async fn overwrite(&self, key: &str, bytes: Bytes) {
        let _writing = self.writing.lock().await;
        // Memory takes everything.
        let _ = self.put_here(&key.into(), bytes).await;
    }

    async fn put_here(&self, key: &Path, bytes: Bytes) -> Result<String> {
        let version = format!("\"{}\"", Digest::of(Algorithm::Sha256, &bytes).hex());
        self.objects.put(key, bytes.into()).await?;
        self.state().versions.insert(key.clone(), version.clone());
        Ok(version)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation, and does it or fails.
    async fn operation<T>(&self, name: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let failing = {
            let mut state = self.state();
            state.operations += 1;
            *state.by_name.entry(name).or_default() += 1;
            let now = state.operations;
            state.failing.take_if(|(after, _)| now > *after).map(|(_, how)| how)
        };
        // As others would get in between over a network.
        tokio::task::yield_now().await;
        if failing == Some(Failing::Before) {
            return Err(refused(name, "it was told to fail"));
        }
        let done = work.await;
        tokio::task::yield_now().await;
        if failing == Some(Failing::After) { Err(refused(name, "the answer was lost")) } else { done }
    }

    fn version(&self, key: &Path) -> Option<String> {
        self.state().versions.get(key).cloned()
    }

    async fn write(&self, key: &Path, bytes: Bytes, mode: PutMode) -> Result<PutResult> {
        let _writing = self.writing.lock().await;
        let there = match self.objects.head(key).await {
            Ok(_) => self.version(key),
            Err(Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        match (mode, there) {
            (PutMode::Overwrite, there) => {
                let is_data = key.as_ref().starts_with("data/");
                if is_data && there.is_none() && !self.state().data.insert(key.clone()) {
                    return Err(refused("put", "this name of data was used before"));
                }
            }
            (PutMode::Create, None) => {}
            (PutMode::Create, Some(_)) => {
                return Err(Error::AlreadyExists { path: key.to_string(), source: "it is there".into() });
            }
            (PutMode::Update(version), there) => {
                if version.e_tag.is_none() || there != version.e_tag {
                    let source = format!("it is {there:?}").into();
                    return Err(Error::Precondition { path: key.to_string(), source });
                }
            }
        }
        let e_tag = Some(self.put_here(key, bytes).await?);
        Ok(PutResult { e_tag, version: None, extensions: http::Extensions::default() })
    }
}

fn refused(name: &'static str, why: &'static str) -> Error {
    Error::Generic { store: "strict", source: format!("{name}: {why}").into() }
}

fn unknown(id: &str) -> Error {
    Error::NotFound { path: id.to_owned(), source: "there is no such multipart upload".into() }
}

/// In another order each time.
fn shuffle<T>(mut things: Vec<T>) -> Vec<T> {
    let random = Uuid::new_v4().as_u128();
    for index in (1..things.len()).rev() {
        let other = random.rotate_left(u32::try_from(index % 128).unwrap_or_default()) % (index as u128 + 1);
        things.swap(index, usize::try_from(other).unwrap_or_default());
    }
    things
}

impl fmt::Display for Strict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Strict")
    }
}

#[async_trait]
impl ObjectStore for Strict {
    async fn put_opts(&self, key: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if !options.attributes.is_empty() || options.tags != object_store::TagSet::default() {
            return Err(refused("put", "attributes are not the same everywhere"));
        }
        self.operation("put", self.write(key, payload.into(), options.mode)).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(refused("put_multipart", "no other instance could go on with it"))
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        let name = if options.head { "head" } else { "get" };
        let get = async {
            let mut found = self.objects.get_opts(key, options).await?;
            found.meta.e_tag = self.version(key);
            Ok(found)
        };
        self.operation(name, async {
            let _writing = self.writing.lock().await;
            get.await
        })
        .await
    }

    async fn get_ranges(&self, key: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.operation("get", self.objects.get_ranges(key, ranges)).await
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        keys.and_then(move |key| {
            let this = this.clone();
            async move {
                let delete = async {
                    let _writing = this.writing.lock().await;
                    this.objects.delete(&key).await
                };
                this.operation("delete", delete).await?;
                Ok(key)
            }
        })
        .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        let list = async move {
            let found = this.objects.list(prefix.as_ref()).try_collect::<Vec<_>>();
            let found = this.operation("list", found).await?;
            Ok::<_, Error>(stream::iter(shuffle(found)).map(Ok))
        };
        stream::once(list).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let found = self.operation("list", self.objects.list_with_delimiter(prefix)).await?;
        Ok(ListResult {
            common_prefixes: shuffle(found.common_prefixes),
            objects: shuffle(found.objects),
            ..found
        })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(refused(
            "copy",
            "large objects can't be copied in one request, and not on a condition everywhere",
        ))
    }
}

#[async_trait]
impl MultipartStore for Strict {
    async fn create_multipart(&self, key: &Path) -> Result<MultipartId> {
        self.operation("create_multipart", async {
            let id = Uuid::new_v4().to_string();
            let upload = Multipart { key: key.clone(), parts: BTreeMap::new() };
            self.state().uploads.insert(id.clone(), upload);
            Ok(id)
        })
        .await
    }

    async fn put_part(
        &self,
        key: &Path,
        id: &MultipartId,
        index: usize,
        bytes: PutPayload,
    ) -> Result<PartId> {
        self.operation("put_part", async {
            let bytes = Bytes::from(bytes);
            let name = Uuid::new_v4().to_string();
            let mut state = self.state();
            let upload = state.uploads.get_mut(id).filter(|upload| upload.key == *key);
            upload.ok_or_else(|| unknown(id))?.parts.insert(index, (name.clone(), bytes));
            Ok(PartId { content_id: name })
        })
        .await
    }

    async fn complete_multipart(
        &self,
        key: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        self.operation("complete_multipart", async {
            let bytes = {
                let mut state = self.state();
                let upload = state.uploads.get(id).filter(|upload| upload.key == *key);
                let upload = upload.ok_or_else(|| unknown(id))?;
                let mut bytes = Vec::new();
                for (index, part) in parts.iter().enumerate() {
                    let there = upload.parts.get(&index).filter(|(name, _)| *name == part.content_id);
                    let (_, piece) = there.ok_or_else(|| refused("complete", "there is no such part"))?;
                    if piece.len() < LEAST_PART && index + 1 < parts.len() {
                        return Err(refused("complete", "a part is too small"));
                    }
                    bytes.extend_from_slice(piece);
                }
                if parts.is_empty() {
                    return Err(refused("complete", "there are no parts"));
                }
                state.uploads.remove(id);
                bytes
            };
            self.write(key, bytes.into(), PutMode::Overwrite).await
        })
        .await
    }

    async fn abort_multipart(&self, _: &Path, id: &MultipartId) -> Result<()> {
        self.operation("abort_multipart", async {
            self.state().uploads.remove(id).map(|_| ()).ok_or_else(|| unknown(id))
        })
        .await
    }
}
