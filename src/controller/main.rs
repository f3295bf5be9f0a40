//! leno-controller: see [`leno_controller::run`].

use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    let settings = leno_controller::settings::Settings::parse();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(leno_controller::run::run(settings))
}
