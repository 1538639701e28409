//! One type for every kind of hash and key, so that none can be passed where another is meant.
//!
//! All of them print, parse and serialize as lower-case hex of full length; a precision shortens the printed
//! form (`{:.8}` shows the first eight digits). Parsing refuses upper case, prefixes and blanks: a value has
//! one written form.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

/// A text is not the lower-case hex of a value of this type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected_digits} lower-case hex digits")]
pub struct ParseHexError {
    /// How many digits the type has.
    pub expected_digits: usize,
}

/// Reads exactly `2 * N` lower-case hex digits.
pub(crate) fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseHexError> {
    let refused = ParseHexError { expected_digits: 2 * N };
    if text.bytes().any(|digit| digit.is_ascii_uppercase()) {
        return Err(refused);
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| refused)?;
    Ok(bytes)
}

/// Defines a newtype over `$length` bytes with hex text forms.
macro_rules! bytes_newtype {
    ($(#[$doc:meta])* $name:ident, $length:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $length]);

        impl $name {
            /// Wraps the bytes; every value is allowed.
            pub const fn from_bytes(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }

            /// The bytes, copied out.
            pub const fn to_bytes(self) -> [u8; $length] {
                self.0
            }
        }

        impl From<[u8; $length]> for $name {
            fn from(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }
        }

        impl AsRef<[u8; $length]> for $name {
            fn as_ref(&self) -> &[u8; $length] {
                &self.0
            }
        }

        /// Fails unless the slice has exactly the type's length.
        impl TryFrom<&[u8]> for $name {
            type Error = std::array::TryFromSliceError;

            fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
                Ok(Self(bytes.try_into()?))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), hex::encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = ParseHexError;

            fn from_str(text: &str) -> Result<Self, ParseHexError> {
                parse_hex(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&hex::encode(self.0))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}
pub(crate) use bytes_newtype;

bytes_newtype!(
    /// BLAKE3 hash of a tensor's row-major little-endian bytes: the root of its [tree](crate::tensor).
    TensorCommitment,
    32
);
bytes_newtype!(
    /// Merkle root over the layer commitments of one job, see [`trace`](crate::trace).
    TraceRoot,
    32
);
bytes_newtype!(
    /// An inner node of a [trace tree](crate::trace), as it stands in a proof.
    TraceNode,
    32
);
bytes_newtype!(
    /// Digest of a model's manifest.
    ModelId,
    32
);
bytes_newtype!(
    /// Digest of a canonical job: everything that the answer may depend on besides the model.
    InputCommitment,
    32
);
bytes_newtype!(
    /// Digest of an unsigned claim.
    ClaimId,
    32
);
bytes_newtype!(
    /// Digest of the unsigned move that opened the dispute.
    DisputeId,
    32
);
bytes_newtype!(
    /// Digest of an unsigned move; each move of a dispute names its predecessor's.
    MoveHash,
    32
);
bytes_newtype!(
    /// An Ed25519 public key: the name of a worker, a challenger, an owner or a coordinator.
    ///
    /// Any 32 bytes make a `PartyId`; [`PartyId::validate`] says whether a key stands behind them.
    PartyId,
    32
);
bytes_newtype!(
    /// A BLAKE3 node below the root: the chaining value of a chunk or of a subtree. Never equal in meaning to a
    /// [`TensorCommitment`], because the root is hashed with a flag of its own.
    ChainingValue,
    32
);

/// A coordinator is named by its key, as every party is.
pub type CoordinatorId = PartyId;
