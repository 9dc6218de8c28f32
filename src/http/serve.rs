//! The listener: takes connections until it is told to stop, then lets what is under way finish.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::http::header::{CONNECTION, HeaderValue, STRICT_TRANSPORT_SECURITY};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tower::{Layer, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

use super::site::origin_of;
use super::tls::{Tls, redirect};
use super::{Sample, Server, meter, unread};
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
/// When an address cannot be listened on, or there is no TLS with the files of the settings.
pub async fn serve(app: App, sample: Option<Sample>) -> Result<()> {
    let tls = Tls::of(&app.config)?;
    let listener = listen(app.config.listen).await?;
    let plain = match app.config.tls_redirect_listen.0 {
        Some(address) => Some(tokio::spawn(redirect::run(listen(address).await?, origin_of(&app.config.base_url)))),
        None => None,
    };
    let renewal = tls.clone().map(|tls| tls.renewing()).transpose()?.map(tokio::spawn);
    let stop = stopped()?;
    app.trail.record_task(What::ServerStart, "server", Vec::new()).await?;
    let server = Server::new(app, sample);
    let config = &server.app.config;
    tracing::info!(listen = %config.listen, base = config.base_url, tls = config.speaks_tls(), "ready");
    let work = tokio::spawn({
        let server = server.clone();
        async move { reindex::run(&server.app).await }
    });
    run(server.clone(), listener, tls, stop).await;
    work.abort();
    for beside in plain.iter().chain(&renewal) {
        beside.abort();
    }
    reindex::give_back(&server.app).await;
    if let Err(error) = server.app.trail.record_task(What::ServerStop, "server", Vec::new()).await {
        tracing::error!(?error, "the stop could not be put on record");
    }
    server.app.close().await;
    tracing::info!("stopped");
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Error::new(Kind::Unavailable, format!("cannot listen on {address}")).caused_by(error))
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
pub async fn run(server: Arc<Server>, listener: TcpListener, tls: Option<Tls>, stop: impl Future<Output = ()>) {
    let graceful = GracefulShutdown::new();
    let upkeep = tokio::spawn(upkeep());
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    tokio::spawn(connection(server.clone(), stream, peer, tls.clone(), graceful.watcher()));
                }
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

async fn connection(server: Arc<Server>, stream: TcpStream, peer: SocketAddr, tls: Option<Tls>, watcher: Watcher) {
    // Small replies go out at once; a socket that refuses the option works all the same.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return talk(server, stream, peer, None, watcher).await };
    match tls.accept(stream).await {
        Ok(stream) => talk(server, stream, peer, tls.hsts(), watcher).await,
        Err(error) => tracing::debug!(%error, "no TLS connection"),
    }
}

/// Serves one connection to its end. `hsts` goes with every reply.
async fn talk<S>(server: Arc<Server>, stream: S, peer: SocketAddr, hsts: Option<HeaderValue>, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let inner = service_fn(move |request: Request<Incoming>| {
        let (server, hsts) = (server.clone(), hsts.clone());
        let (mut request, unread) = unread::lend(request);
        request.extensions_mut().insert(ConnectInfo(peer));
        async move {
            let mut reply = server.serve(request).await;
            reply.headers_mut().extend(hsts.map(|value| (STRICT_TRANSPORT_SECURITY, value)));
            if !unread.finish().await {
                reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(reply)
        }
    });
    let compress_when = SizeAbove::new(COMPRESS_MIN_BYTES).and(NotForContentType::IMAGES);
    let service = CompressionLayer::new().compress_when(compress_when).layer(inner);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEAD_TIMEOUT_S))
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "connection ended");
    }
}

async fn upkeep() {
    let mut every = tokio::time::interval(Duration::from_secs(UPKEEP_S));
    loop {
        every.tick().await;
        meter::handle().run_upkeep();
    }
}
