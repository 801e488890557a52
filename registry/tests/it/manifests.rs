//! Manifests: points 19 to 28.

use http::{Method, StatusCode};
use oci::{Algorithm, Digest, ErrorCode, ErrorList, manifest};
use serde_json::json;

use crate::{
    image::{descriptor, image, sha256},
    server::Server,
};

#[tokio::test]
async fn p19_bytes_and_type_come_back_as_pushed() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    client.push_blob("a", "{}").await;
    let mut document = image(b"{}", &[]);
    document["somethingNew"] = json!({"b": [1, 2.50, null], "a": "ü"});
    document["artifactType"] = json!("application/vnd.example");
    let bytes = format!("\n  {document:#}\n\n");
    let kind = format!("{}; charset=utf-8", manifest::IMAGE);
    let pushed = client.put("/v2/a/manifests/v1", &[("content-type", &kind)], bytes.clone()).await;
    let pushed = pushed.expect(StatusCode::CREATED);
    let digest = sha256(bytes.as_bytes());
    assert_eq!(pushed.header("docker-content-digest"), digest.as_str());
    for path in [pushed.header("location"), "/v2/a/manifests/v1"] {
        let answer = client.get(path).await.expect(StatusCode::OK);
        assert_eq!(answer.body, bytes);
        assert_eq!(answer.header("content-type"), manifest::IMAGE);
        assert_eq!(answer.header("docker-content-digest"), digest.as_str());
        let head = client.head(path).await.expect(StatusCode::OK);
        assert_eq!(head.header("content-length"), bytes.len().to_string());
        let etag = answer.header("etag").to_owned();
        let cached = client.send(Method::GET, path, &[("if-none-match", &etag)], "").await;
        cached.expect(StatusCode::NOT_MODIFIED);
    }
}

#[tokio::test]
async fn p20_large_manifests_pass_and_too_large_ones_do_not() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    client.push_blob("a", "{}").await;
    let mut document = image(b"{}", &[]);
    document["annotations"] = json!({"padding": "x".repeat(3_900_000)});
    client.put_manifest("a", "large", &document).await.expect(StatusCode::CREATED);
    document["annotations"] = json!({"padding": "x".repeat(4 << 20)});
    let refused = client.put_manifest("a", "too-large", &document).await;
    refused.expect_error(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::ManifestInvalid);
    client.get("/v2/a/manifests/too-large").await.expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn p21_a_digest_names_these_bytes_or_nothing() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    client.push_blob("a", "{}").await;
    let document = image(b"{}", &[]);
    let wrong = client.put_manifest("a", sha256(b"other").as_str(), &document).await;
    wrong.expect_error(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid);
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let answer = client.send(method, "/v2/a/manifests/sha256:baddigest", &[], "").await;
        answer.expect_error(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid);
    }
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let digest = Digest::of(algorithm, document.to_string().as_bytes());
        client.put_manifest("a", digest.as_str(), &document).await.expect(StatusCode::CREATED);
        let answer = client.get(&format!("/v2/a/manifests/{digest}")).await.expect(StatusCode::OK);
        assert_eq!(answer.body, document.to_string());
    }
}

#[tokio::test]
async fn p22_what_is_missing_is_named_and_what_may_be_missing_is_not() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    client.push_blob("a", "{}").await;
    // In another repository is not here.
    client.push_blob("b", "one").await;
    let refused = client.put_manifest("a", "v1", &image(b"{}", &[b"one", b"two"])).await;
    let refused = refused.expect_error(StatusCode::NOT_FOUND, ErrorCode::ManifestBlobUnknown);
    let list: ErrorList = refused.json();
    let named: Vec<_> =
        list.errors.iter().map(|error| error.detail.as_ref().unwrap()["digest"].clone()).collect();
    assert_eq!(named, [json!(sha256(b"one")), json!(sha256(b"two"))]);
    let index = json!({
        "schemaVersion": 2, "mediaType": manifest::INDEX, "manifests": [descriptor(manifest::IMAGE, b"no")],
    });
    let refused = client.put_manifest("a", "v1", &index).await;
    refused.expect_error(StatusCode::NOT_FOUND, ErrorCode::ManifestBlobUnknown);
    client.get("/v2/a/manifests/v1").await.expect(StatusCode::NOT_FOUND);

    let mut document = image(b"{}", &[]);
    document["subject"] = descriptor(manifest::IMAGE, b"nowhere");
    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    document["layers"] = json!([descriptor(foreign, b"elsewhere")]);
    client.put_manifest("a", "v1", &document).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn p23_kinds_of_manifests() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let child = client.push_image("a", "v1", "layer").await;
    let child = json!({"mediaType": manifest::IMAGE, "digest": child, "size": 1, "data": "e30="});
    let index = json!({"schemaVersion": 2, "mediaType": manifest::INDEX, "manifests": [child]});
    client.put_manifest("a", "index", &index).await.expect(StatusCode::CREATED);
    let nested = descriptor(manifest::INDEX, index.to_string().as_bytes());
    let nested = json!({"schemaVersion": 2, "mediaType": manifest::INDEX, "manifests": [nested]});
    client.put_manifest("a", "nested", &nested).await.expect(StatusCode::CREATED);
    let empty = json!({"schemaVersion": 2, "mediaType": manifest::INDEX, "manifests": []});
    client.put_manifest("a", "empty", &empty).await.expect(StatusCode::CREATED);
    let mut docker = image(b"{\"of\":\"layer\"}", &[b"layer"]);
    docker["mediaType"] = json!(manifest::DOCKER_IMAGE);
    client.put_manifest("a", "docker", &docker).await.expect(StatusCode::CREATED);
    let list = json!({"schemaVersion": 2, "mediaType": manifest::DOCKER_LIST, "manifests": [child]});
    client.put_manifest("a", "list", &list).await.expect(StatusCode::CREATED);
    assert_eq!(client.get("/v2/a/manifests/docker").await.header("content-type"), manifest::DOCKER_IMAGE);
    for (kind, body) in [
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", json!({"schemaVersion": 1})),
        (manifest::IMAGE, json!({"schemaVersion": 2})),
        ("text/plain", json!({"schemaVersion": 2})),
        (manifest::IMAGE, json!("{")),
    ] {
        let refused = client.put("/v2/a/manifests/x", &[("content-type", kind)], body.to_string()).await;
        refused.expect_error(StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid);
    }
}

