//! Figures for Prometheus. Labels are addresses' patterns, methods and statuses: never a type, an id or a value.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS_S: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The recorder of this process, installed at first use.
pub(super) fn handle() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new().set_buckets(BUCKETS_S).unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed: /metrics stays empty");
        }
        metrics::describe_counter!("phial_requests_total", "Requests answered");
        metrics::describe_counter!("phial_rate_limited_total", "Requests refused by a rate limit");
        metrics::describe_histogram!("phial_request_seconds", "Time from the request's head to the reply's head");
        metrics::describe_gauge!("phial_requests_in_flight", "Requests being worked on");
        handle
    })
}

/// Counts one answered request.
pub(super) fn answered(route: &'static str, method: &'static str, status: u16, took: Duration) {
    metrics::counter!("phial_requests_total", "route" => route, "method" => method, "status" => status.to_string())
        .increment(1);
    metrics::histogram!("phial_request_seconds", "route" => route, "method" => method).record(took.as_secs_f64());
}

/// Counts a request while it lives.
pub(super) struct InFlight;

impl InFlight {
    pub(super) fn new() -> InFlight {
        metrics::gauge!("phial_requests_in_flight").increment(1.0);
        InFlight
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics::gauge!("phial_requests_in_flight").decrement(1.0);
    }
}
