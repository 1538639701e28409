//! Requests that may be sent again, and forgetting what serves for a while only.

use gainsay_protocol::{JobId, ServiceTime};

use super::work::Work;
use super::{App, AppError, AppResult};
use crate::store::clock;
use crate::store::repeats::{self, Keep, Repeat, RequestKey};

/// How long a request key is remembered, ms of service time: a day.
const KEYS_MS: u64 = 24 * 60 * 60 * 1_000;
/// How long refused moves are kept once their dispute is over, ms of service time: thirty days.
const REFUSALS_MS: u64 = 30 * 24 * 60 * 60 * 1_000;

/// The jobs that the same request made before; none if it is new.
fn read(repeat: Repeat) -> AppResult<Option<Vec<JobId>>> {
    match repeat {
        Repeat::New => Ok(None),
        Repeat::Same(jobs) => Ok(Some(jobs)),
        Repeat::Other => Err(AppError::RequestKeyReused),
    }
}

impl App {
    /// The jobs that the request of this key made, if it was received before.
    pub(super) async fn repeated(&self, key: Option<&RequestKey>) -> AppResult<Option<Vec<JobId>>> {
        let Some(key) = key else { return Ok(None) };
        let mut conn = self.connection().await?;
        read(repeats::look_up(&mut conn, key).await?)
    }

    /// Uses up a key with this transaction, the first thing that it does. The jobs of the same request where that came
    /// before; then there is nothing left to do.
    pub(super) async fn take_key(
        &self,
        work: &mut Work<'_>,
        key: Option<&RequestKey>,
        jobs: &[JobId],
    ) -> AppResult<Option<Vec<JobId>>> {
        let Some(key) = key else { return Ok(None) };
        let now = work.now().await?;
        read(repeats::take(&mut work.tx, key, jobs, now).await?)
    }

    /// Forgets nonces that no request can be dated for any more, request keys of yesterday, and refused moves of
    /// disputes that are long over: a bounded number of each. How many in all.
    ///
    /// # Errors
    /// The database.
    pub async fn forget_old(&self) -> AppResult<u64> {
        let mut conn = self.connection().await?;
        let now = clock::now(&mut conn).await?;
        let before = |ms: u64| ServiceTime(now.0.saturating_sub_unsigned(ms));
        // A request may be dated this far ahead, and is taken this long after its date.
        let nonces_ms = self.config().limits.request_skew_ms.saturating_mul(2).saturating_add(1);
        let keep = Keep { nonces: before(nonces_ms), keys: before(KEYS_MS), refusals: before(REFUSALS_MS) };
        Ok(repeats::forget(&mut conn, keep).await?)
    }
}
