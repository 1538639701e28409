//! A manifest's tensors and a layer's ops under construction, whatever the model.

use gainsay_arithmetic::int8::{self, ActivationBits};
use gainsay_commitment::tensor::tensor_commitment;

use super::{AppliedTransform, LowerError, LowerOptions, Transform};
use crate::{ArithmeticProfile, Dtype, Layer, LinearKind, Op, OpKind, Operand, TensorSpec, weights};

/// A tensor before lowering: floats.
pub(crate) struct SourceTensor {
    pub(crate) dtype: Dtype,
    pub(crate) bytes: Vec<u8>,
}

/// Where tensors come from.
pub(crate) trait TensorSource {
    /// The float tensor of this name and shape, row-major and little-endian.
    fn load(&mut self, name: &str, shape: &[u32]) -> Result<SourceTensor, LowerError>;
}

/// The ops of a layer under construction.
#[derive(Default)]
pub(super) struct Ops {
    ops: Vec<Op>,
}

impl Ops {
    /// Appends an op and returns the operand that names its output.
    pub(super) fn push(&mut self, kind: OpKind, inputs: Vec<Operand>) -> Operand {
        self.ops.push(Op { kind, inputs });
        Operand::Op(self.ops.len() as u32 - 1)
    }

    pub(super) fn into_layer(self) -> Layer {
        Layer { ops: self.ops }
    }
}

/// The manifest's tensors under construction.
pub(super) struct Tensors<'a> {
    pub(super) options: &'a LowerOptions,
    source: &'a mut dyn TensorSource,
    pub(super) specs: Vec<TensorSpec>,
    pub(super) weights: Vec<Vec<u8>>,
    pub(super) transforms: Vec<AppliedTransform>,
}

impl<'a> Tensors<'a> {
    pub(super) fn new(options: &'a LowerOptions, source: &'a mut dyn TensorSource) -> Self {
        Self { options, source, specs: Vec::new(), weights: Vec::new(), transforms: Vec::new() }
    }

    /// A matrix as it is in the source, under the storing rule.
    pub(super) fn matrix(&mut self, name: &str, rows: u32, width: u32) -> Result<Operand, LowerError> {
        let SourceTensor { dtype, mut bytes } = self.source.load(name, &[rows, width])?;
        self.store(name, dtype, &mut bytes);
        Ok(self.push(name, dtype, (rows, width), bytes))
    }

    /// A vector, widened to f32, under the storing rule.
    pub(super) fn vector(&mut self, name: &str, width: u32) -> Result<Operand, LowerError> {
        let SourceTensor { dtype, bytes } = self.source.load(name, &[width])?;
        if dtype != Dtype::F32 {
            self.note(name, Transform::Widened { from: dtype });
        }
        let mut bytes: Vec<u8> =
            weights::widen(dtype, &bytes).into_iter().flat_map(f32::to_le_bytes).collect();
        self.store(name, Dtype::F32, &mut bytes);
        Ok(self.push(name, Dtype::F32, (1, width), bytes))
    }

    /// A linear map of `x`, from K columns to `outputs`, with its bias where it `has_bias`.
    pub(super) fn linear(
        &mut self,
        name: &str,
        x: Operand,
        (outputs, k): (u32, u32),
        activation_bits: ActivationBits,
        has_bias: bool,
        ops: &mut Ops,
    ) -> Result<Operand, LowerError> {
        let (matrix, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let (kind, mut inputs) = match self.options.arithmetic {
            ArithmeticProfile::ExactF32V1 => (LinearKind::F32, vec![x, self.matrix(&matrix, outputs, k)?]),
            ArithmeticProfile::ExactInt8V1 => {
                let group = self.group_of(k);
                let kind = LinearKind::Int8 { group, activation_bits };
                let [levels, scales] = self.quantized(&matrix, outputs, k, group)?;
                (kind, vec![x, levels, scales])
            }
        };
        if has_bias {
            inputs.push(self.vector(&bias, outputs)?);
        }
        Ok(ops.push(OpKind::Linear(kind), inputs))
    }

    /// The wanted group where it divides K, else all of K.
    fn group_of(&self, k: u32) -> u32 {
        let wanted = self.options.int8_group;
        if wanted > 0 && k.is_multiple_of(wanted) { wanted } else { k }
    }

    /// A matrix as int8, and its scales.
    fn quantized(&mut self, name: &str, rows: u32, k: u32, group: u32) -> Result<[Operand; 2], LowerError> {
        let SourceTensor { dtype, bytes } = self.source.load(name, &[rows, k])?;
        let mut levels = vec![0; group as usize];
        let (mut quantized, mut scales) = (Vec::with_capacity(bytes.len()), Vec::new());
        // K is a multiple of the group, so no group runs over the end of a row.
        for values in weights::widen(dtype, &bytes).chunks_exact(group as usize) {
            let scale = int8::quantize_group(values, &mut levels);
            quantized.extend(levels.iter().map(|level| level.cast_unsigned()));
            scales.extend_from_slice(&scale.to_le_bytes());
        }
        self.note(name, Transform::Quantized { group });
        Ok([
            self.push(name, Dtype::I8, (rows, k), quantized),
            self.push(&format!("{name}.scales"), Dtype::F32, (rows, k / group), scales),
        ])
    }

    fn store(&mut self, name: &str, dtype: Dtype, bytes: &mut [u8]) {
        let elements = weights::store(dtype, bytes);
        if elements > 0 {
            self.note(name, Transform::Stored { elements });
        }
    }

    fn note(&mut self, tensor: &str, transform: Transform) {
        self.transforms.push(AppliedTransform { tensor: tensor.to_owned(), transform });
    }

    pub(super) fn push(
        &mut self,
        name: &str,
        dtype: Dtype,
        (rows, width): (u32, u32),
        bytes: Vec<u8>,
    ) -> Operand {
        let commitment = tensor_commitment(&bytes);
        self.specs.push(TensorSpec { name: name.to_owned(), dtype, rows, width, commitment });
        self.weights.push(bytes);
        Operand::Weight(self.specs.len() as u32 - 1)
    }
}
