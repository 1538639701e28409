//! As much of CUDA's driver interface as the tests call, with the types that cuda.h gives it.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;

use gainsay_cuda_launch::Launch;

pub(crate) const SUCCESS: c_int = 0;
pub(crate) const INVALID_VALUE: c_int = 1;
pub(crate) const OUT_OF_MEMORY: c_int = 2;
pub(crate) const INVALID_CONTEXT: c_int = 201;
pub(crate) const ILLEGAL_ADDRESS: c_int = 700;
pub(crate) const CAPTURE_UNSUPPORTED: c_int = 900;

type Handle = *mut c_void;

#[link(name = "dl")]
unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> Handle;
    fn dlsym(library: Handle, symbol: *const c_char) -> Handle;
}

/// Calls a function of the driver by its name.
macro_rules! call {
    ($cuda:expr, $name:literal, $($argument:expr => $type:ty),*) => {{
        let address = $cuda.symbol($name);
        // SAFETY: cuda.h gives the function these parameters, and the arguments outlive the call.
        unsafe { std::mem::transmute::<Handle, unsafe extern "C" fn($($type),*) -> c_int>(address)($($argument),*) }
    }};
}

/// The driver, with a context for this thread.
pub(crate) struct Cuda {
    library: usize,
}

/// An array on the device.
#[derive(Debug)]
pub(crate) struct Array {
    pub(crate) at: u64,
}

/// A stream or an event.
#[derive(Clone, Copy)]
pub(crate) struct Token(usize);

/// A kernel.
#[derive(Clone, Copy)]
pub(crate) struct Function(usize);

impl Cuda {
    pub(crate) fn open() -> Self {
        gainsay_cuda_emulator::install().unwrap();
        // SAFETY: the name is a C string.
        let library = unsafe { dlopen(c"libcuda.so.1".as_ptr(), 2) };
        assert!(!library.is_null(), "the installed driver is not found by its name");
        let cuda = Self { library: library as usize };
        let mut context: Handle = null_mut();
        assert_eq!(call!(cuda, c"cuInit", 0 => c_uint), SUCCESS);
        assert_eq!(
            call!(cuda, c"cuDevicePrimaryCtxRetain", &raw mut context => *mut Handle, 0 => c_int),
            SUCCESS
        );
        assert_eq!(call!(cuda, c"cuCtxSetCurrent", context => Handle), SUCCESS);
        cuda
    }

    fn symbol(&self, name: &CStr) -> Handle {
        // SAFETY: the library stays loaded.
        let address = unsafe { dlsym(self.library as Handle, name.as_ptr()) };
        assert!(!address.is_null(), "{name:?}");
        address
    }

    pub(crate) fn stream(&self) -> Token {
        let mut stream: Handle = null_mut();
        let flags = 1;
        assert_eq!(call!(self, c"cuStreamCreate", &raw mut stream => *mut Handle, flags => c_uint), SUCCESS);
        Token(stream as usize)
    }

    /// An event that marks what the stream has been given so far.
    pub(crate) fn event(&self, stream: Token) -> Token {
        let mut event: Handle = null_mut();
        assert_eq!(call!(self, c"cuEventCreate", &raw mut event => *mut Handle, 2 => c_uint), SUCCESS);
        assert_eq!(call!(self, c"cuEventRecord", event => Handle, stream.0 as Handle => Handle), SUCCESS);
        Token(event as usize)
    }

    pub(crate) fn wait_for(&self, stream: Token, event: Token) {
        let result = call!(
            self, c"cuStreamWaitEvent",
            stream.0 as Handle => Handle, event.0 as Handle => Handle, 0 => c_uint
        );
        assert_eq!(result, SUCCESS);
    }

    pub(crate) fn wait(&self, stream: Token) {
        assert_eq!(call!(self, c"cuStreamSynchronize", stream.0 as Handle => Handle), SUCCESS);
    }

    /// From here on the stream is captured.
    pub(crate) fn capture(&self, stream: Token) {
        assert_eq!(
            call!(self, c"cuStreamBeginCapture_v2", stream.0 as Handle => Handle, 2 => c_int),
            SUCCESS
        );
    }

    /// What was captured, ready to be launched, or why it cannot be.
    pub(crate) fn captured(&self, stream: Token) -> Result<Token, c_int> {
        let [mut graph, mut launched]: [Handle; 2] = [null_mut(); 2];
        let result = call!(
            self, c"cuStreamEndCapture", stream.0 as Handle => Handle, &raw mut graph => *mut Handle
        );
        assert_eq!(result, SUCCESS);
        let result = call!(
            self, c"cuGraphInstantiateWithFlags",
            &raw mut launched => *mut Handle, graph => Handle, 0 => u64
        );
        assert_eq!(call!(self, c"cuGraphDestroy", graph => Handle), SUCCESS);
        if result == SUCCESS { Ok(Token(launched as usize)) } else { Err(result) }
    }

