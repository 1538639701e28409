//! Delivers notices to submitters: signed, bounded in time, and never into networks that the service alone can reach.
//!
//! A submitter names the address, so it may name one that only this machine reaches. Names are resolved here, every address
//! is looked at, and the connection goes to the addresses that were looked at; redirects are not followed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use gainsay_api::webhooks::{COORDINATOR_HEADER, SIGNATURE_HEADER, TIME_HEADER};
use gainsay_commitment::CoordinatorId;
use reqwest::Url;
use reqwest::header::CONTENT_TYPE;
use tokio::task::JoinSet;

use crate::app::{App, AppResult, Outgoing};

/// Time for one delivery, with finding the address.
const DELIVERY_TIME: Duration = Duration::from_secs(10);

/// Why a delivery did not succeed.
#[derive(Debug, thiserror::Error)]
enum DeliveryError {
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
}

/// Delivers what is due, all at once, and notes what became of it. How many were due.
///
/// # Errors
/// The database.
pub(crate) async fn deliver_due(app: &App) -> AppResult<usize> {
    let due = app.due_notices().await?;
    let mut deliveries = JoinSet::new();
    let found = due.len();
    for notice in due {
        let (sender, private) = (app.coordinator(), app.config().limits.private_webhooks);
        deliveries.spawn(async move {
            let sent = tokio::time::timeout(DELIVERY_TIME, deliver(&notice, sender, private)).await;
            (notice.job, notice.attempt, sent.unwrap_or(Err(DeliveryError::Time)))
        });
    }
    let mut noted = Ok(());
    while let Some(done) = deliveries.join_next().await {
        // One that panicked is due again after its pause.
        let Ok((job, attempt, sent)) = done else { continue };
        if let Err(error) = &sent {
            tracing::info!(%job, attempt, error = error as &dyn std::error::Error, "a notice was not delivered");
        }
        noted = noted.and(app.notice_ended(job, attempt, sent.is_ok()).await);
    }
    noted.map(|()| found)
}

async fn deliver(notice: &Outgoing, sender: CoordinatorId, private: bool) -> Result<(), DeliveryError> {
    let url = Url::parse(&notice.url).map_err(|_| DeliveryError::Address)?;
    let host = url.host_str().ok_or(DeliveryError::Address)?.to_owned();
    if !url.username().is_empty() || url.password().is_some() {
        return Err(DeliveryError::Address);
    }
    let addresses = addresses(&url, &host, private).await?;
    let answer = client(&url, &host, &addresses)?
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
    let addresses: Vec<SocketAddr> = found.collect();
    match addresses.iter().find(|address| !private && !is_public(address.ip())) {
        Some(address) => Err(DeliveryError::Private(address.ip())),
        None if addresses.is_empty() => Err(DeliveryError::Address),
        None => Ok(addresses),
    }
}

/// A client that knows these addresses of the host alone.
fn client(url: &Url, host: &str, addresses: &[SocketAddr]) -> Result<reqwest::Client, DeliveryError> {
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .resolve_to_addrs(host, addresses)
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

/// Whether an address is one of the whole network, as the registries of special addresses say.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224.., ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Only 2000::/3 is given out; within it, tunnels hold an address of the older kind or lead to one.
    (0x2000..0x4000).contains(&a)
        && a != 0x2002
        && !(a == 0x2001 && (b < 0x200 || b == 0xdb8))
        && !(a == 0x3fff && b < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of these is a machine that only the service can reach.
    #[test]
    fn private_addresses_are_none_of_the_whole_network() {
        let private = [
            "0.0.0.0",
            "10.1.2.3",
            "127.0.0.1",
            "127.255.0.1",
            "100.64.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "2001:db8::1",
        ];
        for address in private {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "192.0.1.1", "2606:4700::1111", "2a00::1"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
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
