//! Compiles the sources beside it for the model checker.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=shuttle");
    // Deliberate mistakes, of which the environment names one when a model runs.
    println!("cargo::rerun-if-env-changed=FLUXMAP_YARDSTICK");
    if std::env::var_os("FLUXMAP_YARDSTICK").is_some() {
        println!("cargo::rustc-cfg=planted");
    }
    // Features of the crate beside it that are not needed here.
    println!("cargo::rustc-check-cfg=cfg(feature, values(\"bytes\", \"derive\"))");
}
