//! A client that pushes in every way, mounts, moves and deletes, until the server is gone.
//!
//! What it says of the answers is exact while others push the same and while a collection without grace runs: only what no
//! manifest needs may be missing. What it deletes for good nobody else pushes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{Method, StatusCode};
use oci::{Algorithm, Digest, manifest::IMAGE, manifest::INDEX};
use serde_json::json;

use super::{
    acknowledged::{Acknowledged, Cut, OTHER, REPOSITORY, blob, manifest},
    tags::Written,
};
use crate::{
    client::{Answer, Client, Failure},
    image::{image_by, noise},
};

pub(super) const PUSHERS: usize = 4;

/// A manifest that was not yet pushed, and the blobs that it needs.
#[derive(Clone)]
struct Image {
    algorithm: Algorithm,
    /// Of this image alone.
    own: [Bytes; 2],
    /// All clients have it in an image.
    shared: Bytes,
    document: String,
}

impl Image {
    fn new(seed: u64, shared: u64) -> Self {
        let algorithm = if seed % 5 == 4 { Algorithm::Sha512 } else { Algorithm::Sha256 };
        let config = Bytes::from(format!("{{\"seed\":{seed}}}"));
        let layer = noise(seed, usize::try_from(seed % 7).unwrap() * 50_000 + 1000);
        let shared = Bytes::from(format!("shared {shared}"));
        let document = image_by(algorithm, &config, &[&layer, &shared]).to_string();
        Self { algorithm, own: [config, layer], shared, document }
    }

    fn digest(&self) -> Digest {
        self.digest_of(self.document.as_bytes())
    }

    fn digest_of(&self, content: &[u8]) -> Digest {
        Digest::of(self.algorithm, content)
    }

    fn blobs(&self) -> impl Iterator<Item = (&Bytes, Digest)> {
        self.own.iter().chain([&self.shared]).map(|content| (content, self.digest_of(content)))
    }
}

/// One client.
pub(super) struct Pusher {
    client: Client,
    round: u64,
    number: u64,
    /// The last image that it pushed.
    former: Option<Image>,
    acknowledged: Acknowledged,
}

impl Pusher {
    pub(super) fn new(client: Client, round: usize, number: usize) -> Self {
        let (round, number) = (round as u64, number as u64);
        Self { client, round, number, former: None, acknowledged: Acknowledged::default() }
    }

    /// Counts its turns.
    pub(super) async fn push_until_the_end(mut self, turns: Arc<AtomicUsize>) -> Acknowledged {
        for turn in 0.. {
            if self.take_turn(turn).await.is_err() {
                break;
            }
            turns.fetch_add(1, Ordering::Relaxed);
        }
        self.acknowledged
    }

    async fn take_turn(&mut self, turn: u64) -> Result<(), Failure> {
        // Turns of different clients begin with different things.
        let seed = (self.round * PUSHERS as u64 + self.number) * 1_000_001 + turn;
        let shared = self.round * 1_000_000 + turn;
        let image = Image::new(seed, shared);
        if turn % PUSHERS as u64 == self.number {
            self.delete_what_others_may_need(&image).await?;
        }
        // All clients set the same tags.
        let tag = format!("t{}", seed % 50);
        self.push_blobs(&image, seed).await?;
        if !self.put(REPOSITORY, &tag, &image).await? {
            return Ok(());
        }
        self.acknowledged.images += 1;
        self.find_it_protected(&image).await?;
        self.move_to_and_fro(&image).await?;
        self.delete_a_tag(seed, &image).await?;
        let doomed = Image::new(seed + 500_000, shared);
        match seed % 4 {
            0 => self.push_index(seed, &image).await?,
            1 => self.delete_an_image(seed, &doomed, &[], false).await?,
            2 => self.delete_an_image(seed, &doomed, &["e", "f"], false).await?,
            _ => self.delete_an_image(seed, &doomed, &["e"], true).await?,
        }
        self.former = Some(image);
        Ok(())
    }

    async fn push_blobs(&mut self, image: &Image, seed: u64) -> Result<(), Failure> {
        for (content, digest) in image.blobs() {
            self.push_blob(content, digest, usize::try_from(seed % 4).unwrap()).await?;
        }
        Ok(())
    }

