//! Compiles the CUDA kernels where the feature `cuda` asks for them.
//!
//! Each file of `src/kernels/cuda` becomes a fat binary: machine code for the GPUs of compute capability 8.0 and 9.0, and
//! PTX that a driver compiles for later ones. `cuda_images.rs` in the output folder is the expression `&[(name, bytes), …]`
//! of them all.

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

const KERNELS: &str = "src/kernels/cuda";

/// `-fmad=false`: the kernels write out where a product and a sum are rounded once, and the compiler makes no more of them.
const FLAGS: [&str; 11] = [
    "-fatbin",
    "-O3",
    "-fmad=false",
    "-std=c++17",
    "--threads=0",
    "-gencode",
    "arch=compute_90,code=sm_90",
    "-gencode",
    "arch=compute_80,code=sm_80",
    "-gencode",
    "arch=compute_80,code=compute_80",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return Ok(());
    }
    println!("cargo:rerun-if-changed={KERNELS}");
    for variable in ["NVCC", "CUDA_HOME", "NVCC_APPEND_FLAGS", "NVCC_PREPEND_FLAGS"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo says where to write")?);
    let nvcc = nvcc();
    let mut images = String::from("&[\n");
    for source in sources()? {
        let name =
            source.file_stem().and_then(|stem| stem.to_str()).ok_or("a kernel's file has a plain name")?;
        let image = out.join(format!("{name}.fatbin"));
        compile(&nvcc, &source, &image)?;
        images.push_str(&format!("    ({name:?}, include_bytes!({image:?})),\n"));
    }
    images.push_str("]\n");
    fs::write(out.join("cuda_images.rs"), images)?;
    Ok(())
}

/// The compiler: `NVCC`, else that of the toolkit at `CUDA_HOME`, else whichever the path has.
fn nvcc() -> OsString {
    let of_toolkit =
        || env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc").into_os_string());
    env::var_os("NVCC").or_else(of_toolkit).unwrap_or_else(|| "nvcc".into())
}

fn compile(nvcc: &OsString, source: &Path, image: &Path) -> Result<(), Box<dyn Error>> {
    let status = Command::new(nvcc).args(FLAGS).arg("-o").arg(image).arg(source).status().map_err(|error| {
        format!(
            "the feature `cuda` compiles kernels with nvcc, and {nvcc:?} does not run: {error}. `scripts/cuda-toolkit DIR` \
             fetches a toolkit and prints the environment to export; one that is installed is found by CUDA_HOME, the \
             folder with bin/nvcc in it, or by NVCC"
        )
    })?;
    if status.success() { Ok(()) } else { Err(format!("nvcc on {}: {status}", source.display()).into()) }
}

/// The kernels' files, in order.
fn sources() -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(KERNELS)?.map(|entry| entry.map(|entry| entry.path()));
    let mut sources = entries.collect::<io::Result<Vec<_>>>()?;
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    sources.sort();
    Ok(sources)
}
