//! How values that JSON has no type for are written: integers beyond 2⁵³ as strings, bytes as base64, ids and hashes
//! through their `Display` and `FromStr`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes, written as standard base64 with padding.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Base64(pub Vec<u8>);

impl std::fmt::Debug for Base64 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Base64({} bytes)", self.0.len())
    }
}

impl From<Vec<u8>> for Base64 {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD
            .decode(text.as_bytes())
            .map(Self)
            .map_err(|error| de::Error::custom(format!("not standard base64: {error}")))
    }
}

/// `#[serde(with = "text")]`: a value written as its `Display`, read by its `FromStr`.
pub mod text {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use std::fmt::Display;
    use std::str::FromStr;

    /// Writes the value's `Display`.
    pub fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    /// Reads a string by the value's `FromStr`.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }

    /// The same for a value that may be absent; combine with `#[serde(default)]`.
    pub mod option {
        use super::{Deserialize, Deserializer, Display, FromStr, Serializer, de};

        /// Writes the value's `Display`, or null.
        pub fn serialize<T: Display, S: Serializer>(
            value: &Option<T>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match value {
                Some(value) => serializer.collect_str(value),
                None => serializer.serialize_none(),
            }
        }

        /// Reads a string by the value's `FromStr`, or null.
        pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
        where
            T: FromStr<Err: Display>,
            D: Deserializer<'de>,
        {
            Option::<String>::deserialize(deserializer)?
                .map(|text| text.parse().map_err(de::Error::custom))
                .transpose()
        }
    }

    /// The same for a list.
    pub mod list {
        use super::{Deserialize, Deserializer, Display, FromStr, Serializer, de};

        /// Writes each value's `Display`.
        pub fn serialize<T: Display, S: Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(values.iter().map(ToString::to_string))
        }

        /// Reads each string by the value's `FromStr`.
        pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
        where
            T: FromStr<Err: Display>,
            D: Deserializer<'de>,
        {
            Vec::<String>::deserialize(deserializer)?
                .iter()
                .map(|text| text.parse().map_err(de::Error::custom))
                .collect()
        }
    }
}

/// The greatest magnitude that every JSON reader keeps exactly: 2⁵³.
const EXACT: u64 = 1 << 53;

/// An integer type that [`integer`] can carry.
pub trait WireInteger: Copy + Sized {
    /// The value, widened.
    fn widen(self) -> i128;
    /// The value back, if it fits.
    fn narrow(wide: i128) -> Option<Self>;
}

impl WireInteger for u64 {
    fn widen(self) -> i128 {
        self.into()
    }

    fn narrow(wide: i128) -> Option<Self> {
        wide.try_into().ok()
    }
}

impl WireInteger for i64 {
    fn widen(self) -> i128 {
        self.into()
    }

    fn narrow(wide: i128) -> Option<Self> {
        wide.try_into().ok()
    }
}

/// `#[serde(with = "integer")]`: a 64-bit integer, a JSON number up to 2⁵³ in magnitude and a decimal string beyond.
/// Reading accepts either form for any value.
pub mod integer {
    use super::{EXACT, WireInteger};
    use serde::{Deserializer, Serializer, de};
    use std::marker::PhantomData;

    /// Writes a number, or a string where a number could lose digits.
    pub fn serialize<T: WireInteger, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        let wide = value.widen();
        match i64::try_from(wide) {
            Ok(exact) if exact.unsigned_abs() <= EXACT => serializer.serialize_i64(exact),
            _ => serializer.collect_str(&wide),
        }
    }

    /// Reads a number or a decimal string.
    pub fn deserialize<'de, T: WireInteger, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(Visitor(PhantomData))
    }

    pub(super) struct Visitor<T>(pub(super) PhantomData<T>);

    impl<T: WireInteger> de::Visitor<'_> for Visitor<T> {
        type Value = T;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an integer of 64 bits, as a number or as a decimal string")
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
            T::narrow(value.into()).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(value), &self))
        }

        fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
            T::narrow(value.into()).ok_or_else(|| E::invalid_value(de::Unexpected::Signed(value), &self))
        }

        fn visit_str<E: de::Error>(self, value: &str) -> Result<T, E> {
            value
                .parse()
                .ok()
                .and_then(T::narrow)
                .ok_or_else(|| E::invalid_value(de::Unexpected::Str(value), &self))
        }
    }

    /// The same for an integer that may be absent; combine with `#[serde(default)]`.
    pub mod option {
        use super::{Visitor, WireInteger};
        use serde::{Deserializer, Serializer, de};
        use std::marker::PhantomData;

        /// Writes the integer, or null.
        pub fn serialize<T: WireInteger, S: Serializer>(
            value: &Option<T>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match value {
                Some(value) => super::serialize(value, serializer),
                None => serializer.serialize_none(),
            }
        }

        /// Reads the integer, or null.
        pub fn deserialize<'de, T: WireInteger, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<T>, D::Error> {
            struct Optional<T>(PhantomData<T>);
            impl<'de, T: WireInteger> de::Visitor<'de> for Optional<T> {
                type Value = Option<T>;

                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an integer of 64 bits, as a number or as a decimal string, or null")
                }

                fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
                    Ok(None)
                }

                fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                    Ok(None)
                }

                fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
                    deserializer.deserialize_any(Visitor(PhantomData)).map(Some)
                }
            }
            deserializer.deserialize_option(Optional(PhantomData))
        }
    }
}
