//! Signed requests: how owners, workers and challengers prove who asks.
//!
//! Four headers carry a signature over the coordinator's id, method, path with query, hash of the body, service time
//! and a nonce. Nothing of a request can be changed, sent to another coordinator, or sent again: a server accepts a
//! service time at most [`WINDOW_MS`] away from its own, and remembers nonces for as long.
//!
//! These functions are pure. The server looks up whether the key is registered and whether the nonce is new.

use gainsay_commitment::PartyId;
use gainsay_commitment::encoding::{Canonical, DecodeError, Decoder, Encoder};
use gainsay_commitment::signature::{SecretKey, Signature, Signed};

/// The header that names the signing key, in hex.
pub const PARTY_HEADER: &str = "gainsay-party";
/// The header that holds the service time of signing, in decimal ms.
pub const TIME_HEADER: &str = "gainsay-time";
/// The header that holds the nonce, 16 bytes in hex.
pub const NONCE_HEADER: &str = "gainsay-nonce";
/// The header that holds the signature, in hex.
pub const SIGNATURE_HEADER: &str = "gainsay-signature";
/// How far the signed time may lie from the service's, either way, in ms.
pub const WINDOW_MS: i64 = 60_000;

/// What the signature covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestToSign {
    /// The coordinator that the request is for.
    pub coordinator: PartyId,
    /// Upper case.
    pub method: String,
    /// Path and query, exactly as in the request line.
    pub path: String,
    /// BLAKE3 of the body; of no bytes where there is none.
    pub body: [u8; 32],
    /// Service time of signing, in ms.
    pub time_ms: i64,
    /// Never used before by this key.
    pub nonce: Nonce,
}

impl Canonical for RequestToSign {
    const CONTEXT: &'static str = "gainsay v1 request";

    fn encode_fields(&self, encoder: &mut Encoder) {
        encoder
            .hash(&self.coordinator)
            .str(&self.method)
            .str(&self.path)
            .array(&self.body)
            .i64(self.time_ms)
            .array(&self.nonce.0);
    }

    fn decode_fields(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            coordinator: decoder.hash()?,
            method: decoder.str(16)?,
            path: decoder.str(8 << 10)?,
            body: decoder.array()?,
            time_ms: decoder.i64()?,
            nonce: Nonce(decoder.array()?),
        })
    }
}

/// A number used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nonce(pub [u8; 16]);

/// The four headers of a signed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHeaders {
    /// Who signs.
    pub party: PartyId,
    /// Service time of signing, in ms.
    pub time_ms: i64,
    /// Never used before by this key.
    pub nonce: Nonce,
    /// Over [`RequestToSign`].
    pub signature: Signature,
}

/// Why signed headers are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// None of the headers is there.
    #[error(
        "the request is not signed: it needs the headers {PARTY_HEADER}, {TIME_HEADER}, {NONCE_HEADER} and {SIGNATURE_HEADER}"
    )]
    Missing,
    /// One header is missing or not in its form.
    #[error("the header {header} is missing or is not {expected}")]
    Malformed {
        /// Which.
        header: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// The time is too far off.
    #[error(
        "the request was signed at service time {signed_ms} ms, which is over {WINDOW_MS} ms from now ({now_ms} ms): read the service time from /v1/info"
    )]
    Stale {
        /// What the header says.
        signed_ms: i64,
        /// What the service's clock says.
        now_ms: i64,
    },
    /// The signature is not over this request.
    #[error(
        "the request's signature does not verify: it must cover this coordinator's id, the method, the path with its query, and the body"
    )]
    Signature,
}

impl SignedHeaders {
    /// Signs a request.
    #[must_use]
    pub fn sign(request: RequestToSign, key: &SecretKey) -> Self {
        let (time_ms, nonce) = (request.time_ms, request.nonce);
        let signed = Signed::sign(request, key);
        Self { party: signed.signer, time_ms, nonce, signature: signed.signature }
    }

    /// The headers, as names and values.
    #[must_use]
    pub fn to_pairs(&self) -> [(&'static str, String); 4] {
        [
            (PARTY_HEADER, self.party.to_string()),
            (TIME_HEADER, self.time_ms.to_string()),
            (NONCE_HEADER, hex::encode(self.nonce.0)),
            (SIGNATURE_HEADER, self.signature.to_string()),
        ]
    }

    /// Reads the headers; `get` answers a header's value by its lower-case name.
    ///
    /// # Errors
    /// [`SigningError::Missing`] where there is none of them, [`SigningError::Malformed`] for the first bad one.
    pub fn parse<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Self, SigningError> {
        if [PARTY_HEADER, TIME_HEADER, NONCE_HEADER, SIGNATURE_HEADER].iter().all(|name| get(name).is_none())
        {
            return Err(SigningError::Missing);
        }
        let malformed = |header, expected| SigningError::Malformed { header, expected };
        Ok(Self {
            party: get(PARTY_HEADER)
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| malformed(PARTY_HEADER, "a public key in hex"))?,
            time_ms: get(TIME_HEADER)
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| malformed(TIME_HEADER, "a service time in ms"))?,
            nonce: get(NONCE_HEADER)
                .and_then(unhex)
                .map(Nonce)
                .ok_or_else(|| malformed(NONCE_HEADER, "16 bytes in hex"))?,
            signature: get(SIGNATURE_HEADER)
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| malformed(SIGNATURE_HEADER, "64 bytes in hex"))?,
        })
    }

    /// Checks time and signature of a request with this method, path and query, and body hash.
    ///
    /// # Errors
    /// [`SigningError::Stale`] or [`SigningError::Signature`].
    pub fn verify(
        &self,
        coordinator: PartyId,
        method: &str,
        path: &str,
        body: [u8; 32],
        now_ms: i64,
    ) -> Result<(), SigningError> {
        if self.time_ms.abs_diff(now_ms) > WINDOW_MS.unsigned_abs() {
            return Err(SigningError::Stale { signed_ms: self.time_ms, now_ms });
        }
        let body = RequestToSign {
            coordinator,
            method: method.to_ascii_uppercase(),
            path: path.to_owned(),
            body,
            time_ms: self.time_ms,
            nonce: self.nonce,
        };
        Signed { body, signer: self.party, signature: self.signature }
            .verify()
            .map_err(|_| SigningError::Signature)
    }
}

/// BLAKE3 of a body, as requests sign it.
#[must_use]
pub fn body_hash(body: &[u8]) -> [u8; 32] {
    *gainsay_commitment::tensor::tensor_commitment(body).as_bytes()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}
