//! Replications: images get from one registry to another, and stay the same there.

mod both_ways;
mod by_hand;
mod choices;
mod endpoint;
mod full;
mod on_push;
mod outage;
mod outside;
mod platforms;
mod progress;
mod restart;
mod rights;

use std::time::Duration;

/// From a push to the target while nothing runs.
const FROM_NONE: Duration = Duration::from_secs(12);
/// The same while a run follows what is pushed.
const FOLLOWING: Duration = Duration::from_secs(5);
