//! From what a submitter wrote to jobs: model, tokens, limits, prices. Nothing is recorded until all of it is in order.

use std::sync::Arc;

use gainsay_api::ErrorCode;
use gainsay_api::embeddings::EmbeddingInput;
use gainsay_api::limits::MAX_INPUTS;
use gainsay_program::{JobError, JobInput};
use gainsay_protocol::Amount;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use super::body;
use super::catalog;
use super::error::ApiError;
use super::state::HttpState;
use crate::app::ModelView;
use crate::tokenizer::{TextTokenizer, TokenizerError};

/// A submission that may become jobs.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) model: Arc<ModelView>,
    /// Token ids of each input, special tokens included, each within the model's limits.
    pub(super) sequences: Vec<Vec<u32>>,
}

impl Prepared {
    /// Tokens of all inputs.
    pub(super) fn tokens(&self) -> u64 {
        self.sequences.iter().map(|sequence| sequence.len() as u64).sum()
    }
}

/// Reads a JSON body with an `input`, whose mistakes are told apart from those of the rest.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let value: Value = body::json(bytes)?;
    let input = value.get("input").ok_or_else(|| {
        ApiError::new(ErrorCode::InvalidRequest, "The body has no `input`: send the text to embed")
            .param("input")
    })?;
    EmbeddingInput::deserialize(input).map_err(|_| {
        let sentence =
            "`input` must be a text, a list of texts, a list of token ids, or a list of such lists";
        ApiError::new(ErrorCode::InvalidRequest, sentence).param("input")
    })?;
    T::deserialize(value).map_err(|error| {
        let reason: String = error.to_string().chars().take(200).collect();
        ApiError::new(ErrorCode::InvalidRequest, format!("The JSON body does not fit this route: {reason}"))
    })
}

/// Finds the model and turns the input into token ids that it takes.
pub(super) async fn prepare(
    state: &HttpState,
    model: &str,
    input: EmbeddingInput,
) -> Result<Prepared, ApiError> {
    check_count(&input)?;
    let model = catalog::resolve(state, model).await?;
    let sequences = match input {
        EmbeddingInput::Text(text) => tokenize(state, &model, vec![text], true, "input").await?,
        EmbeddingInput::Texts(texts) => tokenize(state, &model, texts, true, "input").await?,
        EmbeddingInput::Tokens(ids) => vec![ids],
        EmbeddingInput::TokenLists(lists) => lists,
    };
    check_sequences(&model, &sequences)?;
    Ok(Prepared { model, sequences })
}

fn check_count(input: &EmbeddingInput) -> Result<(), ApiError> {
    if input.is_empty() {
        return Err(empty("`input` is an empty list: send at least one text"));
    }
    if input.len() > MAX_INPUTS {
        let sentence = format!("`input` has {} entries; at most {MAX_INPUTS} fit one request", input.len());
        return Err(ApiError::new(ErrorCode::TooManyInputs, sentence).param("input"));
    }
    let empty_text = match input {
        EmbeddingInput::Text(text) => text.is_empty().then_some(0),
        EmbeddingInput::Texts(texts) => texts.iter().position(String::is_empty),
        EmbeddingInput::Tokens(ids) => ids.is_empty().then_some(0),
        EmbeddingInput::TokenLists(lists) => lists.iter().position(Vec::is_empty),
    };
    match empty_text {
        Some(index) => Err(empty(&format!("Input {index} is empty: there is nothing to embed"))),
        None => Ok(()),
    }
}

fn empty(sentence: &str) -> ApiError {
    ApiError::new(ErrorCode::EmptyInput, sentence).param("input")
}

