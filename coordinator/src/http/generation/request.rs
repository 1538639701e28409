//! From what a submitter wrote to generations: fields, prompts, parameters, limits, prices. Nothing is recorded until all of
//! it is in order.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use gainsay_api::ErrorCode;
use gainsay_api::embeddings::EmbeddingInput;
use gainsay_api::generation::{
    ChatRequest, CompletionRequest, Content, Message, Options, Stop, refused_field,
};
use gainsay_api::limits::{MAX_CHOICES, MAX_GENERATIONS, MAX_MESSAGES};
use gainsay_program::{
    GenerationRequest, JobError, MAX_TOP_K, RequestError, Sampling, SamplingDefaults, StopRules,
};
use gainsay_protocol::{Amount, Job};
use gainsay_text::{ChatMessage, TemplateError, TokenTable, UnixSeconds};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::super::error::{ApiError, sentence};
use super::super::state::HttpState;
use super::super::{body, catalog, submission};
use crate::app::{App, AppError, Caller, ModelView};

/// Tokens of a chat's answer where the request does not say.
const CHAT_TOKENS: u32 = 1_024;
/// Tokens of a completion where the request does not say: OpenAI's number.
const COMPLETION_TOKENS: u32 = 16;

/// Generations that may become jobs.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) model: Arc<ModelView>,
    /// All answers to the first prompt, then all to the second, and so on.
    pub(super) requests: Vec<GenerationRequest>,
    /// Tokens of the prompts, each counted once.
    pub(super) prompt_tokens: u64,
    pub(super) table: Arc<TokenTable>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    pub(super) webhook: Option<String>,
}

/// The body's fields.
pub(super) fn fields(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    body::json(bytes)
}

/// A refusal that names its field.
pub(super) fn refused(param: &str, sentence: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, sentence).param(param)
}

fn typed<T: DeserializeOwned>(fields: Map<String, Value>, needed: [&str; 2]) -> Result<T, ApiError> {
    if let Some(field) = refused_field(&fields, &needed) {
        let sentence = format!("`{field}` is not offered here with this value; leave it out");
        return Err(ApiError::new(ErrorCode::UnsupportedParameter, sentence).param(field));
    }
    if let Some(field) = needed.into_iter().find(|field| !fields.contains_key(*field)) {
        return Err(refused(field, format!("The body has no `{field}`")));
    }
    serde_json::from_value(Value::Object(fields)).map_err(|error| {
        // The parser's words may quote what was sent, at any length.
        let reason: String = error.to_string().chars().take(200).collect();
        ApiError::new(ErrorCode::InvalidRequest, format!("The body does not fit this route: {reason}"))
    })
}

/// A chat as one prompt.
pub(super) async fn chat(state: &HttpState, fields: Map<String, Value>) -> Result<Wanted, ApiError> {
    let ChatRequest { model, messages, options } = typed(fields, ["model", "messages"])?;
    let messages = conversation(messages)?;
    let model = generator(state, &model).await?;
    let found = Arc::clone(&model);
    let now = UnixSeconds(unix_seconds());
    let case = move |app: App| async move {
        match app.chat_prompt(&found.model, messages, now).await {
            Err(AppError::Template(error)) => Ok(Err(error)),
            prompt => prompt.map(Ok),
        }
    };
    let prompt = state.call(case).await?.map_err(no_prompt)?;
    let prompt =
        prompt.ok_or_else(|| refused("model", "The model has no chat template; use /v1/completions"))?;
    // The template writes all special tokens itself.
    let prompts = submission::tokenize(state, &model, vec![prompt], false, "messages").await?;
    prepare(state, model, prompts, options, CHAT_TOKENS, "messages").await
}

fn no_prompt(error: TemplateError) -> ApiError {
    match error {
        TemplateError::Refused(_) | TemplateError::Bounds => {
            refused("messages", sentence(&error.to_string()))
        }
        TemplateError::Render(_) => {
            refused("messages", "The model's chat template fails on this conversation").caused_by(error)
        }
        TemplateError::File(_) | TemplateError::Compile(_) => {
            let sentence = "The model has no chat template that works here; use /v1/completions";
            refused("model", sentence).caused_by(error)
        }
    }
}

/// A completion's prompts.
pub(super) async fn completion(state: &HttpState, fields: Map<String, Value>) -> Result<Wanted, ApiError> {
    let CompletionRequest { model, prompt, options } = typed(fields, ["model", "prompt"])?;
    if prompt.is_empty() || prompt.len() > MAX_GENERATIONS {
        return Err(refused("prompt", format!("`prompt` holds 1 to {MAX_GENERATIONS} prompts")));
    }
    let model = generator(state, &model).await?;
    let prompts = match prompt {
        EmbeddingInput::Text(text) => submission::tokenize(state, &model, vec![text], true, "prompt").await?,
        EmbeddingInput::Texts(texts) => submission::tokenize(state, &model, texts, true, "prompt").await?,
        EmbeddingInput::Tokens(ids) => vec![ids],
        EmbeddingInput::TokenLists(lists) => lists,
    };
    prepare(state, model, prompts, options, COMPLETION_TOKENS, "prompt").await
}

