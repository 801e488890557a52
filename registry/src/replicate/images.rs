//! What is done at the target, one image at a time, tried again a little later where it fails.

use channel::{feed::Stamp, replication::Reason};
use http::StatusCode;
use oci::{
    Denial, Digest, Tag,
    client::{self, backoff},
    copy::{Error, Image, Outcome, Place},
};

use super::{
    compare::{self, Held},
    registry::keeping,
    run::{Run, Side},
};

/// How often an image is tried in a run.
const ATTEMPTS: u32 = 3;

impl Run {
    /// Copies an image. One that moves or goes meanwhile is looked for again.
    pub(super) async fn bring(
        &self,
        place: &Place,
        tag: Option<Tag>,
        digest: &Digest,
        stamp: Option<&Stamp>,
    ) {
        let name = match &tag {
            Some(tag) => format!("{}:{tag}", place.source),
            None => format!("{}@{digest}", place.source),
        };
        let pushed = stamp.and_then(compare::when);
        self.tally.behind(&name, pushed);
        // Never closed.
        let _permit = self.images.acquire().await.ok();
        let headers = keeping(&self.target, stamp.unwrap_or(&self.stamp_of_now()));
        let mut image = Image { place: place.clone(), digest: digest.clone(), tag, headers };
        let mut attempt = 1;
        loop {
            let (copier, work) = (self.copier.clone(), image.clone());
            let error = match self.workers.run(async move { copier.image(&work).await }).await {
                Ok(outcome) => return self.tally.caught_up(&name, pushed, outcome == Outcome::Copied),
                Err(error) => error,
            };
            match self.resolve_again(&image, &error).await {
                Resolved::Same => {}
                Resolved::Moved(digest) => image.digest = digest,
                Resolved::Gone => return self.tally.caught_up(&name, pushed, false),
            }
            if attempt == ATTEMPTS {
                return self.tell(&name, &error, attempt);
            }
            tracing::debug!(image = %name, %error, attempt, "an image is tried again");
            tokio::time::sleep(backoff(attempt + 2)).await;
            attempt += 1;
        }
    }

    /// Brings what refers to an image that is there; as old as the image, so that what was deleted at the target since
    /// does not come back.
    pub(super) async fn bring_referrers(&self, place: &Place, held: &Held) {
        let Held { digest, stamp, .. } = held;
        let name = format!("{}@{digest}", place.source);
        let _permit = self.images.acquire().await.ok();
        let headers = keeping(&self.target, stamp.as_ref().unwrap_or(&self.stamp_of_now()));
        for attempt in 1..=ATTEMPTS {
            let (copier, place, headers) = (self.copier.clone(), place.clone(), headers.clone());
            let Held { digest, media_type, .. } = held.clone();
            let work =
                async move { copier.referrers(&place, &digest, media_type.as_deref(), &headers).await };
            match self.workers.run(work).await {
                Ok(()) => return,
                Err(error) if attempt == ATTEMPTS => self.tell(&name, &error, attempt),
                Err(_) => tokio::time::sleep(backoff(attempt + 2)).await,
            }
        }
    }

    async fn resolve_again(&self, image: &Image, error: &Error) -> Resolved {
        let Some(tag) = &image.tag else {
            let is_gone = matches!(error, Error::Missing(digest) if *digest == image.digest);
            return if is_gone { Resolved::Gone } else { Resolved::Same };
        };
        match self.source.tag(&image.place.source, tag).await {
            Ok(Some(held)) if held.digest != image.digest => Resolved::Moved(held.digest),
            Ok(None) => Resolved::Gone,
            Ok(Some(_)) | Err(_) => Resolved::Same,
        }
    }

    fn tell(&self, name: &str, error: &Error, attempts: u32) {
        tracing::debug!(image = %name, %error, "an image failed");
        if is_full(error) {
            let message = "the target has no room: make room there, or lift its quota".to_owned();
            self.tally.problem(Reason::TargetFull, message);
        }
        let ends = [(Side::Source, error.at_source()), (Side::Target, error.at_target())];
        for (side, error) in ends {
            if let Some(error) = error {
                self.blame(side, error);
            }
        }
        self.tally.failed(name, error.to_string(), attempts);
    }

    /// What nobody knows of an image, or of a repository, because an end did not say it.
    pub(super) fn unheard(&self, side: Side, image: &str, error: &client::Error) {
        self.blame(side, error);
        let side = if side == Side::Source { "source" } else { "target" };
        self.tally.failed(image, format!("{side}: {error}"), 1);
    }

    /// Remembers whose fault a failure is, where it is that of a whole end. What an answer says is that of the image.
    pub(super) fn blame(&self, side: Side, error: &client::Error) {
        let whole = matches!(error, client::Error::Unauthorized { .. } | client::Error::Unreachable { .. });
        if whole {
            self.tally.blocked(side.reason(error), error.to_string());
        }
    }
}

/// Where a tag of the source points, after a failure.
enum Resolved {
    Same,
    Moved(Digest),
    Gone,
}

fn is_full(error: &Error) -> bool {
    let said = |error: &client::Error| {
        matches!(error, client::Error::Denied { why: Denial::QuotaExceeded, .. })
            || error.status() == Some(StatusCode::INSUFFICIENT_STORAGE)
            || error.to_string().contains("no space left on device")
    };
    error.at_target().is_some_and(said)
}
