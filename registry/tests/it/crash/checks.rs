//! What has to be true after a kill.

use std::{collections::HashSet, path::Path};

use channel::feed::Kind;
use http::{Method, StatusCode};
use oci::Digest;
use serde_json::Value;

use super::acknowledged::{Acknowledged, Cut, OTHER, REPOSITORY, blob, manifest};
use crate::client::Client;

/// What was acknowledged is there with all its bytes, and what was deleted is not.
pub(super) async fn check(client: &Client, root: &Path, acknowledged: &Acknowledged) {
    for (path, digest) in &acknowledged.there {
        let answer = client.get(path).await.expect(StatusCode::OK);
        assert_eq!(Digest::of(digest.algorithm(), &answer.body), *digest);
    }
    for path in &acknowledged.gone {
        assert_eq!(client.get(path).await.status, StatusCode::NOT_FOUND, "{path} was deleted");
    }
    for path in &acknowledged.back {
        assert_eq!(client.get(path).await.status, StatusCode::OK, "{path} is back");
    }
    // What was deleted left a record, and what is there again has none.
    let manifests = acknowledged.gone.iter().filter(|path| path.contains("/manifests/"));
    for (path, is_gone) in
        manifests.map(|path| (path, true)).chain(acknowledged.back.iter().map(|path| (path, false)))
    {
        let record = path.replacen("/v2/", "repositories/", 1).replacen("/manifests/", "/_deleted/", 1);
        assert_eq!(root.join(record).exists(), is_gone, "{path}");
    }
}

/// Sessions go on where they stood, with no less than was acknowledged.
pub(super) async fn check_uploads(client: &Client, cut: &[Cut]) {
    for cut in cut {
        let status = client.get(&cut.location).await;
        if status.status == StatusCode::NOT_FOUND && cut.is_closing {
            continue;
        }
        let range = status.expect(StatusCode::NO_CONTENT).header("range").to_owned();
        if range == "0-0" && cut.received == 0 {
            // Nothing, or one byte.
            client.delete(&cut.location).await.expect(StatusCode::NO_CONTENT);
            continue;
        }
        let received = range.strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1;
        assert!((cut.received..=cut.content.len()).contains(&received), "{range} after {}", cut.received);
        let close = format!("{}?digest={}", cut.location, cut.digest);
        let rest = cut.content.slice(received..);
        client.send(Method::PUT, &close, &[], rest).await.expect(StatusCode::CREATED);
        let content = client.get(&blob(REPOSITORY, &cut.digest)).await.expect(StatusCode::OK).body;
        assert_eq!(content, cut.content);
    }
}

/// Who follows the feed from a cursor hears of every change that was acknowledged since; where to go on.
pub(super) async fn check_feed(client: &Client, mut cursor: String, acknowledged: &Acknowledged) -> String {
    let (mut told, mut deleted) = (HashSet::new(), HashSet::new());
    loop {
        let page = client.feed(&cursor, "").await;
        cursor = page.cursor;
        if page.entries.is_empty() {
            break;
        }
        for entry in page.entries {
            let path = manifest(&entry.repository, entry.tag.as_ref().unwrap_or(&entry.digest));
            if entry.kind == Kind::Delete {
                deleted.insert(path);
            } else {
                told.insert((path, entry.digest));
            }
        }
    }
    for (path, digest) in acknowledged.written.iter().filter_map(super::Written::acknowledged) {
        let is_told = match digest {
            Some(digest) => told.contains(&(path.to_owned(), digest.to_string())),
            None => deleted.contains(path),
        };
        assert!(is_told, "the feed does not say that {path} became {digest:?}");
    }
    for path in acknowledged.gone.iter().chain(&acknowledged.back).filter(|path| path.contains("/manifests/"))
    {
        assert!(deleted.contains(path), "the feed does not say that {path} was deleted");
    }
    cursor
}

/// Every tag that is listed can be pulled whole.
pub(super) async fn check_what_is_visible(client: &Client) {
    for repository in [REPOSITORY, OTHER] {
        let listed = client.get(&format!("/v2/{repository}/tags/list")).await;
        if repository == OTHER && listed.status == StatusCode::NOT_FOUND {
            continue;
        }
        let listed: Value = listed.expect(StatusCode::OK).json();
        for tag in listed["tags"].as_array().unwrap() {
            pull(client, repository, tag.as_str().unwrap()).await;
        }
    }
}

/// An image, or an index of some.
async fn pull(client: &Client, repository: &str, reference: &str) {
    let document: Value = client.get(&manifest(repository, reference)).await.expect(StatusCode::OK).json();
    if let Some(children) = document["manifests"].as_array() {
        for child in children {
            Box::pin(pull(client, repository, child["digest"].as_str().unwrap())).await;
        }
        return;
    }
    for descriptor in document["layers"].as_array().unwrap().iter().chain([&document["config"]]) {
        let digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        client.get(&blob(repository, &digest)).await.expect(StatusCode::OK);
    }
}
