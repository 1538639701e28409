//! One delivery: to where the address leads, if it may be called, and nowhere else.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gainsay_api::webhooks::{COORDINATOR_HEADER, SIGNATURE_HEADER, TIME_HEADER};
use gainsay_commitment::CoordinatorId;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::CONTENT_TYPE;

use super::DELIVERY_TIME;
use super::addresses::is_public;
use super::busy::{Busy, Place};
use crate::app::Outgoing;

/// Why a delivery did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeliveryError {
    #[error("the address does not read")]
    Address,
    #[error("the name does not resolve")]
    Resolve(#[source] std::io::Error),
    #[error("{0} is no public address")]
    Private(IpAddr),
    #[error("the receiver cannot be reached")]
    Send(#[from] reqwest::Error),
    #[error("the receiver answered {0}")]
    Answer(u16),
    #[error("the receiver took too long")]
    Time,
    /// Too much is under way to the same address; it was not tried.
    #[error("other notices are on their way to {0}")]
    Busy(IpAddr),
}

/// Posts a notice. `private`: also into private networks.
pub(super) async fn deliver(
    notice: &Outgoing,
    sender: CoordinatorId,
    busy: &Arc<Busy>,
    private: bool,
) -> Result<(), DeliveryError> {
    let url = Url::parse(&notice.url).map_err(|_| DeliveryError::Address)?;
    let host = url.host_str().ok_or(DeliveryError::Address)?.to_owned();
    if !url.username().is_empty() || url.password().is_some() {
        return Err(DeliveryError::Address);
    }
    let addresses = addresses(&url, &host, private).await?;
    let mut turns = Vec::with_capacity(addresses.len());
    for address in addresses.iter().map(SocketAddr::ip) {
        turns.push(busy.begin(Place::Address(address)).ok_or(DeliveryError::Busy(address))?);
    }
    let answer = client(&url, addresses)?
        .post(url)
        .header(CONTENT_TYPE, "application/json")
        .header(COORDINATOR_HEADER, sender.to_string())
        .header(TIME_HEADER, notice.time_ms.to_string())
        .header(SIGNATURE_HEADER, notice.signature.to_string())
        .body(notice.body.clone())
        .send()
        .await?;
    // What the receiver says besides is not read.
    if answer.status().is_success() { Ok(()) } else { Err(DeliveryError::Answer(answer.status().as_u16())) }
}

/// Where the name leads; all of it must be public, unless private networks are allowed.
async fn addresses(url: &Url, host: &str, private: bool) -> Result<Vec<SocketAddr>, DeliveryError> {
    let port = url.port_or_known_default().ok_or(DeliveryError::Address)?;
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let found = tokio::net::lookup_host((name, port)).await.map_err(DeliveryError::Resolve)?;
    let mut addresses: Vec<SocketAddr> = found.collect();
    addresses.dedup();
    match addresses.iter().find(|address| !private && !is_public(address.ip())) {
        Some(address) => Err(DeliveryError::Private(address.ip())),
        None if addresses.is_empty() => Err(DeliveryError::Address),
        None => Ok(addresses),
    }
}

/// A client that connects to these addresses, whatever the name leads to by now.
fn client(url: &Url, addresses: Vec<SocketAddr>) -> Result<reqwest::Client, DeliveryError> {
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .dns_resolver(Arc::new(Pinned(addresses)))
        .timeout(DELIVERY_TIME)
        .user_agent(concat!("gainsay/", env!("CARGO_PKG_VERSION")));
    let provider = rustls::crypto::ring::default_provider();
    if url.scheme() == "https" {
        // An error says that one is installed: as good.
        let _ = provider.install_default();
    } else {
        // Without TLS the machine's certificates are not even read, so that none need be installed.
        let tls = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .expect("the ring provider supports the default versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder = builder.tls_backend_preconfigured(tls);
    }
    Ok(builder.build()?)
}

/// Gives the addresses that were looked at for every name.
struct Pinned(Vec<SocketAddr>);

impl Resolve for Pinned {
    fn resolve(&self, _: Name) -> Resolving {
        let addresses: Addrs = Box::new(self.0.clone().into_iter());
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A name that leads elsewhere the second time must not be asked a second time.
    #[tokio::test]
    async fn the_connection_goes_to_the_addresses_that_were_looked_at() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = Url::parse(&format!("http://nobody.invalid:{}/", address.port())).unwrap();
        let client = client(&url, vec![address]).unwrap();
        let posted = tokio::spawn(client.post(url).send());
        let accepted = tokio::time::timeout(DELIVERY_TIME, listener.accept()).await;
        assert!(accepted.is_ok_and(|accepted| accepted.is_ok()));
        posted.abort();
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_refused() {
        for url in [
            "http://localhost:1/",
            "http://127.0.0.1/",
            "http://[::1]:8080/x",
            "http://2130706433/",
            "http://0x7f.1/",
        ] {
            let url = Url::parse(url).unwrap();
            let host = url.host_str().unwrap().to_owned();
            let found = addresses(&url, &host, false).await;
            assert!(matches!(found, Err(DeliveryError::Private(_))), "{url}: {found:?}");
        }
        let url = Url::parse("http://127.0.0.1:9/").unwrap();
        assert_eq!(addresses(&url, "127.0.0.1", true).await.unwrap(), ["127.0.0.1:9".parse().unwrap()]);
    }
}