    /// In one request, or in a session of so many chunks.
    async fn push_blob(&mut self, content: &Bytes, digest: Digest, chunks: usize) -> Result<(), Failure> {
        let uploads = format!("/v2/{REPOSITORY}/blobs/uploads/");
        if chunks == 0 {
            let path = format!("{uploads}?digest={digest}");
            self.send(Method::POST, &path, content.clone()).await?.expect(StatusCode::CREATED);
            return Ok(());
        }
        let started = self.send(Method::POST, &uploads, Bytes::new()).await?.expect(StatusCode::ACCEPTED);
        let location = started.header("location").to_owned();
        let close = format!("{location}?digest={digest}");
        let cut = Cut {
            location: location.clone(),
            content: content.clone(),
            digest,
            received: 0,
            is_closing: false,
        };
        self.acknowledged.cut.push(cut);
        for chunk in content.chunks(content.len().div_ceil(chunks)) {
            let cut = self.acknowledged.cut.last_mut().unwrap();
            let (first, end) = (cut.received, cut.received + chunk.len());
            let range = format!("{first}-{}", end - 1);
            let headers = [("content-range", range.as_str())];
            let chunk = content.slice(first..end);
            let taken = self.client.try_send(Method::PATCH, &location, &headers, chunk).await?;
            taken.expect(StatusCode::ACCEPTED);
            cut.received = end;
        }
        self.acknowledged.cut.last_mut().unwrap().is_closing = true;
        self.send(Method::PUT, &close, Bytes::new()).await?.expect(StatusCode::CREATED);
        self.acknowledged.cut.pop();
        Ok(())
    }

    /// Gives an image a tag, or none but its digest. False where the registry lacks what the manifest needs.
    async fn put(&mut self, repository: &str, reference: &str, image: &Image) -> Result<bool, Failure> {
        let digest = image.digest();
        let path = manifest(repository, reference);
        let is_tag = reference != digest.as_str();
        if is_tag {
            self.acknowledged.written.push(Written::begin(path.clone(), Some(digest.clone())));
        }
        let path = match image.algorithm {
            // A tag alone would name it by sha256.
            Algorithm::Sha512 if is_tag => manifest(repository, format!("{digest}?tag={reference}")),
            _ => path,
        };
        let headers = [("content-type", IMAGE)];
        let pushed = self.client.try_send(Method::PUT, &path, &headers, image.document.clone()).await?;
        if pushed.status == StatusCode::NOT_FOUND {
            if is_tag {
                self.acknowledged.written.pop();
            }
            return Ok(false);
        }
        pushed.expect(StatusCode::CREATED);
        if is_tag {
            self.acknowledged.written.last_mut().unwrap().end();
        }
        let blobs = image.blobs().map(|(_, digest)| (blob(repository, &digest), digest));
        self.acknowledged.there.extend(blobs);
        self.acknowledged.there.insert(manifest(repository, &digest), digest);
        Ok(true)
    }

    /// One of all takes it away, unless somebody was faster with an image.
    async fn delete_what_others_may_need(&self, image: &Image) -> Result<(), Failure> {
        let path = blob(REPOSITORY, &image.digest_of(&image.shared));
        let answer = self.send(Method::DELETE, &path, Bytes::new()).await?;
        let expected = [StatusCode::ACCEPTED, StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED];
        assert!(expected.contains(&answer.status), "{answer:?}");
        Ok(())
    }

    async fn find_it_protected(&self, image: &Image) -> Result<(), Failure> {
        for (_, digest) in image.blobs() {
            let refused = self.send(Method::DELETE, &blob(REPOSITORY, &digest), Bytes::new()).await?;
            refused.expect(StatusCode::METHOD_NOT_ALLOWED);
        }
        Ok(())
    }

    /// Sets a tag that nobody else sets to this image, and back to the former one.
    async fn move_to_and_fro(&mut self, image: &Image) -> Result<(), Failure> {
        let moving = format!("moving-{}", self.number);
        assert!(self.put(REPOSITORY, &moving, image).await?);
        if let Some(former) = self.former.take() {
            assert!(self.put(REPOSITORY, &moving, &former).await?, "what is tagged stays");
        }
        Ok(())
    }

