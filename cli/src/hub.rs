//! Models from a hub that speaks as the Hugging Face hub does: the files that a model is made of, by HTTPS, each
//! continued where it stopped.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::StreamExt as _;
use indicatif::{MultiProgress, ProgressBar};
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use crate::hub_hash::{Expected, Lfs};
use crate::{pull, terminal};

/// The hub, where no other is named.
const ENDPOINT: &str = "https://huggingface.co";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Tries in a row that may bring nothing.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of a hub's answer about a model.
const MAX_LISTING: usize = 16 << 20;
/// Bytes of one file.
const MAX_FILE: u64 = 256 << 30;
/// Files of one model.
const MAX_FILES: usize = 1_024;

/// The files besides weights that lowering reads, where a model has them.
const FILES: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "modules.json",
    "1_Pooling/config.json",
];
const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A model of a hub: `OWNER/NAME`, or `OWNER/NAME@REVISION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubId {
    pub(crate) owner: String,
    pub(crate) name: String,
    revision: String,
}

impl FromStr for HubId {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (model, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (owner, name) = model.split_once('/').unwrap_or_default();
        if ![owner, name, revision].into_iter().all(is_plain) {
            bail!(
                "{text:?} is neither a folder nor a model of a hub: expected OWNER/NAME or OWNER/NAME@REVISION"
            );
        }
        Ok(Self { owner: owner.to_owned(), name: name.to_owned(), revision: revision.to_owned() })
    }
}

/// Whether a text can stand in a path and in an address as it is.
fn is_plain(part: &str) -> bool {
    let plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
    !part.is_empty() && part.len() <= 128 && !part.starts_with('.') && part.chars().all(plain)
}

/// A hub.
pub(crate) struct Hub {
    http: reqwest::Client,
    endpoint: String,
    token: Option<String>,
    cache: PathBuf,
}

/// What a hub says of a model.
#[derive(Deserialize)]
struct Listing {
    /// The revision by its hash, under which nothing changes.
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

/// Where a model's weights are, tensor by tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::BTreeMap<String, String>,
}

impl Hub {
    /// The hub that `HF_ENDPOINT` names, asked with the token in `HF_TOKEN`; models go to this program's cache.
    pub(crate) fn from_env() -> Result<Self> {
        let from_env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = from_env("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        Self::new(&endpoint, from_env("HF_TOKEN"), pull::cache_dir().join("hub"))
    }

    fn new(endpoint: &str, token: Option<String>, cache: PathBuf) -> Result<Self> {
        gainsay_api::client::install_crypto_provider();
        let http = reqwest::Client::builder()
            .user_agent(concat!("gainsay/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT);
        let url = Url::parse(endpoint).with_context(|| format!("HF_ENDPOINT is no address: {endpoint:?}"))?;
        let is_local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if token.is_some() && url.scheme() != "https" && !is_local {
            bail!("HF_TOKEN would travel in the clear to {endpoint}: use an https address, or unset it");
        }
        let http = if is_local { http.no_proxy() } else { http };
        Ok(Self {
            http: http.build().context("cannot set up an HTTP client")?,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            cache,
        })
    }

    /// The folder of a model's files, fetched where they are not there yet.
    pub(crate) async fn pull(&self, id: &HubId) -> Result<PathBuf> {
        let listing = self.listing(id).await?;
        if !is_plain(&listing.sha) {
            bail!("the hub names the revision {:?}", listing.sha);
        }
        let dir = self.cache.join(format!("{}--{}", id.owner, id.name)).join(&listing.sha);
        let _alone = alone_in(&dir).await?;
        let bars = MultiProgress::new();
        let mut files: Vec<&Sibling> =
            listing.siblings.iter().filter(|file| FILES.contains(&file.rfilename.as_str())).collect();
        let find = |name: &str| listing.siblings.iter().find(|file| file.rfilename == name);
        if let Some(index) = find(INDEX) {
            self.fetch(id, &listing.sha, index, &dir, &bars).await?;
            let shards = shards(&dir.join(INDEX))?;
            for shard in shards {
                files.push(
                    find(&shard).with_context(|| format!("{INDEX} names {shard}, which is not there"))?,
                );
            }
        } else {
            let missing = || anyhow!("{}/{} has no {WHOLE}: other formats are not read", id.owner, id.name);
            files.push(find(WHOLE).ok_or_else(missing)?);
        }
        for file in files {
            self.fetch(id, &listing.sha, file, &dir, &bars).await?;
        }
        Ok(dir)
    }

    async fn listing(&self, id: &HubId) -> Result<Listing> {
        let HubId { owner, name, revision } = id;
        let url = format!("{}/api/models/{owner}/{name}/revision/{revision}?blobs=true", self.endpoint);
        let response = self.get(&url, 0).await?;
        let mut body = Vec::new();
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            body.extend_from_slice(&piece.context("the hub broke off")?);
            if body.len() > MAX_LISTING {
                bail!("what the hub says of {owner}/{name} is longer than {MAX_LISTING} bytes");
            }
        }
        serde_json::from_slice(&body).with_context(|| format!("{url} does not answer as a hub does"))
    }

    /// Asks for a file from this byte on.
    async fn get(&self, url: &str, from: u64) -> Result<Response> {
        let mut request = self.http.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let response = request.send().await.with_context(|| format!("{} does not answer", self.endpoint))?;
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                bail!("{url} is not for everyone: set HF_TOKEN to a token that may read it")
            }
            StatusCode::NOT_FOUND => bail!("{url} is not there"),
            _ => Ok(response.error_for_status()?),
        }
    }

    async fn fetch(
        &self,
        id: &HubId,
        sha: &str,
        file: &Sibling,
        dir: &Path,
        bars: &MultiProgress,
    ) -> Result<()> {
        let name = &file.rfilename;
        let target = dir.join(name);
        if target.exists() {
            return Ok(());
        }
        let parent = target.parent().context("a file of a model lies in its folder")?;
        tokio::fs::create_dir_all(parent)
            .await
            .with_context(|| format!("cannot write to {}", dir.display()))?;
        let url = format!("{}/{}/{}/resolve/{sha}/{name}", self.endpoint, id.owner, id.name);
        let bar = bars.add(terminal::byte_bar("fetching", file.size.unwrap_or(0)));
        bar.set_message(format!("fetching {name}"));
        let part = PathBuf::from(format!("{}.part", target.display()));
        let mut failures = 0;
        loop {
            let before = length(&part).await;
            let error = match self.go_on(&url, &part, before, &bar).await {
                Ok(()) => break,
                Err(error) => error,
            };
            failures = if length(&part).await > before { 1 } else { failures + 1 };
            if failures >= TRIES {
                return Err(
                    error.context(format!("{name} could not be fetched; what came is kept for the next try"))
                );
            }
            tokio::time::sleep(PAUSE * failures).await;
        }
        let (found, expected) = (length(&part).await, file.size);
        if expected.is_some_and(|expected| expected != found) {
            // Not worth going on from.
            let _ = tokio::fs::remove_file(&part).await;
            bail!("{name} has {found} bytes, and should have {}", expected.unwrap_or_default());
        }
        if let Err(error) = check_hash(file, &part).await {
            // Going on from it would bring the same.
            let _ = tokio::fs::remove_file(&part).await;
            return Err(error.context(format!("{name} is not the file that the hub lists")));
        }
        tokio::fs::rename(&part, &target)
            .await
            .with_context(|| format!("cannot write {}", target.display()))?;
        bar.finish_and_clear();
        Ok(())
    }

    /// Fetches what follows the first `have` bytes.
    async fn go_on(&self, url: &str, part: &Path, have: u64, bar: &ProgressBar) -> Result<()> {
        let response = match self.get(url, have).await {
            Err(error) if have > 0 && is_unsatisfiable(&error) => return Ok(()),
            response => response?,
        };
        let goes_on = response.status() == StatusCode::PARTIAL_CONTENT && first_byte(&response) == Some(have);
        let mut have = if goes_on { have } else { 0 };
        let mut file =
            tokio::fs::OpenOptions::new().create(true).truncate(false).write(true).open(part).await?;
        file.set_len(have).await?;
        file.seek(SeekFrom::Start(have)).await?;
        bar.set_position(have);
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => {
                    file.sync_all().await?;
                    return Err(error).context("the hub broke off");
                }
            };
            have += piece.len() as u64;
            if have > MAX_FILE {
                bail!("{url} is longer than {MAX_FILE} bytes");
            }
            file.write_all(&piece).await?;
            bar.inc(piece.len() as u64);
        }
        Ok(file.sync_all().await?)
    }
}

/// Holds a fetched file against the hash that the hub lists, if it lists one.
async fn check_hash(file: &Sibling, part: &Path) -> Result<()> {
    let Sibling { lfs, blob_id, .. } = file;
    let (lfs, blob_id, part) = (lfs.clone(), blob_id.clone(), part.to_owned());
    let checking = tokio::task::spawn_blocking(move || {
        Expected::of(lfs.as_ref(), blob_id.as_deref()).map_or(Ok(()), |expected| expected.check(&part))
    });
    checking.await.context("hashing it ended early")?
}

/// Waits until no other program fetches this model, and keeps others waiting until the result is dropped: two that write to
/// one file would spoil it.
async fn alone_in(dir: &Path) -> Result<std::fs::File> {
    let path = dir.join(".lock");
    let lock = tokio::task::spawn_blocking(move || {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        let file = std::fs::File::create(&path)?;
        file.lock()?;
        Ok::<_, std::io::Error>(file)
    });
    let lock = lock.await.context("waiting for other programs ended early")?;
    lock.with_context(|| format!("cannot write to {}", dir.display()))
}

fn is_unsatisfiable(error: &anyhow::Error) -> bool {
    let status = error.downcast_ref::<reqwest::Error>().and_then(reqwest::Error::status);
    status == Some(StatusCode::RANGE_NOT_SATISFIABLE)
}

fn first_byte(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

async fn length(path: &Path) -> u64 {
    tokio::fs::metadata(path).await.map_or(0, |file| file.len())
}

/// The files that an index of weights names.
fn shards(index: &Path) -> Result<Vec<String>> {
    let text = std::fs::read(index).with_context(|| format!("cannot read {}", index.display()))?;
    let index: Index =
        serde_json::from_slice(&text).with_context(|| format!("{INDEX} is no index of weights"))?;
    let mut shards: Vec<String> = index.weight_map.into_values().collect();
    shards.sort();
    shards.dedup();
    if shards.len() > MAX_FILES {
        bail!("{INDEX} names {} files; at most {MAX_FILES} are taken", shards.len());
    }
    match shards.iter().find(|shard| !is_plain(shard) || !shard.ends_with(".safetensors")) {
        Some(shard) => bail!("{INDEX} names {shard:?}, which is no file of weights beside it"),
        None => Ok(shards),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
    use tokio::net::TcpListener;

    /// A hub of one sharded model, which breaks off the first answer about each shard half way.
    async fn hub(log: Arc<Mutex<Vec<String>>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (reader, mut writer) = stream.split();
                let mut lines = BufReader::new(reader).lines();
                let mut head = Vec::new();
                while let Some(line) = lines.next_line().await.unwrap()
                    && !line.is_empty()
                {
                    head.push(line);
                }
                let path = head[0].split(' ').nth(1).unwrap().to_owned();
                let range = head
                    .iter()
                    .find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
                let may_read =
                    head.iter().any(|line| line.eq_ignore_ascii_case("authorization: bearer sesame"));
                log.lock().unwrap().push(format!("{path} {}", range.clone().unwrap_or_default()));
                let body = content(&path).filter(|_| may_read);
                let answer = match (body, range) {
                    (None, _) => {
                        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec()
                    }
                    (Some(body), range) => {
                        let from: usize =
                            range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
                        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
                        let mut answer = format!(
                            "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-range: bytes {from}-{}/{}\r\nconnection: close\r\n\r\n",
                            body.len() - from, body.len() - 1, body.len()
                        ).into_bytes();
                        let end = if from == 0 && path.ends_with(".safetensors") {
                            body.len() / 2
                        } else {
                            body.len()
                        };
                        answer.extend_from_slice(&body[from..end]);
                        answer
                    }
                };
                writer.write_all(&answer).await.unwrap();
                writer.shutdown().await.unwrap();
                // Read on until the other side is gone, so that it sees all of the answer.
                let mut rest = Vec::new();
                let _ = lines.into_inner().read_to_end(&mut rest).await;
            }
        });
        format!("http://{address}")
    }

    fn content(path: &str) -> Option<Vec<u8>> {
        let file = path.strip_prefix("/acme/tiny/resolve/0123abcd/");
        Some(match file {
            None if path == "/api/models/acme/tiny/revision/forged?blobs=true" => {
                let listing = content("/api/models/acme/tiny/revision/main?blobs=true")?;
                String::from_utf8(listing).ok()?.replace("9e26dfee", "00000000").into_bytes()
            }
            None if path == "/api/models/acme/tiny/revision/main?blobs=true" => br#"{"sha": "0123abcd", "siblings": [
                {"rfilename": "config.json", "size": 2}, {"rfilename": "README.md"}, {"rfilename": "pytorch_model.bin"},
                {"rfilename": "model.safetensors.index.json"}, {"rfilename": "model-00001-of-00002.safetensors", "size": 5000},
                {"rfilename": "model-00002-of-00002.safetensors", "size": 5000, "blobId": "of a pointer", "lfs": {"sha256": "45bae0c3cdde94deda61c87bcd7297c1f3cab0c3866478fcce2b05f681874429", "size": 5000, "pointerSize": 135}},
                {"rfilename": "tokenizer.json", "size": 2, "blobId": "9e26dfeeb6e641a33dae4961196235bdb965b21b"}]}"#
                .to_vec(),
            Some("config.json" | "tokenizer.json") => b"{}".to_vec(),
            Some("model.safetensors.index.json") => br#"{"weight_map": {"a": "model-00001-of-00002.safetensors",
                "b": "model-00002-of-00002.safetensors", "c": "model-00001-of-00002.safetensors"}}"#.to_vec(),
            Some("model-00001-of-00002.safetensors") => vec![1; 5000],
            Some("model-00002-of-00002.safetensors") => vec![2; 5000],
            _ => return None,
        })
    }

    #[tokio::test]
    async fn a_sharded_model_comes_whole_however_often_the_hub_breaks_off() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let endpoint = hub(log.clone()).await;
        let cache = std::env::temp_dir().join(format!("gainsay-hub-{}", std::process::id()));
        let id: HubId = "acme/tiny".parse().unwrap();
        let stranger = Hub::new(&endpoint, None, cache.clone()).unwrap();
        assert!(stranger.pull(&id).await.is_err());
        let hub = Hub::new(&endpoint, Some("sesame".to_owned()), cache.clone()).unwrap();
        let dir = hub.pull(&id).await.unwrap();
        assert_eq!(std::fs::read(dir.join("model-00001-of-00002.safetensors")).unwrap(), vec![1; 5000]);
        assert_eq!(std::fs::read(dir.join("model-00002-of-00002.safetensors")).unwrap(), vec![2; 5000]);
        assert!(
            dir.join("config.json").exists()
                && !dir.join("README.md").exists()
                && !dir.join("pytorch_model.bin").exists()
        );
        let asked = log.lock().unwrap().clone();
        assert!(
            asked.iter().any(|line| line.ends_with("model-00001-of-00002.safetensors 2500-")),
            "{asked:?}"
        );
        assert_eq!(hub.pull(&id).await.unwrap(), dir);
        assert_eq!(
            log.lock().unwrap().len(),
            asked.len() + 1,
            "the second time only the listing is asked for"
        );
        std::fs::remove_dir_all(&cache).unwrap();
    }

    /// A hub, or whoever sits in between, that serves another file than it lists.
    #[tokio::test]
    async fn a_file_that_hashes_to_something_else_is_not_kept() {
        let endpoint = hub(Arc::default()).await;
        let cache = std::env::temp_dir().join(format!("gainsay-hub-hash-{}", std::process::id()));
        let hub = Hub::new(&endpoint, Some("sesame".to_owned()), cache.clone()).unwrap();
        let error = hub.pull(&"acme/tiny@forged".parse().unwrap()).await.unwrap_err();
        assert!(
            format!("{error:#}").contains("tokenizer.json is not the file that the hub lists"),
            "{error:#}"
        );
        let dir = cache.join("acme--tiny").join("0123abcd");
        assert!(!dir.join("tokenizer.json").exists() && !dir.join("tokenizer.json.part").exists());
        // Two at once, one of which waits for the other.
        let id: HubId = "acme/tiny".parse().unwrap();
        let (one, other) = tokio::join!(hub.pull(&id), hub.pull(&id));
        assert_eq!(one.unwrap(), other.unwrap());
        assert_eq!(std::fs::read(dir.join("model-00001-of-00002.safetensors")).unwrap(), vec![1; 5000]);
        std::fs::remove_dir_all(&cache).unwrap();
    }

    #[test]
    fn a_token_does_not_travel_in_the_clear() {
        let hub = |endpoint: &str| Hub::new(endpoint, Some("sesame".to_owned()), PathBuf::new()).map(drop);
        for endpoint in
            ["http://hub.example.org", "http://127.0.0.1.example.org", "http://localhost.example.org", "hub"]
        {
            assert!(hub(endpoint).is_err(), "{endpoint}");
        }
        for endpoint in
            ["https://hub.example.org", "http://localhost:1", "http://127.0.0.1:2/x", "http://[::1]:3"]
        {
            hub(endpoint).unwrap();
        }
        assert!(Hub::new("http://hub.example.org", None, PathBuf::new()).is_ok());
    }

    #[test]
    fn what_is_no_model_of_a_hub_is_refused() {
        assert!("meta-llama/Llama-3.2-1B@main".parse::<HubId>().is_ok());
        for text in ["", "name", "a/b/c", "../b", "a/..", "a/b@../x", "a b/c", "/a/b", "a/b?x=1"] {
            assert!(text.parse::<HubId>().unwrap_err().to_string().contains("OWNER/NAME"), "{text}");
        }
    }
}
