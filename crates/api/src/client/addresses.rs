//! Where a service is reached: at one address, or at those of several coordinators that share a database.
//!
//! One address is used for everything until it fails; then the next. Which one is in use decides nothing: every
//! coordinator of a service has the same key and the same records.

use super::ClientError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The addresses of one service, at least one.
pub(super) struct Addresses {
    list: Vec<Address>,
    /// Index of the one in use.
    current: AtomicUsize,
    /// Whether the last call ended without an answer from any of them.
    away: AtomicBool,
}

/// One coordinator's address.
pub(super) struct Address {
    /// Without a trailing slash.
    pub(super) base: Arc<str>,
    /// Whether whoever answers there has shown the service's key.
    known: AtomicBool,
}

impl Address {
    pub(super) fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    pub(super) fn set_known(&self) {
        self.known.store(true, Ordering::Relaxed);
    }
}

impl Addresses {
    /// Reads addresses with commas between them.
    ///
    /// # Errors
    /// [`ClientError::Url`] where there is none, or one is no address.
    pub(super) fn parse(text: &str) -> Result<Self, ClientError> {
        let mut list = Vec::new();
        for base in text.split(',') {
            let base = base.trim().trim_end_matches('/');
            let url: reqwest::Url = base.parse().map_err(|_| ClientError::Url(base.to_owned()))?;
            if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
                return Err(ClientError::Url(base.to_owned()));
            }
            list.push(Address { base: base.into(), known: AtomicBool::new(false) });
        }
        Ok(Self { list, current: AtomicUsize::new(0), away: AtomicBool::new(false) })
    }

    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    pub(super) fn bases(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|address| &*address.base)
    }

    /// The one in use.
    pub(super) fn current(&self) -> &Address {
        &self.list[self.current.load(Ordering::Relaxed)]
    }

    /// Turns to the next address where this error says that the one it came from is of no use at present. Of several
    /// calls that fail together one turns: the others would skip the address that it turned to.
    pub(super) fn turn_from(&self, base: &str, error: &ClientError) {
        if !error.blames_the_coordinator() {
            return;
        }
        if let Some(index) = self.list.iter().position(|address| &*address.base == base) {
            let next = (index + 1) % self.list.len();
            // Where another address is in use by now, somebody has turned already.
            let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Says once that nobody answers, however many calls find that out.
    pub(super) fn note_away(&self, error: &ClientError) {
        if !self.away.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "the coordinator is away; calls are made again until it is back");
        }
    }

    /// Says once that somebody answers again.
    pub(super) fn note_answer(&self, base: &str) {
        if self.away.load(Ordering::Relaxed) && self.away.swap(false, Ordering::Relaxed) {
            tracing::info!(base, "the coordinator is back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent(base: &str) -> ClientError {
        ClientError::Silent { base: base.to_owned(), path: "/".to_owned(), waited: Default::default() }
    }

    #[test]
    fn addresses_are_separated_by_commas() {
        let addresses = Addresses::parse("http://a:1/, https://b").unwrap();
        assert_eq!(addresses.bases().collect::<Vec<_>>(), ["http://a:1", "https://b"]);
        for text in ["", ",", "http://a:1,", "a:1", "ftp://a", "http://a:1,b"] {
            assert!(matches!(Addresses::parse(text), Err(ClientError::Url(_))), "{text:?}");
        }
    }

    #[test]
    fn an_address_that_fails_is_left_once_and_taken_up_again_after_the_others() {
        let addresses = Addresses::parse("http://a,http://b,http://c").unwrap();
        let in_use = || addresses.current().base.to_string();
        assert_eq!(in_use(), "http://a");
        addresses.turn_from("http://a", &silent("http://a"));
        addresses.turn_from("http://a", &silent("http://a"));
        assert_eq!(in_use(), "http://b", "two calls failed together");
        for expected in ["http://c", "http://a"] {
            addresses.turn_from(&in_use(), &silent(""));
            assert_eq!(in_use(), expected);
        }
        addresses.turn_from("http://a", &ClientError::TooLarge { path: String::new(), limit: 1 });
        assert_eq!(in_use(), "http://a", "the coordinator is not to blame");
    }
}
