//! Who a Repository names: people of a password file, groups, and single things that they may do.

use e2e::{
    Result, Space, account, ensure, image,
    registry::{self, Login},
    remote::Remote,
    repository, with_namespace,
};
use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use serde_json::json;

/// Never used anywhere else, so not worth much work to guess.
const COST: u32 = 4;

/// A password file with these people, for the Registry `demo`.
async fn people(space: &Space, people: &[(&str, &str)]) -> Result<()> {
    let line = |(user, password): &(&str, &str)| Ok(format!("{user}:{}\n", bcrypt::hash(password, COST)?));
    let file = people.iter().map(line).collect::<Result<String>>()?;
    let metadata = json!({"name": "people", "labels": {"berth.dev/registry": "demo"}});
    let secret = serde_json::from_value(json!({"metadata": metadata, "stringData": {"htpasswd": file}}))?;
    space.api::<Secret>().create(&PostParams::default(), &secret).await?;
    Ok(())
}

#[tokio::test]
async fn people_and_groups_do_what_a_repository_says() {
    with_namespace("subjects", async |space| {
        people(space, &[("ann", "anns"), ("bob", "bobs"), ("cleo", "cleos")]).await?;
        let spec = json!({
            "storage": {"volume": {"size": "1Gi"}},
            "identity": {"passwordFile": {"secretName": "people"}},
        });
        let (registry, _) = registry::running(space, &registry::with_spec("demo", &spec)).await?;
        registry::condition(space, "demo", "IdentityReady", "True").await?;
        let access = json!({"access": [
            {"user": "ann", "role": "Writer"},
            {"user": "bob", "actions": ["content/read", "content/delete"]},
            {"group": format!("system:serviceaccounts:{}", space.namespace), "role": "Reader"},
        ]});
        repository::ready(space, &repository::with_spec("app", &access)).await?;

        let person = async |user: &str, password: &str| {
            let login = Login { username: user.into(), password: password.into() };
            Remote::with_login(space, &registry, Some(&login)).await
        };
        let (ann, bob) = (person("ann", "anns").await?, person("bob", "bobs").await?);
        let image = image::build("subjects", &[1000])?;
        for tag in [1, 2] {
            ann.push(&image, &format!("{}/app:{tag}", space.namespace)).await?;
        }
        let stranger = space.another().await?;
        let audience = account::audience(space, "demo");
        let own = account::token(space, "default", &audience).await?;
        let own = Remote::with_login(space, &registry, Some(&own)).await?;
        let other = account::token(&stranger, "default", &audience).await?;
        let other = Remote::with_login(space, &registry, Some(&other)).await?;
        let (cleo, wrong) = (person("cleo", "cleos").await?, person("ann", "bobs").await?);

        let at = |rest: &str| format!("/v2/{}/app/{rest}", space.namespace);
        let (one, two, upload) = (at("manifests/1"), at("manifests/2"), at("blobs/uploads/"));
        for (who, remote, method, path, wanted) in [
            ("a person without a role", &cleo, Method::GET, &one, StatusCode::FORBIDDEN),
            ("a wrong password", &wrong, Method::GET, &one, StatusCode::UNAUTHORIZED),
            ("who deletes", &bob, Method::POST, &upload, StatusCode::FORBIDDEN),
            ("who writes", &ann, Method::DELETE, &two, StatusCode::FORBIDDEN),
            ("the group", &own, Method::GET, &one, StatusCode::OK),
            ("the group", &own, Method::DELETE, &two, StatusCode::FORBIDDEN),
            ("another group", &other, Method::GET, &one, StatusCode::FORBIDDEN),
            ("who deletes", &bob, Method::DELETE, &two, StatusCode::ACCEPTED),
            ("who writes", &ann, Method::GET, &two, StatusCode::NOT_FOUND),
            ("who deletes", &bob, Method::GET, &one, StatusCode::OK),
        ] {
            let status = remote.http().send(method.clone(), path, "").await?.status;
            ensure!(status == wanted, "{who}: {method} {path} is answered {status} instead of {wanted}");
        }
        Ok(())
    })
    .await;
}
