//! The listener: takes connections until it is told to stop, then lets what is under way finish.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tower::{Layer, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

use super::{Sample, Server, meter};
use crate::app::App;
use crate::audit::What;
use crate::error::{Error, Kind, Result};
use crate::jobs::reindex;

/// A client must have sent the head of its request by then.
const HEAD_TIMEOUT_S: u64 = 30;
/// How often the figures are tidied up when nobody fetches them.
const UPKEEP_S: u64 = 5;
/// Smaller replies are not compressed.
const COMPRESS_MIN_BYTES: u64 = 1024;

/// Serves until SIGTERM or SIGINT, finishes what is under way, and closes the app. A demonstration has a sample app.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(app: App, sample: Option<Sample>) -> Result<()> {
    let listener = TcpListener::bind(app.config.listen).await.map_err(|error| {
        Error::new(Kind::Unavailable, format!("cannot listen on {}", app.config.listen)).caused_by(error)
    })?;
    let stop = stopped()?;
    app.trail.record_task(What::ServerStart, "server", Vec::new()).await?;
    let server = Server::new(app, sample);
    tracing::info!(listen = %server.app.config.listen, base = server.app.config.base_url, "ready");
    let work = tokio::spawn({
        let server = server.clone();
        async move { reindex::run(&server.app).await }
    });
    run(server.clone(), listener, stop).await;
    work.abort();
    reindex::give_back(&server.app).await;
    if let Err(error) = server.app.trail.record_task(What::ServerStop, "server", Vec::new()).await {
        tracing::error!(?error, "the stop could not be put on record");
    }
    server.app.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Completes at the first SIGTERM or SIGINT.
fn stopped() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::internal)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Takes connections until `stop` completes; then waits for those under way, but not longer than the settings say.
pub async fn run(server: Arc<Server>, listener: TcpListener, stop: impl Future<Output = ()>) {
    let graceful = GracefulShutdown::new();
    let upkeep = tokio::spawn(upkeep());
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => connection(&server, stream, peer, &graceful),
                Err(error) => {
                    // Out of file descriptors, most likely: what is open must close first.
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    tracing::info!(connections = graceful.count(), "stopping");
    let grace = Duration::from_secs(server.app.config.shutdown_grace_s.get());
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests were still under way when the time was up");
    }
    upkeep.abort();
}

fn connection(server: &Arc<Server>, stream: TcpStream, peer: SocketAddr, graceful: &GracefulShutdown) {
    // Small replies go out at once; a socket that refuses the option works all the same.
    let _ = stream.set_nodelay(true);
    let server = server.clone();
    let inner = service_fn(move |request: Request<Incoming>| {
        let server = server.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        async move { Ok::<_, Infallible>(server.serve(request).await) }
    });
    let compress_when = SizeAbove::new(COMPRESS_MIN_BYTES).and(NotForContentType::IMAGES);
    let service = CompressionLayer::new().compress_when(compress_when).layer(inner);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEAD_TIMEOUT_S))
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let watched = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = watched.await {
            tracing::debug!(%error, "connection ended");
        }
    });
}

async fn upkeep() {
    let mut every = tokio::time::interval(Duration::from_secs(UPKEEP_S));
    loop {
        every.tick().await;
        meter::handle().run_upkeep();
    }
}
