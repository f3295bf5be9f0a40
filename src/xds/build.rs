//! Compiles the `.proto` files in pure Rust: no protoc is needed.

use std::io;

fn main() -> io::Result<()> {
    let files = ["proto/leno.proto", "proto/discovery.proto"];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"]).map_err(io::Error::other)?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(descriptors)
}
