//! leno-controller: see [`leno_controller::run`].

use clap::Parser as _;

// Objects and streams come and go by the thousand: it holds them in less memory, and takes less time, than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let settings = leno_controller::settings::Settings::parse();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(leno_controller::run::run(settings))
}
