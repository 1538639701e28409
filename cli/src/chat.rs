//! `gainsay chat`: a conversation with a model of a coordinator's, as it is drawn.

use std::io::{IsTerminal as _, Read as _};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures_util::StreamExt as _;
use gainsay_api::client::Client;
use gainsay_api::embeddings::Provenance;
use gainsay_api::error::ErrorBody;
use gainsay_api::generation::{ChatChunk, ChatRequest, Content, Message, Options, Role};

use crate::submit::{Coordinator, show_receipt};
use crate::terminal::harmless;

/// How long the next piece of an answer may take: a worker may have to fetch the model first.
const READ_TIMEOUT: Duration = Duration::from_secs(600);
/// Bytes of one event of an answer.
const MAX_EVENT: usize = 1 << 20;
/// Bytes of a prompt.
const MAX_PROMPT: u64 = 1 << 20;
const CHAT_PATH: &str = "/v1/chat/completions";

#[derive(Debug, Args)]
pub(crate) struct ChatArguments {
    #[command(flatten)]
    coordinator: Coordinator,
    /// Key of the submitter who pays.
    #[arg(long, env = "GAINSAY_API_KEY", hide_env_values = true)]
    api_key: String,
    /// Name or id of the model.
    #[arg(long)]
    model: String,
    /// What sets the scene.
    #[arg(long)]
    system: Option<String>,
    /// Tokens of an answer, at most.
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// Divides the logits; 0 takes the most probable token always.
    #[arg(long)]
    temperature: Option<f32>,
    /// The same seed and parameters give the same answer.
    #[arg(long)]
    seed: Option<i64>,
    /// What to say. Without it, standard input is: line by line at a terminal, else all of it.
    prompt: Option<String>,
}

impl ChatArguments {
    /// Streams answers to standard output; what else there is to say goes to stderr.
    pub(crate) async fn run(self) -> Result<()> {
        let client = self.coordinator.connect().await?;
        let mut talk = Talk::new(client, &self)?;
        if let Some(prompt) = self.prompt {
            return talk.say(prompt).await;
        }
        if !std::io::stdin().is_terminal() {
            let mut prompt = String::new();
            std::io::stdin()
                .take(MAX_PROMPT)
                .read_to_string(&mut prompt)
                .context("cannot read standard input")?;
            return talk.say(prompt).await;
        }
        talk.converse().await
    }
}

/// A conversation.
struct Talk {
    client: Client,
    http: reqwest::Client,
    api_key: String,
    request: ChatRequest,
}

impl Talk {
    fn new(client: Client, arguments: &ChatArguments) -> Result<Self> {
        gainsay_api::client::install_crypto_provider();
        let http = reqwest::Client::builder().read_timeout(READ_TIMEOUT).no_proxy();
        let options = Options {
            max_tokens: arguments.max_tokens,
            temperature: arguments.temperature,
            seed: arguments.seed,
            stream: Some(true),
            ..Options::default()
        };
        let messages = arguments.system.iter().map(|system| message(Role::System, system.clone())).collect();
        Ok(Self {
            client,
            http: http.build().context("cannot set up an HTTP client")?,
            api_key: arguments.api_key.clone(),
            request: ChatRequest { model: arguments.model.clone(), messages, options },
        })
    }

    /// Line by line, until the input ends.
    async fn converse(&mut self) -> Result<()> {
        loop {
            eprint!("> ");
            let read = tokio::task::spawn_blocking(|| std::io::stdin().lines().next().transpose());
            let read = read.await.context("reading ended early")?.context("cannot read standard input")?;
            let Some(line) = read else { return Ok(()) };
            if line.trim().is_empty() {
                continue;
            }
            // One answer that fails ends no conversation.
            if let Err(error) = self.say(line).await {
                eprintln!("gainsay: {error:#}");
                self.request.messages.pop();
            }
        }
    }

    /// Says something, prints the answer as it comes, and then its receipt.
    async fn say(&mut self, text: String) -> Result<()> {
        self.request.messages.push(message(Role::User, text));
        let response = self
            .http
            .post(format!("{}{CHAT_PATH}", self.client.base()))
            .bearer_auth(&self.api_key)
            .json(&self.request)
            .send()
            .await
            .context("the coordinator does not answer")?;
        if !response.status().is_success() {
            let status = response.status();
            let body = response.bytes().await.context("the coordinator broke off")?;
            match serde_json::from_slice::<ErrorBody>(&body) {
                Ok(refusal) => bail!("{}", harmless(&refusal.error.message)),
                Err(_) => bail!("the coordinator answers {status}"),
            }
        }
        let mut answer = Answer::default();
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            answer.take(&piece.context("the answer broke off")?, &mut std::io::stdout())?;
        }
        println!();
        let Some(provenance) = answer.provenance.take() else { bail!("the answer broke off") };
        self.request.messages.push(message(Role::Assistant, answer.text));
        show_receipt(&self.client, &self.api_key, provenance.job).await
    }
}

