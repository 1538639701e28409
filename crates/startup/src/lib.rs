//! What every long-running program does before and after its work: it reads its settings, starts its log, and stops
//! when it is told to.
//!
//! [`Settings`] come from a file, from variables and from flags, the later before the earlier; a program says what its
//! settings are by visiting each of them once. It knows nothing of what the programs do.

mod health;
mod lifetime;
mod log;
mod reference;
mod settings;
mod status;
mod suggest;

pub use health::{HealthError, ask_health, check_status_file};
pub use lifetime::{Lifetime, until_ended};
pub use log::{LogConfig, LogFormat, ParseLogFormatError};
pub use reference::reference_problems;
pub use settings::{Layers, Settings, SettingsArguments, SettingsError, Visitor, read};
pub use status::keep_status_file;
