//! A driver without a GPU, for programs that open CUDA's libraries.
//!
//! `libcuda.so.1`, `libcublas.so.13` and `libcurand.so.10` are built with this crate. A process that has loaded them finds
//! them by these names whenever it asks for CUDA's. Memory is the host's, kernels are those of the engine; the driver checks
//! what it is told: copies stay within arrays, arguments point into live ones, nothing is written beside an array, and what
//! is launched has happened only once it was waited for.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::sync::OnceLock;

#[link(name = "dl")]
unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, symbol: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
}

const RTLD_NOW: c_int = 2;

/// Set to anything, it keeps the emulated driver away: what would run on it then runs on the machine's own GPU.
pub const REAL_DRIVER: &str = "GAINSAY_CUDA_REAL_DRIVER";

const LIBRARIES: [&str; 3] = ["libcuda.so.1", "libcublas.so.13", "libcurand.so.10"];

/// The folder with the libraries, for a process that is to find them by `LD_LIBRARY_PATH`.
pub fn libraries() -> &'static Path {
    Path::new(env!("CUDA_EMULATOR_LIBRARIES"))
}

/// The loaded driver.
#[derive(Debug)]
pub struct Driver {
    limit: unsafe extern "C" fn(u64),
    usage: unsafe extern "C" fn(*mut [u64; 5]),
}

/// What the emulated device has done and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all arrays.
    pub bytes: u64,
    /// Bytes that the device has.
    pub limit: u64,
    /// Kernels and graphs launched, and kernels captured, since the start.
    pub launches: u64,
    /// How often a host has waited for the device since the start.
    pub waits: u64,
    /// Graphs launched since the start.
    pub graphs: u64,
}

impl Driver {
    /// Says how much memory the device has from here on; 1 GiB if never said.
    pub fn limit_memory(&self, bytes: u64) {
        // SAFETY: the library stays loaded for as long as the process runs.
        unsafe { (self.limit)(bytes) };
    }

    /// What the device has done and holds.
    pub fn usage(&self) -> Usage {
        let mut words = [0; 5];
        // SAFETY: the library stays loaded, and writes five numbers.
        unsafe { (self.usage)(&raw mut words) };
        let [bytes, limit, launches, waits, graphs] = words;
        Usage { bytes, limit, launches, waits, graphs }
    }
}

/// Loads the emulated driver into this process, once; to be called before anything else asks for CUDA's libraries. `None`
/// where [`REAL_DRIVER`] asks for the machine's own.
///
/// # Panics
/// The libraries, which the build has made, cannot be loaded.
pub fn install() -> Option<&'static Driver> {
    static DRIVER: OnceLock<Driver> = OnceLock::new();
    if std::env::var_os(REAL_DRIVER).is_some() {
        return None;
    }
    Some(DRIVER.get_or_init(|| {
        let [cuda, ..] = LIBRARIES.map(open);
        // SAFETY: driver.cpp defines the two functions with these parameters.
        unsafe {
            Driver {
                limit: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(u64)>(symbol(
                    cuda,
                    c"emulated_device_limit",
                )),
                usage: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut [u64; 5])>(symbol(
                    cuda,
                    c"emulated_device_usage",
                )),
            }
        }
    }))
}

fn open(name: &str) -> *mut c_void {
    let path = libraries().join(name).into_os_string().into_encoded_bytes();
    let path = CString::new(path).expect("a path has no zero byte");
    // SAFETY: the library's constructors only register kernels.
    let library = unsafe { dlopen(path.as_ptr(), RTLD_NOW) };
    assert!(!library.is_null(), "{name}: {}", last_error());
    library
}

/// The address of a function in the driver.
pub(crate) fn symbol(library: *mut c_void, name: &CStr) -> *mut c_void {
    // SAFETY: the library is loaded and stays so.
    let address = unsafe { dlsym(library, name.as_ptr()) };
    assert!(!address.is_null(), "{name:?}: {}", last_error());
    address
}

fn last_error() -> String {
    // SAFETY: the text lives until the next call of this thread, and is copied.
    unsafe {
        let text = dlerror();
        if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    }
}
