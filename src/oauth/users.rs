//! The users of this server, sealed in the store: who may log in, as what, and with which proofs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::by::By;
use super::directory::{self, Directory, Find};
use super::outside::Account;
use super::passkeys::Passkey;
use super::password::{self, PasswordHash};
use super::shelf::{Held, Shelf};
use super::totp;
use crate::access::Role;
use crate::audit::{Trail, What};
use crate::error::{Error, Kind, Result};
use crate::fhir::{definitions, reference};
use crate::store::Store;
use crate::vault::Vault;
use crate::world::{Instant, World};

const SPACE: &str = "oauth-user";
pub(super) const NAME_LENGTH_MAX: usize = 64;
/// Users one server keeps.
pub const USERS_MAX: usize = 100_000;
/// Up to so many that may be meant are put in the order of their names. More are shown as they are found.
const SORTED_MAX: usize = 500;
/// Users of whom one page of a search says whether they are meant.
const LOOKED_AT_MAX: usize = 2_000;
const CHUNK: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Active,
    Disabled,
}

/// The second factor: a device that shows codes.
#[derive(Clone, Serialize, Deserialize)]
pub struct Device {
    pub secret: Vec<u8>,
    /// The step of the last code that was taken: codes count once.
    pub last_step: i64,
}

/// A user. No Debug: record and proofs are nobody's business.
#[derive(Clone, Serialize, Deserialize)]
pub struct User {
    /// Random; the subject of tokens.
    pub id: String,
    /// In lower case.
    pub username: String,
    pub role: Role,
    /// The user's own record, relative: `Practitioner/1`.
    pub fhir_user: Option<String>,
    pub status: Status,
    /// None from a reset until its link is taken up.
    pub password: Option<PasswordHash>,
    pub device: Option<Device>,
    #[serde(default)]
    pub passkeys: Vec<Passkey>,
    /// Hashes of the recovery codes that are left.
    pub recovery: Vec<[u8; 32]>,
    /// Milliseconds since 1970. Sessions and authorizations that are older have ended.
    pub valid_from: i64,
    /// Of a demonstration: `phial serve` refuses to start while there is one.
    pub demo: bool,
    /// The account that the user logs in with at an identity provider: there is no password then.
    #[serde(default)]
    pub account: Option<Account>,
}

/// A user to be added.
#[derive(Clone)]
pub struct NewUser {
    pub username: String,
    pub role: Role,
    pub fhir_user: Option<String>,
    /// None: nobody can log in as this user before a reset.
    pub password: Option<Zeroizing<String>>,
    pub totp_secret: Option<Vec<u8>>,
    pub demo: bool,
}

/// The users. Clones are cheap.
#[derive(Clone)]
pub struct Users {
    shelf: Shelf<User>,
    directory: Directory,
    sorted_max: usize,
    trail: Trail,
    world: Arc<World>,
    by: By,
}

/// One page of a list of users.
pub struct UserPage {
    pub users: Vec<Held<User>>,
    /// Where the next page begins; None on the last one.
    pub next: Option<Vec<u8>>,
    /// How many there are in all, where that is known without looking at each.
    pub total: Option<usize>,
}

