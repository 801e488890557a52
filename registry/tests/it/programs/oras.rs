//! oras, which keeps any files in registries, and lists what refers to an image.

use serde_json::Value;

use super::Program;
use crate::policy_file::Standalone;

const SBOM: &str = "application/vnd.example.sbom";

#[tokio::test]
async fn oras_attaches_finds_and_copies_referrers() {
    let Some(oras) = Program::find("oras") else { return };
    let standalone = Standalone::start();
    let folder = standalone.folder.path();
    let auth = folder.join("auth.json").to_str().unwrap().to_owned();
    let oras = oras.within(folder);
    let registry = format!("localhost:{}", standalone.server.address("registry").port());
    let local = ["--plain-http", "--registry-config", &auth];
    let run = |what: &[&str], rest: &[&str]| oras.run(&[what, &local, rest].concat());
    let json = |what: &[&str], rest: &[&str]| -> Value {
        serde_json::from_slice(&run(&[what, &["--format", "json"]].concat(), rest)).unwrap()
    };
    let login = |password| [&["login"], &local[..], &["-u", "ci", "-p", password, &registry]].concat();
    oras.fail(&login("wrong"));
    oras.run(&login("secret"));

    let image = format!("{registry}/team/app:v1");
    std::fs::write(folder.join("first.txt"), "one").unwrap();
    std::fs::write(folder.join("second.txt"), "two").unwrap();
    let pushed = json(&["push"], &[&image, "first.txt", "second.txt"]);
    std::fs::write(folder.join("sbom.json"), "{}").unwrap();
    let attach = ["attach", "--artifact-type", SBOM];
    let sbom = json(&attach, &["--annotation", "of=v1", &image, "sbom.json"]);
    json(&["attach", "--artifact-type", "application/vnd.example.other"], &[&image, "sbom.json"]);

    let all = json(&["discover"], &[&image]);
    assert_eq!(referrers(&all).len(), 2, "{all}");
    let found = json(&["discover", "--artifact-type", SBOM], &[&image]);
    let [found] = &referrers(&found)[..] else { panic!("{found}") };
    assert_eq!(found["digest"], sbom["digest"]);
    assert_eq!(found["annotations"]["of"], "v1");
    // Of a referrer, too.
    let signature = format!("{registry}/team/app@{}", sbom["digest"].as_str().unwrap());
    json(&["attach", "--artifact-type", "application/vnd.example.signature"], &[&signature, "sbom.json"]);

    // With all that refers to it, and what refers to that.
    let copy = format!("{registry}/team/copy:v1");
    let both = ["--from-plain-http", "--to-plain-http", "--from-registry-config", &auth];
    oras.run(
        &[&["copy", "--recursive", "--to-registry-config", &auth], &both[..], &[&image, &copy]].concat(),
    );
    assert_eq!(referrers(&json(&["discover"], &[&copy])).len(), 2);
    let signature = signature.replace("/app@", "/copy@");
    assert_eq!(referrers(&json(&["discover"], &[&signature])).len(), 1);

    let by_digest = format!("{registry}/team/copy@{}", pushed["digest"].as_str().unwrap());
    for (number, reference) in [copy, by_digest].iter().enumerate() {
        let back = format!("back-{number}");
        run(&["pull", "--output", &back], &[reference]);
        for (file, content) in [("first.txt", "one"), ("second.txt", "two")] {
            assert_eq!(std::fs::read_to_string(folder.join(&back).join(file)).unwrap(), content);
        }
    }
    let log = standalone.server.log();
    assert!(log.contains(r#""method":"GET","path":"/v2/team/copy/referrers/"#), "by the referrers API");
}

/// Later versions say `referrers`.
fn referrers(discovered: &Value) -> Vec<Value> {
    let list = discovered.get("referrers").or_else(|| discovered.get("manifests"));
    list.and_then(Value::as_array).cloned().unwrap_or_default()
}
