//! The project held against what others have written: another implementation of the trace root, a tester of OpenAPI
//! documents, the stock OpenAI client. `conformance/` holds each side.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::service::Service;
use crate::{cargo, say, step};

/// The language model that clients talk to: random weights, two layers, a chat template.
const LANGUAGE_MODEL: &str = "crates/engine/tests/fixtures/families/smollm2";

/// The oracle is a workspace of its own, with an old and large tree of dependencies that nothing else may reach. It is built
/// below the usual target folder, so that whatever keeps that keeps it too.
pub(crate) fn merkle_tree_rs(root: &Path) -> Result<()> {
    let crate_dir = root.join("conformance/merkle-tree-rs");
    step("format of the conformance crate", cargo(["fmt", "--check"]).current_dir(&crate_dir))?;
    step(
        "conformance with merkle-tree-rs",
        cargo(["run", "--quiet", "--locked", "--", "check"])
            .current_dir(&crate_dir)
            .env("CARGO_TARGET_DIR", target(root).join("conformance")),
    )
}

/// Runs the clients that are not ours against a service with the real model.
pub(crate) fn http(root: &Path, database_url: &str, model: &Path) -> Result<()> {
    let python = virtual_environment(root)?;
    let program = target(root).join("debug/gainsay");
    let service = Service::start(&program, database_url, model).context("the clients need a service")?;
    say(&format!("a service runs at {}", service.url()));
    let folder = root.join("conformance/http");
    let language_model = root.join(LANGUAGE_MODEL);
    let add = ["models", "add", "--name", "tiny"];
    step("a language model is registered", service.client(&program).args(add).arg(language_model))?;
    step("the running service against its OpenAPI document", schemathesis(&service, &python, &folder))?;
    step(
        "the stock OpenAI client, and LangChain",
        service.client(&python).arg(folder.join("openai_client.py")),
    )?;
    service.stop()
}

fn schemathesis(service: &Service, python: &Path, folder: &Path) -> Command {
    let program = python.with_file_name("schemathesis");
    let mut command = service.client(program);
    command
        .arg("--config-file")
        .arg(folder.join("schemathesis.toml"))
        .args(["run", &format!("{}/v1/openapi.json", service.url())])
        // Hooks are looked up from here.
        .current_dir(folder)
        .env("PYTHONPATH", folder)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// The Python of a virtual environment with the pinned packages; made anew when the pins change.
fn virtual_environment(root: &Path) -> Result<PathBuf> {
    let folder = root.join(".cache/conformance-venv");
    let requirements = root.join("conformance/http/requirements.txt");
    let pins = std::fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let (python, stamp) = (folder.join("bin/python"), folder.join("requirements.txt"));
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == pins) {
        return Ok(python);
    }
    step("virtual environment", Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    step(
        "packages of the conformance tests",
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"])
            .arg("--requirement")
            .arg(&requirements),
    )?;
    // Written last: a folder that was left half way is made anew.
    std::fs::write(&stamp, pins).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}

fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}
