//! Whether the controller can do its work, and the plain HTTP port that says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

/// What must be there before the controller is ready.
#[derive(Debug, Default)]
pub struct Health {
    certificates: AtomicBool,
    authority: AtomicBool,
    lists: AtomicBool,
    stopping: AtomicBool,
}

impl Health {
    /// The certificates are served and trusted.
    pub fn certificates_are_ready(&self) {
        self.certificates.store(true, Ordering::Relaxed);
    }

    /// There is an authority that signs proxies' certificates, or none is needed.
    pub fn authority_is_ready(&self) {
        self.authority.store(true, Ordering::Relaxed);
    }

    /// The first lists are in.
    pub fn lists_are_in(&self) {
        self.lists.store(true, Ordering::Relaxed);
    }

    /// The process is about to end: nobody new is to be sent here.
    pub fn stops(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the controller is ready, or what is missing.
    ///
    /// # Errors
    /// What is missing, in words.
    pub fn ready(&self) -> Result<(), &'static str> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err("the controller is shutting down");
        }
        if !self.certificates.load(Ordering::Relaxed) {
            return Err("the certificates are not made, or the API server does not trust them yet: see the log");
        }
        if !self.authority.load(Ordering::Relaxed) {
            return Err("the mesh's certificate authority (Secret leno-ca) cannot be used yet: see the log");
        }
        if !self.lists.load(Ordering::Relaxed) {
            return Err("the first lists of Services, EndpointSlices and Leno's kinds are not in yet");
        }
        Ok(())
    }
}

/// `/healthz`, `/readyz` and `/metrics`; `metrics` renders what is counted.
pub fn router(health: Arc<Health>, metrics: Arc<dyn Fn() -> String + Send + Sync>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready).with_state(health))
        .route("/metrics", get(render).with_state(metrics))
}

async fn ready(State(health): State<Arc<Health>>) -> (StatusCode, String) {
    match health.ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")),
    }
}

async fn render(State(metrics): State<Arc<dyn Fn() -> String + Send + Sync>>) -> ([(&'static str, &'static str); 1], String) {
    ([("content-type", "text/plain; version=0.0.4")], metrics())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_is_ready_once_everything_is_there_and_until_it_stops() {
        let health = Health::default();
        assert!(health.ready().is_err_and(|missing| missing.contains("certificates")));
        health.certificates_are_ready();
        assert!(health.ready().is_err_and(|missing| missing.contains("leno-ca")));
        health.authority_is_ready();
        assert!(health.ready().is_err_and(|missing| missing.contains("lists")));
        health.lists_are_in();
        assert_eq!(health.ready(), Ok(()));
        health.stops();
        assert!(health.ready().is_err_and(|missing| missing.contains("shutting down")));
    }
}
