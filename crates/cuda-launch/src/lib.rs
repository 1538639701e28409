//! How the engine's CUDA kernels are launched: which kernel, in which shape, with which arguments.
//!
//! A launch is a value. The engine hands it to a GPU, the emulator's tests to the host, so that both run the same shapes and
//! the same order of arguments. The kernels are in `crates/engine/src/kernels/cuda`, a module here for each file there.
//!
//! Matrices are row-major; lengths are counted in elements unless a name says bytes.

pub mod attention;
pub mod blake3;
pub mod each;
pub mod linear;
pub mod rows;
pub mod sampling;

use std::marker::PhantomData;

/// The address of an array on the device.
pub struct At<T> {
    address: u64,
    element: PhantomData<T>,
}

impl<T> Clone for At<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for At<T> {}

impl<T> std::fmt::Debug for At<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.address)
    }
}

impl<T> At<T> {
    /// An array at this address.
    pub const fn new(address: u64) -> Self {
        Self { address, element: PhantomData }
    }

    /// No array, for an operand that is not there.
    pub const fn none() -> Self {
        Self::new(0)
    }

    /// The array without its first `index` elements.
    #[must_use]
    pub const fn skip(self, index: u64) -> Self {
        Self::new(self.address + index * size_of::<T>() as u64)
    }

    /// The address.
    pub const fn address(self) -> u64 {
        self.address
    }
}

/// How many blocks of how many threads run, and the bytes of dynamic shared memory that each block gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory. More than 48 KiB have to be asked of the driver once per kernel.
    pub shared: u32,
}

impl Shape {
    /// `blocks` blocks of `threads` threads in a row.
    pub const fn line(blocks: u32, threads: u32) -> Self {
        Self::grid([blocks, 1, 1], threads)
    }

    /// Blocks of `threads` threads in a row.
    pub const fn grid(grid: [u32; 3], threads: u32) -> Self {
        Self { grid, block: [threads, 1, 1], shared: 0 }
    }

    /// The shape with this much shared memory.
    #[must_use]
    pub const fn with_shared(self, bytes: u32) -> Self {
        Self { shared: bytes, ..self }
    }
}

/// An argument of a launch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Argument {
    /// An array of elements of so many bytes.
    Array {
        /// Where it is; 0 for none.
        address: u64,
        /// Bytes of an element.
        element: usize,
    },
    /// A 32-bit unsigned integer.
    U32(u32),
    /// A 32-bit signed integer.
    I32(i32),
    /// A 64-bit unsigned integer.
    U64(u64),
    /// A float.
    F32(f32),
}

impl Argument {
    /// The bytes that a launch passes: the first four of them where the argument is of 32 bits.
    pub fn to_ne_bytes(self) -> [u8; 8] {
        let half = |bytes: [u8; 4]| {
            let mut word = [0; 8];
            word[..4].copy_from_slice(&bytes);
            word
        };
        match self {
            Self::Array { address, .. } => address.to_ne_bytes(),
            Self::U32(value) => half(value.to_ne_bytes()),
            Self::I32(value) => half(value.to_ne_bytes()),
            Self::F32(value) => half(value.to_ne_bytes()),
            Self::U64(value) => value.to_ne_bytes(),
        }
    }
}

impl<T> From<At<T>> for Argument {
    fn from(at: At<T>) -> Self {
        Self::Array { address: at.address, element: size_of::<T>() }
    }
}

macro_rules! argument_from {
    ($($type:ty => $variant:ident),*) => {$(
        impl From<$type> for Argument {
            fn from(value: $type) -> Self {
                Self::$variant(value)
            }
        }
    )*};
}

argument_from!(u32 => U32, i32 => I32, u64 => U64, f32 => F32);

/// One kernel, to be run once.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Its blocks and threads.
    pub shape: Shape,
    /// Its arguments, in the order of its parameters.
    pub arguments: Vec<Argument>,
}

/// `launch!(kernel, shape, argument, …)`.
macro_rules! launch {
    ($kernel:expr, $shape:expr, $($argument:expr),* $(,)?) => {
        $crate::Launch { kernel: $kernel, shape: $shape, arguments: vec![$($crate::Argument::from($argument)),*] }
    };
}
pub(crate) use launch;

/// How the elements of a weight are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// binary32.
    F32,
    /// bfloat16.
    Bf16,
    /// binary16.
    F16,
}

/// What follows a linear map's stored output, or is an operator by itself. Its result obeys the storing rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Nothing,
    /// gelu, the erf form.
    Gelu,
    /// silu.
    Silu,
    /// The nearest bfloat16.
    RoundBf16,
    /// The sum with another operand.
    Add,
    /// The product with another operand.
    Mul,
}

impl Then {
    /// The code that kernels know it by.
    pub const fn code(self) -> i32 {
        match self {
            Self::Nothing => 0,
            Self::Gelu => 1,
            Self::Silu => 2,
            Self::RoundBf16 => 3,
            Self::Add => 4,
            Self::Mul => 5,
        }
    }
}
