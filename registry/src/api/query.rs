//! Query parameters, decoded, in the order sent.

use std::borrow::Cow;

/// The parameters of one request.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(pairs.map(|(key, value)| (key.into_owned(), value.into_owned())).collect())
    }

    /// The first of this name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All of this name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A media type. Many clients leave its plus sign as it is, which then reads as a space.
    pub(super) fn media_type(&self, name: &str) -> Option<String> {
        self.get(name).filter(|value| !value.is_empty()).map(|value| value.replace(' ', "+"))
    }

    /// The same query with another `last`: that of the next page.
    pub(super) fn with_last(&self, last: &str) -> String {
        let others = self.0.iter().filter(|(key, _)| key != "last");
        let pairs = others.map(|(key, value)| (Cow::from(key), Cow::from(value)));
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs.chain([("last".into(), last.into())]))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        let query = Query::parse(Some("tag=a&tag=b%2Fc&n=5&artifactType=application/x+json&last=q"));
        assert_eq!(query.get("n"), Some("5"));
        assert_eq!(query.get("none"), None);
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["a", "b/c"]);
        assert_eq!(query.media_type("artifactType").as_deref(), Some("application/x+json"));
        assert_eq!(Query::parse(Some("n=2&last=a&x=%26")).with_last("b c"), "n=2&x=%26&last=b+c");
        assert_eq!(Query::parse(None).get("n"), None);
    }
}
