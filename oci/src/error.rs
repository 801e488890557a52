//! Error codes that the specification registers, and the JSON in which they travel.

use serde::{Deserialize, Serialize};

/// The identifiers of the specification's section "Error Codes", and `UNKNOWN` for what is the server's own fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// No such blob in this repository.
    BlobUnknown,
    /// The upload can't go on like this.
    BlobUploadInvalid,
    /// No such upload session.
    BlobUploadUnknown,
    /// The digest is malformed, or not that of the content.
    DigestInvalid,
    /// The manifest needs something that is not there.
    ManifestBlobUnknown,
    /// The manifest is malformed.
    ManifestInvalid,
    /// No such manifest in this repository.
    ManifestUnknown,
    /// The name does not match the grammar.
    NameInvalid,
    /// No such repository.
    NameUnknown,
    /// A length is not what it was said to be, or too large.
    SizeInvalid,
    /// Credentials are needed.
    Unauthorized,
    /// These credentials do not suffice.
    Denied,
    /// Not an operation of this registry.
    Unsupported,
    /// Slow down.
    #[serde(rename = "TOOMANYREQUESTS")]
    TooManyRequests,
    /// The registry's own fault; not registered, and so only ever sent with a 5xx status.
    Unknown,
}

/// The body of an answer that is an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorList {
    /// At least one.
    pub errors: Vec<ErrorItem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorItem {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// What exactly, where that helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<serde_json::Value>,
}

/// Why something is denied to a login that would suffice otherwise: `reason` in the detail of a Berth registry's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Denial {
    /// There is no room left in a quota.
    QuotaExceeded,
    /// The tag stays where it is.
    ImmutableTag,
}

impl Denial {
    /// As a detail.
    #[must_use]
    pub fn detail(self) -> serde_json::Value {
        serde_json::json!({ "reason": self })
    }

    /// What a detail says.
    #[must_use]
    pub fn of(detail: &serde_json::Value) -> Option<Self> {
        Self::deserialize(detail.get("reason")?).ok()
    }
}

impl ErrorItem {
    /// Without a detail.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_spelled_as_registered() {
        let json = |code: ErrorCode| serde_json::to_string(&code).unwrap();
        assert_eq!(json(ErrorCode::BlobUploadUnknown), r#""BLOB_UPLOAD_UNKNOWN""#);
        assert_eq!(json(ErrorCode::TooManyRequests), r#""TOOMANYREQUESTS""#);
        assert_eq!(json(ErrorCode::Unauthorized), r#""UNAUTHORIZED""#);
    }
}
