//! What the bytes of a weight must look like before anyone computes with them.

use gainsay_arithmetic as arithmetic;
use gainsay_commitment::{TensorCommitment, tensor::tensor_commitment};

use crate::{Dtype, TensorSpec};

/// Why bytes are not the weight that a manifest lists.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WeightError {
    /// Too few or too many bytes.
    #[error("tensor {name} has {found} bytes instead of {expected}")]
    Length {
        /// Name of the tensor.
        name: String,
        /// Bytes given.
        found: u64,
        /// Bytes that the shape asks for.
        expected: u64,
    },
    /// Other bytes than those that the manifest commits to.
    #[error("tensor {name} hashes to {found} instead of {expected}")]
    Commitment {
        /// Name of the tensor.
        name: String,
        /// Hash of the bytes given.
        found: TensorCommitment,
        /// Hash in the manifest.
        expected: TensorCommitment,
    },
    /// A value that storing would change, or a quantized −128.
    #[error("element {index} of tensor {name} is not a value that a weight may hold")]
    Value {
        /// Name of the tensor.
        name: String,
        /// Row-major index of the first such element.
        index: u64,
    },
}

/// Checks length, hash and values of a weight, in this order. A model is served only where all of its weights pass.
///
/// Floats must obey the storing rule, so that no executor meets a subnormal or a NaN payload; int8 weights lie in
/// ±127, as quantization makes them.
pub fn check(spec: &TensorSpec, bytes: &[u8]) -> Result<(), WeightError> {
    let name = || spec.name.clone();
    let (found, expected) = (bytes.len() as u64, spec.shape().bytes());
    if found != expected {
        return Err(WeightError::Length { name: name(), found, expected });
    }
    let found = tensor_commitment(bytes);
    if found != spec.commitment {
        return Err(WeightError::Commitment { name: name(), found, expected: spec.commitment });
    }
    match first_refused(spec.dtype, bytes) {
        None => Ok(()),
        Some(index) => Err(WeightError::Value { name: name(), index: index as u64 }),
    }
}

/// As which types bytes may be a weight: those in which [`check`] would refuse none of their elements. Found while the
/// bytes go by, whatever they are cut into.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WeightTypes {
    refused: u8,
    /// Bytes since the last multiple of the largest element.
    rest: [u8; 4],
    rest_bytes: usize,
}

impl WeightTypes {
    /// The bit of a type in [`bits`](Self::bits).
    pub const fn bit(dtype: Dtype) -> u8 {
        match dtype {
            Dtype::F32 => 1,
            Dtype::U32 => 2,
            Dtype::Bf16 => 4,
            Dtype::F16 => 8,
            Dtype::I8 => 16,
        }
    }

    /// Takes the bytes that come next.
    pub fn update(&mut self, mut part: &[u8]) {
        while self.rest_bytes > 0 || part.len() < self.rest.len() {
            let Some((&byte, later)) = part.split_first() else { return };
            self.rest[self.rest_bytes] = byte;
            (self.rest_bytes, part) = (self.rest_bytes + 1, later);
            if self.rest_bytes == self.rest.len() {
                self.rest_bytes = 0;
                self.refused |= refused_types(&self.rest, self.refused);
            }
        }
        let whole = part.len() - part.len() % self.rest.len();
        self.refused |= refused_types(&part[..whole], self.refused);
        let tail = &part[whole..];
        self.rest[..tail.len()].copy_from_slice(tail);
        self.rest_bytes = tail.len();
    }

    /// The types of all bytes so far, one [`bit`](Self::bit) each.
    pub fn bits(&self) -> u8 {
        let refused = self.refused | refused_types(&self.rest[..self.rest_bytes], self.refused);
        DTYPES.into_iter().map(Self::bit).filter(|bit| refused & bit == 0).sum()
    }
}

const DTYPES: [Dtype; 5] = [Dtype::F32, Dtype::U32, Dtype::Bf16, Dtype::F16, Dtype::I8];

/// The types in which some element is refused, but for those of which that is known.
fn refused_types(bytes: &[u8], known: u8) -> u8 {
    let open = DTYPES.into_iter().filter(|&dtype| known & WeightTypes::bit(dtype) == 0);
    open.filter(|&dtype| first_refused(dtype, bytes).is_some()).map(WeightTypes::bit).sum()
}

/// The value as the storing rule leaves it in this type; widening and storing commute.
fn stored_half(bits: u16, widen: fn(u16) -> f32, nan: u16) -> u16 {
    let value = widen(bits);
    if value.is_nan() {
        nan
    } else if arithmetic::store(value).to_bits() == value.to_bits() {
        bits
    } else {
        0
    }
}

