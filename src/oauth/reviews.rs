//! Which emergency accesses wait to be reviewed. The order to review one is a Task on the patient's record, and whoever had
//! the access may change that record: what is still open is therefore kept here, where administration alone changes it.
//! Nothing of the patient is: erasing the patient erases what was said of them.

use serde::{Deserialize, Serialize};

use super::State;
use super::shelf::Held;
use crate::access::Caller;
use crate::error::Result;

pub(super) const OPEN_SPACE: &str = "oauth-review";
pub(super) const CLOSED_SPACE: &str = "oauth-reviewed";

/// Closing takes no longer; who died over it stands in nobody's way after that.
const CLOSING_MS: i64 = 60_000;

fn closing(review: &Review) -> String {
    format!("closing-review:{}", review.task)
}

/// What a review comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finding {
    Justified,
    NotJustified,
    /// To be looked into outside of this server.
    FollowUp,
}

/// An emergency access, and what has come of its review.
#[derive(Clone, Serialize, Deserialize)]
pub struct Review {
    /// Id of the Task that orders the review: names the review too.
    pub task: String,
    /// Id of the Flag on the record.
    pub flag: String,
    /// Who had the access: id and name of the user, and their own record.
    pub user: String,
    pub username: String,
    pub fhir_user: String,
    pub role: String,
    pub client_id: String,
    pub purpose: String,
    /// Id of the emergency token, under which its accesses are on record.
    pub token: String,
    /// Milliseconds since 1970.
    pub made: i64,
    pub until: i64,
    pub closed: Option<Closed>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Closed {
    pub finding: Finding,
    pub by: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Finding {
    pub const ALL: &[Finding] = &[Finding::Justified, Finding::NotJustified, Finding::FollowUp];

    pub fn name(self) -> &'static str {
        match self {
            Finding::Justified => "justified",
            Finding::NotJustified => "not-justified",
            Finding::FollowUp => "follow-up",
        }
    }

    pub fn parse(name: &str) -> Option<Finding> {
        Finding::ALL.iter().copied().find(|finding| finding.name() == name)
    }
}

impl State {
    /// Keeps that an access has to be reviewed, before it is given.
    pub(crate) async fn order_review(&self, review: &Review) -> Result<()> {
        self.reviews.put(&review.task, review, None).await
    }

    /// The access was not given after all.
    pub(crate) async fn drop_review(&self, task: &str) -> Result<()> {
        self.reviews.delete(task).await.map(drop)
    }

    /// The name of the user who calls; their id where there is no such user.
    pub(crate) async fn name_of(&self, caller: &Caller) -> Result<String> {
        let id = caller.who().user.clone().unwrap_or_default();
        Ok(self.users.by_id(&id).await?.map_or(id, |user| user.username.clone()))
    }

    /// At most `limit` reviews that are open, or that are closed, and the place to go on after, if there are more.
    pub async fn reviews(
        &self,
        closed: bool,
        after: &[u8],
        limit: usize,
    ) -> Result<(Vec<Held<Review>>, Option<Vec<u8>>)> {
        let shelf = if closed { &self.reviewed } else { &self.reviews };
        let mut page = shelf.page(None, after, limit + 1).await?;
        let more = page.len() > limit;
        page.truncate(limit);
        let next = page.last().filter(|_| more).map(|last| last.key().to_vec());
        page.sort_by_key(|review| review.made);
        Ok((page, next))
    }

    /// How many are open, and how many closed.
    pub async fn reviews_count(&self) -> Result<(usize, usize)> {
        Ok((self.reviews.count(None).await?, self.reviewed.count(None).await?))
    }

    /// The review of this id, open or closed.
    pub async fn review(&self, id: &str) -> Result<Option<Review>> {
        match self.reviewed.get(id).await? {
            Some(closed) => Ok(Some((*closed).clone())),
            None => Ok(self.reviews.get(id).await?.map(|open| (*open).clone())),
        }
    }

    /// Keeps what a review has come to. False: it was closed already.
    pub(crate) async fn close_review(&self, review: &Review, closed: Closed) -> Result<bool> {
        let done = Review { closed: Some(closed), ..review.clone() };
        let first = self.reviewed.insert(&review.task, &done, None, None).await?;
        self.reviews.delete(&review.task).await?;
        Ok(first)
    }

    /// Lets one at a time close a review, over all servers. False: somebody else is at it.
    pub(crate) async fn begin_closing(&self, review: &Review) -> Result<bool> {
        let until = self.world.now().plus_ms(CLOSING_MS);
        self.challenges.insert(&closing(review), &Vec::new(), Some(until), None).await
    }

    pub(crate) async fn end_closing(&self, review: &Review) -> Result<()> {
        self.challenges.delete(&closing(review)).await.map(drop)
    }
}
