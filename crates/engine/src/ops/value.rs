//! A tensor of a run, with what has been made of it for int8 linear maps.

use std::cell::RefCell;
use std::rc::Rc;

use candle_core::{DType, Result, Tensor};

use super::carrier::{from_floats, from_words, read_floats};
use crate::kernels::{Kernels, Levels, Quantization};

/// A tensor, and its levels once an int8 linear map has asked for them: maps that share an input (the query, key and value
/// of a block) quantize it once. The levels go when the tensor goes.
#[derive(Clone)]
pub(crate) struct Value {
    tensor: Tensor,
    /// One quantization at most, whatever a program asks for: the memory stays in proportion to the tensor's.
    levels: RefCell<Option<Rc<Levels>>>,
}

impl Value {
    /// The value of a tensor.
    pub(crate) fn new(tensor: Tensor) -> Self {
        Self { tensor, levels: RefCell::new(None) }
    }

    /// The tensor.
    pub(crate) fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Another tensor of the same type, of these words.
    pub(crate) fn like(&self, words: Vec<u32>, shape: (usize, usize)) -> Result<Tensor> {
        match self.tensor.dtype() {
            DType::U32 => from_words(words, shape, self.tensor.device()),
            _ => {
                let floats = words.into_iter().map(f32::from_bits).collect();
                from_floats(floats, shape, self.tensor.device())
            }
        }
    }

    /// The rows of a matrix, quantized.
    pub(super) fn levels(&self, kernels: Kernels, quantization: Quantization) -> Result<Rc<Levels>> {
        if let Some(levels) = self.levels.borrow().as_ref().filter(|it| it.quantization() == quantization) {
            return Ok(Rc::clone(levels));
        }
        let levels = Rc::new(quantize(&self.tensor, kernels, quantization)?);
        self.levels.replace(Some(Rc::clone(&levels)));
        Ok(levels)
    }
}

fn quantize(x: &Tensor, kernels: Kernels, quantization: Quantization) -> Result<Levels> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return Ok(Levels::of_device(crate::cuda::quantize(x, quantization)?, x.dims2()?.0, quantization));
    }
    read_floats(x, |x| kernels.quantize(x, quantization))
}
