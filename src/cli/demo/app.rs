//! `leno demo-app`: a little HTTP service that gives one answer, perhaps after asking another service.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use clap::Args;
use http::Uri;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;

use super::client::Client;

/// Arguments of `leno demo-app`. `leno up` gives address and port by the environment.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Address to listen at
    #[arg(long, env = "LENO_ADDRESS", default_value = "127.0.0.1")]
    address: IpAddr,
    /// Port to listen on
    #[arg(long, env = "PORT")]
    port: u16,
    /// What to answer
    #[arg(long)]
    answer: String,
    /// How long to think about it
    #[arg(long, value_parser = super::duration)]
    delay: Option<Duration>,
    /// Ask this of another service first; its answer becomes part of the own
    #[arg(long, value_name = "URL")]
    ask: Option<Uri>,
}

struct App {
    arguments: Arguments,
    client: Option<Mutex<Client>>,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When the port cannot be had.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = arguments.ask.is_some().then(Client::from_env).transpose()?.map(Mutex::new);
        let (address, port) = (arguments.address, arguments.port);
        let listener = TcpListener::bind((address, port)).await.with_context(|| format!("cannot listen on {address}:{port}"))?;
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let router = Router::new().fallback(answer).with_state(Arc::new(App { arguments, client }));
        tokio::select! {
            served = axum::serve(listener, router) => served.context("serving failed"),
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}

async fn answer(State(app): State<Arc<App>>) -> (StatusCode, String) {
    if let Some(delay) = app.arguments.delay {
        tokio::time::sleep(delay).await;
    }
    let own = &app.arguments.answer;
    match (&app.arguments.ask, &app.client) {
        (Some(url), Some(client)) => match client.lock().await.get(url, None).await {
            Ok((status, said)) if status.is_success() => (StatusCode::OK, format!("{own}; {said}\n")),
            Ok((status, said)) => (StatusCode::BAD_GATEWAY, format!("{url} answered {status}: {said}\n")),
            Err(error) => (StatusCode::BAD_GATEWAY, format!("{url} cannot be asked: {error:#}\n")),
        },
        _ => (StatusCode::OK, format!("{own}\n")),
    }
}
