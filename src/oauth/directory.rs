//! Finds users without opening all of them: beside each user lie blind terms of the role, the own record, the identity
//! provider, and of how the parts of the name begin. A term narrows; what the user's own entry says decides.

use std::collections::BTreeSet;

use super::shelf::{Held, Shelf};
use super::users::{User, normal};
use crate::access::Role;
use crate::error::Result;
use crate::store::Store;
use crate::vault::Vault;

const SPACE: &str = "oauth-user-term";
/// Its presence says that all users have their terms. No user has a name with a space.
const MADE: &str = "all made";
/// Characters of a part of a name that its term is of.
const BEGINNING: usize = 3;
const CHUNK: usize = 200;

/// The terms. Clones are cheap.
#[derive(Clone)]
pub(super) struct Directory(Shelf<String>);

/// Which users are looked for: those for whom all of it holds.
#[derive(Clone, Default)]
pub struct Find {
    pub role: Option<Role>,
    /// The id of the identity provider that they came through.
    pub provider: Option<String>,
    /// Own record, as `Practitioner/1`.
    pub record: Option<String>,
    /// Beginnings of names or of their parts, in lower case.
    pub words: Vec<String>,
}

/// The parts of a user name, and the beginnings that have terms.
fn parts(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty())
}

fn beginning(part: &str) -> String {
    format!("name:{}", part.chars().take(BEGINNING).collect::<String>())
}

fn of_role(role: Role) -> String {
    format!("role:{}", role.name())
}

fn of_record(record: &str) -> String {
    format!("record:{record}")
}

fn of_provider(provider: &str) -> String {
    format!("provider:{provider}")
}

fn of_id(id: &str) -> String {
    format!("id:{id}")
}

/// All terms of a user.
fn terms(user: &User) -> BTreeSet<String> {
    let mut terms = BTreeSet::from([of_id(&user.id), of_role(user.role)]);
    terms.extend(user.fhir_user.as_deref().map(of_record));
    terms.extend(user.account.as_ref().map(|account| of_provider(&account.provider)));
    terms.extend(parts(&user.username).map(beginning));
    terms
}

/// Whether a change leaves what a user is found by.
pub(super) fn is_found_alike(before: &User, after: &User) -> bool {
    terms(before) == terms(after)
}

impl Find {
    /// What the words of a person mean: a record where there is a slash in one, else how a name or a part of it begins.
    pub fn words(text: &str) -> Find {
        let mut find = Find::default();
        for word in text.split_whitespace() {
            if word.contains('/') {
                find.record = Some(word.to_owned());
            } else {
                find.words.push(word.to_lowercase());
            }
        }
        find
    }

    pub fn is_all(&self) -> bool {
        self.role.is_none() && self.provider.is_none() && self.record.is_none() && self.words.is_empty()
    }

    /// Whether a name can be meant.
    fn may_be(&self, username: &str) -> bool {
        self.words.iter().all(|word| username.starts_with(word) || parts(username).any(|part| part.starts_with(word)))
    }

    pub(super) fn is(&self, user: &User) -> bool {
        self.may_be(&user.username)
            && self.role.is_none_or(|role| user.role == role)
            && (self.record.is_none() || self.record == user.fhir_user)
            && self.provider.as_ref().is_none_or(|id| user.account.as_ref().is_some_and(|own| own.provider == *id))
    }

    /// The term that all of them have and the fewest others do; None: every user may be meant.
    fn term(&self) -> Option<String> {
        let record = self.record.as_deref().map(of_record);
        // A shorter beginning has no term of its own.
        let long = self.words.iter().flat_map(|word| parts(word).next()).filter(|part| part.len() >= BEGINNING);
        let name = || long.max_by_key(|part| part.len()).map(beginning);
        let role = || self.role.map(of_role);
        record.or_else(name).or_else(|| self.provider.as_deref().map(of_provider)).or_else(role)
    }
}

impl Directory {
    pub fn new(store: &Store, vault: &Vault) -> Directory {
        Directory(Shelf::new(store, vault, SPACE))
    }

    /// As [`Shelf::altered`].
    pub async fn altered(&self) -> Result<Vec<String>> {
        self.0.altered().await
    }

    fn row(term: &str, username: &str) -> String {
        format!("{term}\n{username}")
    }

    /// Lets a user be found; before the user is added or changed, as what they will be.
    pub async fn add(&self, user: &User) -> Result<()> {
        let rows = terms(user).into_iter().map(|term| async move {
            self.0.put(&Self::row(&term, &user.username), &user.username, Some(&term)).await
        });
        futures_util::future::try_join_all(rows).await.map(drop)
    }

    /// Forgets the terms that a user had and has no longer.
    pub async fn remove(&self, before: &User, now: Option<&User>) -> Result<()> {
        let kept = now.map(terms).unwrap_or_default();
        for term in terms(before).difference(&kept) {
            self.0.delete(&Self::row(term, &before.username)).await?;
        }
        Ok(())
    }

    /// Gives the users of a database that is older than the terms theirs, once.
    pub async fn make(&self, users: &Shelf<User>) -> Result<()> {
        if self.0.get(MADE).await?.is_some() {
            return Ok(());
        }
        let mut after = Vec::new();
        loop {
            let page = users.page(None, &after, CHUNK).await?;
            for user in &page {
                self.add(user).await?;
            }
            match page.last() {
                Some(last) if page.len() == CHUNK => after = last.key().to_vec(),
                _ => return self.0.put(MADE, &String::new(), None).await,
            }
        }
    }

    /// How many users may be meant.
    pub async fn count(&self, users: &Shelf<User>, find: &Find) -> Result<usize> {
        match find.term() {
            Some(term) => self.0.count(Some(&term)).await,
            None => users.count(None).await,
        }
    }

    /// How many came through this provider.
    pub async fn count_of_provider(&self, provider: &str) -> Result<usize> {
        self.0.count(Some(&of_provider(provider))).await
    }

    /// The user of this id.
    pub async fn of_id(&self, users: &Shelf<User>, id: &str) -> Result<Option<Held<User>>> {
        let Some(name) = self.0.page(Some(&of_id(id)), &[], 1).await?.pop() else { return Ok(None) };
        Ok(users.get(&name).await?.filter(|user| user.id == id))
    }

    /// The next so many that may be meant: each with the key to go on after, and the user if it is one.
    pub async fn candidates(
        &self,
        users: &Shelf<User>,
        find: &Find,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Option<Held<User>>)>> {
        let keyed = |user: Held<User>| (user.key().to_vec(), Some(user).filter(|user| find.is(user)));
        let Some(term) = find.term() else {
            return Ok(users.page(None, after, limit).await?.into_iter().map(keyed).collect());
        };
        let mut found = Vec::new();
        for name in self.0.page(Some(&term), after, limit).await? {
            let user = match normal(&name).filter(|username| find.may_be(username)) {
                Some(username) => users.get(&username).await?.filter(|user| find.is(user)),
                None => None,
            };
            found.push((name.key().to_vec(), user));
        }
        Ok(found)
    }
}
