//! Pushing blobs: points 1 to 14.

use http::{Method, StatusCode};
use oci::{Algorithm, Digest, ErrorCode, manifest};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    image::{image, noise, sha256},
    server::Server,
};

#[tokio::test]
async fn p01_a_chunk_out_of_order_or_repeated_is_refused_and_the_session_survives() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let session = client.start_upload("a").await;
    let refused = client.patch(&session, &[("content-range", "1-4")], "1234").await;
    refused.expect_error(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::BlobUploadInvalid);
    client.patch(&session, &[("content-range", "0-3")], "0123").await.expect(StatusCode::ACCEPTED);
    for wrong in ["0-3", "5-8", "3-6"] {
        let refused = client.patch(&session, &[("content-range", wrong)], "0123").await;
        refused.expect_error(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::BlobUploadInvalid);
    }
    let status = client.get(&session).await.expect(StatusCode::NO_CONTENT);
    assert_eq!((status.header("range"), status.header("location")), ("0-3", session.as_str()));
    client.patch(&session, &[("content-range", "4-5")], "45").await.expect(StatusCode::ACCEPTED);
    let digest = sha256(b"012345");
    let finished =
        client.put(&format!("{session}?digest={digest}"), &[], "").await.expect(StatusCode::CREATED);
    assert_eq!(client.get(finished.header("location")).await.expect(StatusCode::OK).body, "012345");
}

#[tokio::test]
async fn p02_a_closing_put_out_of_order_appends_nothing() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let session = client.start_upload("a").await;
    client.patch(&session, &[], "0123").await.expect(StatusCode::ACCEPTED);
    let close = format!("{session}?digest={}", sha256(b"012345"));
    let refused = client.put(&close, &[("content-range", "5-6")], "45").await;
    refused.expect_error(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::BlobUploadInvalid);
    assert_eq!(client.get(&session).await.header("range"), "0-3");
    client.put(&close, &[("content-range", "4-5")], "45").await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn p03_ranges_add_up_and_an_empty_session_says_0_0() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let started = client.post("/v2/a/blobs/uploads/", "").await.expect(StatusCode::ACCEPTED);
    assert_eq!(started.header("range"), "0-0");
    let session = started.header("location").to_owned();
    assert_eq!(client.patch(&session, &[], "01").await.header("range"), "0-1");
    assert_eq!(client.patch(&session, &[], "234").await.header("range"), "0-4");
}

#[tokio::test]
async fn p04_lengths_that_disagree_are_refused_and_a_stream_without_any_is_taken() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let session = client.start_upload("a").await;
    let refused = client.patch(&session, &[("content-range", "0-9")], "0123").await;
    refused.expect_error(StatusCode::BAD_REQUEST, ErrorCode::SizeInvalid);
    let refused = client.patch(&session, &[("content-range", "nonsense")], "0123").await;
    refused.expect_error(StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid);

    // Chunked transfer encoding, first with a range that is not what comes, then without one.
    for (range, status) in [("Content-Range: 0-9\r\n", "400"), ("", "202")] {
        let mut stream = TcpStream::connect(client.address()).await.unwrap();
        let request = format!(
            "PATCH {session} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{range}Transfer-Encoding: chunked\r\n\r\n\
             2\r\n01\r\n2\r\n23\r\n0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    assert_eq!(client.get(&session).await.header("range"), "0-3", "what was refused left nothing");
}

#[tokio::test]
async fn p05_the_closing_put_may_be_empty_or_bring_the_last_chunk() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    for (first, last) in [("0123", ""), ("01", "23"), ("", "0123")] {
        let session = client.start_upload("a").await;
        if !first.is_empty() {
            client.patch(&session, &[], first).await.expect(StatusCode::ACCEPTED);
        }
        let close = format!("{session}?digest={}", sha256(b"0123"));
        client.put(&close, &[], last).await.expect(StatusCode::CREATED);
        client.get(&session).await.expect_error(StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown);
    }
}

#[tokio::test]
async fn p06_a_wrong_digest_stores_nothing_on_any_path() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let wrong = sha256(b"something else");
    for digest in [wrong.as_str(), "sha256:no", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        let at_once = client.post(&format!("/v2/a/blobs/uploads/?digest={digest}"), "content").await;
        at_once.expect_error(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid);
        let session = client.start_upload("a").await;
        let closed = client.put(&format!("{session}?digest={digest}"), &[], "content").await;
        closed.expect_error(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid);
        let session = client.start_upload("a").await;
        client.patch(&session, &[], "content").await.expect(StatusCode::ACCEPTED);
        let closed = client.put(&format!("{session}?digest={digest}"), &[], "").await;
        closed.expect_error(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid);
        let session = client.start_upload("a").await;
        let missing = client.put(&session, &[], "content").await;
        missing.expect_error(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid);
    }
    assert_eq!(server.stored("blobs"), 0);
    client.head(&format!("/v2/a/blobs/{wrong}")).await.expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn p07_one_request_is_enough() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let content = noise(7, 3_000_000);
    let digest = sha256(&content);
    let pushed = client.post(&format!("/v2/a/blobs/uploads/?digest={digest}"), content.clone()).await;
    let pushed = pushed.expect(StatusCode::CREATED);
    assert_eq!(pushed.header("docker-content-digest"), digest.as_str());
    assert_eq!(client.get(pushed.header("location")).await.body, content);
    assert_eq!(server.stored("uploads"), 0);
}

