//! The reference file: every setting, with its default, and a line about it.

use std::path::Path;

use crate::Settings;
use crate::settings::{Catalogue, Layers, read};

/// What is wrong with a role's section of the reference file: for the test that keeps the file true. It has to set
/// everything, to the defaults, with a comment right above.
#[must_use]
pub fn reference_problems<S: Settings>(role: &'static str, path: &Path, mut defaults: S) -> Vec<String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return vec![format!("{}: {error}", path.display())],
    };
    let mut expected = Catalogue::default();
    defaults.visit(&mut expected);
    let mut problems = Vec::new();
    if let Err(error) = read(role, &mut defaults, &Layers::default().file(path)) {
        problems.push(error.to_string());
    }
    let mut found = Catalogue::default();
    defaults.visit(&mut found);
    for ((name, default), (_, read)) in expected.settings.iter().zip(&found.settings) {
        if default != read {
            problems.push(format!("{name} is {read:?} in the file, and {default:?} without it"));
        }
    }
    let lines = section(&text, role);
    for name in expected.names() {
        let at =
            lines.iter().position(|line| line.split_once('=').is_some_and(|(key, _)| key.trim() == name));
        match at {
            None => problems.push(format!("{name} is missing")),
            Some(line) if line == 0 || !lines[line - 1].starts_with("# ") => {
                problems.push(format!("{name} has no comment right above"));
            }
            Some(_) => {}
        }
    }
    problems
}

fn section<'a>(text: &'a str, role: &str) -> Vec<&'a str> {
    let head = format!("[{role}]");
    let from = text.lines().skip_while(|line| line.trim() != head).skip(1);
    from.take_while(|line| !line.starts_with('[')).map(str::trim).collect()
}
