//! What a refused request leaves unread of its body. The server would close a connection over it, and the next request that
//! a client sends there meets nobody. So what comes soon is read before the reply, and otherwise the reply says that the
//! connection ends (RFC 9112, 9.3).

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Request;
use axum::http::header::EXPECT;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;

/// More than this is not read for nothing.
const BYTES_MAX: u64 = 1 << 20;
const WAIT: Duration = Duration::from_secs(1);

/// A body that is given back when whoever reads it drops it.
struct Lent {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take()) {
            // Nobody waits for it any more when the connection has ended.
            let _ = back.send(body);
        }
    }
}

impl hyper::body::Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Incoming::size_hint).unwrap_or_default()
    }
}

/// Where the body of a request will be once it was worked on.
pub struct Unread {
    /// None: there was none.
    back: Option<oneshot::Receiver<Incoming>>,
    /// The client waits to be asked for the body.
    expects: bool,
}

/// The request to be worked on, and what to ask afterwards.
pub fn lend(request: Request<Incoming>) -> (Request<Body>, Unread) {
    if request.body().is_end_stream() {
        return (request.map(|_| Body::empty()), Unread { back: None, expects: false });
    }
    let (sender, back) = oneshot::channel();
    let expects = request.headers().contains_key(EXPECT);
    let request = request.map(|body| Body::new(Lent { body: Some(body), back: Some(sender) }));
    (request, Unread { back: Some(back), expects })
}

impl Unread {
    /// Reads what is left, when that is little and comes soon; false: the connection cannot be used again.
    pub async fn finish(self) -> bool {
        let Some(mut back) = self.back else { return true };
        match back.try_recv() {
            Ok(body) if body.is_end_stream() => true,
            Ok(_) if self.expects => false,
            Ok(body) => tokio::time::timeout(WAIT, read(body)).await.unwrap_or(false),
            // Somebody reads it still.
            Err(_) => true,
        }
    }
}

async fn read(mut body: Incoming) -> bool {
    let mut bytes = 0;
    while body.size_hint().lower() + bytes <= BYTES_MAX {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => return true,
            Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, Bytes::len) as u64,
            Some(Err(_)) => return false,
        }
    }
    false
}
