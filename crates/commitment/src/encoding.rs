//! The one byte form of every message that is signed, hashed or stored.
//!
//! An encoding is a version byte, then the fields in order: integers little-endian at fixed width, floats as
//! their bits, byte strings and lists behind a `u32` count, enums behind a `u8` tag, `bool` and `Option` as a
//! tag 0 or 1. No padding, nothing after the last field. Two different byte strings never decode to the same
//! value, so equality of digests is equality of messages.
//!
//! [`Decoder`] is total and bounded: it refuses a count that the remaining bytes cannot hold before it
//! allocates for it, and every variable length has a limit that the reading type states.

/// Why bytes are not the canonical encoding of a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ends inside a field.
    #[error("the input ends early: {needed} more bytes expected, {remaining} left")]
    Truncated {
        /// Bytes that the field needs at least.
        needed: u64,
        /// Bytes that were left.
        remaining: u64,
    },
    /// A byte string or list is longer than its type allows.
    #[error("a length of {length} exceeds the limit of {limit}")]
    TooLong {
        /// The length in the input, in bytes or items.
        length: u64,
        /// The limit of the field.
        limit: u64,
    },
    /// A tag has no meaning in its place.
    #[error("{tag} is no {what}")]
    UnknownTag {
        /// What the tag should have selected.
        what: &'static str,
        /// The tag in the input.
        tag: u8,
    },
    /// The version byte is not the one that this type has.
    #[error("encoding version {found} is not {expected}")]
    Version {
        /// The version of the type.
        expected: u8,
        /// The version byte in the input.
        found: u8,
    },
    /// Bytes follow the last field.
    #[error("{count} bytes follow the last field")]
    Trailing {
        /// How many.
        count: u64,
    },
    /// A text field is not UTF-8.
    #[error("a text is not UTF-8")]
    NotUtf8,
    /// The value has another encoding than these bytes.
    #[error("the encoding is not canonical")]
    NotCanonical,
    /// A field breaks a rule of its type.
    #[error("invalid field: {0}")]
    Invalid(&'static str),
}

/// Appends fields to an encoding.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// An empty encoding.
    pub fn new() -> Self {
        Self::default()
    }

    /// The encoding so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// One byte; also the tag of an enum.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    /// 0 or 1.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.array(&value.to_le_bytes())
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.array(&value.to_le_bytes())
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.array(&value.to_le_bytes())
    }

    /// Eight bytes, little-endian, two's complement.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.array(&value.to_le_bytes())
    }

    /// The bits of a float, as a `u32`: −0.0 and every NaN keep theirs.
    pub fn f32_bits(&mut self, value: f32) -> &mut Self {
        self.u32(value.to_bits())
    }

    /// Bytes of fixed length, without a count.
    pub fn array<const N: usize>(&mut self, value: &[u8; N]) -> &mut Self {
        self.bytes.extend_from_slice(value);
        self
    }

    /// A hash or key of 32 bytes.
    pub fn hash(&mut self, value: &impl AsRef<[u8; 32]>) -> &mut Self {
        self.array(value.as_ref())
    }

    /// A count of bytes, then the bytes.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.count(value.len());
        self.bytes.extend_from_slice(value);
        self
    }

    /// A text as its UTF-8 bytes.
    pub fn str(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// A count of items, then the items. Each item must encode to at least one byte.
    pub fn list<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.count(items.len());
        for value in items {
            item(self, value);
        }
        self
    }

    /// 0, or 1 and the value.
    pub fn option<T>(&mut self, value: Option<&T>, some: impl FnOnce(&mut Self, &T)) -> &mut Self {
        self.bool(value.is_some());
        if let Some(value) = value {
            some(self, value);
        }
        self
    }

    fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("a field of a message has fewer than 2^32 bytes or items"));
    }
}

