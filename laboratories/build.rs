//! Compiles a package of the laboratories with the cfg that `src/laboratory.rs` looks for.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(idempotency_laboratory)");
    println!("cargo::rustc-cfg=idempotency_laboratory");
}
