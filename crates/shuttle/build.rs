//! Compiles the sources beside it for the model checker.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=shuttle");
    // Features of the crate beside it that are not needed here.
    println!("cargo::rustc-check-cfg=cfg(feature, values(\"bytes\", \"derive\"))");
}
