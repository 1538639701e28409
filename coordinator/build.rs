//! Migrations are compiled in: a new file among them has to build the crate anew.

fn main() {
    println!("cargo:rerun-if-changed=../sql/migrations");
}