fn message(role: Role, text: String) -> Message {
    Message { role, content: Some(Content::Text(text)), name: None, rest: serde_json::Map::new() }
}

/// An answer as it comes.
#[derive(Default)]
struct Answer {
    /// What is not a whole event yet.
    rest: Vec<u8>,
    text: String,
    provenance: Option<Provenance>,
}

impl Answer {
    /// Takes the next bytes of a stream of events, and writes the text in them.
    fn take(&mut self, bytes: &[u8], out: &mut impl std::io::Write) -> Result<()> {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = self.rest.drain(..end + 2).collect();
            let event = String::from_utf8_lossy(&event).into_owned();
            for data in event.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim) {
                self.take_event(data, out)?;
            }
        }
        if self.rest.len() > MAX_EVENT {
            bail!("an event of the answer is longer than {MAX_EVENT} bytes");
        }
        Ok(())
    }

    fn take_event(&mut self, data: &str, out: &mut impl std::io::Write) -> Result<()> {
        if data == "[DONE]" {
            return Ok(());
        }
        let chunk: ChatChunk = match serde_json::from_str(data) {
            Ok(chunk) => chunk,
            Err(error) => match serde_json::from_str::<ErrorBody>(data) {
                Ok(refusal) => bail!("{}", harmless(&refusal.error.message)),
                Err(_) => return Err(error).context("the coordinator does not answer as a chat does"),
            },
        };
        for text in chunk.choices.into_iter().filter_map(|choice| choice.delta.content) {
            // Models say what strangers have them say; a terminal does what it is told.
            let shown = harmless(&text);
            out.write_all(shown.as_bytes()).and_then(|()| out.flush()).context("cannot write the answer")?;
            self.text.push_str(&text);
        }
        self.provenance = chunk.gainsay.or(self.provenance.take());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_wherever_it_is_cut() {
        let chunk = |delta: &str| {
            format!(
                r#"{{"id":"a","object":"chat.completion.chunk","created":1,"model":"m","choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":null}}]}}"#
            )
        };
        let stream = format!(
            ": hello\n\ndata: {}\n\ndata: {}\n\ndata: {}\n\ndata: [DONE]\n\n",
            chunk(r#"{"role":"assistant"}"#),
            chunk(r#"{"content":"Grüß"}"#),
            chunk(r#"{"content":" dich"}"#)
        );
        for size in [1, 7, 1_000] {
            let (mut answer, mut out) = (Answer::default(), Vec::new());
            for piece in stream.as_bytes().chunks(size) {
                answer.take(piece, &mut out).unwrap();
            }
            assert_eq!((answer.text.as_str(), out.as_slice()), ("Grüß dich", "Grüß dich".as_bytes()));
        }
    }

    /// An escape sequence could rewrite what stands above, or have the terminal answer in the user's name.
    #[test]
    fn an_answer_does_not_steer_the_terminal() {
        let event = r#"data: {"id":"a","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"a\u001b]0;x\u0007\u009b2J\r\n\tb\u007f\b"},"logprobs":null,"finish_reason":null}]}"#;
        let (mut answer, mut out) = (Answer::default(), Vec::new());
        answer.take(format!("{event}\n\n").as_bytes(), &mut out).unwrap();
        let shown = String::from_utf8(out).unwrap();
        assert_eq!(shown, "a\u{fffd}]0;x\u{fffd}\u{fffd}2J\u{fffd}\n\tb\u{fffd}\u{fffd}");
        assert!(answer.text.contains('\u{1b}'), "the conversation goes on with what was said");
        let event = r#"data: {"error":{"code":"internal","type":"server_error","message":"gone\u001b[2J"},"request_id":"r"}"#;
        let error = Answer::default().take(format!("{event}\n\n").as_bytes(), &mut Vec::new()).unwrap_err();
        assert!(!error.to_string().contains('\u{1b}'), "{error}");
    }

    #[test]
    fn an_error_in_the_middle_is_told_in_its_words() {
        let event = r#"data: {"error":{"code":"internal","type":"server_error","message":"the worker is gone"},"request_id":"r"}"#;
        let error = Answer::default().take(format!("{event}\n\n").as_bytes(), &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("the worker is gone"), "{error}");
    }
}