    pub(crate) fn launch_graph(&self, graph: Token, stream: Token) {
        let result = call!(
            self, c"cuGraphLaunch", graph.0 as Handle => Handle, stream.0 as Handle => Handle
        );
        assert_eq!(result, SUCCESS);
    }

    /// An array that is allocated in the order of a stream.
    pub(crate) fn array_on(&self, bytes: usize, stream: Token) -> Array {
        let mut at = 0;
        let result = call!(
            self, c"cuMemAllocAsync", &raw mut at => *mut u64, bytes => usize, stream.0 as Handle => Handle
        );
        assert_eq!(result, SUCCESS);
        Array { at }
    }

    pub(crate) fn try_array(&self, bytes: usize) -> Result<Array, c_int> {
        let mut at = 0;
        match call!(self, c"cuMemAlloc_v2", &raw mut at => *mut u64, bytes => usize) {
            SUCCESS => Ok(Array { at }),
            error => Err(error),
        }
    }

    pub(crate) fn array(&self, bytes: usize) -> Array {
        self.try_array(bytes).unwrap()
    }

    pub(crate) fn free(&self, array: &Array, stream: Token) {
        let result = call!(self, c"cuMemFreeAsync", array.at => u64, stream.0 as Handle => Handle);
        assert_eq!(result, SUCCESS);
    }

    /// Pinned memory of the host, for as long as the process runs.
    pub(crate) fn pinned(&self, len: usize) -> &'static mut [f32] {
        let mut at: Handle = null_mut();
        let result = call!(
            self, c"cuMemHostAlloc", &raw mut at => *mut Handle, 4 * len => usize, 0 => c_uint
        );
        assert_eq!(result, SUCCESS);
        // SAFETY: the driver gave as many bytes, and nobody gives them back.
        unsafe { std::slice::from_raw_parts_mut(at.cast(), len) }
    }

    pub(crate) fn to_device(&self, array: &Array, host: &[f32], stream: Token) -> c_int {
        call!(
            self, c"cuMemcpyHtoDAsync_v2",
            array.at => u64, host.as_ptr().cast() => *const c_void, size_of_val(host) => usize,
            stream.0 as Handle => Handle
        )
    }

    pub(crate) fn to_host(&self, host: &mut [f32], array: &Array, stream: Token) -> c_int {
        call!(
            self, c"cuMemcpyDtoHAsync_v2",
            host.as_mut_ptr().cast() => *mut c_void, array.at => u64, size_of_val(host) => usize,
            stream.0 as Handle => Handle
        )
    }

    pub(crate) fn function(&self, name: &str) -> Function {
        let mut module: Handle = null_mut();
        let image = [0u8; 8];
        let result = call!(
            self, c"cuModuleLoadData", &raw mut module => *mut Handle, image.as_ptr().cast() => *const c_void
        );
        assert_eq!(result, SUCCESS);
        let name = CString::new(name).unwrap();
        let mut function: Handle = null_mut();
        let result = call!(
            self, c"cuModuleGetFunction",
            &raw mut function => *mut Handle, module => Handle, name.as_ptr() => *const c_char
        );
        assert_eq!(result, SUCCESS);
        Function(function as usize)
    }

    pub(crate) fn allow_shared(&self, name: &str, bytes: c_int) -> c_int {
        let attribute = 8;
        call!(
            self, c"cuFuncSetAttribute",
            self.function(name).0 as Handle => Handle, attribute => c_int, bytes => c_int
        )
    }

    pub(crate) fn launch(&self, launch: &Launch, stream: Token) -> c_int {
        self.launch_function(self.function(launch.kernel), launch, stream)
    }

    pub(crate) fn launch_function(&self, function: Function, launch: &Launch, stream: Token) -> c_int {
        let function = function.0 as Handle;
        let mut words: Vec<[u8; 8]> = launch.arguments.iter().map(|it| it.to_ne_bytes()).collect();
        let mut pointers: Vec<Handle> = words.iter_mut().map(|word| word.as_mut_ptr().cast()).collect();
        let ([gx, gy, gz], [bx, by, bz]) = (launch.shape.grid, launch.shape.block);
        call!(
            self, c"cuLaunchKernel",
            function => Handle, gx => c_uint, gy => c_uint, gz => c_uint, bx => c_uint, by => c_uint, bz => c_uint,
            launch.shape.shared => c_uint, stream.0 as Handle => Handle,
            pointers.as_mut_ptr() => *mut Handle, null_mut() => *mut Handle
        )
    }
}
