//! Which pull Secrets a pod may need.

use std::time::Duration;

use crds::{Registry, Repository};

use super::Offer;
use crate::{context::Context, names};

/// A namespace or account that was just created is known after a moment. The API server waits for two seconds.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// Those that open one of these images and are for this account in this namespace, whether they are there already or not. A
/// pod without images of ours costs next to nothing.
pub(super) async fn offers(context: &Context, namespace: &str, account: &str, images: &[&str]) -> Vec<Offer> {
    let registries = context.stores.registries.state();
    let registries = registries.iter().filter_map(|guarded| guarded.0.as_ref().ok());
    let hosts = |registry: &Registry| {
        let port = registry.spec.service.port;
        names::hosts(registry, &context.config.cluster_domain).map(|host| format!("{host}:{port}"))
    };
    let of_images = registries.map(|registry| (registry, hosts(registry))).filter(|(_, hosts)| {
        let is_there =
            |image: &&str| image.split_once('/').is_some_and(|(host, _)| hosts.iter().any(|it| it == host));
        images.iter().any(is_there)
    });
    let of_images: Vec<_> = of_images.collect();
    if of_images.is_empty() {
        return Vec::new();
    }
    let known = async {
        while !context.watched.knows(namespace, account) {
            tokio::time::sleep(LOOK).await;
        }
    };
    // Without them less is found below.
    let _ = tokio::time::timeout(PATIENCE, known).await;
    let mut offers = Vec::new();
    for (registry, hosts) in of_images {
        let repositories = context.stores.repositories_of(&names::reference(registry));
        let repositories = repositories.iter().filter_map(|guarded| guarded.0.as_ref().ok());
        let opening = repositories.filter(|repository| {
            let path = Offer::new("", hosts.clone(), &repository.path());
            images.iter().any(|image| path.opens(image))
        });
        let meant =
            opening.map(|repository| (repository, meant(context, repository, &hosts, namespace, account)));
        let meant = meant.filter(|(_, offers)| !offers.is_empty());
        let meant: Vec<_> = meant.collect();
        if !meant.is_empty() {
            context.stores.tenants(registry, |tenants| {
                let accepted = meant.into_iter().filter(|(repository, _)| tenants.verdict(repository).yes);
                offers.extend(accepted.flat_map(|(_, offers)| offers));
            });
        }
    }
    offers
}

/// What a Repository has for this account.
fn meant(
    context: &Context,
    repository: &Repository,
    hosts: &[String],
    namespace: &str,
    account: &str,
) -> Vec<Offer> {
    let path = repository.path();
    let secrets = repository.spec.pull_secrets.iter();
    let meant = secrets.filter(|secret| context.watched.is_for(repository, secret, namespace, account));
    meant.map(|secret| Offer::new(&secret.name, hosts, &path)).collect()
}
