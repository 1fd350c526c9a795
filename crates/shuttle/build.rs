//! Compiles the sources of the crate beside it for the model checker.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=shuttle");
    // The library contains planted faults. The environment names the one to activate when a model
    // runs.
    println!("cargo::rerun-if-env-changed=FLUXMAP_YARDSTICK");
    if std::env::var_os("FLUXMAP_YARDSTICK").is_some() {
        println!("cargo::rustc-cfg=planted");
    }
    // Features of the original crate that are not needed here.
    println!("cargo::rustc-check-cfg=cfg(feature, values(\"bytes\", \"derive\"))");
}
