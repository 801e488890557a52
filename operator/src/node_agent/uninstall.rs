//! Whether node access ends because it is being uninstalled, or for a moment only.
//!
//! A pod is told to stop in both cases. Files stay through upgrades, evictions and restarts, so that pulls go on, and
//! also when somebody deletes the DaemonSet, which the operator makes again. They go when the operator's Deployment
//! does. In doubt they stay: a forgotten file harms less than pods that can't start.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client};

/// The API server has this long to answer: less than a pod is given to stop.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is asked while it says that node access has no rights.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);
const NO_RIGHTS: &str = "the rights of node access are gone";

/// Why this is an uninstallation; none where it is not, or nobody knows.
pub(super) async fn reason(namespace: &str, operator: &str) -> Option<&'static str> {
    let ask = async {
        let mut judged = judge(&get(namespace, operator).await);
        // An API server that has just started may not know our rights yet.
        for _ in 1..ATTEMPTS {
            if judged != Some(NO_RIGHTS) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            judged = judge(&get(namespace, operator).await);
        }
        judged
    };
    let judged = tokio::time::timeout(TIMEOUT, ask).await;
    judged.inspect_err(|_| tracing::warn!("the API server did not answer, the files stay")).ok()?
}

async fn get(namespace: &str, operator: &str) -> Result<Deployment, kube::Error> {
    Api::<Deployment>::namespaced(Client::try_default().await?, namespace).get(operator).await
}

fn judge(answer: &Result<Deployment, kube::Error>) -> Option<&'static str> {
    match answer {
        Ok(operator) => {
            operator.metadata.deletion_timestamp.as_ref().map(|_| "the operator is being deleted")
        }
        Err(kube::Error::Api(status)) => match status.code {
            404 => Some("the operator is gone"),
            // Its rights go before or after the operator, in no promised order. Its identity (401) also goes with this
            // very pod, which says nothing.
            403 => Some(NO_RIGHTS),
            _ => None,
        },
        Err(error) => {
            tracing::warn!(%error, "failed to ask for the operator, the files stay");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use kube::core::Status;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(404, true)]
    #[case(401, false)]
    #[case(403, true)]
    #[case(500, false)]
    #[case(429, false)]
    fn files_go_when_the_operator_or_its_rights_are_gone(#[case] code: u16, #[case] gone: bool) {
        let answer = Err(kube::Error::Api(Box::new(Status { code, ..Status::failure("no", "No") })));
        assert_eq!(judge(&answer).is_some(), gone);
    }

    #[test]
    fn files_go_with_the_operator_and_stay_otherwise() {
        let mut operator = Deployment::default();
        assert_eq!(judge(&Ok(operator.clone())), None);
        operator.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert!(judge(&Ok(operator)).is_some());
        assert_eq!(judge(&Err(kube::Error::LinesCodecMaxLineLengthExceeded)), None);
    }
}
