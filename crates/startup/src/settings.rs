//! Settings in layers: a file, then variables, then flags.
//!
//! A program's settings are a value with defaults that can be [visited](Settings::visit), each setting once, by name.
//! The same visit lists what there is, reads what was given, and checks the reference file.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Map, Num, Value};
use figment::{Figment, Metadata, Profile, Provider, Source};

use crate::suggest::{distance, nearest};

/// The sections that the file may have. One file may serve several programs, each of which reads its own.
const SECTIONS: [&str; 3] = ["coordinator", "worker", "challenger"];
/// What variables start with.
const PREFIX: &str = "GAINSAY_";
/// Bytes of a file that holds a secret.
const SECRET_MAX: u64 = 64 << 10;

/// Something that has settings.
pub trait Settings {
    /// Shows the visitor each setting, once.
    fn visit(&mut self, visitor: &mut impl Visitor);
}

/// Whoever is shown settings. Lists, options and paths have forms of their own; everything else is a text in the end.
pub trait Visitor {
    /// A setting that always has a value.
    fn value<T: FromStr<Err: Display> + Display>(&mut self, name: &'static str, value: &mut T);
    /// A path that always has a value.
    fn path(&mut self, name: &'static str, value: &mut PathBuf);
    /// A setting that may be absent: an empty text is none.
    fn optional<T: FromStr<Err: Display> + Display>(&mut self, name: &'static str, value: &mut Option<T>);
    /// A path that may be absent.
    fn optional_path(&mut self, name: &'static str, value: &mut Option<PathBuf>);
    /// Any number of values: a list in the file, separated by commas elsewhere.
    fn list<T: FromStr<Err: Display> + Display>(&mut self, name: &'static str, value: &mut Vec<T>);
    /// A text that must not be shown, and that the setting `{name}_file` may name a file for.
    fn secret(&mut self, name: &'static str, value: &mut Option<String>);
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file is not there, or is not TOML.
    #[error("the settings file cannot be read: {0}")]
    File(Box<figment::Error>),
    /// A section of the file that no program has.
    #[error("[{name}] in {origin} is no section: there are [coordinator], [worker] and [challenger]")]
    UnknownSection {
        /// Its name.
        name: String,
        /// The file.
        origin: String,
    },
    /// A name that no setting has.
    #[error("`{name}` in {origin} is no setting of a {role}{}", suggestion(.meant.as_deref()))]
    Unknown {
        /// The name.
        name: String,
        /// Where it was given.
        origin: String,
        /// Whose settings were read.
        role: &'static str,
        /// What was meant, perhaps.
        meant: Option<String>,
    },
    /// A variable that is almost a setting's.
    #[error("the variable {name} is none of a {role}'s, and looks like {meant}: correct or unset it")]
    Misspelt {
        /// The variable.
        name: String,
        /// Whose settings were read.
        role: &'static str,
        /// What was meant.
        meant: String,
    },
    /// A value that the setting cannot have.
    #[error("`{name}` from {origin} cannot be used: {reason}")]
    Unusable {
        /// The setting.
        name: &'static str,
        /// Where it was given.
        origin: String,
        /// Why not.
        reason: String,
    },
    /// A secret given both as itself and as a file.
    #[error("`{name}` and `{name}_file` are both set in {origin}: set one")]
    Both {
        /// The setting.
        name: &'static str,
        /// Where they were given.
        origin: String,
    },
    /// The file of a secret.
    #[error("the file of `{name}`, {}, cannot be read: {reason}", path.display())]
    SecretFile {
        /// The setting.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: io::Error,
    },
    /// A flag without a name or value.
    #[error("--set {0}: expected NAME=VALUE")]
    Flag(String),
}

fn suggestion(name: Option<&str>) -> String {
    name.map(|name| format!("; `{name}` is")).unwrap_or_default()
}

/// How a program is told where its settings are.
#[derive(Clone, Debug, Default, Args)]
pub struct SettingsArguments {
    /// Read settings from this file; gainsay.example.toml shows all of them.
    #[arg(long, value_name = "FILE", env = "GAINSAY_CONFIG")]
    config: Option<PathBuf>,
    /// Any setting of the file by its name. Goes before variables, which go before the file. May be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
}

/// Where settings come from, the first before the second before the third.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    flags: Vec<(String, String, String)>,
    variables: BTreeMap<String, String>,
    file: Option<PathBuf>,
}

impl SettingsArguments {
    /// The arguments, and this process's variables.
    ///
    /// # Errors
    /// A flag that is not `NAME=VALUE`.
    pub fn layers(&self) -> Result<Layers, SettingsError> {
        // Variables that are not text are none of ours, or are empty to whoever reads them.
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let mut layers = Layers::default().variables(variables);
        layers.file.clone_from(&self.config);
        for flag in &self.set {
            let (name, value) = flag.split_once('=').ok_or_else(|| SettingsError::Flag(flag.clone()))?;
            layers.flags.push((format!("--set {name}"), name.to_owned(), value.to_owned()));
        }
        Ok(layers)
    }
}

impl Layers {
    /// Reads this file.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Takes these for the environment's variables; those that are not named like settings are passed over.
    #[must_use]
    pub fn variables<S: Into<String>>(mut self, variables: impl IntoIterator<Item = (S, S)>) -> Self {
        let ours = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.variables.extend(ours.filter(|(name, _): &(String, String)| name.starts_with(PREFIX)));
        // An older way to say the same.
        if self.variables.remove("GAINSAY_LOG_JSON").is_some_and(|on| on == "true" || on == "1") {
            self.variables.entry("GAINSAY_LOG_FORMAT".to_owned()).or_insert_with(|| "json".to_owned());
        }
        self
    }

    /// Adds a flag of the program's own, where it was given.
    #[must_use]
    pub fn flag(mut self, name: &'static str, value: Option<impl Display>) -> Self {
        if let Some(value) = value {
            let flag = format!("--{}", name.replace('_', "-"));
            self.flags.push((flag, name.to_owned(), value.to_string()));
        }
        self
    }
}

/// Reads the settings of a role over their defaults.
///
/// # Errors
/// The first thing that is wrong.
pub fn read(role: &'static str, settings: &mut impl Settings, layers: &Layers) -> Result<(), SettingsError> {
    let mut catalogue = Catalogue::default();
    settings.visit(&mut catalogue);
    let given = Given { role, catalogue };
    let mut figment = Figment::new();
    if let Some(path) = &layers.file {
        figment = given.merge_file(figment, path)?;
    }
    figment = given.merge_variables(figment, &layers.variables)?;
    for (flag, name, value) in &layers.flags {
        given.check(name, flag)?;
        figment = given.merge(figment, flag, name, value);
    }
    let mut reader = Reader { figment, failed: None };
    settings.visit(&mut reader);
    reader.failed.map_or(Ok(()), Err)
}

/// What settings there are, with what they are now.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    pub(crate) settings: Vec<(&'static str, Vec<String>)>,
    pub(crate) secrets: Vec<&'static str>,
}

impl Catalogue {
    /// Names as they may be given, those of secrets' files among them.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let own = self.settings.iter().map(|(name, _)| (*name).to_owned());
        own.chain(self.secrets.iter().map(|name| format!("{name}_file")))
    }
}

impl Visitor for Catalogue {
    fn value<T: FromStr<Err: Display> + Display>(&mut self, name: &'static str, value: &mut T) {
        self.settings.push((name, vec![value.to_string()]));
    }

    fn path(&mut self, name: &'static str, value: &mut PathBuf) {
        self.settings.push((name, vec![value.display().to_string()]));
    }

    fn optional<T: FromStr<Err: Display> + Display>(&mut self, name: &'static str, value: &mut Option<T>) {
        self.settings.push((name, value.iter().map(ToString::to_string).collect()));
    }

    fn optional_path(&mut self, name: &'static str, value: &mut Option<PathBuf>) {
        self.settings.push((name, value.iter().map(|path| path.display().to_string()).collect()));
    }

    fn list<T: FromStr<Err: Display> + Display>(&mut self, name: &'static str, value: &mut Vec<T>) {
        self.settings.push((name, value.iter().map(ToString::to_string).collect()));
    }

    fn secret(&mut self, name: &'static str, value: &mut Option<String>) {
        self.settings.push((name, value.iter().cloned().collect()));
        self.secrets.push(name);
    }
}

/// Puts the layers together for one role.
struct Given {
    role: &'static str,
    catalogue: Catalogue,
}

impl Given {
    fn check(&self, name: &str, origin: &str) -> Result<(), SettingsError> {
        let names: Vec<String> = self.catalogue.names().collect();
        if names.iter().any(|known| known == name) {
            return Ok(());
        }
        let meant = nearest(name, names.iter().map(String::as_str)).map(ToOwned::to_owned);
        Err(SettingsError::Unknown {
            name: name.to_owned(),
            origin: origin.to_owned(),
            role: self.role,
            meant,
        })
    }

    fn merge_file(&self, figment: Figment, path: &Path) -> Result<Figment, SettingsError> {
        let origin = path.display().to_string();
        let failed = |error: figment::Error| SettingsError::File(Box::new(error));
        let file = Figment::from(Toml::file_exact(path));
        let sections: Dict = file.extract().map_err(failed)?;
        if let Some(name) = sections.keys().find(|name| !SECTIONS.contains(&name.as_str())) {
            return Err(SettingsError::UnknownSection { name: name.clone(), origin });
        }
        let Some(section) = sections.get(self.role) else { return Ok(figment) };
        let section = section.as_dict().ok_or_else(|| SettingsError::UnknownSection {
            name: self.role.to_owned(),
            origin: origin.clone(),
        })?;
        for name in section.keys() {
            self.check(name, &origin)?;
        }
        for name in &self.catalogue.secrets {
            let is_set = |name: &str| {
                section.get(name).is_some_and(|value| value.as_str().is_none_or(|text| !text.is_empty()))
            };
            if is_set(name) && is_set(&format!("{name}_file")) {
                return Err(SettingsError::Both { name, origin });
            }
        }
        Ok(figment.merge(file.focus(self.role)))
    }

    fn merge_variables(
        &self,
        mut figment: Figment,
        variables: &BTreeMap<String, String>,
    ) -> Result<Figment, SettingsError> {
        // An empty variable is an unset one: that is how compose files and service managers leave one out.
        let set: BTreeMap<&str, &str> = variables
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let names: Vec<String> = self.catalogue.names().collect();
        let general = |name: &str| format!("{PREFIX}{}", name.to_uppercase());
        let own = |name: &str| format!("{PREFIX}{}_{}", self.role.to_uppercase(), name.to_uppercase());
        let known: Vec<String> = names.iter().flat_map(|name| [general(name), own(name)]).collect();
        for variable in set.keys().filter(|variable| known.iter().all(|known| known != **variable)) {
            if let Some(meant) = known.iter().find(|known| distance(variable, known) <= 2) {
                let (name, meant) = ((*variable).to_owned(), meant.clone());
                return Err(SettingsError::Misspelt { name, role: self.role, meant });
            }
        }
        // A role's own variable goes before one that other roles may read too.
        let found = |name: &str| {
            [own(name), general(name)].into_iter().find_map(|key| Some((*set.get(key.as_str())?, key)))
        };
        for name in &self.catalogue.secrets {
            if let (Some(_), Some((_, origin))) = (found(name), found(&format!("{name}_file"))) {
                return Err(SettingsError::Both { name, origin });
            }
        }
        for name in &names {
            if let Some((value, variable)) = found(name) {
                figment = self.merge(figment, &variable, name, value);
            }
        }
        Ok(figment)
    }

    /// Lays one setting over those before. A secret and its file stand for each other.
    fn merge(&self, figment: Figment, origin: &str, name: &str, value: &str) -> Figment {
        let one = |name: &str, value: &str| One {
            origin: origin.to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let twin = self.catalogue.secrets.iter().find_map(|secret| {
            let file = format!("{secret}_file");
            if name == *secret {
                Some(file)
            } else if name == file {
                Some((*secret).to_owned())
            } else {
                None
            }
        });
        let figment = figment.merge(one(name, value));
        match twin {
            Some(twin) => figment.merge(one(&twin, "")),
            None => figment,
        }
    }
}

/// One setting that is not from a file.
struct One {
    origin: String,
    name: String,
    value: String,
}

impl Provider for One {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let dict = Dict::from([(self.name.clone(), Value::from(self.value.clone()))]);
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

/// Takes what was given into the settings.
struct Reader {
    figment: Figment,
    failed: Option<SettingsError>,
}

impl Reader {
    /// The texts given under the name: one, or those of a list. None where nothing was given.
    fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        let value = self.figment.find_value(name).ok()?;
        let texts = match &value {
            Value::Array(_, values) => values.iter().map(text).collect(),
            one => text(one).map(|text| vec![text]),
        };
        if texts.is_none() {
            self.fail(name, "expected a text or a number");
        }
        texts
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        let texts = self.texts(name)?;
        match <[String; 1]>::try_from(texts) {
            Ok([text]) => Some(text),
            Err(_) => {
                self.fail(name, "expected one value, not a list");
                None
            }
        }
    }

    fn parse<T: FromStr<Err: Display>>(&mut self, name: &'static str, text: &str) -> Option<T> {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.fail(name, format_args!("{text:?}: {error}"));
                None
            }
        }
    }

    fn fail(&mut self, name: &'static str, reason: impl Display) {
        let origin = origin(self.figment.find_metadata(name));
        let error = SettingsError::Unusable { name, origin, reason: reason.to_string() };
        self.failed.get_or_insert(error);
    }

    fn secret_file(&mut self, name: &'static str, path: PathBuf) -> Option<String> {
        match read_secret(&path) {
            Ok(text) => Some(text),
            Err(reason) => {
                self.failed.get_or_insert(SettingsError::SecretFile { name, path, reason });
                None
            }
        }
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Char(_, one) => Some(one.to_string()),
        Value::Bool(_, on) => Some(on.to_string()),
        Value::Num(_, Num::F32(number)) => Some(number.to_string()),
        Value::Num(_, Num::F64(number)) => Some(number.to_string()),
        Value::Num(_, whole) => {
            let signed = whole.to_i128().map(|number| number.to_string());
            signed.or_else(|| whole.to_u128().map(|number| number.to_string()))
        }
        Value::Empty(..) | Value::Dict(..) | Value::Array(..) => None,
    }
}

fn origin(metadata: Option<&Metadata>) -> String {
    match metadata {
        Some(Metadata { source: Some(Source::File(path)), .. }) => path.display().to_string(),
        Some(metadata) => metadata.name.clone().into_owned(),
        None => "its default".to_owned(),
    }
}

/// Without the line's end that editors and `echo` leave.
fn read_secret(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(SECRET_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > SECRET_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than a secret"));
    }
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
    }
    Ok(text.to_owned())
}

impl Visitor for Reader {
    fn value<T: FromStr<Err: Display> + Display>(&mut self, name: &'static str, value: &mut T) {
        let given = self.text(name).and_then(|text| self.parse(name, &text));
        if let Some(given) = given {
            *value = given;
        }
    }

