//! The only user of axum: one route table, caller, request, reply, outcome.

use crate::app::App;
use crate::error::Result;

/// Serves until SIGTERM or SIGINT, finishes what is under way, and closes the app.
pub async fn serve(_app: App) -> Result<()> {
    todo!()
}
