//! Which manifests of an index are wanted.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::Deserialize;

use super::document::Child;

/// `linux/amd64`, `linux/arm/v7`; without a variant every variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// Text that is no platform.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no platform: give one such as linux/amd64 or linux/arm/v7")]
pub struct InvalidPlatform(String);

/// What an index says of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Described {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let mut parts = text.split('/').map(str::to_owned);
        let (os, architecture, variant) = (parts.next(), parts.next(), parts.next());
        let (Some(os), Some(architecture), None) = (os, architecture, parts.next()) else {
            return Err(InvalidPlatform(text.to_owned()));
        };
        if [Some(&os), Some(&architecture), variant.as_ref()].into_iter().flatten().any(String::is_empty) {
            return Err(InvalidPlatform(text.to_owned()));
        }
        Ok(Self { os, architecture, variant })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl Platform {
    fn is(&self, described: &Described) -> bool {
        self.os == described.os
            && self.architecture == described.architecture
            && self.variant.as_ref().is_none_or(|variant| described.variant.as_ref() == Some(variant))
    }
}

/// Annotation of an attestation within an index: the digest of the manifest that it is about.
const ABOUT: &str = "vnd.docker.reference.digest";

/// The wanted ones. What is for no platform is wanted; an attestation, where the manifest that it is about is.
pub(super) fn choose(children: Vec<Child>, platforms: &[Platform]) -> Vec<Child> {
    if platforms.is_empty() {
        return children;
    }
    let about = |child: &Child| annotation(child.descriptor.annotations.as_ref());
    let fits = |child: &Child| match &child.platform {
        None => true,
        Some(described) => platforms.iter().any(|platform| platform.is(described)),
    };
    let plain = children.iter().filter(|child| about(child).is_none() && fits(child));
    let chosen: Vec<String> = plain.map(|child| child.descriptor.digest.to_string()).collect();
    let wanted = |child: &Child| match about(child) {
        Some(about) => chosen.contains(&about),
        None => fits(child),
    };
    children.into_iter().filter(wanted).collect()
}

fn annotation(annotations: Option<&BTreeMap<String, String>>) -> Option<String> {
    annotations?.get(ABOUT).cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Algorithm, Digest};

    fn child(content: &str, platform: Option<&str>, about: Option<&str>) -> Child {
        let digest = |content: &str| Digest::of(Algorithm::Sha256, content.as_bytes());
        let mut value = json!({"mediaType": "m", "digest": digest(content), "size": 1});
        if let Some(platform) = platform {
            let mut parts = platform.split('/');
            value["platform"] =
                json!({"os": parts.next(), "architecture": parts.next(), "variant": parts.next()});
        }
        if let Some(about) = about {
            value["annotations"] = json!({ABOUT: digest(about)});
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_wanted() {
        let all = vec![
            child("amd", Some("linux/amd64"), None),
            child("arm7", Some("linux/arm/v7"), None),
            child("arm6", Some("linux/arm/v6"), None),
            child("plain", None, None),
            child("of amd", Some("unknown/unknown"), Some("amd")),
            child("of arm7", Some("unknown/unknown"), Some("arm7")),
        ];
        let chosen = |platforms: &[&str]| -> Vec<usize> {
            let platforms: Vec<Platform> = platforms.iter().map(|text| text.parse().unwrap()).collect();
            let chosen = choose(all.clone(), &platforms);
            (0..all.len()).filter(|&at| chosen.contains(&all[at])).collect()
        };
        assert_eq!(chosen(&[]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(chosen(&["linux/amd64"]), [0, 3, 4]);
        assert_eq!(chosen(&["linux/arm"]), [1, 2, 3, 5]);
        assert_eq!(chosen(&["linux/arm/v6", "windows/amd64"]), [2, 3]);
    }

    #[test]
    fn platforms_are_spelled_out() {
        assert_eq!("linux/arm/v7".parse::<Platform>().unwrap().to_string(), "linux/arm/v7");
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d", "a/b/"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
