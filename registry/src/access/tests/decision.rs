//! The decision: subject × action × visibility.

use std::fmt::Write as _;

use super::{cluster::token_of, *};

const SUBJECTS: [&str; 13] = [
    "nobody", "token", "node", "reader", "writer", "owner", "cleaner", "other", "viewer", "admin", "account",
    "member", "foreign",
];

/// What a subject sends.
fn credentials(subject: &str) -> String {
    let account = |name: &str| format!("serviceaccount:{}", token_of(name, Duration::from_secs(3600)));
    match subject {
        "other" => "other:x".to_owned(),
        "admin" => "admin:new".to_owned(),
        "account" => account(CI),
        "member" => account("system:serviceaccount:team:any"),
        "foreign" => account("system:serviceaccount:else:any"),
        "node" => account(NODE),
        other => format!("{other}:{}", &other[..1]),
    }
}

/// By basic authentication and by a token for everything.
#[tokio::test]
async fn the_decision() {
    let expected = "\
private/app     nobody  401       401       401       401       401
private/app     token   401 scope 401 scope 401 scope 401 scope 401 scope
private/app     node    401       401       401       401       401
private/app     reader  yes       403       403       yes       403
private/app     writer  yes       yes       403       yes       yes
private/app     owner   yes       yes       yes       yes       yes
private/app     cleaner 403       403       yes       403       403
private/app     other   403       403       403       403       403
private/app     viewer  yes       403       403       yes       403
private/app     admin   yes       yes       yes       yes       yes
private/app     account yes       yes       403       yes       yes
private/app     member  yes       403       403       yes       403
private/app     foreign 403       403       403       403       403
cluster/app     nobody  401       401       401       401       401
cluster/app     token   401 scope 401 scope 401 scope 401 scope 401 scope
cluster/app     node    yes       401       401       yes       401
cluster/app     reader  yes       403       403       yes       403
cluster/app     writer  yes       yes       403       yes       yes
cluster/app     owner   yes       yes       yes       yes       yes
cluster/app     cleaner 403       403       yes       403       403
cluster/app     other   403       403       403       403       403
cluster/app     viewer  yes       403       403       yes       403
cluster/app     admin   yes       yes       yes       yes       yes
cluster/app     account yes       yes       403       yes       yes
cluster/app     member  yes       403       403       yes       403
cluster/app     foreign 403       403       403       403       403
public/app      nobody  yes       401       401       yes       401
public/app      token   yes       401 scope 401 scope yes       401 scope
public/app      node    yes       401       401       yes       401
public/app      reader  yes       403       403       yes       403
public/app      writer  yes       yes       403       yes       yes
public/app      owner   yes       yes       yes       yes       yes
public/app      cleaner yes       403       yes       yes       403
public/app      other   yes       403       403       yes       403
public/app      viewer  yes       403       403       yes       403
public/app      admin   yes       yes       yes       yes       yes
public/app      account yes       yes       403       yes       yes
public/app      member  yes       403       403       yes       403
public/app      foreign yes       403       403       yes       403
private/special nobody  401       401       401       401       401
private/special token   401 scope 401 scope 401 scope 401 scope 401 scope
private/special node    401       401       401       401       401
private/special reader  403       403       403       403       403
private/special writer  403       403       403       403       403
private/special owner   403       403       403       403       403
private/special cleaner 403       403       403       403       403
private/special other   yes       403       403       yes       403
private/special viewer  yes       403       403       yes       403
private/special admin   yes       yes       yes       yes       yes
private/special account 403       403       403       403       403
private/special member  403       403       403       403       403
private/special foreign 403       403       403       403       403
undeclared      nobody  401       401       401       401       401
undeclared      token   401 scope 401 scope 401 scope 401 scope 401 scope
undeclared      node    401       401       401       401       401
undeclared      reader  403       403       403       403       403
undeclared      writer  yes       yes       403       yes       yes
undeclared      owner   403       403       403       403       403
undeclared      cleaner 403       403       403       403       403
undeclared      other   403       403       403       403       403
undeclared      viewer  yes       403       403       yes       403
undeclared      admin   yes       yes       yes       yes       yes
undeclared      account yes       403       403       yes       403
undeclared      member  yes       403       403       yes       403
undeclared      foreign yes       403       403       yes       403
";
    let access = access();
    let mut table = String::new();
    for repository in ["private/app", "cluster/app", "public/app", "private/special", "undeclared"] {
        for subject in SUBJECTS {
            let everything = format!("repository:{repository}:*");
            let headers = match subject {
                "nobody" => HeaderMap::new(),
                "token" => token(&access, &HeaderMap::new(), &everything).await,
                _ => basic(&credentials(subject)),
            };
            let caller = access.authenticate(&headers, HERE).await.unwrap();
            let row = row(&caller, &name(repository));
            if !matches!(subject, "nobody" | "token") {
                let headers = token(&access, &headers, &everything).await;
                let caller = access.authenticate(&headers, HERE).await.unwrap();
                let row_of_token = self::row(&caller, &name(repository)).replace("401 scope", "401      ");
                assert_eq!(row_of_token.trim_end(), row, "{subject}: a token is no different");
            }
            writeln!(table, "{repository:15} {subject:7} {row}").unwrap();
        }
    }
    assert_eq!(table, expected, "\n{table}");
}
