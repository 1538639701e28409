//! Prints what disputes over a language model of eight billion weights cost, computed from the formats.
//!
//! `cargo run -p gainsay-program --example witness_table`

#[path = "../tests/program/witness_table.rs"]
mod witness_table;

use witness_table::{DIRECT_ROWS, HEAD, HIDDEN, INTERMEDIATE, KEYS, VOCABULARY};

fn main() {
    println!(
        "hidden {HIDDEN}, keys {KEYS}, head {HEAD}, intermediate {INTERMEDIATE}, vocabulary {VOCABULARY}, bf16 weights"
    );
    println!("witness bytes; attention over more than {DIRECT_ROWS} rows goes through a virtual layer\n");
    println!(
        "| tokens | linear | attention, direct | score | attention, out | sample | largest but sample | worker moves |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for row in witness_table::rows() {
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            row.tokens,
            row.linear,
            row.direct,
            row.score,
            row.out,
            row.sample,
            row.largest_but_sample(),
            row.moves
        );
    }
}
