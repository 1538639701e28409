//! `POST /v1/chat/completions` and `POST /v1/completions`, in the shape of the OpenAI API.
//!
//! A field that this service does not know is refused unless it is null: it might have changed the answer. Fields of
//! OpenAI's that change nothing here are taken and ignored ([`IGNORED_FIELDS`]).

use std::collections::BTreeMap;

use crate::embeddings::Provenance;
use crate::wire::integer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Fields that are taken whatever they say: they describe the request, not the answer.
pub const IGNORED_FIELDS: [&str; 5] =
    ["metadata", "prompt_cache_key", "safety_identifier", "service_tier", "user"];

/// Fields that are taken with the value that stands for nothing special.
pub const NEUTRAL_FIELDS: [(&str, &[&str]); 12] = [
    ("audio", &[]),
    ("best_of", &["1"]),
    ("echo", &["false"]),
    ("function_call", &[r#""none""#]),
    ("functions", &["[]"]),
    ("logprobs", &["false"]),
    ("modalities", &[r#"["text"]"#]),
    ("parallel_tool_calls", &["true", "false"]),
    ("response_format", &[r#"{"type":"text"}"#]),
    ("store", &["false"]),
    ("suffix", &[r#""""#]),
    ("tool_choice", &[r#""none""#]),
];

/// `POST /v1/chat/completions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(
    feature = "openapi",
    schema(example = json!({"model": "SmolLM2-135M-Instruct", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16}))
)]
pub struct ChatRequest {
    /// A model's name or id. It must have a chat template.
    pub model: String,
    /// The conversation so far, oldest first.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 1024))]
    pub messages: Vec<Message>,
    /// How the answer is drawn and where it ends.
    #[serde(flatten)]
    pub options: Options,
}

/// `POST /v1/completions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(
    feature = "openapi",
    schema(example = json!({"model": "SmolLM2-135M", "prompt": "Once upon a time", "max_tokens": 16}))
)]
pub struct CompletionRequest {
    /// A model's name or id.
    pub model: String,
    /// What is to be continued: one text, texts, token ids, or lists of token ids.
    pub prompt: crate::embeddings::EmbeddingInput,
    /// How the answer is drawn and where it ends.
    #[serde(flatten)]
    pub options: Options,
}

/// What both kinds of request may ask for. The defaults are OpenAI's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Options {
    /// Tokens of the answer at most. A chat's default is 1 024 or what the model's length leaves; a completion's is 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub max_tokens: Option<u32>,
    /// The newer name of `max_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub max_completion_tokens: Option<u32>,
    /// Divides the logits; 0 takes the most probable token always. Where absent, the model's own, else 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// The share of probability that is kept. Where absent, the model's own, else 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Candidates that are kept, at most 1 024; 0 or −1: as many as may be. Where absent, the model's own, else as many as may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i64>,
    /// Candidates less probable than this share of the best are dropped. Where absent, the model's own, else 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    /// Divides the logits of tokens that occurred. Where absent, the model's own, else 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
    /// Subtracted from the logits of tokens that the answer holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f32>,
    /// Subtracted for each time that the answer holds the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f32>,
    /// Added to the logits of tokens, by their ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// Answers to each prompt; each is a job of its own. 1 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 16))]
    pub n: Option<u32>,
    /// Ends the answer where it appears, and is no part of its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// The same seed and parameters give the same answer. Drawn for each request where absent.
    #[serde(default, with = "integer::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::Integer>))]
    pub seed: Option<i64>,
    /// Goes on after the model's end tokens, up to `max_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore_eos: Option<bool>,
    /// Sends the answer as it comes, as server-sent events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// What a stream holds besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    /// Most that the submitter pays for all answers together, in micro-credits. Absent: the listed price.
    #[serde(default, with = "integer::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::Integer>))]
    pub max_price: Option<i64>,
    /// Where the service posts a signed notice once a job is decided: `http` or `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What was said; text alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// The speaker's name, which templates may show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What OpenAI's messages may hold besides. Taken: `tool_call_id`, and whatever is null or empty.
    #[serde(flatten)]
    #[cfg_attr(feature = "openapi", schema(ignore))]
    pub rest: Map<String, Value>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Who sets the scene.
    System,
    /// The newer name of it.
    Developer,
    /// Who asks.
    User,
    /// The model.
    Assistant,
    /// A tool whose result is told.
    Tool,
}

impl Role {
    /// The role as templates name it.
    #[must_use]
    pub const fn template_name(self) -> &'static str {
        match self {
            Self::System | Self::Developer => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// What was said: a text, or parts that are texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Content {
    /// One text.
    Text(String),
    /// Several, which follow each other.
    Parts(Vec<ContentPart>),
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContentPart {
    /// `text`; others are refused.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// What ends an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Stop {
    /// One string.
    One(String),
    /// At most four.
    Many(Vec<String>),
}

/// What a stream holds besides the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamOptions {
    /// A last chunk that holds the usage.
    #[serde(default)]
    pub include_usage: bool,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// At an end token, or where a stop string appeared.
    Stop,
    /// At `max_tokens`.
    Length,
}

/// Tokens of the prompts, each counted once, and of all answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GenerationUsage {
    /// Tokens of the prompts.
    pub prompt_tokens: u64,
    /// Tokens of the answers.
    pub completion_tokens: u64,
    /// Both.
    pub total_tokens: u64,
}

/// The answer to a chat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChatResponse {
    /// Names the answer.
    pub id: String,
    /// Always `chat.completion`.
    pub object: String,
    /// When, in seconds since 1970.
    pub created: i64,
    /// The model's name.
    pub model: String,
    /// The answers, in order.
    pub choices: Vec<ChatChoice>,
    /// What was counted.
    pub usage: GenerationUsage,
    /// What OpenAI clients do not know: where the answers came from and how final they are.
    pub gainsay: Provenance,
}

/// One answer to a chat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChatChoice {
    /// Its number.
    pub index: u32,
    /// What the model says.
    pub message: AssistantMessage,
    /// Always null: they are not committed to.
    pub logprobs: Option<()>,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// What the model says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AssistantMessage {
    /// Always `assistant`.
    pub role: Role,
    /// The text.
    pub content: String,
    /// Always null.
    pub refusal: Option<()>,
}

/// A piece of a streamed chat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChatChunk {
    /// Names the answer; the same in all pieces.
    pub id: String,
    /// Always `chat.completion.chunk`.
    pub object: String,
    /// When the answer began, in seconds since 1970.
    pub created: i64,
    /// The model's name.
    pub model: String,
    /// The pieces; none in the chunk of the usage.
    pub choices: Vec<ChatChunkChoice>,
    /// In the last chunk, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<GenerationUsage>,
    /// With the last piece of an answer: where it came from and how final it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gainsay: Option<Provenance>,
}

/// A piece of one answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChatChunkChoice {
    /// Which answer.
    pub index: u32,
    /// What comes to it.
    pub delta: Delta,
    /// Always null.
    pub logprobs: Option<()>,
    /// With its last piece.
    pub finish_reason: Option<FinishReason>,
}

/// What comes to a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Delta {
    /// In the first piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// The answer to a completion, and each piece of a streamed one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Completion {
    /// Names the answer; the same in all pieces.
    pub id: String,
    /// Always `text_completion`.
    pub object: String,
    /// When, in seconds since 1970.
    pub created: i64,
    /// The model's name.
    pub model: String,
    /// The answers in order, or pieces of them.
    pub choices: Vec<CompletionChoice>,
    /// What was counted; of a stream in the last chunk, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<GenerationUsage>,
    /// Where the answers came from and how final they are; in a stream with the last piece of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gainsay: Option<Provenance>,
}

