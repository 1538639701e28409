//! The engine's CUDA kernels, compiled for the host and run thread by thread, so that an error of index, order or rounding
//! shows up where there is no GPU.
//!
//! The sources are those that nvcc compiles (`crates/engine/src/kernels/cuda`); what CUDA gives them, `cpp/emulator.hpp`
//! gives them here. A block's threads are coroutines that run in an order drawn from a seed between one barrier and the
//! next: a kernel whose barriers do not order what has to be ordered gives other results under some seeds. What an emulator
//! cannot show is what a real memory system reorders between barriers, and speed.
//!
//! [`run`] launches a kernel on the caller's own memory. [`install`] puts a whole driver in the place of CUDA's, for what opens
//! a device.

mod driver;

pub use driver::{Driver, REAL_DRIVER, Usage, install, libraries};

use std::ffi::{CString, c_char, c_int, c_uint, c_void};

use gainsay_cuda_launch::{Argument, Launch};

unsafe extern "C" {
    fn emulator_parameters(name: *const c_char, types: *mut *const u8) -> c_int;
    fn emulator_launch(
        name: *const c_char,
        grid: *const c_uint,
        block: *const c_uint,
        shared_bytes: c_uint,
        arguments: *mut *mut c_void,
        seed: u64,
    ) -> c_int;
}

/// What is added to the size of what a pointer points to, to make the code of its type.
const POINTER: u8 = 64;

/// The codes of the types of a kernel's parameters.
fn parameters(kernel: &str, name: &CString) -> Vec<u8> {
    let mut types = std::ptr::null();
    // SAFETY: the name is a C string, and `types` a place for a pointer.
    let count = unsafe { emulator_parameters(name.as_ptr(), &raw mut types) };
    assert!(count >= 0, "there is no kernel {kernel}");
    // SAFETY: the emulator has as many codes there, for as long as the process runs.
    unsafe { std::slice::from_raw_parts(types, count as usize) }.to_vec()
}

/// Runs a kernel. The seed decides in which order threads run where nothing else does.
///
/// # Safety
/// The arrays are on the host, and hold what the kernel reads and room for what it writes.
///
/// # Panics
/// There is no kernel of this name, its parameters are of other sizes, or no GPU launches this shape. A kernel that waits
/// for threads which never come ends the process with a message.
pub unsafe fn run(launch: &Launch, seed: u64) {
    let Launch { kernel, shape, arguments } = launch;
    let name = CString::new(*kernel).expect("a kernel's name has no zero byte");
    let expected = parameters(kernel, &name);
    let fit = expected.len() == arguments.len()
        && expected.iter().zip(arguments).all(|(&code, &it)| code == type_code(it));
    assert!(fit, "kernel {kernel} takes {expected:?}, not {arguments:?}");
    let mut words: Vec<[u8; 8]> = arguments.iter().map(|argument| argument.to_ne_bytes()).collect();
    let mut pointers: Vec<*mut c_void> = words.iter_mut().map(|word| word.as_mut_ptr().cast()).collect();
    // SAFETY: there is an argument for each parameter, of its size. The caller answers for what they point to.
    let result = unsafe {
        emulator_launch(
            name.as_ptr(),
            shape.grid.as_ptr(),
            shape.block.as_ptr(),
            shape.shared,
            pointers.as_mut_ptr(),
            seed,
        )
    };
    assert_eq!(result, 0, "no GPU launches {kernel} in the shape {shape:?}");
}

/// The code of an argument's type, as the emulator has it for parameters.
fn type_code(argument: Argument) -> u8 {
    match argument {
        Argument::Array { element, .. } => POINTER + element as u8,
        Argument::U32(_) | Argument::I32(_) | Argument::F32(_) => 4,
        Argument::U64(_) => 8,
    }
}
