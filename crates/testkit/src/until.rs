//! Waiting for something to become true.

use std::time::Duration;

use tokio::time::Instant;

/// Far longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until there is something to see, and returns it. For what the service does in its own time; where a test
/// can cause the change itself, it should, and look once.
///
/// # Panics
/// If nothing came for half a minute; the message says what was waited for.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < give_up, "waited in vain for {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
