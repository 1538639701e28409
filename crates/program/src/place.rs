//! Addresses: which op of a run, which tensor of a run.

use std::fmt;

use crate::Dtype;

/// The list of ops that an op index counts in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// The ops of the layer itself.
    Layer,
    /// The ops that one element of an expanded op is computed by; see [`VirtualOp`](crate::VirtualOp).
    Virtual {
        /// The expanded op, an index into the layer's ops.
        op: u32,
        /// Row-major index of the element in that op's output.
        element: u64,
    },
}

/// One op of a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpPlace {
    /// Index of the layer.
    pub layer: u32,
    /// Whether `op` counts in the layer or in a virtual layer.
    pub scope: Scope,
    /// Index of the op.
    pub op: u32,
}

impl OpPlace {
    /// An op of a layer itself.
    pub const fn in_layer(layer: u32, op: u32) -> Self {
        Self { layer, scope: Scope::Layer, op }
    }
}

impl fmt::Display for OpPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope {
            Scope::Layer => write!(f, "layer {} op {}", self.layer, self.op),
            Scope::Virtual { op, element } => {
                write!(f, "layer {} op {op} element {element} virtual op {}", self.layer, self.op)
            }
        }
    }
}

/// One tensor that a run reads or writes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TensorRef {
    /// The output of an op.
    Op(OpPlace),
    /// The output of a layer: the same bytes as its last op's output, committed to by the claim itself.
    LayerOutput(u32),
    /// A weight: an index into the manifest's tensors.
    Weight(u32),
}

impl fmt::Display for TensorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Op(place) => place.fmt(f),
            Self::LayerOutput(layer) => write!(f, "output of layer {layer}"),
            Self::Weight(index) => write!(f, "weight {index}"),
        }
    }
}

/// Shape of a tensor, row-major.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Shape {
    /// Number of rows.
    pub rows: u64,
    /// Elements of a row.
    pub width: u64,
    /// Type of the elements.
    pub dtype: Dtype,
}

impl Shape {
    /// Number of elements. The limits on rows and widths keep it, and [`bytes`](Self::bytes), below 2⁶⁰.
    pub const fn elements(&self) -> u64 {
        self.rows.saturating_mul(self.width)
    }

    /// Length of the tensor in bytes.
    pub const fn bytes(&self) -> u64 {
        self.elements().saturating_mul(self.dtype.bytes())
    }
}
