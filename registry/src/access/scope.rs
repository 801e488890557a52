//! What a token may be used for, in the words of Docker's token protocol: `repository:team/app:pull,push`.
//!
//! A scope only narrows: a token that asks for more than its subject may do is no more than its subject, because the
//! policy decides on every request.

use channel::policy::Action;
use oci::RepoName;

/// The scope under which repositories are listed.
const CATALOG: &str = "registry:catalog:*";
/// More would not fit into the headers of some proxies.
const MAX_SCOPES: usize = 4096;

/// Scopes as they stand in a token, with spaces between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scopes(String);

/// More than a token can hold.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("more scopes than a token can hold: {MAX_SCOPES} bytes")]
pub(crate) struct TooManyScopes;

impl Scopes {
    /// Those that mean something here; what else a client asks for is left out, as the protocol wants it.
    pub(crate) fn parse<'a>(asked: impl IntoIterator<Item = &'a str>) -> Result<Self, TooManyScopes> {
        let mut scopes = String::new();
        for scope in asked.into_iter().flat_map(str::split_whitespace).filter_map(normalize) {
            if !scopes.split(' ').any(|known| known == scope) {
                scopes.push_str(if scopes.is_empty() { "" } else { " " });
                scopes.push_str(&scope);
            }
            if scopes.len() > MAX_SCOPES {
                return Err(TooManyScopes);
            }
        }
        Ok(Self(scopes))
    }

    /// As they came out of a token.
    pub(super) fn trusted(scopes: String) -> Self {
        Self(scopes)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn cover(&self, action: Action, repository: &RepoName) -> bool {
        self.0.split(' ').filter_map(repository_scope).any(|(name, actions)| {
            name == repository.as_str() && actions.split(',').any(|word| covers(word, action))
        })
    }

    pub(super) fn cover_catalog(&self) -> bool {
        self.0.split(' ').any(|scope| scope == CATALOG)
    }
}

/// What to ask for, to do this.
pub(super) fn needed(action: Action, repository: &RepoName) -> String {
    let actions = match action {
        Action::ContentRead | Action::MetadataRead => "pull",
        Action::ContentWrite | Action::MetadataWrite => "pull,push",
        Action::ContentDelete => "pull,delete",
    };
    format!("repository:{repository}:{actions}")
}

/// What to ask for, to list repositories.
pub(super) fn catalog() -> String {
    CATALOG.to_owned()
}

fn normalize(scope: &str) -> Option<String> {
    if scope == CATALOG {
        return Some(scope.to_owned());
    }
    let (name, actions) = repository_scope(scope)?;
    let name: RepoName = name.parse().ok()?;
    let words = ["pull", "push", "delete", "*"];
    let words: Vec<_> =
        words.into_iter().filter(|known| actions.split(',').any(|word| word == *known)).collect();
    if words.is_empty() { None } else { Some(format!("repository:{name}:{}", words.join(","))) }
}

fn repository_scope(scope: &str) -> Option<(&str, &str)> {
    scope.strip_prefix("repository:")?.rsplit_once(':')
}

fn covers(word: &str, action: Action) -> bool {
    match action {
        Action::ContentRead | Action::MetadataRead => matches!(word, "pull" | "*"),
        Action::ContentWrite | Action::MetadataWrite => matches!(word, "push" | "*"),
        Action::ContentDelete => matches!(word, "delete" | "*"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn parse(scope: &str) -> String {
        Scopes::parse([scope]).unwrap().0
    }

    #[rstest]
    #[case("repository:team/app:pull", "repository:team/app:pull")]
    #[case("repository:a:push,pull", "repository:a:pull,push")]
    #[case("repository:a:pull repository:b:pull", "repository:a:pull repository:b:pull")]
    #[case("repository:a:pull repository:a:pull", "repository:a:pull")]
    #[case("repository:a:*", "repository:a:*")]
    #[case("registry:catalog:*", "registry:catalog:*")]
    #[case::unknown_action("repository:a:pull,fly", "repository:a:pull")]
    #[case::no_action("repository:a: repository:a repository:", "")]
    #[case::no_name("repository:../etc:pull repository::pull repository:A:pull", "")]
    #[case::other_types("repository(plugin):a:pull registry:other:* nonsense", "")]
    #[case::nothing("", "")]
    fn what_is_asked_for(#[case] asked: &str, #[case] understood: &str) {
        assert_eq!(parse(asked), understood);
    }

    #[test]
    fn several_parameters_and_too_many() {
        let scopes = Scopes::parse(["repository:a:pull", "repository:b:push"]).unwrap();
        assert_eq!(scopes.0, "repository:a:pull repository:b:push");
        let many: Vec<_> = (0..500).map(|n| format!("repository:some/repository-{n}:pull")).collect();
        assert_eq!(Scopes::parse(many.iter().map(String::as_str)), Err(TooManyScopes));
    }

    #[rstest]
    #[case("pull", &[Action::ContentRead, Action::MetadataRead])]
    #[case("push", &[Action::ContentWrite, Action::MetadataWrite])]
    #[case("delete", &[Action::ContentDelete])]
    fn what_it_covers(#[case] word: &str, #[case] covered: &[Action]) {
        let scopes = Scopes::parse([&*format!("repository:a:{word}")]).unwrap();
        let all = Scopes::parse(["repository:a:*"]).unwrap();
        let name = "a".parse().unwrap();
        for action in [
            Action::ContentRead,
            Action::ContentWrite,
            Action::ContentDelete,
            Action::MetadataRead,
            Action::MetadataWrite,
        ] {
            assert_eq!(scopes.cover(action, &name), covered.contains(&action), "{action:?}");
            assert!(all.cover(action, &name));
            assert!(!all.cover(action, &"a/b".parse().unwrap()));
            assert!(Scopes::parse([&*needed(action, &name)]).unwrap().cover(action, &name));
        }
        assert!(!all.cover_catalog());
        assert!(Scopes::parse([&*catalog()]).unwrap().cover_catalog());
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_is_stable(asked in "(repository|registry|[a-z]{0,3})(:[a-z/,*:]{0,12}){0,3}( \\PC{0,9})?") {
            let once = parse(&asked);
            prop_assert_eq!(parse(&once), once);
        }
    }
}