    fn path(&mut self, name: &'static str, value: &mut PathBuf) {
        match self.text(name) {
            Some(path) if path.is_empty() => self.fail(name, "expected a path"),
            Some(path) => *value = path.into(),
            None => {}
        }
    }

    fn optional<T: FromStr<Err: Display> + Display>(&mut self, name: &'static str, value: &mut Option<T>) {
        if let Some(text) = self.text(name) {
            *value = if text.is_empty() { None } else { self.parse(name, &text) };
        }
    }

    fn optional_path(&mut self, name: &'static str, value: &mut Option<PathBuf>) {
        if let Some(text) = self.text(name) {
            *value = (!text.is_empty()).then(|| text.into());
        }
    }

    fn list<T: FromStr<Err: Display> + Display>(&mut self, name: &'static str, value: &mut Vec<T>) {
        let Some(texts) = self.texts(name) else { return };
        let parts =
            texts.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|part| !part.is_empty());
        *value = parts.filter_map(|part| self.parse(name, part)).collect();
    }

    fn secret(&mut self, name: &'static str, value: &mut Option<String>) {
        if let Some(text) = self.text(name).filter(|text| !text.is_empty()) {
            *value = Some(text);
        }
        let file = self.figment.find_value(&format!("{name}_file")).ok();
        let path = file.as_ref().and_then(Value::as_str).filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(path) = path {
            *value = self.secret_file(name, path);
        }
    }
}

impl fmt::Debug for One {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The value may be a secret.
        f.debug_struct("One").field("origin", &self.origin).field("name", &self.name).finish_non_exhaustive()
    }
}
