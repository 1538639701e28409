//! Compiles the emulator, and every kernel of the engine, for the host.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the crate is"));
    let kernels = here.join("../engine/src/kernels/cuda");
    let emulator = here.join("cpp");
    for folder in [&kernels, &emulator] {
        println!("cargo:rerun-if-changed={}", folder.display());
    }
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .include(&emulator)
        .include(&kernels)
        // A fused multiply-add where one is written, and nowhere else, as on the GPU.
        .flag("-ffp-contract=off")
        .flag("-fno-fast-math")
        .flag("-Wno-unknown-pragmas")
        .opt_level(2)
        .pic(true)
        .warnings(true)
        // Kernels are registered by constructors that nothing refers to.
        .link_lib_modifier("+whole-archive")
        .file(emulator.join("emulator.cpp"));
    for kernel in sources(&kernels)? {
        build.flag("-xc++").file(kernel);
    }
    build.compile("cuda_emulator");
    Ok(())
}

/// The `.cu` files of a folder, in order.
fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    let mut sources: Vec<_> = entries
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "cu"))
        .collect();
    sources.sort();
    Ok(sources)
}
