//! Prints the golden vectors, or writes them where an argument says.
//!
//! `cargo run -p gainsay-arithmetic --example vectors` prints all files, each after its name;
//! with `crates/arithmetic/vectors` as argument it writes them there, one file for each operator.

#[path = "../tests/law/cases.rs"]
mod cases;
#[path = "../tests/law/numbers.rs"]
mod numbers;

use std::{env, fs, io, path::Path};

fn main() -> io::Result<()> {
    let folder = env::args().nth(1);
    for (operator, text) in cases::files() {
        match &folder {
            Some(folder) => fs::write(Path::new(folder).join(operator).with_extension("txt"), text)?,
            None => println!("# {operator}\n{text}"),
        }
    }
    Ok(())
}
