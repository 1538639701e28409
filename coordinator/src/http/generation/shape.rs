//! The two shapes in which answers travel, whole and in pieces.

use gainsay_api::embeddings::Provenance;
use gainsay_api::generation::{
    AssistantMessage, ChatChoice, ChatChunk, ChatChunkChoice, ChatResponse, Completion, CompletionChoice,
    Delta, FinishReason, GenerationUsage, Role,
};
use gainsay_protocol::JobId;
use serde_json::Value;

use super::answer::{Answered, provenance};
use super::request::{Wanted, unix_seconds};

/// Which route was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Chat,
    Completion,
}

/// What all pieces of one response have in common.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    form: Form,
    id: String,
    created: i64,
    model: String,
}

/// What a piece brings to one answer.
#[derive(Debug)]
pub(super) enum Piece {
    /// The first of a chat's answer.
    Begin,
    /// Text.
    Text(String),
    /// The last.
    End(FinishReason, Box<Provenance>),
}

impl Shape {
    /// Of the response to a request whose first job is this.
    pub(super) fn new(form: Form, job: JobId, wanted: &Wanted) -> Self {
        let prefix = match form {
            Form::Chat => "chatcmpl",
            Form::Completion => "cmpl",
        };
        let model = wanted.model.model.manifest().name.clone();
        Self { form, id: format!("{prefix}-{job}"), created: unix_seconds(), model }
    }

    /// The whole response. There is at least one answer.
    pub(super) fn whole(&self, wanted: &Wanted, answered: &[Answered]) -> Value {
        let generated = answered.iter().map(|part| part.read.tokens.len() as u64).sum();
        let usage = usage(wanted.prompt_tokens, generated);
        let all: Vec<&Answered> = answered.iter().collect();
        let gainsay = provenance(&all).expect("a request has at least one job");
        match self.form {
            Form::Chat => json(&ChatResponse {
                id: self.id.clone(),
                object: "chat.completion".to_owned(),
                created: self.created,
                model: self.model.clone(),
                choices: (0..).zip(answered).map(|(index, part)| chat_choice(index, part)).collect(),
                usage,
                gainsay,
            }),
            Form::Completion => {
                let choice = |(index, part): (u32, &Answered)| CompletionChoice {
                    index,
                    text: part.read.text.clone(),
                    logprobs: None,
                    finish_reason: Some(part.read.finish),
                };
                let choices = (0..).zip(answered).map(choice).collect();
                json(&self.completion(choices, Some(usage), Some(gainsay)))
            }
        }
    }

    /// A piece of one answer; none where this form has none for it.
    pub(super) fn piece(&self, index: u32, piece: Piece) -> Option<Value> {
        if self.form == Form::Completion {
            let (text, finish_reason, gainsay) = match piece {
                Piece::Begin => return None,
                Piece::Text(text) => (text, None, None),
                Piece::End(reason, gainsay) => (String::new(), Some(reason), Some(*gainsay)),
            };
            let choice = CompletionChoice { index, text, logprobs: None, finish_reason };
            return Some(json(&self.completion(vec![choice], None, gainsay)));
        }
        let (delta, finish_reason, gainsay) = match piece {
            Piece::Begin => (Delta { role: Some(Role::Assistant), content: Some(String::new()) }, None, None),
            Piece::Text(text) => (Delta { role: None, content: Some(text) }, None, None),
            Piece::End(reason, gainsay) => (Delta::default(), Some(reason), Some(*gainsay)),
        };
        let choice = ChatChunkChoice { index, delta, logprobs: None, finish_reason };
        Some(json(&self.chunk(vec![choice], None, gainsay)))
    }

    /// The last piece, where the usage was asked for.
    pub(super) fn usage(&self, prompt_tokens: u64, generated: u64) -> Value {
        let usage = Some(usage(prompt_tokens, generated));
        match self.form {
            Form::Chat => json(&self.chunk(Vec::new(), usage, None)),
            Form::Completion => json(&self.completion(Vec::new(), usage, None)),
        }
    }

    fn chunk(
        &self,
        choices: Vec<ChatChunkChoice>,
        usage: Option<GenerationUsage>,
        gainsay: Option<Provenance>,
    ) -> ChatChunk {
        ChatChunk {
            id: self.id.clone(),
            object: "chat.completion.chunk".to_owned(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage,
            gainsay,
        }
    }

    fn completion(
        &self,
        choices: Vec<CompletionChoice>,
        usage: Option<GenerationUsage>,
        gainsay: Option<Provenance>,
    ) -> Completion {
        Completion {
            id: self.id.clone(),
            object: "text_completion".to_owned(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage,
            gainsay,
        }
    }
}

fn chat_choice(index: u32, answered: &Answered) -> ChatChoice {
    let content = answered.read.text.clone();
    ChatChoice {
        index,
        message: AssistantMessage { role: Role::Assistant, content, refusal: None },
        logprobs: None,
        finish_reason: answered.read.finish,
    }
}

fn usage(prompt_tokens: u64, completion_tokens: u64) -> GenerationUsage {
    GenerationUsage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
}

fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("answers hold texts and numbers")
}