#[tokio::test]
async fn p24_accept_does_not_change_what_is_served() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    client.push_image("a", "v1", "layer").await;
    let joined = format!("{}, {}", manifest::DOCKER_LIST, manifest::INDEX);
    for accept in
        [vec![], vec![("accept", joined.as_str())], vec![("accept", "a/b"), ("accept", manifest::INDEX)]]
    {
        let answer = client.send(Method::GET, "/v2/a/manifests/v1", &accept, "").await;
        assert_eq!(answer.expect(StatusCode::OK).header("content-type"), manifest::IMAGE);
    }
}

#[tokio::test]
async fn p26_one_push_by_digest_can_set_many_tags() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    client.push_blob("a", "{}").await;
    let document = image(b"{}", &[]);
    let digest = sha256(document.to_string().as_bytes());
    let tags: Vec<_> = (0..12).map(|n| format!("tag={n}")).collect();
    let pushed = client.put_manifest("a", &format!("{digest}?{}", tags.join("&")), &document).await;
    let pushed = pushed.expect(StatusCode::CREATED);
    assert_eq!(pushed.headers.get_all("oci-tag").iter().count(), 12);
    client.get("/v2/a/manifests/11").await.expect(StatusCode::OK);
    let refused = client.put_manifest("a", &format!("{digest}?tag=ok&tag=not%20ok"), &document).await;
    refused.expect_error(StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid);
    client.get("/v2/a/manifests/ok").await.expect(StatusCode::NOT_FOUND);
    let many = "tag=x&".repeat(101);
    let refused = client.put_manifest("a", &format!("{digest}?{many}"), &document).await;
    refused.expect(StatusCode::URI_TOO_LONG);
}

#[tokio::test]
async fn p27_deletes() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let digest = client.push_image("a", "v1", "layer").await;
    client.push_image("a", "v2", "layer").await;
    client.push_image("a", "other", "another layer").await;
    client.delete("/v2/a/manifests/v1").await.expect(StatusCode::ACCEPTED);
    client.get("/v2/a/manifests/v1").await.expect_error(StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown);
    client.delete("/v2/a/manifests/v1").await.expect_error(StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown);
    client.get("/v2/a/manifests/v2").await.expect(StatusCode::OK);
    client.delete(&format!("/v2/a/manifests/{digest}")).await.expect(StatusCode::ACCEPTED);
    client.get("/v2/a/manifests/v2").await.expect(StatusCode::NOT_FOUND);
    client.get("/v2/a/manifests/other").await.expect(StatusCode::OK);
    assert_eq!(client.get("/v2/a/tags/list").await.body, r#"{"name":"a","tags":["other"]}"#);

    let child = client.push_image("a", "child", "layer").await;
    let entry = json!({"mediaType": manifest::IMAGE, "digest": child, "size": 1});
    let index = json!({"schemaVersion": 2, "mediaType": manifest::INDEX, "manifests": [entry]});
    client.put_manifest("a", "index", &index).await.expect(StatusCode::CREATED);
    let refused = client.delete(&format!("/v2/a/manifests/{child}")).await;
    let refused = refused.expect_error(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported);
    assert!(String::from_utf8_lossy(&refused.body).contains(sha256(index.to_string().as_bytes()).as_str()));
    client.get("/v2/a/manifests/child").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn p28_a_tag_that_moves_is_always_there() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    client.push_blob("a", "{}").await;
    let documents = [image(b"{}", &[]), image(b"{}", &[b"{}"])];
    client.put_manifest("a", "v1", &documents[0]).await.expect(StatusCode::CREATED);
    let writers = documents.iter().map(|document| {
        let client = client.clone();
        async move {
            for _ in 0..25 {
                client.put_manifest("a", "v1", document).await.expect(StatusCode::CREATED);
            }
        }
    });
    let reader = async {
        for _ in 0..100 {
            let answer = client.get("/v2/a/manifests/v1").await.expect(StatusCode::OK);
            assert!(documents.iter().any(|document| answer.body == document.to_string()));
        }
    };
    futures::join!(futures::future::join_all(writers), reader);
}
