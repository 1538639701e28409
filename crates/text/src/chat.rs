//! The prompt of a conversation, by the template that a model brings.

use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::{Deserialize, Serialize};

use crate::date::{UnixSeconds, strftime};
use crate::json::dumps;

/// Longest template, in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 1 << 20;
/// Longest prompt that a template may render, in bytes.
pub const MAX_PROMPT_BYTES: usize = 4 << 20;

/// What a rendering may use up: one for an instruction, one for each 64 bytes that it makes or reads. So it bounds
/// memory too, by some tens of megabytes. The engine does not count comparisons of nested values, and parses long chains by
/// recursion: a template written in bad faith gets past these bounds. So a stranger's template is only loaded in a process
/// that may be ended at any time.
const FUEL: u64 = 200_000;
/// Bytes that one unit of it pays for, as the engine itself counts.
const BYTES_PER_FUEL: u64 = 64;
/// Bytes that an entry of a list takes.
const SLOT_BYTES: u64 = 32;
/// How deep macros and loops may nest.
const RECURSION: usize = 64;
/// Characters of a complaint, the template's own or about it, that are passed on.
const COMPLAINT_MAX: usize = 300;

const UNBOUNDED_FILTERS: [&str; 3] = ["batch", "format", "slice"];

const NAME: &str = "chat";

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant` or `tool`; templates may know others.
    pub role: String,
    /// What was said.
    pub content: String,
    /// Who said it, where the message tells.
    pub name: Option<String>,
}

impl ChatMessage {
    /// As templates see it: without a name where there is none.
    fn value(&self) -> Value {
        let name = self.name.as_deref().map(|name| ("name", name));
        let fields = [("role", self.role.as_str()), ("content", self.content.as_str())];
        Value::from_pairs(fields.into_iter().chain(name))
    }
}

/// Why there is no prompt. In words, so that it can be passed on from one process to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum TemplateError {
    /// The file is not of the form `{"chat_template", "bos_token", "eos_token"}`, or too long.
    #[error("the model's chat template file does not read: {0}")]
    File(String),
    /// The template is no Jinja that this version understands.
    #[error("the model's chat template does not compile: {0}")]
    Compile(String),
    /// The template does not take this conversation: `raise_exception`, in the template's own words.
    #[error("the model's chat template refuses the conversation: {0}")]
    Refused(String),
    /// The template failed.
    #[error("the model's chat template fails: {0}")]
    Render(String),
    /// The template takes too long or makes too much.
    #[error("the model's chat template does not end within its bounds")]
    Bounds,
}

fn complaint(error: impl fmt::Display) -> String {
    error.to_string().chars().take(COMPLAINT_MAX).collect()
}

#[derive(Deserialize)]
struct File {
    chat_template: Templates,
    #[serde(default)]
    bos_token: Option<Token>,
    #[serde(default)]
    eos_token: Option<Token>,
}

/// One template, or several by name of which `default` is for conversations.
#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

/// A special token's text, or its description.
#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Described { content: String },
}

impl Token {
    fn text(self) -> String {
        match self {
            Self::Text(text) | Self::Described { content: text } => text,
        }
    }
}

/// A model's chat template. Rendering depends on the messages and the date given, and on nothing else.
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// Reads the file `{"chat_template": …, "bos_token": …, "eos_token": …}` that a manifest names by hash.
    ///
    /// # Errors
    /// The file or the template in it.
    pub fn from_json(file: &[u8]) -> Result<Self, TemplateError> {
        if file.len() > MAX_TEMPLATE_BYTES {
            return Err(TemplateError::File("it is too long".to_owned()));
        }
        let file: File =
            serde_json::from_slice(file).map_err(|error| TemplateError::File(complaint(error)))?;
        let source = match file.chat_template {
            Templates::One(template) => template,
            Templates::Named(templates) => {
                let mut named = templates.into_iter();
                let default = named.find(|template| template.name == "default");
                default
                    .ok_or_else(|| TemplateError::File("no template is named default".to_owned()))?
                    .template
            }
        };
        let mut environment = environment();
        let named = environment.add_template_owned(NAME, source);
        named.map_err(|error| TemplateError::Compile(complaint(error)))?;
        let (bos_token, eos_token) = (file.bos_token.map(Token::text), file.eos_token.map(Token::text));
        Ok(Self { environment, bos_token, eos_token })
    }

    /// The prompt after which the model's answer follows. `now` is the date, should the template ask for it.
    ///
    /// # Errors
    /// The template refuses the conversation, fails, or does not end within its bounds.
    pub fn render(&self, messages: &[ChatMessage], now: UnixSeconds) -> Result<String, TemplateError> {
        let strftime_now = move |format: &str| strftime(now, format).map_err(invalid);
        let template = self.environment.get_template(NAME);
        let template = template.map_err(|error| TemplateError::Compile(complaint(error)))?;
        let prompt = template.render(context! {
            messages => messages.iter().map(ChatMessage::value).collect::<Vec<Value>>(),
            add_generation_prompt => true,
            bos_token => self.bos_token.as_deref(),
            eos_token => self.eos_token.as_deref(),
            tools => Value::from(()),
            documents => Value::from(()),
            strftime_now => Value::from_function(strftime_now),
        });
        let prompt = prompt.map_err(failure)?;
        if prompt.len() > MAX_PROMPT_BYTES { Err(TemplateError::Bounds) } else { Ok(prompt) }
    }
}

/// As `transformers` sets Jinja up, with bounds.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the usual delimiters do not contradict each other"));
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION);
    environment.set_unknown_method_callback(method);
    // Their widths are any number that a template names, and are paid for too late.
    for filter in UNBOUNDED_FILTERS {
        environment.remove_filter(filter);
    }
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raise_exception")
            .with_source(Raised(complaint(message))))
    });
    environment.add_filter("tojson", |value: Value, options: Kwargs| -> Result<Value, Error> {
        let indent: Option<usize> = options.get("indent")?;
        // Python's other options change how little matters here, and are let pass.
        let text = dumps(&value, indent, MAX_PROMPT_BYTES).map_err(|error| invalid(error.to_string()))?;
        Ok(Value::from_safe_string(text))
    });
    environment
}

/// What `raise_exception` was told.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

fn failure(error: Error) -> TemplateError {
    if error.kind() == ErrorKind::OutOfFuel {
        return TemplateError::Bounds;
    }
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        if let Some(Raised(message)) = next.downcast_ref() {
            return TemplateError::Refused(message.clone());
        }
        cause = next.source();
    }
    TemplateError::Render(complaint(error))
}

/// Methods of Python's strings, lists and dicts, as far as what they cost can be told before: that is paid for first.
fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let text = value.as_str().unwrap_or_default();
    let arg = |place: usize| args.get(place).and_then(Value::as_str);
    let length = |text: Option<&str>| text.map_or(0, str::len) as u64;
    let own = length(Some(text));
    let cost = match (name, arg(0)) {
        // Fields of a format may ask for any width.
        ("format", _) => return Err(Error::new(ErrorKind::UnknownMethod, "format is not offered here")),
        ("join", _) if value.kind() == ValueKind::String => return join(state, text, args),
        ("replace", from) => {
            let places = own.checked_div(length(from)).unwrap_or(own + 1);
            own.saturating_add(places.saturating_mul(length(arg(1))))
        }
        ("split", Some(between)) if !between.is_empty() => {
            own.saturating_add((text.matches(between).count() as u64).saturating_mul(SLOT_BYTES))
        }
        ("split" | "splitlines", _) => {
            let breaks = text.bytes().filter(u8::is_ascii_whitespace).count() as u64;
            own.saturating_add(breaks.saturating_mul(SLOT_BYTES))
        }
        ("strip" | "lstrip" | "rstrip", Some(letters)) => own.saturating_mul(length(Some(letters)).max(1)),
        ("startswith" | "endswith", _) => 0,
        _ => own,
    };
    state.consume_fuel(cost / BYTES_PER_FUEL)?;
    unknown_method_callback(state, value, name, args)
}

/// `between.join(list)`. Lists may be longer than they are large, so each entry is paid for.
fn join(state: &State<'_, '_>, between: &str, args: &[Value]) -> Result<Value, Error> {
    let [list] = args else { return Err(invalid("join takes one list".to_owned())) };
    let mut joined = String::new();
    for (place, part) in list.try_iter()?.enumerate() {
        let part = part.as_str().ok_or_else(|| invalid("join takes a list of texts".to_owned()))?.to_owned();
        state.consume_fuel(1 + (part.len() + between.len()) as u64 / BYTES_PER_FUEL)?;
        if place > 0 {
            joined.push_str(between);
        }
        joined.push_str(&part);
    }
    Ok(Value::from(joined))
}
