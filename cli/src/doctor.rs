//! `gainsay doctor`: what this machine can do.

use anyhow::{Result, bail};
use clap::Args;
use gainsay_engine::{Simd, float_environment_is_default};

#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {}

impl DoctorArguments {
    pub(crate) fn run(&self) -> Result<()> {
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
        println!("device       CPU, {threads} threads");
        let kernels: Vec<&str> = Simd::available().iter().map(|simd| simd.name()).collect();
        println!("kernels      {} (the last one is used)", kernels.join(", "));
        if !float_environment_is_default() {
            bail!("the floating-point environment is not at its defaults: results would not be exact");
        }
        println!("floating pt. round to nearest even, subnormals kept: as the arithmetic asks");
        Ok(())
    }
}
