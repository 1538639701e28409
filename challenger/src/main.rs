//! The challenger's program: [`gainsay_challenger::run`] with a command line.

use anyhow::Result;

#[tokio::main]
async fn main() -> Result<()> {
    Ok(gainsay_participant::program::program::<gainsay_challenger::Arguments>().await?)
}