/// The form in which user names are kept and compared; None when it can be no user name.
pub fn normal(username: &str) -> Option<String> {
    let name = username.trim().to_ascii_lowercase();
    let fits = (1..=NAME_LENGTH_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@+".contains(&byte));
    fits.then_some(name)
}

/// `Practitioner/1`, of a type that fits the role.
pub(super) fn check_record(role: Role, fhir_user: Option<&str>) -> Result<()> {
    let wrong = |text: String| Err(Error::invalid(text).at("fhir_user"));
    let Some(text) = fhir_user else {
        return if role.is_staff() {
            Ok(())
        } else {
            wrong("Patients and guardians are tied to their record.".to_owned())
        };
    };
    let kinds: &[&str] = match role {
        Role::Patient => &["Patient"],
        Role::Guardian => &["RelatedPerson"],
        _ => &["Practitioner", "Person"],
    };
    let parts = text.split_once('/');
    let known = parts.is_some_and(|(kind, id)| kinds.contains(&kind) && reference::is_id(id));
    if !known || definitions().type_id(parts.map_or("", |parts| parts.0)).is_none() {
        return wrong(format!("For {} this is a relative reference to {}.", role.name(), kinds.join(" or ")));
    }
    Ok(())
}

impl User {
    /// What administration puts on record about a user.
    pub(super) fn facts(&self) -> Vec<(String, String)> {
        let facts = [
            ("username", self.username.clone()),
            ("user", self.id.clone()),
            ("role", self.role.name().to_owned()),
            ("fhirUser", self.fhir_user.clone().unwrap_or_default()),
        ];
        facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Whether a second factor is enrolled.
    pub fn has_factor(&self) -> bool {
        self.device.is_some() || !self.passkeys.is_empty()
    }

    pub fn is_active(&self) -> bool {
        self.status == Status::Active
    }
}

impl Users {
    pub fn new(store: &Store, vault: &Vault, trail: Trail, world: Arc<World>) -> Users {
        let (shelf, directory) = (Shelf::new(store, vault, SPACE), Directory::new(store, vault));
        Users { shelf, directory, sorted_max: SORTED_MAX, trail, world, by: By::server() }
    }

    /// The same, with what is done recorded as theirs.
    pub fn by(&self, by: &By) -> Users {
        Users { by: by.clone(), ..self.clone() }
    }

    /// As [`Shelf::altered`], of users and of what finds them.
    pub(super) async fn altered(&self) -> Result<Vec<String>> {
        Ok([self.shelf.altered().await?, self.directory.altered().await?].concat())
    }

    /// Lets the users of an older database be found.
    pub(super) async fn make_directory(&self) -> Result<()> {
        self.directory.make(&self.shelf).await
    }

    /// For tests: lists are put in order only up to so many.
    #[cfg(test)]
    pub(crate) fn sorting(self, sorted_max: usize) -> Users {
        Users { sorted_max, ..self }
    }

    /// For tests: how many entries of users were opened so far.
    #[cfg(test)]
    pub(crate) fn opened(&self) -> u64 {
        self.shelf.opened.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// How many there are.
    pub(super) async fn count(&self) -> Result<usize> {
        self.shelf.count(None).await
    }

    /// How many came through an identity provider.
    pub async fn count_of_provider(&self, provider: &str) -> Result<usize> {
        self.directory.count_of_provider(provider).await
    }

    /// Adds a user.
    ///
    /// # Errors
    /// `Kind::Invalid` with the place of the fault; `Kind::Conflict` when the name is taken.
    pub async fn add(&self, new: NewUser) -> Result<User> {
        let username = normal(&new.username).ok_or_else(|| {
            Error::invalid("A user name has 1 to 64 letters, digits and signs of . _ - @ +").at("username")
        })?;
        check_record(new.role, new.fhir_user.as_deref())?;
        if let Some(password) = &new.password {
            password::check(password, &username).map_err(|why| Error::invalid(why).at("password"))?;
        }
        let password = match new.password {
            Some(password) => Some(hashed(password).await?),
            None => None,
        };
        let user = User {
            id: self.world.uuid(),
            username,
            role: new.role,
            fhir_user: new.fhir_user,
            status: Status::Active,
            password,
            device: new.totp_secret.map(|secret| Device { secret, last_step: 0 }),
            passkeys: Vec::new(),
            recovery: Vec::new(),
            valid_from: self.world.now().0,
            demo: new.demo,
            account: None,
        };
        if !self.insert(&user).await? {
            return Err(Error::new(Kind::Conflict, "There is a user of this name already.").at("username"));
        }
        if let Err(error) = self.record(What::UserAdded, &user).await {
            self.forget(&user).await?;
            return Err(error);
        }
        Ok(user)
    }

    /// Adds the user of an account at an identity provider. None: the name is taken. Whoever calls puts it on record.
    pub(super) async fn add_account(
        &self,
        username: String,
        role: Role,
        fhir_user: Option<String>,
        account: Account,
    ) -> Result<Option<User>> {
        let user = User {
            id: self.world.uuid(),
            username,
            role,
            fhir_user,
            status: Status::Active,
            password: None,
            device: None,
            passkeys: Vec::new(),
            recovery: Vec::new(),
            valid_from: self.world.now().0,
            demo: false,
            account: Some(account),
        };
        Ok(self.insert(&user).await?.then_some(user))
    }

    /// Keeps a new user, who can be found at once. False: the name is taken.
    async fn insert(&self, user: &User) -> Result<bool> {
        self.directory.add(user).await?;
        if self.shelf.insert(&user.username, user, None, None).await? {
            return Ok(true);
        }
        self.retermed(user).await?;
        Ok(false)
    }

    /// Terms that were made for what a user was, or was to be, and is not.
    async fn retermed(&self, other: &User) -> Result<()> {
        let now = self.shelf.get(&other.username).await?;
        self.directory.remove(other, now.as_deref()).await?;
        // Somebody may have changed the user in between, and needs a term that has just gone.
        match self.shelf.get(&other.username).await? {
            Some(now) => self.directory.add(&now).await,
            None => Ok(()),
        }
    }

    /// Removes a user that nobody has used.
    pub(super) async fn forget(&self, user: &User) -> Result<()> {
        self.shelf.delete(&user.username).await?;
        self.directory.remove(user, None).await
    }

    async fn record(&self, what: What, user: &User) -> Result<()> {
        self.trail.record(self.by.event(self.world.now(), what, user.facts())).await.map(drop)
    }

    pub async fn get(&self, username: &str) -> Result<Option<Held<User>>> {
        match normal(username) {
            Some(username) => self.shelf.get(&username).await,
            None => Ok(None),
        }
    }

    /// All users, by name.
    pub async fn list(&self) -> Result<Vec<Held<User>>> {
        let mut users = self.shelf.all().await?;
        users.sort_by(|a, b| a.username.cmp(&b.username));
        Ok(users)
    }

    /// The user of this id.
    pub async fn by_id(&self, id: &str) -> Result<Option<Held<User>>> {
        self.directory.of_id(&self.shelf, id).await
    }

    /// The names of all whose own record this is.
    pub async fn of_record(&self, record: &str) -> Result<Vec<String>> {
        let find = Find { record: Some(record.to_owned()), ..Find::default() };
        let (mut names, mut after) = (Vec::new(), Vec::new());
        loop {
            let page = self.directory.candidates(&self.shelf, &find, &after, CHUNK).await?;
            let is_last = page.len() < CHUNK;
            after = page.last().map(|(key, _)| key.clone()).unwrap_or_default();
            names.extend(page.into_iter().filter_map(|(_, user)| user.map(|user| user.username.clone())));
            if is_last {
                return Ok(names);
            }
        }
    }

    /// At most `limit` users, after the place that the page before ended at (empty: from the first). By name where few may
    /// be meant; else in no order that says anything, and a page may hold fewer than there is room for.
    pub async fn page(&self, find: &Find, after: &[u8], limit: usize) -> Result<UserPage> {
        let may_be = self.directory.count(&self.shelf, find).await?;
        if may_be > self.sorted_max {
            return self.found(find, after, limit, may_be).await;
        }
        let all = self.directory.candidates(&self.shelf, find, &[], self.sorted_max).await?;
        let mut users: Vec<Held<User>> = all.into_iter().filter_map(|(_, user)| user).collect();
        users.sort_by(|a, b| a.username.cmp(&b.username));
        let total = users.len();
        let first = users.iter().position(|user| user.key() == after).map_or(0, |at| at + 1);
        let mut users = users.split_off(first);
        let more = users.len() > limit;
        users.truncate(limit);
        let next = users.last().filter(|_| more).map(|user| user.key().to_vec());
        Ok(UserPage { users, next, total: Some(total) })
    }

    async fn found(&self, find: &Find, after: &[u8], limit: usize, may_be: usize) -> Result<UserPage> {
        let (mut users, mut at, mut looked_at) = (Vec::new(), after.to_vec(), 0);
        let total = find.is_all().then_some(may_be);
        let wanted = if find.is_all() { limit + 1 } else { CHUNK };
        loop {
            let page = self.directory.candidates(&self.shelf, find, &at, wanted).await?;
            let ended = page.len() < wanted;
            looked_at += page.len();
            for (key, user) in page {
                if users.len() >= limit {
                    return Ok(UserPage { users, next: Some(at), total });
                }
                at = key;
                users.extend(user);
            }
            let next = Some(at.clone()).filter(|_| !ended);
            if ended || looked_at >= LOOKED_AT_MAX {
                return Ok(UserPage { users, next, total });
            }
        }
    }

    /// Whether a user of a demonstration is here: a real server must not start on such a database.
    pub async fn any_demo(&self) -> Result<bool> {
        Ok(self.list().await?.iter().any(|user| user.demo))
    }

    /// Changes a user, whoever else does. None: there is none of this name.
    pub(super) async fn change<R>(
        &self,
        username: &str,
        change: impl Fn(&mut User) -> Result<R>,
    ) -> Result<Option<(User, R)>> {
        let Some(username) = normal(username) else { return Ok(None) };
        self.shelf.change(&username, None, change).await
    }

    /// Changes what a user is found by. Gives what they were and what they are; None: there is none of this name.
    pub(super) async fn change_found(
        &self,
        username: &str,
        change: impl Fn(&mut User),
    ) -> Result<Option<(User, User)>> {
        let Some(held) = self.get(username).await? else { return Ok(None) };
        let mut coming = (*held).clone();
        change(&mut coming);
        if directory::is_found_alike(&held, &coming) {
            let changed = self.change(username, |user| {
                let before = user.clone();
                change(user);
                Ok(before)
            });
            return Ok(changed.await?.map(|(user, before)| (before, user)));
        }
        self.directory.add(&coming).await?;
        let changed = self.change(username, |user| {
            let before = user.clone();
            change(user);
            Ok(before)
        });
        let changed = changed.await;
        // What it was to be, if it has failed; what it was, if not.
        self.retermed(&coming).await?;
        let Some((user, before)) = changed? else { return Ok(None) };
        self.retermed(&before).await?;
        Ok(Some((before, user)))
    }

    /// No login and no token works for the user from now on. False: there is no such user.
    pub async fn disable(&self, username: &str) -> Result<bool> {
        let now = self.world.now().0;
        let changed = self.change(username, |user| {
            user.status = Status::Disabled;
            user.valid_from = now;
            Ok(())
        });
        let Some((user, ())) = changed.await? else { return Ok(false) };
        self.record(What::UserDisabled, &user).await?;
        Ok(true)
    }

    /// Lets a disabled user in again, with the password of before. False: there is no such user.
    pub async fn enable(&self, username: &str) -> Result<bool> {
        let changed = self.change(username, |user| {
            user.status = Status::Active;
            Ok(())
        });
        let Some((user, ())) = changed.await? else { return Ok(false) };
        self.record(What::UserEnabled, &user).await?;
        Ok(true)
    }

    /// Gives a user another role, and the record that goes with it; whatever the user has open ends. False: there is no
    /// such user.
    ///
    /// # Errors
    /// `Kind::Invalid` when the record does not fit the role.
    pub async fn set_role(&self, username: &str, role: Role, fhir_user: Option<String>) -> Result<bool> {
        check_record(role, fhir_user.as_deref())?;
        let now = self.world.now().0;
        let changed = self.change_found(username, |user| {
            user.role = role;
            user.fhir_user.clone_from(&fhir_user);
            user.valid_from = now;
        });
        let Some((before, user)) = changed.await? else { return Ok(false) };
        let mut about = user.facts();
        about.push(("roleBefore".to_owned(), before.role.name().to_owned()));
        self.trail.record(self.by.event(self.world.now(), What::UserChanged, about)).await?;
        Ok(true)
    }

    /// Takes password and second factor away, and ends whatever the user has open. None: there is no such user.
    pub(super) async fn strip(&self, username: &str) -> Result<Option<User>> {
        let now = self.world.now().0;
        let changed = self.change(username, |user| {
            user.password = None;
            user.device = None;
            user.passkeys.clear();
            user.recovery.clear();
            user.valid_from = now;
            Ok(())
        });
        Ok(changed.await?.map(|(user, ())| user))
    }

    /// For tests: the phone is gone.
    #[cfg(test)]
    pub(crate) async fn forget_device(&self, username: &str) {
        let forget = |user: &mut User| {
            user.device = None;
            Ok(())
        };
        self.change(username, forget).await.expect("a change");
    }

    /// Takes a code of the user's device or a recovery code; either counts once. True: it was good.
    pub(super) async fn take_code(&self, username: &str, given: &str, now: Instant) -> Result<bool> {
        let recovery = totp::recovery_hash(given);
        let changed = self.change(username, |user| {
            if let Some(device) = &mut user.device
                && let Some(step) = totp::matched(&device.secret, given, device.last_step, now)
            {
                device.last_step = step;
                return Ok(true);
            }
            let before = user.recovery.len();
            user.recovery.retain(|hash| *hash != recovery);
            Ok(user.recovery.len() < before)
        });
        Ok(changed.await?.is_some_and(|(_, taken)| taken))
    }
}

/// Hashes on a thread of its own: it takes tens of milliseconds.
pub(super) async fn hashed(password: Zeroizing<String>) -> Result<PasswordHash> {
    tokio::task::spawn_blocking(move || PasswordHash::make(&password)).await.map_err(Error::internal)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_fit_roles() {
        for (role, record, good) in [
            (Role::Patient, Some("Patient/1"), true),
            (Role::Patient, Some("Practitioner/1"), false),
            (Role::Patient, None, false),
            (Role::Guardian, Some("RelatedPerson/a-b"), true),
            (Role::Guardian, Some("Patient/1"), false),
            (Role::Provider, Some("Practitioner/1"), true),
            (Role::Admin, None, true),
            (Role::Nurse, Some("Practitioner/1/_history/2"), false),
            (Role::Nurse, Some("https://x/Practitioner/1"), false),
        ] {
            assert_eq!(check_record(role, record).is_ok(), good, "{} {record:?}", role.name());
        }
    }

    #[test]
    fn names_have_one_form() {
        assert_eq!(normal(" Ann.Smith@Clinic ").as_deref(), Some("ann.smith@clinic"));
        for bad in ["", "a b", "ä", "a/b", &"x".repeat(65)] {
            assert_eq!(normal(bad), None);
        }
    }
}
