//! Text around the token ids that models compute with: the bytes of each token, text that arrives token by token, and
//! the prompt of a conversation.
//!
//! - [`TokenTable`] reads a `tokenizer.json` and knows the bytes of every token: byte-level BPE, and the kinds that
//!   write a space as `▁` and bytes as `<0x0A>`.
//! - [`TextStream`] turns the bytes of tokens into text as they come. It never cuts a character in two and never lets a
//!   piece of a stop string through.
//! - [`ChatTemplate`] renders messages into a prompt by the Jinja template that a model brings.
//!
//! Tokenizers and templates are a stranger's files. Whatever a tokenizer holds, reading it and working with it takes time
//! and memory in proportion to its size. A template is held to bounds too, and one written in bad faith gets past them: it
//! is for a process that may be ended. Nothing here reads a clock, a file or the network.

mod chat;
mod date;
mod json;
mod stream;
mod table;

pub use chat::{ChatMessage, ChatTemplate, MAX_PROMPT_BYTES, MAX_TEMPLATE_BYTES, TemplateError};
pub use date::UnixSeconds;
pub use stream::TextStream;
pub use table::{MAX_TOKEN_BYTES, MAX_TOKEN_IDS, TableError, TokenTable};
