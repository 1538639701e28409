//! A challenger: re-executes claims, compares layer commitments, and disputes the first that differs.
//!
//! [`run`] does all of it over HTTP alone. `inbox` learns of claims and draws which of them to check; `check` runs them, by model (`lanes`),
//! and, where a claim is false, rehearses the proof and opens a dispute; `play` makes the moves. Nothing is kept on
//! disk but the key: open claims and open disputes are the coordinator's to tell, and the rest is computed again. So it
//! can be killed and started again at any point.

mod arguments;
mod check;
mod config;
mod inbox;
mod lanes;
mod play;
mod tally;

pub use arguments::Arguments;
pub use config::{Config, Mode, SampleRate, SampleRateError};
pub use gainsay_participant::ParticipantError as ChallengerError;
pub use tally::Summary;

use gainsay_api::client::Client;
use gainsay_api::disputes::Side;
use gainsay_api::parties::EnlistedRole;
use gainsay_commitment::SecretKey;
use gainsay_participant::identity::Identity;
use gainsay_participant::machine::try_device;
use gainsay_participant::models::ModelStore;
use gainsay_participant::patience::persist;
use gainsay_participant::player::{Hands, Player};
use gainsay_startup::keep_status_file;
use inbox::Sampler;
use std::sync::{Arc, Mutex};
use tally::Tally;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Claims that may wait to be checked. What does not fit is found again by the next listing.
const QUEUE: usize = 10_000;

/// What the tasks of a challenger share.
struct Challenger {
    config: Config,
    client: Client,
    /// None for a challenger that only watches: it needs no key.
    player: Option<Seat>,
    models: ModelStore,
    /// The runs that disputes are played from.
    hands: Arc<Mutex<Hands>>,
    /// Whose turn it is to run: one batch at a time, which has all threads and the memory of a job.
    runs: Semaphore,
    /// Wakes the playing task.
    opened: Notify,
    tally: Tally,
}

/// The place of a challenger that may play.
struct Seat {
    key: SecretKey,
    player: Player,
}

/// Checks claims until `stop` is cancelled; answers what it did. A coordinator that is away, at the start or later, is
/// waited for.
///
/// # Errors
/// What waiting does not mend: a device that cannot be used or computes wrongly, a key that is registered for another owner, a coordinator that is none.
pub async fn run(config: Config, stop: CancellationToken) -> Result<Summary, ChallengerError> {
    try_device(&config.party.models.engine).await?;
    let arrival = persist(&stop, ChallengerError::is_transient, || arrive(&config));
    let Some((client, player)) = arrival.await? else { return Ok(Summary::default()) };
    let sampler = Sampler::new(config.sample, player.as_ref().map(|seat| &seat.key));
    let models = ModelStore::new(client.clone(), &config.party.models);
    let hands = Arc::<Mutex<Hands>>::default();
    Hands::let_go_when_short(&hands, &models);
    let challenger = Arc::new(Challenger {
        models,
        client,
        player,
        hands,
        runs: Semaphore::new(1),
        opened: Notify::new(),
        tally: Tally::new(config.progress.clone()),
        config,
    });
    let (sender, queue) = mpsc::channel(QUEUE);
    let tasks = [
        tokio::spawn(inbox::watch(challenger.clone(), sampler, sender, stop.clone())),
        tokio::spawn(check::check(challenger.clone(), queue, stop.clone())),
        tokio::spawn(play::play(challenger.clone(), stop.clone())),
    ];
    if let Some(file) = challenger.config.party.status_file.clone() {
        let challenger = challenger.clone();
        let counters = move || challenger.tally.summary().counters();
        tokio::spawn(keep_status_file(file, counters, stop.clone()));
    }
    for task in tasks {
        task.await.expect("no task of a challenger panics");
    }
    Ok(challenger.tally.summary())
}

/// Finds the coordinator and registers with it, where the mode needs that.
async fn arrive(config: &Config) -> Result<(Client, Option<Seat>), ChallengerError> {
    let client = Client::connect(&config.party.coordinator).await?;
    if config.mode == Mode::Watch {
        return Ok((client, None));
    }
    let Identity { key, .. } =
        Identity::establish(&client, &config.party.names, EnlistedRole::Challenger, None).await?;
    let player = Player::new(client.clone(), key.clone(), Side::Challenger);
    Ok((client, Some(Seat { key, player })))
}
