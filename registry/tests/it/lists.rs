//! Tags, referrers, catalog: points 25 and 29 to 31.

use http::StatusCode;
use oci::{Digest, ErrorCode, manifest};
use serde_json::{Value, json};

use crate::{
    client::Client,
    image::{descriptor, image, sha256},
    server::Server,
};

/// Follows links to the end; the lists found under `key`.
async fn pages(client: &Client, path: &str, key: &str) -> Vec<Vec<String>> {
    let mut next = Some(path.to_owned());
    let mut pages = Vec::new();
    while let Some(path) = next {
        let answer = client.get(&path).await.expect(StatusCode::OK);
        let body: Value = answer.json();
        let names = body[key].as_array().unwrap().iter();
        pages.push(names.map(|name| name.as_str().unwrap().to_owned()).collect());
        next = answer.headers.get("link").map(|link| {
            let link = link.to_str().unwrap();
            assert!(link.ends_with("; rel=\"next\""), "{link}");
            link.split(['<', '>']).nth(1).unwrap().to_owned()
        });
    }
    pages
}

#[tokio::test]
async fn p29_tags_are_sorted_and_come_in_pages() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    client.get("/v2/a/tags/list").await.expect_error(StatusCode::NOT_FOUND, ErrorCode::NameUnknown);
    client.push_blob("a", "{}").await;
    assert_eq!(client.get("/v2/a/tags/list").await.expect(StatusCode::OK).body, r#"{"name":"a","tags":[]}"#);
    let document = image(b"{}", &[]);
    for tag in ["b", "a", "C", "a-1", "_x", "10", "9"] {
        client.put_manifest("a", tag, &document).await.expect(StatusCode::CREATED);
    }
    let sorted = ["10", "9", "C", "_x", "a", "a-1", "b"];
    assert_eq!(pages(&client, "/v2/a/tags/list", "tags").await, [sorted.to_vec()]);
    let by_three = pages(&client, "/v2/a/tags/list?n=3&x=%26", "tags").await;
    assert_eq!(by_three, [sorted[..3].to_vec(), sorted[3..6].to_vec(), sorted[6..].to_vec()]);
    assert_eq!(pages(&client, "/v2/a/tags/list?n=7", "tags").await, [sorted.to_vec()]);
    assert_eq!(pages(&client, "/v2/a/tags/list?n=100000000000000000000", "tags").await.len(), 1);
    assert_eq!(pages(&client, "/v2/a/tags/list?n=0", "tags").await, [Vec::<String>::new()]);
    assert_eq!(pages(&client, "/v2/a/tags/list?last=Z", "tags").await, [sorted[3..].to_vec()]);
    assert_eq!(pages(&client, "/v2/a/tags/list?last=a&n=1", "tags").await.concat(), sorted[5..]);
    let refused = client.get("/v2/a/tags/list?n=-1").await;
    refused.expect_error(StatusCode::BAD_REQUEST, ErrorCode::Unsupported);
}

