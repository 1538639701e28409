//! Parties with keys and money, and a small model to work on.

use gainsay_api::accounts::Deposit;
use gainsay_api::client::{Auth, Client};
use gainsay_api::parties::EnlistedRole;
use gainsay_commitment::tensor::tensor_commitment;
use gainsay_commitment::{Canonical, ModelId, SecretKey};
use gainsay_program::toy::{Toy, ToyOptions};
use gainsay_protocol::OwnerId;

use crate::OPERATOR_TOKEN;

/// Words of the toy tokenizer, from id 1 on; id 0 is every other word.
const WORDS: [&str; 12] =
    ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "red", "blue"];

/// A submitter with its key.
#[derive(Debug, Clone)]
pub struct TestSubmitter {
    /// Its account.
    pub id: OwnerId,
    /// What it sends as bearer.
    pub api_key: String,
}

impl TestSubmitter {
    /// Registers one and gives it `credits` micro-credits.
    ///
    /// # Panics
    /// If the coordinator refuses.
    pub async fn register(client: &Client, name: &str, credits: i64) -> Self {
        let registered = client.register_submitter(name).await.expect("a submitter registers");
        if credits > 0 {
            deposit(client, registered.id, credits).await;
        }
        Self { id: registered.id, api_key: registered.api_key }
    }
}

/// An owner with a worker and a challenger.
#[derive(Debug)]
pub struct TestOwner {
    /// Its account.
    pub id: OwnerId,
    /// Its key.
    pub key: SecretKey,
    /// Its worker's key.
    pub worker: SecretKey,
    /// Its challenger's key.
    pub challenger: SecretKey,
}

impl TestOwner {
    /// Registers an owner with both, and gives it `credits` micro-credits.
    ///
    /// # Panics
    /// If the coordinator refuses.
    pub async fn register(client: &Client, name: &str, credits: i64) -> Self {
        let [key, worker, challenger] = [(); 3].map(|()| SecretKey::generate());
        let registered = client.register_owner(&key, name).await.expect("an owner registers");
        let roles = [
            (EnlistedRole::Worker, &worker, "worker"),
            (EnlistedRole::Challenger, &challenger, "challenger"),
        ];
        for (role, agent, what) in roles {
            let device = matches!(role, EnlistedRole::Worker).then(|| "a test's own processor".to_owned());
            let name = format!("{name}'s {what}");
            client.enlist(&key, agent, role, &name, device).await.expect("an owner enlists its own key");
        }
        if credits > 0 {
            deposit(client, registered.owner, credits).await;
        }
        Self { id: registered.owner, key, worker, challenger }
    }
}

async fn deposit(client: &Client, to: OwnerId, amount: i64) {
    client.deposit(OPERATOR_TOKEN, &Deposit { to, amount }).await.expect("the operator deposits");
}

/// A small encoder with seeded weights and a tokenizer of a dozen words.
#[derive(Debug)]
pub struct ToyModel {
    /// The model and its weights.
    pub toy: Toy,
    /// Its tokenizer file.
    pub tokenizer: Vec<u8>,
}

impl ToyModel {
    /// Builds it; equal options give equal models.
    ///
    /// # Panics
    /// If the options describe no model.
    #[must_use]
    pub fn new(options: &ToyOptions) -> Self {
        let tokenizer = tokenizer();
        let toy = Toy::new(options).expect("the options describe a model");
        let mut manifest = toy.model.manifest().clone();
        manifest.tokenizer = tensor_commitment(&tokenizer);
        let model = manifest.validate().expect("another tokenizer does not change a program");
        Self { toy: Toy { model, weights: toy.weights }, tokenizer }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> ModelId {
        self.toy.model.id()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.toy.model.manifest().name
    }

    /// The manifest's canonical bytes.
    #[must_use]
    pub fn manifest(&self) -> Vec<u8> {
        self.toy.model.manifest().to_bytes()
    }

    /// Every file that the manifest names.
    pub fn files(&self) -> impl Iterator<Item = &[u8]> {
        self.toy.weights.iter().map(Vec::as_slice).chain([self.tokenizer.as_slice()])
    }

    /// Registers it and uploads all of its files, as the operator.
    ///
    /// # Panics
    /// If the coordinator refuses.
    pub async fn publish(&self, client: &Client) {
        let operator = Auth::Bearer(OPERATOR_TOKEN);
        client.put_model(operator, self.id(), self.manifest()).await.expect("a valid manifest is taken");
        for file in self.files() {
            client.put_blob(operator, file.to_vec()).await.expect("a file of the manifest is taken");
        }
    }
}

impl Default for ToyModel {
    fn default() -> Self {
        Self::new(&ToyOptions::default())
    }
}

/// A word tokenizer whose file asks for truncation and padding, which the coordinator must not apply.
fn tokenizer() -> Vec<u8> {
    let words: Vec<String> =
        WORDS.iter().enumerate().map(|(i, word)| format!("\"{word}\":{}", i + 1)).collect();
    let text = format!(
        r#"{{"version":"1.0",
        "truncation":{{"direction":"Right","max_length":2,"strategy":"LongestFirst","stride":0}},
        "padding":{{"strategy":{{"Fixed":8}},"direction":"Right","pad_to_multiple_of":null,"pad_id":0,
            "pad_type_id":0,"pad_token":"[UNK]"}},
        "added_tokens":[],"normalizer":null,"pre_tokenizer":{{"type":"Whitespace"}},"post_processor":null,
        "decoder":null,"model":{{"type":"WordLevel","vocab":{{"[UNK]":0,{}}},"unk_token":"[UNK]"}}}}"#,
        words.join(",")
    );
    text.into_bytes()
}