async fn generator(state: &HttpState, word: &str) -> Result<Arc<ModelView>, ApiError> {
    let model = catalog::resolve(state, word).await?;
    if model.model.manifest().generation.is_none() {
        return Err(refused("model", "The model generates no text; it takes /v1/embeddings"));
    }
    Ok(model)
}

/// The bytes of the model's tokens, where its tokenizer has such.
pub(super) async fn table(state: &HttpState, model: &ModelView) -> Result<Option<Arc<TokenTable>>, ApiError> {
    let model = Arc::clone(&model.model);
    state.call(move |app| async move { app.token_table(&model, Caller::Request).await }).await
}

async fn prepare(
    state: &HttpState,
    model: Arc<ModelView>,
    prompts: Vec<Vec<u32>>,
    options: Options,
    default_tokens: u32,
    field: &str,
) -> Result<Wanted, ApiError> {
    let choices = options.n.unwrap_or(1);
    if !(1..=MAX_CHOICES).contains(&choices) || prompts.len() * choices as usize > MAX_GENERATIONS {
        let sentence = format!(
            "`n` is 1 to {MAX_CHOICES}, and a request makes at most {MAX_GENERATIONS} answers in all"
        );
        return Err(refused("n", sentence));
    }
    let table = table(state, &model).await?.ok_or_else(|| {
        let sentence = "The model's tokenizer file does not load here";
        ApiError::new(ErrorCode::ModelIncomplete, sentence).param("model")
    })?;
    let generation = model.model.manifest().generation.as_ref();
    let sampling = sampling(&options, generation.map(|generation| &generation.defaults))?;
    let stop = stop_strings(options.stop.as_ref());
    let mut requests = Vec::new();
    for prompt in &prompts {
        let max_tokens = max_tokens(&model, prompt.len(), &options, default_tokens, field)?;
        let rules =
            StopRules { max_tokens, stop: stop.clone(), ignore_eos: options.ignore_eos.unwrap_or(false) };
        for choice in 0..choices {
            let sampling = Sampling { choice, ..sampling.clone() };
            let request = GenerationRequest { prompt: prompt.clone(), sampling, stop: rules.clone() };
            model.model.check_request(&request).map_err(|error| job_error(&error, field))?;
            requests.push(request);
        }
    }
    let wanted = Wanted {
        model,
        requests,
        prompt_tokens: prompts.iter().map(|prompt| prompt.len() as u64).sum(),
        table,
        stream: options.stream.unwrap_or(false),
        include_usage: options.stream_options.is_some_and(|options| options.include_usage),
        webhook: options.webhook.clone(),
    };
    if options.stream_options.is_some() && !wanted.stream {
        return Err(refused("stream_options", "`stream_options` goes with `stream` alone"));
    }
    check_price(state, &wanted, options.max_price)?;
    Ok(wanted)
}

fn conversation(messages: Vec<Message>) -> Result<Vec<ChatMessage>, ApiError> {
    if messages.is_empty() || messages.len() > MAX_MESSAGES {
        return Err(refused("messages", format!("`messages` holds 1 to {MAX_MESSAGES} messages")));
    }
    messages.into_iter().enumerate().map(|(place, said)| message(place, said)).collect()
}

fn message(place: usize, message: Message) -> Result<ChatMessage, ApiError> {
    let unsupported = |field: &str, sentence: &str| {
        let error = ApiError::new(ErrorCode::UnsupportedParameter, sentence);
        Err(error.param(&format!("messages[{place}].{field}")))
    };
    let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let strange = message.rest.iter().find(|(name, value)| *name != "tool_call_id" && !is_empty(value));
    if let Some((field, _)) = strange {
        return unsupported(field, "Messages hold a role, a text and a name here");
    }
    let content = match message.content {
        None => String::new(),
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => {
            if parts.iter().any(|part| part.kind != "text") {
                return unsupported("content", "Models here read text alone");
            }
            parts.into_iter().filter_map(|part| part.text).collect()
        }
    };
    Ok(ChatMessage { role: message.role.template_name().to_owned(), content, name: message.name })
}

