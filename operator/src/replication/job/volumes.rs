//! What a run's pod finds as files: its plan, its certificate, and at each end a token or login and a CA.

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, DownwardAPIVolumeSource, KeyToPath, ObjectFieldSelector, ProjectedVolumeSource,
    SecretVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};

use super::{CA_ANNOTATION, CHANNEL, PLAN_ANNOTATION, Run, channel_secret, trusts_berth};
use crate::{
    desired::workload::{mount, secret_volume},
    replication::{
        end::{Login, Trust},
        plan::{CA_FILE, DOCKER_FILE, PLAN, PLAN_FILE, Side, TOKEN_FILE},
    },
};

/// Seconds that tokens are good for; the kubelet replaces them long before.
const TOKEN_SECONDS: i64 = 3600;

/// Each volume with where it is mounted.
pub(super) fn volumes(run: &Run<'_>) -> Vec<(Volume, VolumeMount)> {
    let channel = secret_volume("channel", channel_secret(run.replication));
    let mut volumes =
        vec![(plan_volume(run), mount("plan", PLAN, true)), (channel, mount("channel", CHANNEL, true))];
    for (side, end) in Side::BOTH.into_iter().zip([run.source, run.there]) {
        volumes.extend(login_volume(side, &end.login));
        if let Trust::Secret(secret) = &end.trust {
            let name = format!("{}-ca", side.as_str());
            volumes.push((keys(&name, secret, &[(CA_FILE, CA_FILE)]), mount(&name, &side.ca(), true)));
        }
    }
    volumes
}

fn plan_volume(run: &Run<'_>) -> Volume {
    let file = |path: &str, annotation: &str| DownwardAPIVolumeFile {
        path: path.into(),
        field_ref: Some(ObjectFieldSelector {
            field_path: format!("metadata.annotations['{annotation}']"),
            ..ObjectFieldSelector::default()
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let mut items = vec![file(PLAN_FILE, PLAN_ANNOTATION)];
    items.extend(trusts_berth(run).then(|| file(CA_FILE, CA_ANNOTATION)));
    Volume {
        name: "plan".into(),
        downward_api: Some(DownwardAPIVolumeSource { default_mode: Some(0o440), items: Some(items) }),
        ..Volume::default()
    }
}

fn login_volume(side: Side, login: &Login) -> Option<(Volume, VolumeMount)> {
    let (volume, path) = match login {
        Login::Nobody => return None,
        Login::Token { audience } => (token(side, audience), side.token()),
        Login::Basic { secret } => {
            let same = [("username", "username"), ("password", "password")];
            (keys(side.as_str(), secret, &same), side.credentials())
        }
        Login::DockerConfig { secret } => {
            let renamed = [(".dockerconfigjson", DOCKER_FILE)];
            (keys(side.as_str(), secret, &renamed), side.credentials())
        }
    };
    Some((volume, mount(side.as_str(), &path, true)))
}

fn token(side: Side, audience: &str) -> Volume {
    let token = ServiceAccountTokenProjection {
        audience: Some(audience.into()),
        expiration_seconds: Some(TOKEN_SECONDS),
        path: TOKEN_FILE.into(),
    };
    let sources =
        vec![VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() }];
    Volume {
        name: side.as_str().into(),
        projected: Some(ProjectedVolumeSource { default_mode: Some(0o440), sources: Some(sources) }),
        ..Volume::default()
    }
}

/// These keys of a Secret under these names, and no others.
fn keys(name: &str, secret: &str, keys: &[(&str, &str)]) -> Volume {
    let item = |(key, path): &(&str, &str)| KeyToPath {
        key: (*key).to_owned(),
        path: (*path).to_owned(),
        mode: None,
    };
    Volume {
        name: name.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.into()),
            default_mode: Some(0o440),
            items: Some(keys.iter().map(item).collect()),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}