/// Quiet NaNs that widen to the one NaN that is stored.
const NAN_BF16: u16 = 0x7fc0;
const NAN_F16: u16 = 0x7e00;

fn stored_bf16(bytes: [u8; 2]) -> [u8; 2] {
    stored_half(u16::from_le_bytes(bytes), arithmetic::widen_bf16, NAN_BF16).to_le_bytes()
}

fn stored_f16(bytes: [u8; 2]) -> [u8; 2] {
    stored_half(u16::from_le_bytes(bytes), arithmetic::widen_f16, NAN_F16).to_le_bytes()
}

fn stored_f32(bytes: [u8; 4]) -> [u8; 4] {
    arithmetic::store(f32::from_le_bytes(bytes)).to_le_bytes()
}

fn first_refused(dtype: Dtype, bytes: &[u8]) -> Option<usize> {
    match dtype {
        Dtype::F32 => first_changed(bytes, stored_f32),
        Dtype::Bf16 => first_changed(bytes, stored_bf16),
        Dtype::F16 => first_changed(bytes, stored_f16),
        Dtype::I8 => bytes.iter().position(|&byte| byte.cast_signed() == i8::MIN),
        Dtype::U32 => None,
    }
}

fn first_changed<const N: usize>(bytes: &[u8], stored: fn([u8; N]) -> [u8; N]) -> Option<usize> {
    bytes.as_chunks::<N>().0.iter().position(|&element| stored(element) != element)
}

fn store_all<const N: usize>(bytes: &mut [u8], stored: fn([u8; N]) -> [u8; N]) -> u64 {
    let mut changed = 0;
    for element in bytes.as_chunks_mut::<N>().0 {
        let value = stored(*element);
        changed += u64::from(value != *element);
        *element = value;
    }
    changed
}

/// Applies the storing rule to a float tensor and returns how many elements it changed. Integers stay as they are.
pub fn store(dtype: Dtype, bytes: &mut [u8]) -> u64 {
    match dtype {
        Dtype::F32 => store_all(bytes, stored_f32),
        Dtype::Bf16 => store_all(bytes, stored_bf16),
        Dtype::F16 => store_all(bytes, stored_f16),
        Dtype::I8 | Dtype::U32 => 0,
    }
}

/// The elements of a float tensor, widened exactly. Trailing bytes that make no element are ignored, and an integer
/// tensor has no floats.
pub fn widen(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|&element| f32::from_le_bytes(element)).collect(),
        Dtype::Bf16 => widen_half(bytes, arithmetic::widen_bf16),
        Dtype::F16 => widen_half(bytes, arithmetic::widen_f16),
        Dtype::I8 | Dtype::U32 => Vec::new(),
    }
}

fn widen_half(bytes: &[u8], widen: fn(u16) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&element| widen(u16::from_le_bytes(element))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits_in_parts(bytes: &[u8], part: usize) -> u8 {
        let mut types = WeightTypes::default();
        bytes.chunks(part).for_each(|part| types.update(part));
        types.bits()
    }

    /// A refused element must be seen wherever it lies and however the bytes arrive.
    #[test]
    fn types_are_found_however_the_bytes_are_cut() {
        let ones: Vec<u8> = (0..9).flat_map(|_| 1.0_f32.to_le_bytes()).collect();
        let f32_bit = WeightTypes::bit(Dtype::F32);
        for part in 1..=ones.len() {
            assert_eq!(bits_in_parts(&ones, part), bits_in_parts(&ones, ones.len()), "parts of {part}");
            for index in 0..9 {
                let mut broken = ones.clone();
                broken[index * 4..][..4].copy_from_slice(&1_u32.to_le_bytes());
                assert_eq!(bits_in_parts(&ones, part) & f32_bit, f32_bit);
                assert_eq!(bits_in_parts(&broken, part) & f32_bit, 0, "element {index} in parts of {part}");
            }
        }
    }

    /// The quick answer for all types and the check of one type must never disagree.
    #[test]
    fn types_agree_with_the_check_of_each_type() {
        let samples: [&[u8]; 6] = [
            &[],
            &[0x80],
            &[0x00, 0x80],
            &[1, 0, 0, 0],
            &[0xc0, 0x7f, 0xc0, 0x7f],
            &[0x01, 0x7e, 0x00, 0x3c, 0x80],
        ];
        for bytes in samples {
            let bits = bits_in_parts(bytes, 3);
            for dtype in DTYPES {
                let taken = first_refused(dtype, bytes).is_none();
                assert_eq!(bits & WeightTypes::bit(dtype) != 0, taken, "{bytes:02x?} as {dtype:?}");
            }
        }
    }
}