/// What the request says; where it says nothing, what the model's publisher says; where that says nothing either, what
/// OpenAI's API does.
fn sampling(options: &Options, defaults: Option<&SamplingDefaults>) -> Result<Sampling, ApiError> {
    let silent = Sampling { temperature: 1.0, ..Sampling::default() };
    let silent = defaults.map_or(silent.clone(), |defaults| defaults.over(silent));
    let top_k = match options.top_k {
        None => silent.top_k,
        Some(0 | -1) => MAX_TOP_K,
        // What does not fit is refused with all other parameters, by its range.
        Some(top_k) => u32::try_from(top_k).unwrap_or(0),
    };
    let mut logit_bias = Vec::new();
    for (token, bias) in options.logit_bias.iter().flatten() {
        let token = token
            .parse()
            .map_err(|_| refused("logit_bias", "`logit_bias` maps token ids, as decimal text, to numbers"))?;
        logit_bias.push((token, *bias));
    }
    logit_bias.sort_unstable_by_key(|(token, _)| *token);
    let seed = match options.seed {
        Some(seed) => seed.cast_unsigned(),
        None => getrandom::u64().map_err(|error| ApiError::internal(error.to_string()))?,
    };
    Ok(Sampling {
        temperature: options.temperature.unwrap_or(silent.temperature),
        top_k,
        top_p: options.top_p.unwrap_or(silent.top_p),
        min_p: options.min_p.unwrap_or(silent.min_p),
        repetition_penalty: options.repetition_penalty.unwrap_or(silent.repetition_penalty),
        presence_penalty: options.presence_penalty.unwrap_or(0.0),
        frequency_penalty: options.frequency_penalty.unwrap_or(0.0),
        logit_bias,
        seed,
        choice: 0,
    })
}

fn stop_strings(stop: Option<&Stop>) -> Vec<Vec<u8>> {
    match stop {
        None => Vec::new(),
        Some(Stop::One(stop)) => vec![stop.clone().into_bytes()],
        Some(Stop::Many(stops)) => stops.iter().map(|stop| stop.clone().into_bytes()).collect(),
    }
}

fn max_tokens(
    model: &ModelView,
    prompt: usize,
    options: &Options,
    default: u32,
    field: &str,
) -> Result<u32, ApiError> {
    let longest = model.model.manifest().max_sequence;
    if prompt == 0 {
        let sentence = "The prompt has no tokens: there is nothing to continue";
        return Err(ApiError::new(ErrorCode::EmptyInput, sentence).param(field));
    }
    // The last token of an answer is never an input, so that it needs no place.
    let room = (u64::from(longest) + 1).saturating_sub(prompt as u64);
    if room == 0 {
        let sentence = format!("The prompt has {prompt} tokens; the model takes at most {longest}");
        return Err(ApiError::new(ErrorCode::InputTooLong, sentence).param(field));
    }
    match options.max_completion_tokens.or(options.max_tokens) {
        None => Ok(u64::from(default).min(room) as u32),
        Some(0) => Err(refused("max_tokens", "`max_tokens` is at least 1")),
        Some(asked) if u64::from(asked) <= room => Ok(asked),
        Some(asked) => {
            let sentence = format!(
                "The prompt has {prompt} tokens and `max_tokens` is {asked}; the model takes {longest} in all"
            );
            Err(ApiError::new(ErrorCode::InputTooLong, sentence).param("max_tokens"))
        }
    }
}

fn job_error(error: &JobError, field: &str) -> ApiError {
    let param = match error {
        JobError::Request(RequestError::OutOfRange { name, .. }) => name,
        JobError::Request(RequestError::LogitBias) => "logit_bias",
        JobError::Request(RequestError::Stop) => "stop",
        _ => field,
    };
    let code = match error {
        JobError::Request(_) => ErrorCode::InvalidRequest,
        JobError::SequenceTooLong { .. } | JobError::TooManyTokens { .. } => ErrorCode::InputTooLong,
        _ => ErrorCode::InvalidInput,
    };
    ApiError::new(code, sentence(&error.to_string())).param(param)
}

fn check_price(state: &HttpState, wanted: &Wanted, most: Option<i64>) -> Result<(), ApiError> {
    let Some(most) = most else { return Ok(()) };
    let prices = &state.app.config().prices;
    let of = |request: &GenerationRequest| prices.of_job(&Job::generation(wanted.model.id, request.clone()));
    let price = wanted
        .requests
        .iter()
        .map(of)
        .fold(Amount::ZERO, |sum, price| sum.checked_add(price).unwrap_or(Amount::MAX));
    if price.0 <= most {
        return Ok(());
    }
    let sentence = format!("This may cost {} micro-credits, more than `max_price`", price.0);
    Err(ApiError::new(ErrorCode::PriceTooLow, sentence).param("max_price"))
}

/// Now, for people and for templates that ask for the date.
pub(super) fn unix_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
