//! The connection of a lane, and what is done with it aside from requests: moving what is held into the database, and
//! its terms into their index.

use std::sync::Arc;
use std::time::Duration;

use super::backlog::Backlog;
use super::chain::{self, Link};
use super::db::{Conn, Db, Fault, Use};
use crate::error::Error;

pub struct Desk {
    db: Db,
    /// None: to be connected.
    conn: Option<Conn>,
    /// Terms of segments that are not in the index yet.
    pub backlog: Backlog,
}

/// A desk after a chore.
pub struct Returned {
    pub desk: Desk,
    /// Whether what was to be moved is in the database; None: nothing was.
    pub moved: Option<bool>,
}

impl Desk {
    /// `adopts`: it also indexes what servers before left.
    pub fn new(db: Db, adopts: bool) -> Desk {
        Desk { db, conn: None, backlog: Backlog::new(adopts) }
    }

    pub async fn conn(&mut self) -> Result<&mut Conn, Fault> {
        connected(&self.db, &mut self.conn).await
    }

    pub async fn reset(&mut self) {
        if let Some(conn) = self.conn.take() {
            conn.close().await;
        }
    }

    /// Gives back the pages in memory of a connection that is there.
    pub async fn rest(&mut self) -> Result<(), Fault> {
        match &mut self.conn {
            Some(conn) => conn.forget_pages().await,
            None => Ok(()),
        }
    }

    /// How long the lane has to be idle before the index is turned to; None: there is nothing to do.
    pub fn pause(&self) -> Option<Duration> {
        (!self.backlog.is_empty()).then(|| self.backlog.pause())
    }

    /// Whether the index cannot wait for that.
    pub fn presses(&self) -> bool {
        self.backlog.presses()
    }

    /// Moves what was durable elsewhere into the database, as one transaction.
    pub async fn take_over(mut self, links: Arc<Vec<Link>>) -> Returned {
        let done = self.insert(&links).await;
        let moved = done.is_ok();
        if let Err(fault) = done {
            let cause = Error::from(fault);
            tracing::error!(%cause, "audit entries could not be moved from the journal into the database");
            self.reset().await;
        }
        Returned { desk: self, moved: Some(moved) }
    }

    async fn insert(&mut self, links: &[Link]) -> Result<(), Fault> {
        let conn = self.conn().await?;
        conn.begin().await?;
        let appended = chain::insert(conn, links).await?;
        conn.commit().await?;
        self.backlog.add(appended);
        Ok(())
    }

    /// A piece of the work on the index of the trail. What cannot be moved now is tried again later; searches look at it
    /// where it waits.
    pub async fn index(mut self) -> Returned {
        self.step().await;
        Returned { desk: self, moved: None }
    }

    /// False when it failed.
    async fn step(&mut self) -> bool {
        let done = match connected(&self.db, &mut self.conn).await {
            Ok(conn) => self.backlog.step(conn).await,
            Err(fault) => Err(fault),
        };
        let Err(fault) = done else { return true };
        tracing::warn!(cause = %Error::from(fault), "terms of audit entries could not be moved into their index");
        self.backlog.forget();
        self.reset().await;
        false
    }

    /// More than a little is left to the next start.
    pub async fn close(&mut self) {
        if self.backlog.is_small() {
            while self.backlog.has_own() && self.step().await {}
        }
        self.reset().await;
    }
}

async fn connected<'a>(db: &Db, slot: &'a mut Option<Conn>) -> Result<&'a mut Conn, Fault> {
    let conn = match slot.take() {
        Some(conn) => conn,
        None => db.connect_for(Use::Keyed).await?,
    };
    Ok(slot.insert(conn))
}
