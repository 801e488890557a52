//! Passes on who is to be looked at: at once, but each no more often than every so often, however many changes there
//! are. None is lost.

use std::{collections::HashMap, hash::Hash, time::Duration};

use futures::{Stream, StreamExt as _, channel::mpsc};
use tokio::time::Instant;

/// The same items, each at most once in `pause`.
pub(crate) fn pace<T: Eq + Hash + Clone + Send + 'static>(
    items: mpsc::UnboundedReceiver<T>,
    pause: Duration,
) -> impl Stream<Item = T> + Send + 'static {
    let state = (items, HashMap::<T, Turn>::new());
    futures::stream::unfold(state, move |(mut items, mut turns)| async move {
        loop {
            let now = Instant::now();
            turns.retain(|_, turn| turn.wanted || turn.at > now);
            let due =
                turns.iter().find(|(_, turn)| turn.wanted && turn.at <= now).map(|(item, _)| item.clone());
            if let Some(item) = due {
                turns.insert(item.clone(), Turn { at: now + pause, wanted: false });
                return Some((item, (items, turns)));
            }
            let next = turns.values().filter(|turn| turn.wanted).map(|turn| turn.at).min();
            let wait = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                item = items.next() => turns.entry(item?).or_insert(Turn { at: now, wanted: true }).wanted = true,
                () = wait => {}
            }
        }
    })
}

/// When an item may be passed on again, and whether it is to be.
struct Turn {
    at: Instant,
    wanted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_passes_at_once_and_many_become_one() {
        let (sender, receiver) = mpsc::unbounded();
        let start = Instant::now();
        let mut paced = std::pin::pin!(pace(receiver, Duration::from_secs(1)));
        sender.unbounded_send("a").unwrap();
        assert_eq!(paced.next().await, Some("a"));
        for _ in 0..1000 {
            sender.unbounded_send("a").unwrap();
        }
        sender.unbounded_send("b").unwrap();
        assert_eq!((paced.next().await, start.elapsed().as_secs()), (Some("b"), 0));
        assert_eq!((paced.next().await, start.elapsed().as_secs()), (Some("a"), 1));
        assert!(tokio::time::timeout(Duration::from_secs(60), paced.next()).await.is_err());
    }
}