    /// Sets a tag that nobody else sets, deletes it, and sets every other one again.
    async fn delete_a_tag(&mut self, seed: u64, image: &Image) -> Result<(), Failure> {
        let tag = format!("d{seed}");
        assert!(self.put(REPOSITORY, &tag, image).await?);
        let path = manifest(REPOSITORY, &tag);
        self.acknowledged.written.push(Written::begin(path.clone(), None));
        self.send(Method::DELETE, &path, Bytes::new()).await?.expect(StatusCode::ACCEPTED);
        self.acknowledged.written.last_mut().unwrap().end();
        if seed.is_multiple_of(2) {
            self.acknowledged.gone.insert(path);
        } else {
            assert!(self.put(REPOSITORY, &tag, image).await?);
            self.acknowledged.back.insert(path);
        }
        Ok(())
    }

    /// A child that can't go while its parent is there.
    async fn push_index(&mut self, seed: u64, image: &Image) -> Result<(), Failure> {
        let child = image.digest();
        let length = image.document.len();
        let children = json!([{"mediaType": IMAGE, "digest": child, "size": length}]);
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}).to_string();
        let digest = Digest::of(Algorithm::Sha256, index.as_bytes());
        let path = manifest(REPOSITORY, format!("i{seed}"));
        self.acknowledged.written.push(Written::begin(path.clone(), Some(digest.clone())));
        let pushed = self.client.try_send(Method::PUT, &path, &[("content-type", INDEX)], index).await?;
        pushed.expect(StatusCode::CREATED);
        self.acknowledged.written.last_mut().unwrap().end();
        self.acknowledged.there.insert(manifest(REPOSITORY, &digest), digest);
        let refused = self.send(Method::DELETE, &manifest(REPOSITORY, &child), Bytes::new()).await?;
        refused.expect(StatusCode::METHOD_NOT_ALLOWED);
        Ok(())
    }

    /// Pushes an image, with tags or without, mounts it elsewhere or not, and deletes it by its digest: the tags go with it,
    /// and what was mounted stays. Then its blobs go, or it comes back.
    async fn delete_an_image(
        &mut self,
        seed: u64,
        image: &Image,
        tags: &[&str],
        is_mounted: bool,
    ) -> Result<(), Failure> {
        let digest = image.digest();
        self.push_blobs(image, seed + 1).await?;
        if !self.put(REPOSITORY, digest.as_str(), image).await? {
            return Ok(());
        }
        let tags: Vec<_> = tags.iter().map(|tag| format!("{tag}{seed}")).collect();
        for tag in &tags {
            assert!(self.put(REPOSITORY, tag, image).await?);
        }
        if is_mounted {
            self.mount(seed, image).await?;
        }
        let path = manifest(REPOSITORY, &digest);
        let own: Vec<_> =
            image.own.iter().map(|content| blob(REPOSITORY, &image.digest_of(content))).collect();
        for path in own.iter().chain([&path]) {
            self.acknowledged.there.remove(path);
        }
        let first = self.acknowledged.written.len();
        let paths: Vec<_> = tags.iter().map(|tag| manifest(REPOSITORY, tag)).collect();
        self.acknowledged.written.extend(paths.iter().map(|path| Written::begin(path.clone(), None)));
        self.send(Method::DELETE, &path, Bytes::new()).await?.expect(StatusCode::ACCEPTED);
        self.acknowledged.written[first..].iter_mut().for_each(Written::end);
        self.acknowledged.gone.extend(paths.into_iter().chain([path.clone()]));
        if self.round.is_multiple_of(2) && tags.is_empty() {
            self.acknowledged.gone.remove(&path);
            if self.put(REPOSITORY, digest.as_str(), image).await? {
                self.acknowledged.back.insert(path);
            }
            return Ok(());
        }
        for path in own {
            let deleted = self.send(Method::DELETE, &path, Bytes::new()).await?;
            if deleted.status != StatusCode::NOT_FOUND {
                deleted.expect(StatusCode::ACCEPTED);
                self.acknowledged.gone.insert(path);
            }
        }
        Ok(())
    }

    /// What the manifest needs is there, so that each mount succeeds.
    async fn mount(&mut self, seed: u64, image: &Image) -> Result<(), Failure> {
        for (_, digest) in image.blobs() {
            let path = format!("/v2/{OTHER}/blobs/uploads/?mount={digest}&from={REPOSITORY}");
            self.send(Method::POST, &path, Bytes::new()).await?.expect(StatusCode::CREATED);
        }
        self.put(OTHER, &format!("m{seed}"), image).await?;
        Ok(())
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, Failure> {
        self.client.try_send(method, path, &[], body).await
    }
}
