//! A tensor of a run, with what has been made of it for int8 linear maps.

use std::cell::RefCell;
use std::rc::Rc;
#[cfg(feature = "cuda")]
use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

#[cfg(feature = "cuda")]
use super::Follow;
use super::carrier::{from_floats, from_words, read_floats};
#[cfg(feature = "cuda")]
use crate::kernels::Int8Weights;
use crate::kernels::{Kernels, Levels, Quantization};

/// A tensor, and its levels once an int8 linear map has asked for them: maps that share an input (the query, key and value
/// of a block) quantize it once. The levels go when the tensor goes.
#[derive(Clone)]
pub(crate) struct Value {
    tensor: Tensor,
    /// One quantization at most, whatever a program asks for: the memory stays in proportion to the tensor's.
    levels: RefCell<Option<Rc<Levels>>>,
    /// Outputs of linear maps of the tensor whose steps are still to come.
    #[cfg(feature = "cuda")]
    made: RefCell<Vec<Made>>,
}

/// The output of a linear map, and of which.
#[cfg(feature = "cuda")]
type Made = (Arc<Int8Weights>, Follow, Tensor);

impl Value {
    /// The value of a tensor.
    pub(crate) fn new(tensor: Tensor) -> Self {
        Self {
            tensor,
            levels: RefCell::new(None),
            #[cfg(feature = "cuda")]
            made: RefCell::default(),
        }
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

#[cfg(feature = "cuda")]
impl Value {
    /// The value of a tensor that was quantized as it was made.
    pub(crate) fn quantized(tensor: Tensor, levels: Levels) -> Self {
        Self { levels: RefCell::new(Some(Rc::new(levels))), ..Self::new(tensor) }
    }

    /// The rows of a matrix on a device, quantized.
    pub(crate) fn levels_on_device(&self, quantization: Quantization) -> Result<Rc<Levels>> {
        self.levels(Kernels::Portable, quantization)
    }

    /// Keeps the output of a linear map of the tensor until its step comes.
    pub(crate) fn put_made(&self, weights: &Arc<Int8Weights>, follow: Follow, output: Tensor) {
        self.made.borrow_mut().push((Arc::clone(weights), follow, output));
    }

    /// The output of a linear map of the tensor, if it was made ahead.
    pub(crate) fn take_made(&self, weights: &Arc<Int8Weights>, follow: Follow) -> Option<Tensor> {
        let mut made = self.made.borrow_mut();
        let found =
            made.iter().position(|(of, its_follow, _)| Arc::ptr_eq(of, weights) && *its_follow == follow);
        found.map(|index| made.remove(index).2)
    }
}

fn quantize(x: &Tensor, kernels: Kernels, quantization: Quantization) -> Result<Levels> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return Ok(Levels::of_device(crate::cuda::quantize(x, quantization)?, x.dims2()?.0, quantization));
    }
    read_floats(x, |x| kernels.quantize(x, quantization))
}
