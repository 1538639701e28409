//! Compiles the emulator and every kernel of the engine for the host, to be linked into tests, and as shared libraries that
//! stand in for CUDA's driver.

use std::error::Error;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo says where the crate is")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo says where to write")?);
    let kernels = here.join("../engine/src/kernels/cuda");
    let emulator = here.join("cpp");
    for folder in [&kernels, &emulator] {
        println!("cargo:rerun-if-changed={}", folder.display());
    }
    let mut build = compiler(&emulator, &kernels);
    build.file(emulator.join("emulator.cpp"));
    for kernel in files(&kernels, "cu")? {
        build.flag("-xc++").file(kernel);
    }
    build.compile("cuda_emulator");

    let libraries = out.join("driver");
    fs::create_dir_all(&libraries)?;
    println!("cargo:rustc-env=CUDA_EMULATOR_LIBRARIES={}", libraries.display());
    // The programs that load the driver export none of its names, and it none but its own.
    let archive = out.join("libcuda_emulator.a");
    let mut driver: Vec<_> =
        ["driver.cpp", "device.cpp"].map(|file| emulator.join("driver").join(file).into_os_string()).into();
    driver.extend(["-Wl,--whole-archive".into(), archive.into(), "-Wl,--no-whole-archive".into()]);
    driver.push("-Wl,--exclude-libs,ALL".into());
    let shared = compiler(&emulator, &kernels);
    link_shared(&shared, &libraries, "libcuda.so.1", &driver)?;
    for (name, source) in [("libcublas.so.13", "blas.cpp"), ("libcurand.so.10", "random.cpp")] {
        link_shared(&shared, &libraries, name, &[emulator.join("driver").join(source)])?;
    }
    Ok(())
}

fn compiler(emulator: &Path, kernels: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .include(emulator)
        .include(kernels)
        // A fused multiply-add where one is written, and nowhere else, as on the GPU.
        .flag("-ffp-contract=off")
        .flag("-fno-fast-math")
        .flag("-Wno-unknown-pragmas")
        // A GPU refuses what is not aligned to its size, where the host's processor would read it: here the program ends.
        .flag_if_supported("-fsanitize=alignment")
        .flag_if_supported("-fsanitize-undefined-trap-on-error")
        .opt_level(2)
        .pic(true)
        .warnings(true)
        // Kernels are registered by constructors that nothing refers to.
        .link_lib_modifier("+whole-archive");
    build
}

/// Links sources and archives to a shared library of this name.
fn link_shared(
    build: &cc::Build,
    folder: &Path,
    name: &str,
    inputs: &[impl AsRef<OsStr>],
) -> Result<(), Box<dyn Error>> {
    let mut command = build.try_get_compiler()?.to_command();
    command.args(["-shared", "-fvisibility=hidden", "-pthread"]);
    command.arg(format!("-Wl,-soname,{name}")).arg("-o").arg(folder.join(name)).args(inputs);
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("linking {name}: {status}").into()) }
}

/// The files of a folder with an extension, in order.
fn files(folder: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = entries.collect::<io::Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|it| it == extension));
    files.sort();
    Ok(files)
}
