//! The worker's program: [`gainsay_worker::run`] with a command line.

use anyhow::Result;

#[tokio::main]
async fn main() -> Result<()> {
    Ok(gainsay_participant::program::program::<gainsay_worker::Arguments>().await?)
}