/// Reads fields from an encoding, in order.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes have not been read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Checks that every byte was read.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(DecodeError::Trailing { count: count as u64 }),
        }
    }

    /// One byte; also the tag of an enum.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    /// 0 or 1; nothing else.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(DecodeError::UnknownTag { what: "truth value", tag }),
        }
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Eight bytes, little-endian, two's complement.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_le_bytes)
    }

    /// A float from its bits.
    pub fn f32_bits(&mut self) -> Result<f32, DecodeError> {
        self.u32().map(f32::from_bits)
    }

    /// Bytes of fixed length.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((value, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.truncated(N));
        };
        self.rest = rest;
        Ok(*value)
    }

    /// A hash or key of 32 bytes.
    pub fn hash<T: From<[u8; 32]>>(&mut self) -> Result<T, DecodeError> {
        self.array().map(T::from)
    }

    /// A byte string of at most `limit` bytes, borrowed from the input.
    pub fn bytes_ref(&mut self, limit: usize) -> Result<&'a [u8], DecodeError> {
        let count = self.count(limit)?;
        let (value, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(value)
    }

    /// A byte string of at most `limit` bytes.
    pub fn bytes(&mut self, limit: usize) -> Result<Vec<u8>, DecodeError> {
        self.bytes_ref(limit).map(<[u8]>::to_vec)
    }

    /// A text of at most `limit` bytes.
    pub fn str(&mut self, limit: usize) -> Result<String, DecodeError> {
        let bytes = self.bytes_ref(limit)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| DecodeError::NotUtf8)
    }

    /// A list of at most `limit` items.
    pub fn list<T>(
        &mut self,
        limit: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        /// A count is a claim, not a fact: memory for more items than this follows their decoding.
        const TRUSTED_CAPACITY: usize = 256;

        let count = self.count(limit)?;
        let mut items = Vec::with_capacity(count.min(TRUSTED_CAPACITY));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// An optional value.
    pub fn option<T>(
        &mut self,
        some: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.bool()? { some(self).map(Some) } else { Ok(None) }
    }

    /// A count of bytes or of items of at least one byte each, within both the limit and the input.
    fn count(&mut self, limit: usize) -> Result<usize, DecodeError> {
        let length = u64::from(self.u32()?);
        if length > limit as u64 {
            return Err(DecodeError::TooLong { length, limit: limit as u64 });
        }
        if length > self.rest.len() as u64 {
            return Err(DecodeError::Truncated { needed: length, remaining: self.rest.len() as u64 });
        }
        Ok(length as usize)
    }

    fn truncated(&self, needed: usize) -> DecodeError {
        DecodeError::Truncated { needed: needed as u64, remaining: self.rest.len() as u64 }
    }
}

/// A message with one byte form, and a digest that belongs to its type alone.
pub trait Canonical: Sized {
    /// BLAKE3 key-derivation context: unique per type and version, such as `gainsay v1 claim`.
    const CONTEXT: &'static str;
    /// First byte of the encoding.
    const VERSION: u8 = 1;

    /// Appends every field, in the order that the format fixes.
    fn encode_fields(&self, encoder: &mut Encoder);

    /// Reads what [`encode_fields`](Self::encode_fields) wrote and refuses what it would not write.
    fn decode_fields(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError>;

    /// The canonical encoding: version byte and fields.
    fn to_bytes(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.u8(Self::VERSION);
        self.encode_fields(&mut encoder);
        encoder.into_bytes()
    }

    /// Decodes a whole message.
    ///
    /// # Errors
    /// Refuses another version, a broken field, bytes after the last field, and, whatever
    /// [`decode_fields`](Self::decode_fields) tolerated, every input that is not the value's own encoding.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let found = decoder.u8()?;
        if found != Self::VERSION {
            return Err(DecodeError::Version { expected: Self::VERSION, found });
        }
        let value = Self::decode_fields(&mut decoder)?;
        decoder.finish()?;
        if value.to_bytes() != bytes {
            return Err(DecodeError::NotCanonical);
        }
        Ok(value)
    }

    /// BLAKE3 of the encoding under the type's [context](Self::CONTEXT): the id of the message, and what its
    /// author signs.
    fn digest(&self) -> [u8; 32] {
        blake3::derive_key(Self::CONTEXT, &self.to_bytes())
    }
}
