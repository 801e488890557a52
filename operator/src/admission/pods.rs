//! What a pod lacks.

use serde_json::{Value, json};

/// A pull secret and the images that it opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    secret: String,
    /// As image references begin: `demo.apps.svc:5000`.
    hosts: Vec<String>,
    /// `team/app`, or `team/*` for all below.
    path: String,
}

impl Offer {
    pub(super) fn new(secret: &str, hosts: impl Into<Vec<String>>, path: &str) -> Self {
        Self { secret: secret.into(), hosts: hosts.into(), path: path.into() }
    }

    pub(super) fn opens(&self, image: &str) -> bool {
        let Some((host, name)) = image.split_once('/') else { return false };
        let name = name.split_once('@').map_or(name, |(name, _)| name);
        // A colon after the last slash begins the tag.
        let (above, last) = name.rsplit_once('/').map_or(("", name), |(above, last)| (above, last));
        let last = last.split_once(':').map_or(last, |(last, _)| last);
        let name = if above.is_empty() { last.to_owned() } else { format!("{above}/{last}") };
        let covered = match self.path.strip_suffix("/*") {
            Some(above) => name.strip_prefix(above).is_some_and(|rest| rest.starts_with('/')),
            None => name == self.path,
        };
        covered && self.hosts.iter().any(|known| known == host)
    }
}

/// The images of a pod's containers.
pub(super) fn images(pod: &Value) -> Vec<&str> {
    let containers = ["initContainers", "containers", "ephemeralContainers"].into_iter();
    let containers = containers.flat_map(|field| list(pod, field));
    containers.filter_map(|container| container["image"].as_str()).collect()
}

fn list<'a>(pod: &'a Value, field: &str) -> &'a [Value] {
    pod["spec"][field].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A JSON patch (RFC 6902) that adds the secrets which the pod's images need and which it has not.
pub(super) fn patch(pod: &Value, offers: &[Offer]) -> Vec<Value> {
    let spec = &pod["spec"];
    let images = images(pod);
    let mut named: Vec<&str> =
        list(pod, "imagePullSecrets").iter().filter_map(|secret| secret["name"].as_str()).collect();
    let mut patch = Vec::new();
    if !spec["imagePullSecrets"].is_array() {
        patch.push(json!({"op": "add", "path": "/spec/imagePullSecrets", "value": []}));
    }
    let begin = patch.len();
    for offer in offers {
        if !named.contains(&offer.secret.as_str()) && images.iter().any(|image| offer.opens(image)) {
            named.push(&offer.secret);
            let value = json!({"name": offer.secret});
            patch.push(json!({"op": "add", "path": "/spec/imagePullSecrets/-", "value": value}));
        }
    }
    if patch.len() == begin { Vec::new() } else { patch }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const DEMO: &str = "demo:5000";

    #[rstest]
    #[case("demo.apps.svc:5000/team/app:1", true)]
    #[case("demo.apps.svc:5000/team/app", true)]
    #[case("demo.apps.svc:5000/team/app@sha256:abc", true)]
    #[case("demo.apps.svc:5000/team/app:1@sha256:abc", true)]
    #[case("demo.apps:5000/team/app:1", true)]
    #[case("demo.apps.svc:5000/team/apple:1", false)]
    #[case("demo.apps.svc:5000/team/app/web:1", false)]
    #[case("demo.apps.svc:5000/team", false)]
    #[case("other.apps.svc:5000/team/app:1", false)]
    #[case("demo.apps.svc/team/app:1", false)]
    #[case("team/app:1", false)]
    #[case("", false)]
    fn an_offer_opens_its_path(#[case] image: &str, #[case] expected: bool) {
        let offer =
            Offer::new("pull", ["demo.apps.svc:5000", "demo.apps:5000"].map(str::to_owned), "team/app");
        assert_eq!(offer.opens(image), expected);
    }

    #[rstest]
    #[case("demo:5000/team/app:1", true)]
    #[case("demo:5000/team/app/web:1", true)]
    #[case("demo:5000/team:1", false)]
    #[case("demo:5000/teams/app:1", false)]
    fn an_offer_of_a_prefix_opens_what_is_below(#[case] image: &str, #[case] expected: bool) {
        assert_eq!(Offer::new("pull", [DEMO.to_owned()], "team/*").opens(image), expected);
    }

    #[test]
    fn only_what_is_lacking_is_added() {
        let offers = [
            Offer::new("pull", [DEMO.to_owned()], "team/*"),
            Offer::new("other", [DEMO.to_owned()], "other/*"),
            Offer::new("init", [DEMO.to_owned()], "init"),
        ];
        let mut pod = json!({"spec": {
            "initContainers": [{"image": "demo:5000/init"}],
            "containers": [{"image": "demo:5000/team/app:1"}, {"image": "nginx"}],
        }});
        let added =
            |name: &str| json!({"op": "add", "path": "/spec/imagePullSecrets/-", "value": {"name": name}});
        let list = json!({"op": "add", "path": "/spec/imagePullSecrets", "value": []});
        assert_eq!(patch(&pod, &offers), [list, added("pull"), added("init")]);
        pod["spec"]["imagePullSecrets"] = json!([{"name": "mine"}, {"name": "pull"}]);
        assert_eq!(patch(&pod, &offers), [added("init")]);
        pod["spec"]["initContainers"] = json!([]);
        assert_eq!(patch(&pod, &offers), Vec::<Value>::new());
        assert_eq!(patch(&json!({}), &offers), Vec::<Value>::new());
    }
}