/// One answer to a completion, or a piece of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompletionChoice {
    /// Its number: answers to the first prompt come first.
    pub index: u32,
    /// The text.
    pub text: String,
    /// Always null.
    pub logprobs: Option<()>,
    /// Why it ended; null in all pieces but the last.
    pub finish_reason: Option<FinishReason>,
}

/// The first field of a request that cannot be taken: one of OpenAI's that is not offered here, or an unknown one.
#[must_use]
pub fn refused_field<'a>(request: &'a Map<String, Value>, known: &[&str]) -> Option<&'a str> {
    let is_taken = |(name, value): &(&String, &Value)| {
        value.is_null()
            || known.contains(&name.as_str())
            || OPTION_FIELDS.contains(&name.as_str())
            || IGNORED_FIELDS.contains(&name.as_str())
            || NEUTRAL_FIELDS
                .iter()
                .any(|(field, taken)| field == name && taken.contains(&value.to_string().as_str()))
    };
    request.iter().find(|field| !is_taken(field)).map(|(name, _)| name.as_str())
}

/// The fields of [`Options`].
const OPTION_FIELDS: [&str; 18] = [
    "frequency_penalty",
    "ignore_eos",
    "logit_bias",
    "max_completion_tokens",
    "max_price",
    "max_tokens",
    "min_p",
    "n",
    "presence_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "temperature",
    "top_k",
    "top_p",
    "webhook",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A field that is silently ignored gives an answer that was not asked for.
    #[test]
    fn what_would_change_the_answer_is_named() {
        let refused =
            |request: Value| refused_field(request.as_object()?, &["model", "messages"]).map(String::from);
        for (field, value) in [
            ("logprobs", json!(true)),
            ("logprobs", json!(3)),
            ("top_logprobs", json!(2)),
            ("tools", json!([{}])),
            ("response_format", json!({"type": "json_object"})),
            ("modalities", json!(["text", "audio"])),
            ("best_of", json!(2)),
            ("echo", json!(true)),
            ("suffix", json!("x")),
            ("store", json!(true)),
            ("guided_json", json!({})),
        ] {
            assert_eq!(refused(json!({"model": "m", field: value})).as_deref(), Some(field));
        }
        let taken = json!({"model": "m", "messages": [], "user": "u", "logprobs": false, "top_logprobs": null,
            "response_format": {"type": "text"}, "store": false, "metadata": {"a": "b"}, "temperature": 0.5});
        assert_eq!(refused(taken), None);
    }

    /// The list of names must be that of the fields, or a field would be refused for ever.
    #[test]
    fn every_option_is_known_by_name() {
        let options = Options {
            max_tokens: Some(1),
            max_completion_tokens: Some(1),
            temperature: Some(1.0),
            top_p: Some(1.0),
            top_k: Some(1),
            min_p: Some(0.0),
            repetition_penalty: Some(1.0),
            presence_penalty: Some(0.0),
            frequency_penalty: Some(0.0),
            logit_bias: Some(BTreeMap::from([("1".to_owned(), 2.0)])),
            n: Some(1),
            stop: Some(Stop::Many(vec!["x".to_owned()])),
            seed: Some(i64::MIN),
            ignore_eos: Some(true),
            stream: Some(true),
            stream_options: Some(StreamOptions { include_usage: true }),
            max_price: Some(1),
            webhook: Some("https://example.org".to_owned()),
        };
        let request = ChatRequest { model: "m".to_owned(), messages: Vec::new(), options };
        let value = serde_json::to_value(&request).unwrap();
        let mut names: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        names.retain(|name| !["model", "messages"].contains(name));
        names.sort_unstable();
        assert_eq!(names, OPTION_FIELDS);
        assert_eq!(serde_json::from_value::<ChatRequest>(value).unwrap(), request);
    }
}
