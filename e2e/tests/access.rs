//! Who may do what: nobody without a login, the reader pulls, the administrator pushes.

use crds::Registry;
use e2e::{
    Result, Space, ensure, image, node, pod,
    registry::{self, Login, Who},
    remote::Remote,
    with_namespace,
};
use http::{Method, StatusCode, header};

/// A Registry `demo` with the image `app:1`.
async fn filled(space: &Space) -> Result<Registry> {
    let (registry, _) = registry::running(space, &registry::small("demo")).await?;
    let image = image::build("access", &[1000])?;
    Remote::open(space, "demo", Who::Admin).await?.push(&image, "app:1").await?;
    Ok(registry)
}

#[tokio::test]
async fn anonymous_is_refused() {
    with_namespace("anonymous", async |space| {
        let registry = filled(space).await?;
        let nobody = Remote::open(space, "demo", Who::Nobody).await?;
        for (method, path) in [
            (Method::GET, "/v2/"),
            (Method::GET, "/v2/_catalog"),
            (Method::GET, "/v2/app/manifests/1"),
            (Method::GET, "/v2/app/tags/list"),
            (Method::GET, "/v2/missing/manifests/1"),
            (Method::POST, "/v2/app/blobs/uploads/"),
            (Method::PUT, "/v2/app/manifests/2"),
            (Method::DELETE, "/v2/app/manifests/1"),
        ] {
            let answer = nobody.http().send(method.clone(), path, "").await?;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}");
            assert!(
                answer.headers.contains_key(header::WWW_AUTHENTICATE),
                "{method} {path} has no challenge"
            );
        }
        assert!(nobody.pull("app:1").await.is_err(), "skopeo pulled without a login");

        let worker = node::workers(space).await?.remove(0);
        pod::start(space, "anonymous", &worker, &format!("{}/app:1", registry::endpoint(&registry)?), None)
            .await?;
        let refusal = pod::refused(space, "anonymous").await?;
        ensure!(
            refusal.contains("authorization failed"),
            "the node says of a pod without a pull secret: {refusal}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_reader_pulls_and_cannot_push() {
    with_namespace("reader", async |space| {
        filled(space).await?;
        let reader = Remote::open(space, "demo", Who::Reader).await?;
        reader.pull("app:1").await?;

        let image = image::build("reader", &[1000])?;
        for name in ["app:1", "app:2", "other:1"] {
            let error = reader.push(&image, name).await.err();
            let error = error.map(|error| format!("{error:#}")).unwrap_or_default().to_lowercase();
            ensure!(
                error.contains("denied") || error.contains("403"),
                "skopeo says of a push to {name}: {error:?}"
            );
        }
        let answer = reader.http().send(Method::DELETE, "/v2/app/manifests/1", "").await?;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "the reader deletes");
        reader.pull("app:1").await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn wrong_logins_are_refused() {
    with_namespace("wrong_login", async |space| {
        let registry = filled(space).await?;
        let right =
            registry::login(space, "demo", Who::Reader).await?.map(|it| it.password).unwrap_or_default();
        for (username, password) in
            [("admin", right.as_str()), ("reader", "wrong"), ("reader", ""), ("nobody", &right), ("", "")]
        {
            let login = Login { username: username.into(), password: password.into() };
            let remote = Remote::with_login(space, &registry, Some(&login)).await?;
            let answer = remote.http().send(Method::GET, "/v2/", "").await?;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{username:?}");
        }
        Ok(())
    })
    .await;
}
