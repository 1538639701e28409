//! How long a program runs: until it is told to stop.

use std::io;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// When a program that runs until it is told to stop is told so.
#[derive(Clone, Debug, Default, Args)]
pub struct Lifetime {
    /// Stop when standard input closes, as it does when the parent process ends.
    #[arg(long, hide = true)]
    follow_stdin: bool,
}

impl Lifetime {
    /// Resolves on SIGINT, on SIGTERM or, where asked, at the end of standard input.
    ///
    /// # Errors
    /// The operating system does not tell of signals.
    pub async fn ended(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let stdin_closed = async {
            if self.follow_stdin {
                end_of_stdin().await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
            () = stdin_closed => Ok(()),
        }
    }
}

/// Reads on a thread of its own: a blocked read would otherwise keep the runtime from ending.
async fn end_of_stdin() {
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // An error ends the input as surely as its end does.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        ended.send(())
    });
    // A thread that is gone has nothing left to follow.
    let _ = end.await;
}

/// Runs a party until it ends by itself or is told to; then lets it finish what it has in hand.
///
/// # Errors
/// The party's own, or the operating system's.
pub async fn until_ended<T, E, F>(
    lifetime: &Lifetime,
    party: impl FnOnce(CancellationToken) -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
    E: From<io::Error>,
{
    let stop = CancellationToken::new();
    let running = party(stop.clone());
    tokio::pin!(running);
    tokio::select! {
        early = &mut running => return early,
        ended = lifetime.ended() => ended?,
    }
    tracing::info!("stopping after what is in hand");
    stop.cancel();
    running.await
}
