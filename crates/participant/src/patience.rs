//! Waiting for a coordinator that is away.

use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between two tries, each of which has been patient itself.
const PAUSE: Duration = Duration::from_secs(1);

/// Tries until it succeeds or fails for a reason that waiting does not mend; `None` if `stop` is cancelled first.
///
/// # Errors
/// The first that is not transient.
pub async fn persist<T, E, F>(
    stop: &CancellationToken,
    is_transient: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<Option<T>, E>
where
    F: Future<Output = Result<T, E>>,
    E: std::fmt::Display,
{
    let tries = async {
        let mut waits = false;
        loop {
            match attempt().await {
                Err(error) if is_transient(&error) => {
                    if !std::mem::replace(&mut waits, true) {
                        tracing::warn!(%error, "waiting for the coordinator");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                result => return result.map(Some),
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => Ok(None),
        result = tries => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_passes_is_waited_for_and_what_does_not_is_told() {
        let stop = CancellationToken::new();
        let mut left = 2;
        let attempt = || {
            left -= 1;
            std::future::ready(if left > 0 { Err("away") } else { Ok(left) })
        };
        assert_eq!(persist(&stop, |error| *error == "away", attempt).await, Ok(Some(0)));
        let refuse = || std::future::ready(Err::<(), _>("no"));
        let refused = persist(&stop, |error| *error == "away", refuse).await;
        assert_eq!(refused, Err("no"));
    }

    #[tokio::test]
    async fn waiting_ends_when_told_to() {
        let stop = CancellationToken::new();
        stop.cancel();
        assert_eq!(persist(&stop, |_| true, || std::future::ready(Err::<(), _>("away"))).await, Ok(None));
    }
}
