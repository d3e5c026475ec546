//! Lists the public items in rustdoc's JSON, one per line, without derived impls and impls for all types.
//! `.ci/surface` calls it.
#![allow(clippy::print_stdout, reason = "the list is its output")]

use std::error::Error;

use public_api::Builder;

fn main() -> Result<(), Box<dyn Error>> {
    let json = std::env::args().nth(1).ok_or("usage: surface target/doc/tower_idempotency.json")?;
    let builder = Builder::from_rustdoc_json(json);
    let surface = builder.omit_blanket_impls(true).omit_auto_trait_impls(true).omit_auto_derived_impls(true).build()?;
    print!("{surface}");
    Ok(())
}
