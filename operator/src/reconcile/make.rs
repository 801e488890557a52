//! Makes every object of a Registry what it should be.

use std::time::Duration;

use crds::Registry;
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Secret, Service},
    jiff::Timestamp,
};
use kube::ResourceExt as _;

use super::{Error, problem, token_review};
use crate::{
    apply,
    authority::Authority,
    certificate,
    conditions::Answer,
    context::Context,
    desired::{access, network, storage, workload},
    names,
};

/// The API server takes a moment to give up the address of a deleted Service; after this, somebody else has it.
const ADDRESS_ATTEMPTS: u32 = 10;
const ADDRESS_PAUSE: Duration = Duration::from_millis(300);

/// What came of it.
#[derive(Default)]
pub(super) struct Made {
    pub(super) cluster_ip: Option<String>,
    pub(super) certificate_expires: Option<String>,
    pub(super) volume_size: Option<String>,
    /// Whether the volume is as asked for.
    pub(super) storage: Option<Answer>,
}

/// Makes every object, and notes what came of it; what is wrong with one keeps none of the others back but those that
/// need it.
pub(super) async fn make(registry: &Registry, context: &Context, made: &mut Made) -> Result<(), Error> {
    let applier = &context.applier;
    let key = context.secrets.keys.of(registry);
    // The Service is first: the certificate names its address.
    let service = service(registry, context).await?;
    let spec = service.spec.unwrap_or_default();
    let cluster_ips =
        spec.cluster_ips.or_else(|| spec.cluster_ip.clone().map(|ip| vec![ip])).unwrap_or_default();
    made.cluster_ip = spec.cluster_ip;
    let serving_names = names::serving(registry, &context.config.cluster_domain, &cluster_ips);
    let channel_names = [names::channel(registry)];
    let (tls, channel, claim, admin, reader, ca, account, token_review) = tokio::join!(
        certificate(registry, context, "tls", &serving_names, &context.secrets.serving),
        certificate(registry, context, "channel", &channel_names, &context.secrets.channel),
        claim(registry, context),
        ensure(context, access::admin_secret(registry, &key)),
        ensure(context, access::reader_secret(registry, &key)),
        ensure(context, network::ca(registry, context.secrets.serving.cert())),
        ensure(context, workload::service_account(registry)),
        Box::pin(token_review::grant(registry, context)),
    );
    made.certificate_expires = certificate::expires(&tls?);
    let (claim, storage) = claim?;
    made.volume_size = storage::capacity(&claim).map(|size| size.0.clone());
    made.storage = Some(storage);
    channel?;
    admin?;
    reader?;
    ca?;
    account?;
    token_review?;
    // Last: its pod mounts what the others are.
    applier.ensure(workload::stateful_set(registry, &context.config.registry_image)).await?;
    Ok(())
}

async fn ensure<K: apply::Object>(context: &Context, desired: K) -> Result<K, Error> {
    Ok(context.applier.ensure(desired).await?)
}

async fn certificate(
    registry: &Registry,
    context: &Context,
    suffix: &str,
    names: &[String],
    authority: &Authority,
) -> Result<Secret, Error> {
    let metadata = names::owned(registry, names::with_suffix(registry, suffix));
    let observed =
        context.applier.get(&names::namespace(registry), &metadata.name.clone().unwrap_or_default()).await?;
    let key = context.secrets.keys.of(registry);
    let secret = certificate::desired(observed.as_ref(), metadata, names, authority, &key, Timestamp::now())?;
    Ok(context.applier.ensure_from(observed, secret).await?)
}

/// The claim, and whether it is as asked for. A growth that is refused leaves the registry as it was.
async fn claim(registry: &Registry, context: &Context) -> Result<(PersistentVolumeClaim, Answer), Error> {
    let observed: Option<PersistentVolumeClaim> =
        context.applier.get(&names::namespace(registry), &storage::claim_name(registry)).await?;
    let desired = storage::claim(registry, observed.as_ref());
    match (context.applier.ensure_from(observed.clone(), desired).await, observed) {
        (Ok(claim), _) => {
            let answer = storage::answer(registry, &claim);
            Ok((claim, answer))
        }
        (Err(error @ apply::Error::Apply { .. }), Some(observed)) => match problem(&error) {
            Some(answer) => Ok((observed, answer)),
            None => Err(error.into()),
        },
        (Err(error), _) => Err(error.into()),
    }
}

/// The Service, with its former address where it had one and nobody else took it.
async fn service(registry: &Registry, context: &Context) -> Result<Service, Error> {
    let applier = &context.applier;
    let observed = applier.get::<Service>(&names::namespace(registry), &registry.name_any()).await?;
    let former = registry.status.as_ref().and_then(|status| status.cluster_ip.as_ref());
    if let (None, Some(former)) = (&observed, former) {
        for _ in 0..ADDRESS_ATTEMPTS {
            match applier.ensure_from(None, network::service(registry, Some(former.clone()))).await {
                Err(apply::Error::Apply { source: kube::Error::Api(status), .. }) if status.is_invalid() => {}
                result => return Ok(result?),
            }
            tokio::time::sleep(ADDRESS_PAUSE).await;
        }
        tracing::warn!(
            registry = registry.name_any(),
            former,
            "the Service gets a new address, its former is taken"
        );
    }
    Ok(applier.ensure_from(observed, network::service(registry, None)).await?)
}
