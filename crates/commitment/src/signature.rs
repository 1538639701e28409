//! Ed25519 keys and signatures over the digests of canonical messages.
//!
//! The signed bytes are the 32 of [`Canonical::digest`]. The digest's context names type and version, so a
//! signature under one kind of message is worth nothing under another. Verification is strict: it refuses
//! keys and nonces of small order and non-canonical scalars, so that every verifier agrees.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use crate::encoding::{Canonical, DecodeError};
use crate::hash::{ParseHexError, PartyId, bytes_newtype, parse_hex};

bytes_newtype!(
    /// An Ed25519 signature: the nonce point, then the scalar.
    Signature,
    64
);

/// Why a signature proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The bytes are no public key that the protocol accepts.
    #[error("{0} is not an acceptable Ed25519 public key")]
    Key(PartyId),
    /// The key did not sign these bytes.
    #[error("the signature is not by {0}")]
    Mismatch(PartyId),
}

impl PartyId {
    /// Checks that a key stands behind the bytes: a point on the curve, in canonical form, not of small order.
    ///
    /// # Errors
    /// [`SignatureError::Key`] otherwise. Such an id can sign nothing.
    pub fn validate(&self) -> Result<(), SignatureError> {
        self.key().map(|_| ())
    }

    fn key(&self) -> Result<VerifyingKey, SignatureError> {
        let refused = SignatureError::Key(*self);
        let key = VerifyingKey::from_bytes(self.as_bytes()).map_err(|_| refused)?;
        let canonical = key.to_edwards().compress().to_bytes() == *self.as_bytes();
        if canonical && !key.is_weak() { Ok(key) } else { Err(refused) }
    }
}

impl Signature {
    /// Checks that `signer` signed `digest`.
    ///
    /// # Errors
    /// An unacceptable key, or a signature that is not its own over these bytes.
    pub fn verify(&self, signer: &PartyId, digest: &[u8; 32]) -> Result<(), SignatureError> {
        let signature = ed25519_dalek::Signature::from_bytes(self.as_bytes());
        signer.key()?.verify_strict(digest, &signature).map_err(|_| SignatureError::Mismatch(*signer))
    }
}

/// An Ed25519 secret key. Its memory is wiped when it is dropped, and it does not print.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A new key from the operating system's random source.
    ///
    /// # Panics
    /// Where the operating system has no random source: no key can be made there.
    pub fn generate() -> Self {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).expect("the operating system provides random bytes");
        Self::from_bytes(&seed)
    }

    /// The key with this RFC 8032 seed.
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed, for writing it to a key file. Whoever sees it can sign.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The public key.
    pub fn id(&self) -> PartyId {
        PartyId::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// Signs a digest that is already bound to a purpose; prefer [`Signed::sign`].
    pub fn sign_digest(&self, digest: &[u8; 32]) -> Signature {
        Signature::from_bytes(self.0.sign(digest).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.id())
    }
}

/// Reads the seed from 64 lower-case hex digits.
impl FromStr for SecretKey {
    type Err = ParseHexError;

    fn from_str(text: &str) -> Result<Self, ParseHexError> {
        parse_hex(text).map(|seed| Self::from_bytes(&seed))
    }
}

/// A message with its author and the author's signature.
///
/// Having one proves nothing: [`verify`](Self::verify) does, and says nothing about whether that author may
/// send that message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Signed<T> {
    /// The message.
    pub body: T,
    /// Who is said to have signed it.
    pub signer: PartyId,
    /// The signature over the body's digest.
    pub signature: Signature,
}

impl<T: Canonical> Signed<T> {
    /// Bytes that follow the body in the encoding: the signer and the signature.
    const TAIL_BYTES: usize = 32 + 64;

    /// Signs a message.
    pub fn sign(body: T, key: &SecretKey) -> Self {
        let signature = key.sign_digest(&body.digest());
        Self { body, signer: key.id(), signature }
    }

    /// Checks that `signer` signed `body`.
    ///
    /// # Errors
    /// An unacceptable key, or a signature that is not its own over this message.
    pub fn verify(&self) -> Result<(), SignatureError> {
        self.signature.verify(&self.signer, &self.body.digest())
    }

    /// The body's encoding, the signer, the signature.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.body.to_bytes();
        bytes.extend_from_slice(self.signer.as_bytes());
        bytes.extend_from_slice(self.signature.as_bytes());
        bytes
    }

    /// Decodes what [`to_bytes`](Self::to_bytes) wrote. Does not verify.
    ///
    /// # Errors
    /// Whatever is no canonical body followed by exactly a signer and a signature.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let too_short =
            || DecodeError::Truncated { needed: Self::TAIL_BYTES as u64, remaining: bytes.len() as u64 };
        let (rest, signature) = bytes.split_last_chunk::<64>().ok_or_else(too_short)?;
        let (body, signer) = rest.split_last_chunk::<32>().ok_or_else(too_short)?;
        Ok(Self {
            body: T::from_bytes(body)?,
            signer: PartyId::from_bytes(*signer),
            signature: Signature::from_bytes(*signature),
        })
    }
}
