//! The files that a service is run from: they are not compiled, so that only a test finds out what no longer fits.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace's root").to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Words that start with `gainsay_`, as metrics do.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("gainsay_")).collect()
}

/// Either tool: the plugin of Docker's own client, or the program of old.
fn compose() -> Command {
    let plugin = Command::new("docker").args(["compose", "version"]).output();
    if plugin.is_ok_and(|output| output.status.success()) {
        let mut command = Command::new("docker");
        command.arg("compose");
        return command;
    }
    Command::new("docker-compose")
}

#[test]
fn the_compose_file_is_one() {
    let output = compose()
        .current_dir(root())
        .args(["--profile", "cpu", "--profile", "cuda", "--profile", "tools", "config"])
        .output()
        .unwrap_or_else(|error| panic!("cannot run docker-compose: {error}. `cargo xtask test` installs it"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for service in
        ["proxy", "coordinator", "postgres", "redis", "worker", "worker-cuda", "challenger", "prometheus"]
    {
        assert!(text.lines().any(|line| line == format!("  {service}:")), "{service} is missing:\n{text}");
    }
}

/// A target or a mounted file that is gone would be found by whoever starts the service.
#[test]
fn what_the_compose_file_names_is_there() {
    let (compose, recipe) = (read("docker-compose.yml"), read("Dockerfile"));
    for target in compose.lines().filter_map(|line| line.split_once("target: ")).map(|(_, rest)| rest) {
        let target = target.trim_end_matches(['}', ' ']);
        assert!(recipe.contains(&format!("AS {target}\n")), "no stage {target}");
    }
    for mount in compose.lines().filter_map(|line| line.trim().strip_prefix("- ./")) {
        let file = mount.split(':').next().expect("a mount has a source");
        assert!(root().join(file).is_file(), "{file} is not there");
    }
    let images = compose.lines().filter_map(|line| line.trim().strip_prefix("image: "));
    for image in images.filter(|image| !image.starts_with("gainsay-")) {
        assert!(image.contains(':') && !image.ends_with(":latest"), "{image} names no version");
    }
}

/// Everything that a build reads has to be let into its context, or images cannot be built.
#[test]
fn the_images_are_built_from_every_member() {
    let ignored = read(".dockerignore");
    let manifest = read("Cargo.toml");
    let members =
        manifest.split_once("members = [").and_then(|(_, rest)| rest.split_once(']')).expect("members").0;
    for member in members.split('"').skip(1).step_by(2) {
        let folder = member.split('/').next().expect("a path has a first part");
        assert!(ignored.lines().any(|line| line == format!("!{folder}")), "{folder} is kept out of builds");
    }
    for file in ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "scripts/cuda-toolkit", "sql"] {
        assert!(ignored.lines().any(|line| line == format!("!{file}")), "{file} is kept out of builds");
    }
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain.split('"').nth(1).expect("a channel");
    assert!(
        read("Dockerfile").contains(&format!("ARG RUST={channel}\n")),
        "images are built by another compiler"
    );
}

/// An alert on a metric that was renamed never fires.
#[test]
fn alerts_watch_metrics_that_exist() {
    let alerts = read("deploy/alerts.yml");
    let watched = metrics(&alerts);
    assert!(watched.len() > 8, "{watched:?}");
    let sources = ["coordinator/src/telemetry.rs", "coordinator/src/http/metrics.rs"].map(read).join("\n");
    let counted = metrics(&sources);
    assert!(watched.is_subset(&counted), "nobody counts {:?}", watched.difference(&counted));
}