fn check_sequences(model: &ModelView, sequences: &[Vec<u32>]) -> Result<(), ApiError> {
    let manifest = model.model.manifest();
    for (index, sequence) in sequences.iter().enumerate() {
        if sequence.is_empty() {
            return Err(empty(&format!("Input {index} has no tokens: there is nothing to embed")));
        }
        if sequence.len() as u64 > u64::from(manifest.max_sequence) {
            let (tokens, most) = (sequence.len(), manifest.max_sequence);
            let sentence =
                format!("Input {index} has {tokens} tokens; the model takes at most {most}: shorten it");
            return Err(ApiError::new(ErrorCode::InputTooLong, sentence).param("input"));
        }
        if let Some(id) = sequence.iter().find(|id| **id >= manifest.vocabulary) {
            let known = manifest.vocabulary;
            let sentence =
                format!("Input {index} holds the token id {id}; the model knows ids below {known}");
            return Err(ApiError::new(ErrorCode::InvalidInput, sentence).param("input"));
        }
    }
    Ok(())
}

/// The token ids of texts, with the special tokens around each that the model expects or without. `field` is where the
/// texts came from.
pub(super) async fn tokenize(
    state: &HttpState,
    model: &ModelView,
    texts: Vec<String>,
    special: bool,
    field: &str,
) -> Result<Vec<Vec<u32>>, ApiError> {
    let tokenizer = tokenizer(state, model).await?;
    tokenizer.encode_all(texts, special, turn(state).await?).await.map_err(|error| {
        let sentence = "The model's tokenizer does not take this text; send token ids in its place";
        ApiError::new(ErrorCode::InvalidRequest, sentence).param(field).caused_by(error)
    })
}

/// A turn at tokenizing. It goes along with the work: a client that hangs up does not make room for more.
pub(super) async fn turn(state: &HttpState) -> Result<OwnedSemaphorePermit, ApiError> {
    let turn = Arc::clone(&state.tokenizing).acquire_owned();
    let turn = tokio::time::timeout(state.config.answer_time, turn).await;
    turn.ok().and_then(Result::ok).ok_or_else(|| {
        let sentence = "Too many texts are being tokenized; try again, or send token ids in place of text";
        ApiError::new(ErrorCode::Overloaded, sentence)
    })
}

async fn tokenizer(state: &HttpState, model: &ModelView) -> Result<Arc<TextTokenizer>, ApiError> {
    let hash = model.model.manifest().tokenizer;
    if let Some(tokenizer) = state.tokenizers.cached(hash) {
        return Ok(tokenizer);
    }
    let blob = state.call(move |app| async move { app.blob(hash).await }).await?;
    let unusable = || {
        let sentence = "The model's tokenizer file does not load here; send token ids in place of text";
        ApiError::new(ErrorCode::ModelIncomplete, sentence).param("model")
    };
    // Some model may have brought a file of this hash as a tensor, of any length.
    if blob.len() > state.app.config().limits.tokenizer_bytes {
        return Err(unusable());
    }
    let turn = turn(state).await?;
    let json = blob.read_all().await.map_err(ApiError::internal)?;
    let loaded = state.tokenizers.load(hash, json, turn).await;
    loaded.map_err(|error: TokenizerError| unusable().caused_by(error))
}

/// Cuts sequences into jobs, in order: each within both limits, except that a single sequence always fits.
pub(super) fn split(
    sequences: &[Vec<u32>],
    sequences_per_job: usize,
    tokens_per_job: usize,
) -> Result<Vec<JobInput>, ApiError> {
    let mut jobs = Vec::new();
    let mut start = 0;
    while start < sequences.len() {
        let mut end = start + 1;
        let mut tokens = sequences[start].len();
        while end < sequences.len()
            && end - start < sequences_per_job
            && tokens + sequences[end].len() <= tokens_per_job
        {
            tokens += sequences[end].len();
            end += 1;
        }
        jobs.push(JobInput::new(&sequences[start..end]).map_err(job_error)?);
        start = end;
    }
    Ok(jobs)
}