#[tokio::test]
async fn p08_sha512_works_announced_or_not() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let content = noise(8, 600_000);
    let digest = Digest::of(Algorithm::Sha512, &content);
    for (repository, query) in [("a", ""), ("b", "?digest-algorithm=sha512")] {
        let started = client.post(&format!("/v2/{repository}/blobs/uploads/{query}"), "").await;
        let session = started.expect(StatusCode::ACCEPTED).header("location").to_owned();
        client.patch(&session, &[], content.slice(..300_000)).await.expect(StatusCode::ACCEPTED);
        let close = format!("{session}?digest={digest}");
        client.put(&close, &[], content.slice(300_000..)).await.expect(StatusCode::CREATED);
        assert_eq!(client.get(&format!("/v2/{repository}/blobs/{digest}")).await.body, content);
    }
    let unknown = client.post("/v2/a/blobs/uploads/?digest-algorithm=md5", "").await;
    unknown.expect_error(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid);
}

#[tokio::test]
async fn p09_nothing_and_an_empty_object_are_blobs() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    for content in ["", "{}"] {
        let digest = client.push_blob("a", content).await;
        let path = format!("/v2/a/blobs/{digest}");
        assert_eq!(client.get(&path).await.expect(StatusCode::OK).body, content);
        assert_eq!(client.head(&path).await.header("content-length"), content.len().to_string());
        let session = client.start_upload("b").await;
        client.put(&format!("{session}?digest={digest}"), &[], content).await.expect(StatusCode::CREATED);
    }
}

#[tokio::test]
async fn p10_a_session_can_be_cancelled_once() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let session = client.start_upload("a").await;
    client.patch(&session, &[], "0123").await.expect(StatusCode::ACCEPTED);
    client.delete(&session).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(server.stored("uploads"), 0);
    client.delete(&session).await.expect_error(StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown);
    client.patch(&session, &[], "4").await.expect_error(StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown);
    let elsewhere = client.start_upload("a").await.replace("/v2/a/", "/v2/b/");
    client.get(&elsewhere).await.expect_error(StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown);
    let nonsense = client.get("/v2/a/blobs/uploads/nonsense").await;
    nonsense.expect_error(StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown);
}

/// Over a bucket too, whose parts are large.
#[tokio::test]
async fn p11_chunks_may_be_of_any_size_and_none_is_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let started = client.post("/v2/a/blobs/uploads/", "").await.expect(StatusCode::ACCEPTED);
    assert!(started.headers.get("oci-chunk-min-length").is_none());
    let session = started.header("location").to_owned();
    for digit in ["0", "1", "2", "3", "4"] {
        client.patch(&session, &[], digit).await.expect(StatusCode::ACCEPTED);
    }
    let digest = sha256(b"01234567");
    let close = format!("{session}?digest={digest}");
    let closed = client.put(&close, &[("content-range", "5-7")], "567").await.expect(StatusCode::CREATED);
    assert_eq!(client.get(closed.header("location")).await.expect(StatusCode::OK).body, "01234567");
}

