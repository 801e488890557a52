//! What is left over, found by looking at everything: CAs that nobody needs any more, and copies and attachments of
//! Repositories that went without being taken down, because somebody removed their finalizer.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

use super::{
    Error, attach, cas,
    placement::{Owner, has_labels, owner_labels},
};
use crate::context::Context;

/// How often all are looked at; nothing is asked where all are wanted.
const LOOK: Duration = Duration::from_secs(15);

/// Something that nobody needs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum LeftOver {
    Ca(cas::Place),
    /// Of a Repository that is not there.
    Copy {
        namespace: String,
        name: String,
        owner: Owner,
    },
    /// Entries of a ServiceAccount that begin so, of a Repository that is not there.
    Attached {
        namespace: String,
        account: String,
        prefix: String,
    },
}

/// Deletes what is left over, again and again; never ends.
pub(crate) async fn tidy(context: &Context) {
    let (mut before, mut told) = (BTreeSet::new(), BTreeSet::new());
    loop {
        tokio::time::sleep(LOOK).await;
        // What is known must be all that there is.
        if !context.watched.is_ready() || context.stores.complete().await.is_err() {
            continue;
        }
        let left = left_over(context);
        // What belongs to something new may be known before that.
        for item in left.intersection(&before) {
            if let Err(error) = remove(context, item).await
                && told.insert(item.clone())
            {
                tracing::warn!(%error, "failed to remove what nobody needs");
            }
        }
        told.retain(|item| left.contains(item));
        before = left;
    }
}

async fn remove(context: &Context, item: &LeftOver) -> Result<(), Error> {
    let applier = &context.applier;
    match item {
        LeftOver::Ca((namespace, registry)) => cas::remove_unless_wanted(context, registry, namespace).await,
        LeftOver::Copy { namespace, name, owner } => {
            let labels = owner_labels(owner);
            Ok(applier.delete_if::<Secret>(namespace, name, |copy| has_labels(copy, &labels)).await?)
        }
        LeftOver::Attached { namespace, account, prefix } => {
            Ok(attach::detach(applier, namespace, account, prefix).await?)
        }
    }
}

/// As far as watches know.
fn left_over(context: &Context) -> BTreeSet<LeftOver> {
    let repositories = context.stores.repositories.state();
    let owners: HashSet<_> = repositories.iter().map(|repository| Owner::of(&**repository)).collect();
    let prefixes: HashSet<_> = repositories.iter().map(|repository| attach::prefix(&**repository)).collect();
    let mut left: BTreeSet<_> = cas::left_over(context).into_iter().map(LeftOver::Ca).collect();
    context.watched.copies.each(|copy| {
        let owner = Owner::named_by(copy);
        if !owners.contains(&owner) {
            let namespace = copy.namespace().unwrap_or_default();
            left.insert(LeftOver::Copy { namespace, name: copy.name_any(), owner });
        }
    });
    for account in context.watched.service_accounts.state() {
        for prefix in attach::prefixes(&account) {
            if !prefixes.contains(&prefix) {
                let namespace = account.namespace().unwrap_or_default();
                left.insert(LeftOver::Attached { namespace, account: account.name_any(), prefix });
            }
        }
    }
    left
}
