//! What a check has found: a file for a card and a commit, to which every part adds as it goes, in one run or in several.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Whoever's times ours are held against, and the field that says how many times theirs a row's speed is.
const OTHERS: [(&str, &str); 2] = [("candle", "times_candle"), ("torch", "times_torch")];

/// The file, and what it holds.
pub(crate) struct Results {
    file: PathBuf,
    found: Found,
    /// The part that runs.
    part: String,
}

#[derive(Serialize, Deserialize)]
struct Found {
    /// The card, the driver, the commit.
    #[serde(flatten)]
    about: Map<String, Value>,
    parts: Vec<PartState>,
    parity: Parity,
    speed: Vec<Value>,
}

#[derive(Serialize, Deserialize)]
struct PartState {
    part: String,
    /// False for one that was cut short or has failed.
    finished: bool,
    seconds: f64,
    error: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
struct Parity {
    /// Of all that was compared; none where nothing was.
    equal: Option<bool>,
    rows: Vec<Value>,
}

impl Results {
    /// The results of `about`'s card and commit in a folder, with what earlier runs have left there.
    ///
    /// # Errors
    /// The folder cannot be written, or the file there is of something else.
    pub(crate) fn open(folder: &Path, about: Value) -> Result<Self> {
        let Value::Object(about) = about else { unreachable!("what is said of a card is an object") };
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = folder.join(file_name(&about));
        let found = match fs::read(&file) {
            Ok(bytes) => {
                let found: Found = serde_json::from_slice(&bytes)
                    .with_context(|| format!("{} does not hold results", file.display()))?;
                ensure!(
                    found.about == about,
                    "{} is of another card, driver or commit: put it elsewhere",
                    file.display()
                );
                found
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Found { about, parts: Vec::new(), parity: Parity::default(), speed: Vec::new() }
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        let results = Self { file, found, part: String::new() };
        results.write()?;
        Ok(results)
    }

    /// Where they are.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Whether a part has run to its end.
    pub(crate) fn has(&self, part: &str) -> bool {
        self.found.parts.iter().any(|state| state.part == part && state.finished)
    }

    /// Forgets what an earlier run has found of a part; what is added from here on is of it.
    pub(crate) fn begin(&mut self, part: &str) -> Result<()> {
        part.clone_into(&mut self.part);
        let found = &mut self.found;
        found.parts.retain(|state| state.part != part);
        found.parity.rows.retain(|row| row["part"] != part);
        found.speed.retain(|row| row["part"] != part);
        found.parts.push(PartState { part: part.to_owned(), finished: false, seconds: 0.0, error: None });
        self.write()
    }

    /// Says how the part that runs has ended.
    pub(crate) fn end(&mut self, took: Duration, outcome: &Result<()>) -> Result<()> {
        let state = self.found.parts.last_mut().context("a part that has begun")?;
        state.seconds = took.as_secs_f64();
        state.finished = outcome.is_ok();
        state.error = outcome.as_ref().err().map(|error| format!("{error:#}"));
        self.write()
    }

    /// Adds a comparison, with whether it was `equal`.
    pub(crate) fn compared(&mut self, mut row: Value) -> Result<()> {
        row["part"] = json!(self.part);
        self.found.parity.rows.push(row);
        self.write()
    }

    /// Adds a measurement: `{shape, by, what, size, seconds}` and whatever else is to be said.
    pub(crate) fn measured(&mut self, mut row: Value) -> Result<()> {
        row["part"] = json!(self.part);
        self.found.speed.push(row);
        self.compare();
        if let Some(row) = self.found.speed.last() {
            print_row(row);
        }
        self.write()
    }

    /// Holds every row against the others' of the same thing, whichever run they are from, and against the card.
    fn compare(&mut self) {
        let key = |row: &Value| [row["shape"].clone(), row["what"].clone(), row["size"].clone()];
        let bandwidth = self.found.about.get("bandwidth").and_then(Value::as_f64);
        for (by, field) in OTHERS {
            let theirs: Vec<_> = (self.found.speed.iter().filter(|row| row["by"] == by))
                .filter_map(|row| Some((key(row), row["seconds"].as_f64()?)))
                .collect();
            for row in self.found.speed.iter_mut().filter(|row| OTHERS.iter().all(|&(by, _)| row["by"] != by))
            {
                let of_row = key(row);
                let same = theirs.iter().find(|(of, _)| *of == of_row);
                if let (Some((_, theirs)), Some(ours)) = (same, row["seconds"].as_f64()) {
                    row[field] = json!(theirs / ours);
                }
            }
        }
        for row in &mut self.found.speed {
            if let (Some(limit), Some(read)) = (bandwidth, row["bytes_per_second"].as_f64()) {
                row["of_bandwidth"] = json!(read / limit);
            }
        }
    }

    /// Whether all that was compared is equal, in this run and earlier ones; none where nothing was compared.
    pub(crate) fn equal(&self) -> Option<bool> {
        let rows = &self.found.parity.rows;
        (!rows.is_empty()).then(|| rows.iter().all(|row| row["equal"] == true))
    }

    /// Writes another file and puts it in the place of the old one, so that there is a whole one at any time.
    fn write(&self) -> Result<()> {
        let equal = self.equal();
        let mut value = serde_json::to_value(&self.found)?;
        value["parity"]["equal"] = json!(equal);
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{value:#}\n"))
            .and_then(|()| fs::rename(&new, &self.file))
            .with_context(|| format!("cannot write {}", self.file.display()))
    }
}

/// `gpu-CARD-COMMIT.json`, or `gpu-smoke-…`.
fn file_name(about: &Map<String, Value>) -> String {
    let text = |key: &str| about.get(key).and_then(Value::as_str).unwrap_or("unknown");
    let mut card = text("card").to_lowercase().replace(' ', "-");
    card.retain(|c| c.is_ascii_alphanumeric() || c == '-');
    let smoke = if about.get("smoke") == Some(&Value::Bool(true)) { "smoke-" } else { "" };
    format!("gpu-{smoke}{card}-{}.json", text("commit"))
}

fn print_row(row: &Value) {
    let text = |key: &str| row[key].as_str().unwrap_or_default();
    let number = |key: &str| row[key].as_f64();
    print!("{}, {}, {} {}:", text("shape"), text("by"), text("what"), row["size"]);
    print!(" {:.3} ms", number("seconds").unwrap_or(f64::NAN) * 1e3);
    if let Some(share) = number("commitments") {
        print!(", {:+.2} % by commitments", share * 100.0);
    }
    if let Some(ratio) = number("generate_over_check") {
        print!(", 1/{ratio:.0} of generating it");
    }
    for (by, field) in OTHERS {
        if let Some(times) = number(field) {
            print!(", {times:.2}× {by}");
        }
    }
    if let Some(share) = number("of_bandwidth") {
        print!(", {:.0} % of the memory's bandwidth", share * 100.0);
    }
    println!();
}