#[tokio::test]
async fn p12_what_arrived_before_a_cut_stays_and_the_client_goes_on_from_there() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    // More than is gathered before anything is written.
    let content = noise(12, 3_000_000);
    let session = client.start_upload("a").await;
    let mut stream = TcpStream::connect(client.address()).await.unwrap();
    let head = format!("PATCH {session} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", content.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&content[..2_500_000]).await.unwrap();
    server.has_begun(&session).await;
    drop(stream);

    // Whoever comes next waits for the cut request to end; this one appends nothing.
    client.patch(&session, &[], "").await.expect(StatusCode::ACCEPTED);
    let status = client.get(&session).await.expect(StatusCode::NO_CONTENT);
    let received: usize = status.header("range").trim_start_matches("0-").parse().unwrap();
    let next = received + 1;
    assert_eq!(next, 2_500_000);
    let close = format!("{session}?digest={}", sha256(&content));
    let range = format!("{next}-{}", content.len() - 1);
    let closed = client.put(&close, &[("content-range", &range)], content.slice(next..)).await;
    closed.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn p12_a_session_goes_on_after_kill_9() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let content = noise(13, 900_000);
    let session = server.client().start_upload("a").await;
    server.client().patch(&session, &[], content.slice(..500_000)).await.expect(StatusCode::ACCEPTED);
    server.kill();
    let server = Server::start(root.path());
    let client = server.client();
    assert_eq!(client.get(&session).await.header("range"), "0-499999");
    let close = format!("{session}?digest={}", sha256(&content));
    client.put(&close, &[], content.slice(500_000..)).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn p13_locations_are_right_under_whatever_name_the_registry_is_reached() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let image = image(b"{}", &[b"0123"]);
    // As proxies say by what name, and whether over TLS, their client has come.
    for (number, headers) in [
        vec![],
        vec![("x-forwarded-proto", "https"), ("x-forwarded-host", "registry.example.com")],
        vec![("x-forwarded-proto", "https"), ("x-forwarded-port", "8443")],
        vec![("forwarded", "for=192.0.2.1;proto=https;host=\"registry.example.com:8443\"")],
        vec![("x-forwarded-host", "evil.example.com/a?b#c"), ("x-forwarded-proto", "javascript")],
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("a/b{number}");
        let blobs = format!("/v2/{name}/blobs/");
        let uploads = format!("{blobs}uploads/");
        let send = async |method, path: &str, headers: &[(&str, &str)], body: String, status| {
            let answer = client.send(method, path, headers, body).await.expect(status);
            answer.header("location").to_owned()
        };
        // Each is a path, followed exactly as it was given.
        let mut session = send(Method::POST, &uploads, &headers, String::new(), StatusCode::ACCEPTED).await;
        assert!(session.starts_with(&uploads) && session.len() > uploads.len(), "{session}");
        for chunk in ["01", "23"] {
            session = send(Method::PATCH, &session, &headers, chunk.to_owned(), StatusCode::ACCEPTED).await;
            assert!(session.starts_with(&uploads), "{session}");
        }
        session = send(Method::GET, &session, &headers, String::new(), StatusCode::NO_CONTENT).await;
        assert!(session.starts_with(&uploads), "{session}");
        let digest = sha256(b"0123");
        let close = format!("{session}?digest={digest}");
        let blob = send(Method::PUT, &close, &headers, String::new(), StatusCode::CREATED).await;
        assert_eq!(blob, format!("{blobs}{digest}"));
        let at_once = format!("{uploads}?digest={}", sha256(b"{}"));
        let config = send(Method::POST, &at_once, &headers, "{}".to_owned(), StatusCode::CREATED).await;
        assert_eq!(config, format!("{blobs}{}", sha256(b"{}")));
        let mount = format!("/v2/mounted/blobs/uploads/?mount={digest}&from={name}");
        let mounted = send(Method::POST, &mount, &headers, String::new(), StatusCode::CREATED).await;
        assert_eq!(mounted, format!("/v2/mounted/blobs/{digest}"));
        let kind = [("content-type", manifest::IMAGE)];
        let tagged = format!("/v2/{name}/manifests/v1");
        let both = [&headers[..], &kind].concat();
        let pushed = send(Method::PUT, &tagged, &both, image.to_string(), StatusCode::CREATED).await;
        assert_eq!(pushed, format!("/v2/{name}/manifests/{}", sha256(image.to_string().as_bytes())));
        for path in [blob, config, mounted, pushed] {
            client.get(&path).await.expect(StatusCode::OK);
        }
        client.put_manifest(&name, "v2", &image).await.expect(StatusCode::CREATED);
        let list = format!("/v2/{name}/tags/list?n=1");
        let page = client.send(Method::GET, &list, &headers, "").await.expect(StatusCode::OK);
        assert!(page.header("link").starts_with(&format!("</v2/{name}/tags/list?")), "{:?}", page.headers);
    }
}

#[tokio::test]
async fn p14_a_mount_needs_no_bytes_and_a_missing_source_starts_a_session() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let client = server.client();
    let digest = client.push_blob("from", "shared").await;
    let mounted = client.post(&format!("/v2/to/blobs/uploads/?mount={digest}&from=from"), "").await;
    let mounted = mounted.expect(StatusCode::CREATED);
    assert_eq!(client.get(mounted.header("location")).await.body, "shared");
    let found = client.post(&format!("/v2/without/from/blobs/uploads/?mount={digest}"), "").await;
    assert_eq!(client.get(found.expect(StatusCode::CREATED).header("location")).await.body, "shared");
    let missing = sha256(b"missing");
    for query in [
        format!("mount={missing}&from=from"),
        format!("mount={digest}&from=nowhere"),
        format!("mount={digest}&from=../etc"),
        format!("mount={missing}"),
    ] {
        let answer = client.post(&format!("/v2/other/blobs/uploads/?{query}"), "").await;
        let session = answer.expect(StatusCode::ACCEPTED).header("location").to_owned();
        client.send(Method::DELETE, &session, &[], "").await.expect(StatusCode::NO_CONTENT);
    }
}
