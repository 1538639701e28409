//! The log: lines on standard error, for people or for programs.

use std::fmt;
use std::io::IsTerminal as _;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

use crate::{Settings, Visitor};

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line: the event's fields, and those of the request or game that it belongs to.
    Json,
}

/// A text that names no format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a log is written as `text` or as `json`")]
pub struct ParseLogFormatError;

impl FromStr for LogFormat {
    type Err = ParseLogFormatError;

    fn from_str(text: &str) -> Result<Self, ParseLogFormatError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(ParseLogFormatError),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// How lines are written.
    pub format: LogFormat,
    /// Which lines: levels by module, as `RUST_LOG` has them, which goes before this.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info,actix_server=warn".to_owned() }
    }
}

impl Settings for LogConfig {
    fn visit(&mut self, visitor: &mut impl Visitor) {
        visitor.value("log_format", &mut self.format);
        visitor.value("log_filter", &mut self.filter);
    }
}

impl LogConfig {
    /// Starts the log of this process. A second start changes nothing.
    pub fn start(&self) {
        let filter = EnvFilter::try_from_default_env().or_else(|_| EnvFilter::try_new(&self.filter));
        let (filter, unusable) = match filter {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new("info"), Some(error)),
        };
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        let started = match self.format {
            LogFormat::Json => log.json().flatten_event(true).with_span_list(false).try_init(),
            LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        };
        if let (Ok(()), Some(error)) = (started, unusable) {
            tracing::warn!(%error, "log_filter cannot be used; everything from `info` on is logged");
        }
    }
}