#[tokio::test]
async fn p25_p30_referrers() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let subject: Digest = sha256(image(b"{}", &[]).to_string().as_bytes());
    let list = format!("/v2/a/referrers/{subject}");
    let empty = client.get(&list).await.expect(StatusCode::OK);
    assert_eq!(empty.header("content-type"), manifest::INDEX);
    assert_eq!(empty.json::<Value>()["manifests"], json!([]));
    client
        .get("/v2/a/referrers/sha256:no")
        .await
        .expect_error(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid);

    client.push_blob("a", "{}").await;
    let referrer = |edit: &dyn Fn(&mut Value)| {
        let mut document = image(b"{}", &[]);
        document["subject"] = descriptor(manifest::IMAGE, image(b"{}", &[]).to_string().as_bytes());
        edit(&mut document);
        document
    };
    let by_config = referrer(&|_| {});
    let by_type = referrer(&|document| {
        document["artifactType"] = json!("application/vnd.example+json");
        document["annotations"] = json!({"a": "b"});
    });
    let index = json!({
        "schemaVersion": 2, "mediaType": manifest::INDEX, "manifests": [], "subject": by_config["subject"],
    });
    for document in [&by_config, &by_type, &index] {
        let reference = sha256(document.to_string().as_bytes());
        let pushed = client.put_manifest("a", reference.as_str(), document).await.expect(StatusCode::CREATED);
        assert_eq!(pushed.header("oci-subject"), subject.as_str(), "the subject is not there yet");
    }
    let found = client.get(&list).await.json::<Value>()["manifests"].as_array().unwrap().clone();
    assert_eq!(found.len(), 3);
    let of = |document: &Value| {
        let digest = json!(sha256(document.to_string().as_bytes()));
        found.iter().find(|descriptor| descriptor["digest"] == digest).unwrap()
    };
    assert_eq!(of(&by_config)["artifactType"], "application/vnd.oci.image.config.v1+json");
    assert_eq!(of(&by_type)["artifactType"], "application/vnd.example+json");
    assert_eq!(of(&by_type)["annotations"], json!({"a": "b"}));
    assert_eq!(of(&by_type)["size"], by_type.to_string().len());
    assert_eq!(of(&index).get("artifactType"), None);

    for query in ["application/vnd.example%2Bjson", "application/vnd.example+json"] {
        let filtered = client.get(&format!("{list}?artifactType={query}")).await.expect(StatusCode::OK);
        assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
        assert_eq!(filtered.json::<Value>()["manifests"].as_array().unwrap().len(), 1);
    }
    let digest = sha256(by_type.to_string().as_bytes());
    client.delete(&format!("/v2/a/manifests/{digest}")).await.expect(StatusCode::ACCEPTED);
    assert_eq!(client.get(&list).await.json::<Value>()["manifests"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn p30_fallback_tags_are_folded_in() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    client.push_blob("a", "{}").await;
    let subject = image(b"{}", &[]);
    client.put_manifest("a", "v1", &subject).await.expect(StatusCode::CREATED);
    let bytes = subject.to_string();
    let mut referrer = image(b"{}", &[]);
    referrer["subject"] = descriptor(manifest::IMAGE, bytes.as_bytes());
    referrer["artifactType"] = json!("application/vnd.example.signature");
    // Without a `subject` it refers to nothing, wherever it is listed: only what has "a valid `subject` field" belongs
    // into the answer (Distribution 1.1, Enabling the Referrers API).
    let mut stranger = image(b"{}", &[]);
    stranger["annotations"] = json!({"no": "subject"});
    let mut listed = Vec::new();
    for document in [&referrer, &stranger] {
        let text = document.to_string();
        let digest = sha256(text.as_bytes());
        client.put_manifest("a", digest.as_str(), document).await.expect(StatusCode::CREATED);
        listed.push(descriptor(manifest::IMAGE, text.as_bytes()));
    }
    let index = json!({"schemaVersion": 2, "mediaType": manifest::INDEX, "manifests": listed});
    let digest = sha256(bytes.as_bytes());
    let fallback = format!("sha256-{}", digest.hex());
    client.put_manifest("a", &fallback, &index).await.expect(StatusCode::CREATED);
    let answer = client.get(&format!("/v2/a/referrers/{digest}")).await.expect(StatusCode::OK);
    let found: Value = answer.json();
    let found: Vec<_> = found["manifests"].as_array().unwrap().iter().map(|one| &one["digest"]).collect();
    assert_eq!(found, [&json!(sha256(referrer.to_string().as_bytes()))]);
    // Clients that know nothing of the API find the tag as they left it.
    let kept = client.get(&format!("/v2/a/manifests/{fallback}")).await.expect(StatusCode::OK);
    assert_eq!(kept.json::<Value>(), index);
}

#[tokio::test]
async fn p29_too_large_pages_are_clamped() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    client.push_blob("a", "{}").await;
    let document = image(b"{}", &[]);
    let digest = sha256(document.to_string().as_bytes());
    for push in 0..22 {
        let tags: Vec<_> = (0..50).map(|n| format!("tag=v{push:02}{n:02}")).collect();
        let reference = format!("{digest}?{}", tags.join("&"));
        client.put_manifest("a", &reference, &document).await.expect(StatusCode::CREATED);
    }
    let all = pages(&client, "/v2/a/tags/list?n=5000", "tags").await;
    assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 100]);
    assert!(all.concat().is_sorted());
}

#[tokio::test]
async fn p30_many_annotations_make_pages_that_keep_the_filter() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    client.push_blob("a", "{}").await;
    let subject = descriptor(manifest::IMAGE, b"subject");
    for n in 0..4 {
        let mut document = image(b"{}", &[]);
        document["subject"] = subject.clone();
        document["artifactType"] = json!("a/b");
        document["annotations"] = json!({"n": n.to_string().repeat(400_000)});
        client.put_manifest("a", &format!("t{n}"), &document).await.expect(StatusCode::CREATED);
    }
    let mut next = Some(format!("/v2/a/referrers/{}?artifactType=a/b", sha256(b"subject")));
    let (mut found, mut pages) = (Vec::new(), 0);
    while let Some(path) = next {
        let answer = client.get(&path).await.expect(StatusCode::OK);
        assert!(answer.body.len() < 4 << 20);
        assert_eq!(answer.header("oci-filters-applied"), "artifactType");
        found.extend(answer.json::<Value>()["manifests"].as_array().unwrap().clone());
        pages += 1;
        next = answer
            .headers
            .get("link")
            .map(|link| link.to_str().unwrap().split(['<', '>']).nth(1).unwrap().into());
    }
    assert_eq!((found.len(), pages), (4, 2));
}

#[tokio::test]
async fn p31_the_catalog_is_sorted_and_comes_in_pages() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    client.push_blob("only-a-blob", "{}").await;
    let mut names = vec!["a/b", "a-b", "a", "b/c/d/e", "a/b/c", "a.b", "a0", "z"];
    for name in &names {
        client.push_blob(name, "{}").await;
        client.put_manifest(name, "v1", &image(b"{}", &[])).await.expect(StatusCode::CREATED);
    }
    names.sort_unstable();
    assert_eq!(pages(&client, "/v2/_catalog", "repositories").await.concat(), names);
    for n in 1..=8 {
        let listed = pages(&client, &format!("/v2/_catalog?n={n}"), "repositories").await;
        assert_eq!(listed.len(), 8_usize.div_ceil(n));
        assert_eq!(listed.concat(), names, "n={n}");
    }
}
