//! The walls of ARCHITECTURE.md: what a crate must not know is not among its dependencies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

type Names = BTreeSet<String>;

/// The resolved graph of normal dependencies: name → names, for every package of the workspace and what it pulls in.
struct Graph {
    dependencies: BTreeMap<String, Names>,
    members: Names,
}

impl Graph {
    fn read() -> Graph {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--locked"])
            // Dependencies for browsers and other platforms are not what runs here.
            .args(["--filter-platform", "x86_64-unknown-linux-gnu", "--manifest-path"])
            .arg(root().join("Cargo.toml"))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
        let names: BTreeMap<&str, &str> = list(&metadata["packages"])
            .iter()
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let members =
            list(&metadata["workspace_members"]).iter().map(|id| names[text(id)].to_owned()).collect();
        let mut dependencies = BTreeMap::<String, Names>::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let normal = list(&node["deps"])
                .iter()
                .filter(|dep| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()))
                .map(|dep| names[text(&dep["pkg"])].to_owned());
            dependencies.entry(names[text(&node["id"])].to_owned()).or_default().extend(normal);
        }
        Graph { dependencies, members }
    }

    fn direct(&self, package: &str) -> &Names {
        self.dependencies.get(package).unwrap_or_else(|| panic!("{package} is not in the graph"))
    }

    fn reachable(&self, package: &str) -> Names {
        let mut seen = Names::new();
        let mut open = vec![package.to_owned()];
        while let Some(next) = open.pop() {
            for dependency in self.direct(&next) {
                if seen.insert(dependency.clone()) {
                    open.push(dependency.clone());
                }
            }
        }
        seen
    }

    fn members_that_use(&self, package: &str) -> Names {
        self.members.iter().filter(|member| self.direct(member).contains(package)).cloned().collect()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace's root").to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("an array")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn names(of: &[&str]) -> Names {
    of.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn arithmetic_knows_nothing_but_libm() {
    assert_eq!(Graph::read().reachable("gainsay-arithmetic"), names(&["libm"]));
}

#[test]
fn the_crates_that_decide_depend_on_each_other_in_one_direction() {
    let graph = Graph::read();
    let expected = [
        ("gainsay-commitment", names(&[])),
        ("gainsay-program", names(&["gainsay-arithmetic", "gainsay-commitment"])),
        ("gainsay-protocol", names(&["gainsay-arithmetic", "gainsay-commitment", "gainsay-program"])),
        ("gainsay-engine", names(&["gainsay-arithmetic", "gainsay-commitment", "gainsay-program"])),
    ];
    for (package, allowed) in expected {
        let ours: Names =
            graph.reachable(package).into_iter().filter(|name| graph.members.contains(name)).collect();
        assert!(ours.is_subset(&allowed), "{package} reaches {ours:?}, and may reach {allowed:?}");
    }
}

#[test]
fn what_decides_has_no_runtime_no_network_no_database() {
    let graph = Graph::read();
    let forbidden = names(&[
        "tokio",
        "async-trait",
        "futures-util",
        "reqwest",
        "sqlx",
        "actix-web",
        "candle-core",
        "rayon",
    ]);
    for package in ["gainsay-arithmetic", "gainsay-commitment", "gainsay-program", "gainsay-protocol"] {
        let found: Names = graph.reachable(package).intersection(&forbidden).cloned().collect();
        assert!(found.is_empty(), "{package} reaches {found:?}");
    }
}

#[test]
fn only_the_engine_links_candle() {
    let graph = Graph::read();
    assert_eq!(graph.members_that_use("candle-core"), names(&["gainsay-engine"]));
    assert!(
        !graph.reachable("gainsay-coordinator").contains("candle-core"),
        "the coordinator judges without candle"
    );
}

#[test]
fn only_the_coordinator_speaks_sql_and_serves_http() {
    let graph = Graph::read();
    assert_eq!(graph.members_that_use("sqlx"), names(&["gainsay-coordinator", "gainsay-testkit"]));
    assert_eq!(graph.members_that_use("actix-web"), names(&["gainsay-coordinator"]));
}

/// Inside the coordinator the walls are modules, which cargo does not know; the source has to be asked.
#[test]
fn inside_the_coordinator_only_store_names_sqlx_and_only_http_names_actix() {
    let source = root().join("coordinator/src");
    for (word, home) in [("sqlx::", "store"), ("actix_web::", "http")] {
        let strangers: Vec<PathBuf> = rust_files(&source)
            .into_iter()
            .filter(|path| !path.starts_with(source.join(home)))
            .filter(|path| std::fs::read_to_string(path).expect("a readable file").contains(word))
            .collect();
        assert!(strangers.is_empty(), "{word} belongs to {home}, and is named in {strangers:?}");
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