/// All sequences as the one job that the submitter asked for.
pub(super) fn one_job(state: &HttpState, sequences: &[Vec<u32>]) -> Result<JobInput, ApiError> {
    let most = state.config.sequences_per_job;
    if sequences.len() > most {
        let sentence = format!("`input` has {} entries; a job holds at most {most}", sequences.len());
        return Err(ApiError::new(ErrorCode::TooManyInputs, sentence).param("input"));
    }
    let tokens: usize = sequences.iter().map(Vec::len).sum();
    let most = state.config.tokens_per_job;
    if sequences.len() > 1 && tokens > most {
        let sentence = format!("`input` has {tokens} tokens; a job of several entries holds at most {most}");
        return Err(ApiError::new(ErrorCode::TooManyInputs, sentence).param("input"));
    }
    JobInput::new(sequences).map_err(job_error)
}

fn job_error(error: JobError) -> ApiError {
    let code = match error {
        JobError::NoSequence | JobError::EmptySequence { .. } => ErrorCode::EmptyInput,
        JobError::TooManyTokens { .. } | JobError::OutputTooLong { .. } | JobError::TooMuchMemory { .. } => {
            ErrorCode::TooManyInputs
        }
        JobError::SequenceTooLong { .. } => ErrorCode::InputTooLong,
        JobError::UnknownToken { .. } => ErrorCode::InvalidInput,
        JobError::Offsets { .. } | JobError::NoAnswer | JobError::Kind { .. } | JobError::Request(_) => {
            ErrorCode::InvalidRequest
        }
    };
    ApiError::new(code, super::error::sentence(&error.to_string())).param("input")
}

/// Refuses jobs that cost more than the submitter will pay.
pub(super) fn check_price(state: &HttpState, jobs: &[JobInput], most: Option<i64>) -> Result<(), ApiError> {
    let Some(most) = most else { return Ok(()) };
    let prices = &state.app.config().prices;
    let price = jobs
        .iter()
        .fold(Amount::ZERO, |sum, job| sum.checked_add(prices.of(job.token_count())).unwrap_or(Amount::MAX));
    if price.0 <= most {
        return Ok(());
    }
    let sentence = format!("This costs {} micro-credits, more than `max_price`", price.0);
    Err(ApiError::new(ErrorCode::PriceTooLow, sentence).param("max_price"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(jobs: &[JobInput]) -> Vec<Vec<u64>> {
        jobs.iter().map(|job| job.sequences().map(|sequence| sequence.len).collect()).collect()
    }

    fn sequences(lengths: &[usize]) -> Vec<Vec<u32>> {
        lengths.iter().map(|&length| vec![1; length]).collect()
    }

    /// An input lost, doubled or out of order would give the submitter another text's vector.
    #[test]
    fn jobs_hold_every_sequence_once_and_in_order() {
        let cut = |inputs: &[usize], most, tokens| lengths(&split(&sequences(inputs), most, tokens).unwrap());
        assert_eq!(cut(&[3, 4, 5], 8, 100), [vec![3, 4, 5]]);
        assert_eq!(cut(&[3, 4, 5], 2, 100), [vec![3, 4], vec![5]]);
        assert_eq!(cut(&[3, 4, 5], 8, 7), [vec![3, 4], vec![5]]);
        assert_eq!(cut(&[9, 1, 1, 9], 8, 4), [vec![9], vec![1, 1], vec![9]]);
        assert_eq!(cut(&[1], 1, 1), [vec![1]]);
    }

    /// Each mistake has its own sentence and names the field.
    #[test]
    fn a_body_without_a_usable_input_says_so() {
        use gainsay_api::embeddings::EmbeddingRequest;
        for text in [r#"{"model":"m"}"#, r#"{"model":"m","input":{}}"#, r#"{"model":"m","input":["a",1]}"#] {
            let error = parse::<EmbeddingRequest>(text.as_bytes()).unwrap_err();
            assert_eq!(error.detail().code, ErrorCode::InvalidRequest);
            assert_eq!(error.detail().param.as_deref(), Some("input"), "{text}");
        }
        let error = parse::<EmbeddingRequest>(br#"{"input":"a"}"#).unwrap_err();
        assert!(error.detail().message.contains("model"), "{error}");
        assert!(parse::<EmbeddingRequest>(b"{").is_err());
    }
}
