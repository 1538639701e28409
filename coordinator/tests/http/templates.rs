//! Chat templates of strangers: what they cost nobody else.

use std::time::Duration;

use gainsay_api::ErrorCode;
use gainsay_api::client::{Auth, Client};
use gainsay_commitment::Canonical as _;
use gainsay_coordinator::TemplateHost;
use gainsay_testkit::{TestCoordinator, TestGenerator, TestOwner, TestSubmitter};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::raw::{Answer, bearer, send};
use crate::world::FUNDS;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gainsay-coordinator");
/// A body of a chat is refused with this price once it is rendered and counted: nothing needs to be computed.
const RENDERED: ErrorCode = ErrorCode::PriceTooLow;

fn template(source: &str) -> Vec<u8> {
    json!({ "chat_template": source }).to_string().into_bytes()
}

struct Stage {
    test: TestCoordinator,
    client: Client,
    owner: TestOwner,
    submitter: TestSubmitter,
}

impl Stage {
    async fn new() -> Self {
        let host = |config: &mut gainsay_coordinator::config::Config| {
            config.templates = TemplateHost::Program(PROGRAM.into());
        };
        let test = TestCoordinator::builder().config(host).start().await;
        let client = test.client().await;
        let owner = TestOwner::register(&client, "owner", 0).await;
        let submitter = TestSubmitter::register(&client, "submitter", FUNDS).await;
        Self { test, client, owner, submitter }
    }

    /// An owner, who may be anybody, registers a model with this template.
    async fn publish(&self, name: &str, source: &str) {
        let model = TestGenerator::new().with_template(name, template(source));
        model.publish_as(&self.client, Auth::Key(&self.owner.key)).await;
    }

    async fn chat(&self, model: &str) -> Answer {
        let messages = json!([{"role": "user", "content": "hi"}]);
        let body = json!({"model": model, "messages": messages, "max_tokens": 4, "max_price": 0});
        let headers = bearer(&self.submitter.api_key);
        send(&self.test, "POST", "/v1/chat/completions", &headers, body.to_string().as_bytes()).await
    }
}

/// Each of these gets past the bounds that the engine of templates counts: it compares for years, or is too deep to be
/// read. It may cost its own model an answer, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_never_ends_costs_nobody_else_anything() {
    let stage = Stage::new().await;
    let compares = "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(40) %}\
        {% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}";
    stage.publish("loops", compares).await;
    stage.publish("honest", "{{ messages[0].content }}").await;
    let others = async {
        for _ in 0..20 {
            stage.chat("honest").await.refused(400, RENDERED);
        }
    };
    let (looped, ()) = tokio::join!(stage.chat("loops"), others);
    looped.refused(400, ErrorCode::InvalidRequest);
    assert!(looped.text().contains("does not end within its bounds"), "{}", looped.text());
    // It rests: asking again takes nobody's time.
    stage.chat("loops").await.refused(400, ErrorCode::InvalidRequest);
    stage.chat("honest").await.refused(400, RENDERED);
    stage.test.stop().await;
}

/// A template is compiled when it is uploaded, by a process that it may end.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_template_is_refused_when_it_is_uploaded() {
    let stage = Stage::new().await;
    let deep = format!("{{{{ 1{} }}}}", " and 1".repeat(120_000));
    let broken = [
        ("an open tag", template("{% for %}"), "does not compile"),
        ("no template", b"{}".to_vec(), "does not read"),
        ("no text", vec![0xff, 0xfe], "does not read"),
        ("too long", template(&"x".repeat(1 << 20)), "too long"),
        ("too deep", template(&deep), "does not end within its bounds"),
    ];
    let by = Auth::Key(&stage.owner.key);
    for (name, file, words) in broken {
        let model = TestGenerator::new().with_template(name, file.clone());
        stage.client.put_model(by, model.id(), model.manifest.to_bytes()).await.unwrap();
        let refused = stage.client.put_blob(by, file).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::InvalidManifest), "{name}: {refused}");
        assert!(refused.to_string().contains(words), "{name}: {refused}");
    }
    // What it refuses leaves nothing, and the others are not kept waiting.
    let incoming = stage.test.folder().join("blobs/incoming");
    assert_eq!(std::fs::read_dir(incoming).unwrap().count(), 0);
    stage.publish("honest", "{{ messages[0].content }}").await;
    stage.chat("honest").await.refused(400, RENDERED);
    stage.test.stop().await;
}

/// Whoever names another's weights as its template must not keep them from being uploaded.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_something_else_to_others_is_taken_whatever_it_holds() {
    let stage = Stage::new().await;
    let (by, model) = (Auth::Key(&stage.owner.key), TestGenerator::new());
    let weights = model.files()[0].clone();
    let spoiler = TestGenerator::new().with_template("spoiler", weights);
    stage.client.put_model(by, spoiler.id(), spoiler.manifest.to_bytes()).await.unwrap();
    model.publish_as(&stage.client, by).await;
    stage.test.stop().await;
}

/// What a template could read or reach is what its process has: nothing. It ends with its parent.
#[tokio::test]
async fn a_process_that_renders_has_limits_and_nothing_else() {
    let mut child = tokio::process::Command::new(PROGRAM)
        .arg("render-templates")
        .env_clear()
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let task = json!({"file": r#"{"chat_template": "{{ messages[0].content }}"}"#, "now": 0,
        "messages": [{"role": "user", "content": "hi", "name": null}]});
    let task = task.to_string();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&(task.len() as u32).to_le_bytes()).await.unwrap();
    input.write_all(task.as_bytes()).await.unwrap();
    let mut answer = [0; 4 + 11];
    child.stdout.as_mut().unwrap().read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer[4..], br#"{"Ok":"hi"}"#);
    #[cfg(target_os = "linux")]
    {
        let pid = child.id().unwrap();
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let limit = |name: &str| {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..].split_whitespace().next().unwrap().to_owned()
        };
        assert_eq!((limit("Max open files"), limit("Max file size")), ("3".to_owned(), "0".to_owned()));
        assert_ne!(limit("Max address space"), "unlimited");
        assert_ne!(limit("Max cpu time"), "unlimited");
    }
    drop(input);
    let ended = tokio::time::timeout(Duration::from_secs(30), child.wait()).await.expect("it ends").unwrap();
    assert!(ended.success(), "{ended}");
}
