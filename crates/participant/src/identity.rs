//! Who a party is: its key, its owner's key, its registration.

use crate::ParticipantError;
use gainsay_api::client::{Client, keys};
use gainsay_api::parties::{EnlistedRole, Registered};
use gainsay_commitment::{PartyId, SecretKey};
use std::path::{Path, PathBuf};

/// What a party goes by, and where its keys lie.
#[derive(Clone, Debug)]
pub struct Names {
    /// The party's own name.
    pub name: String,
    /// Its key file; made where it is missing.
    pub key_file: PathBuf,
    /// Its owner's name.
    pub owner_name: String,
    /// The owner's key file; made where it is missing.
    pub owner_key_file: PathBuf,
}

/// A registered party.
#[derive(Clone)]
pub struct Identity {
    /// Its key.
    pub key: SecretKey,
    /// What the coordinator has on record.
    pub registered: Registered,
}

impl Identity {
    /// Its public key.
    #[must_use]
    pub fn id(&self) -> PartyId {
        self.key.id()
    }

    /// Reads or makes both keys and registers owner and party. Doing so again changes nothing.
    ///
    /// # Errors
    /// A key file that is no good, or a registration that is refused: another owner has the key, the name is taken.
    pub async fn establish(
        client: &Client,
        names: &Names,
        role: EnlistedRole,
        device: Option<String>,
    ) -> Result<Self, ParticipantError> {
        let owner = load(&names.owner_key_file).await?;
        let key = load(&names.key_file).await?;
        client.register_owner(&owner, &names.owner_name).await?;
        let registered = client.enlist(&owner, &key, role, &names.name, device).await?;
        tracing::info!(party = %key.id(), name = registered.name, owner = %registered.owner, "registered");
        Ok(Self { key, registered })
    }
}

async fn load(path: &Path) -> Result<SecretKey, ParticipantError> {
    let path = path.to_owned();
    let loaded = tokio::task::spawn_blocking(move || keys::load_or_create(&path)).await;
    Ok(loaded.expect("reading a key file does not panic")?)
}
