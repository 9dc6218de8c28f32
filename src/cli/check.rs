//! Commands that look and say: `audit verify`, `doctor`.

use std::process::ExitCode;
use std::sync::Arc;

use phial::app::{App, Config};
use phial::audit::verify;
use phial::error::{Error, Result};
use phial::world::World;

/// Reads the whole trail back and verifies it.
pub async fn audit_verify(app: &App) -> Result<ExitCode> {
    let report = verify::verify(&app.trail).await?;
    println!("{report}");
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Goes through what a start needs, one line each, and says what is wrong; with `index`, through all resources too.
pub async fn doctor(config: &Config, index: bool) -> Result<ExitCode> {
    println!("ok    settings");
    let mut healthy = true;
    let mut check = |name: &str, fault: Option<String>| {
        healthy &= fault.is_none();
        match fault {
            None => println!("ok    {name}"),
            Some(fault) => println!("FAULT {name}: {fault}"),
        }
    };
    if !config.base_url.starts_with("https://") {
        println!("note  base_url is not https: tokens and PHI need TLS in front of this server");
    }
    let listening = tokio::net::TcpListener::bind(config.listen).await;
    check("listen", listening.as_ref().err().map(|error| format!("{}: {error}", config.listen)));
    drop(listening);
    match App::vault(config).await {
        Err(error) => check("keyring and key database", Some(with_cause(&error))),
        Ok(_) => {
            check("keyring and key database", None);
            match App::open(config.clone(), Arc::new(World::real())).await {
                Err(error) => check("database", Some(with_cause(&error))),
                Ok(app) => {
                    check("database", app.store.ping().await.err().map(|error| with_cause(&error)));
                    if index {
                        let report = app.store.check_index(&app.config.mrn_system).await?;
                        check("index", (!report.is_clean()).then(|| report.to_string()));
                        let altered = app.oauth.altered().await?;
                        let said = || format!("altered or moved:\n{}", altered.join("\n"));
                        check("clients, users and sessions", (!altered.is_empty()).then(said));
                    }
                    app.close().await;
                }
            }
        }
    }
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn with_cause(error: &Error) -> String {
    match error.cause() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
