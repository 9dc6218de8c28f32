//! The root key in a local file, for one site without a KMS. Whoever holds this file and the key database can open
//! everything: keep it apart from both databases and from their backups.
//!
//! ```text
//! phial-keyring/v1
//! id 0b6f3c1e-...            random; names the key in every blob it wrapped
//! created 2026-01-31T08:15:30.123Z
//! key <32 bytes in base64>
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use zeroize::Zeroizing;

use super::RootKey;
use super::crypto::{Key256, XAES_NONCE, Xaes, derive_key, random_key};
use crate::error::{Error, Kind, Result};
use crate::world::{self, World, folder_of};

const FORMAT: &str = "phial-keyring/v1";
const WRAP_VERSION: u8 = 1;
/// A keyring is a few lines; anything larger is another file.
const FILE_MAX: u64 = 4096;

/// A root key read from its file.
pub struct LocalKeyring {
    id: String,
    created: String,
    secret: Key256,
    wrap: Xaes,
}

impl LocalKeyring {
    /// Reads the keyring, or makes one with a new random key when there is no file. Of two processes that start at
    /// once on the same path one makes it and both read the same.
    ///
    /// # Errors
    /// `Kind::Unavailable`, naming the path and the fault: permissions wider than 0600, not a keyring, not readable.
    pub fn open_or_create(path: &Path) -> Result<LocalKeyring> {
        match Self::open(path)? {
            Some(keyring) => Ok(keyring),
            None => {
                create(path, &LocalKeyring::random(&World::real()))?;
                Self::open(path)?.ok_or_else(|| fault(path, "vanished while it was being made"))
            }
        }
    }

    /// Reads the keyring; None when there is no file.
    fn open(path: &Path) -> Result<Option<LocalKeyring>> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fault(path, "cannot be opened").caused_by(error)),
        };
        // Of the open file, so that what is checked is what is read.
        let about = file.metadata().map_err(|error| fault(path, "cannot be examined").caused_by(error))?;
        if !about.is_file() || about.len() > FILE_MAX {
            return Err(fault(path, "is not a keyring file"));
        }
        let mode = about.permissions().mode() & 0o7777;
        if mode & 0o177 != 0 {
            return Err(fault(path, &format!("has mode {mode:04o}; it must be 0600 or 0400 (chmod 600)")));
        }
        let mut text = Zeroizing::new(String::with_capacity(FILE_MAX as usize));
        (&mut file)
            .take(FILE_MAX)
            .read_to_string(&mut text)
            .map_err(|error| fault(path, "cannot be read").caused_by(error))?;
        Self::parse(&text).map(Some).map_err(|what| fault(path, what))
    }

    pub(super) fn random(world: &World) -> LocalKeyring {
        Self::new(world.uuid(), world.now().to_fhir(), random_key())
    }

    fn new(id: String, created: String, secret: Key256) -> LocalKeyring {
        let wrap = Xaes::new(&derive_key(&secret, &[b"wrap-system"]));
        LocalKeyring { id, created, secret, wrap }
    }

    fn parse(text: &str) -> Result<LocalKeyring, &'static str> {
        let mut lines = text.lines();
        if lines.next() != Some(FORMAT) {
            return Err("is not a keyring of a format this version knows (phial-keyring/v1)");
        }
        let (mut id, mut created, mut key) = (None, None, None);
        for line in lines.filter(|line| !line.trim().is_empty()) {
            let (name, value) = line.split_once(' ').ok_or("has a line without a value")?;
            let slot = match name {
                "id" => &mut id,
                "created" => &mut created,
                "key" => &mut key,
                _ => return Err("has a line of an unknown name"),
            };
            if slot.replace(value).is_some() {
                return Err("has a line twice");
            }
        }
        let (Some(id), Some(created), Some(key)) = (id, created, key) else {
            return Err("lacks its id, created or key line");
        };
        if id.len() != 36 || !id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
            return Err("has an id that is no UUID");
        }
        let mut secret = Zeroizing::new([0u8; 32]);
        match STANDARD.decode_slice(key, &mut *secret) {
            Ok(32) => Ok(Self::new(id.to_owned(), created.to_owned(), secret)),
            _ => Err("has a key line that is not 32 bytes in base64"),
        }
    }

    /// Random name of the root key; no secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When it was made, as FHIR `instant`.
    pub fn created(&self) -> &str {
        &self.created
    }

    fn text(&self) -> Zeroizing<String> {
        let key = Zeroizing::new(STANDARD.encode(self.secret.as_slice()));
        Zeroizing::new(format!("{FORMAT}\nid {}\ncreated {}\nkey {}\n", self.id, self.created, *key))
    }

    fn aad(&self, context: &str) -> Vec<u8> {
        let mut aad = format!("phial-root/v1\n{}\n", self.id).into_bytes();
        aad.extend_from_slice(context.as_bytes());
        aad
    }

    fn wrap_now(&self, context: &str, key: &[u8; 32]) -> Result<Vec<u8>> {
        let mut nonce = [0u8; XAES_NONCE];
        world::secret(&mut nonce);
        let mut out = vec![WRAP_VERSION];
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&nonce);
        self.wrap.seal(&nonce, &self.aad(context), key, &mut out)?;
        Ok(out)
    }

    fn unwrap_now(&self, context: &str, wrapped: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        let tampered = || Error::tampered("system key");
        let rest = wrapped.strip_prefix(&[WRAP_VERSION]).ok_or_else(tampered)?;
        let (id, rest) = rest.split_at_checked(self.id.len()).ok_or_else(tampered)?;
        if id != self.id.as_bytes() {
            let cause = format!("it was wrapped under another root key than {}: is this the right keyring?", self.id);
            return Err(tampered().caused_by(cause));
        }
        let (nonce, text) = rest.split_first_chunk::<XAES_NONCE>().ok_or_else(tampered)?;
        let plain = self.wrap.open(nonce, &self.aad(context), text).ok_or_else(tampered)?;
        let mut key = Zeroizing::new([0u8; 32]);
        if plain.len() != key.len() {
            return Err(tampered());
        }
        key.copy_from_slice(&plain);
        Ok(key)
    }
}

impl RootKey for LocalKeyring {
    fn wrap<'a>(&'a self, context: &'a str, key: &'a [u8; 32]) -> BoxFuture<'a, Result<Vec<u8>>> {
        ready(self.wrap_now(context, key)).boxed()
    }

    fn unwrap<'a>(&'a self, context: &'a str, wrapped: &'a [u8]) -> BoxFuture<'a, Result<Zeroizing<[u8; 32]>>> {
        ready(self.unwrap_now(context, wrapped)).boxed()
    }
}

/// Writes a whole file beside `path`, makes it durable, and gives it the name only if nothing has it yet.
fn create(path: &Path, keyring: &LocalKeyring) -> Result<()> {
    let folder = folder_of(path);
    let name = path.file_name().ok_or_else(|| fault(path, "is not the name of a file"))?;
    let mut draft = name.to_owned();
    draft.push(format!(".{}.new", keyring.id));
    let draft = folder.join(draft);
    let written = write_durably(&draft, keyring.text().as_bytes()).and_then(|()| match fs::hard_link(&draft, path) {
        // Another process was first: its keyring stands.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    let cleared = match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    written
        .and(cleared)
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(|error| fault(path, "cannot be made").caused_by(error))
}

fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn fault(path: &Path, what: &str) -> Error {
    Error::new(Kind::Unavailable, format!("The keyring {} {what}.", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_and_text(result: Result<LocalKeyring>) -> (Kind, String) {
        let error = result.err().expect("it must fail");
        (error.kind, error.to_string())
    }

    #[test]
    fn is_made_once_private_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring");
        let made = LocalKeyring::open_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = LocalKeyring::open_or_create(&path).unwrap();
        assert_eq!((made.id(), made.created(), &*made.secret), (again.id(), again.created(), &*again.secret));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn two_starters_get_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring");
        let keys: Vec<[u8; 32]> = std::thread::scope(|scope| {
            let starters: Vec<_> =
                (0..8).map(|_| scope.spawn(|| *LocalKeyring::open_or_create(&path).unwrap().secret)).collect();
            starters.into_iter().map(|starter| starter.join().unwrap()).collect()
        });
        assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn wider_permissions_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring");
        LocalKeyring::open_or_create(&path).unwrap();
        for mode in [0o640, 0o604, 0o644, 0o700] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let (kind, text) = kind_and_text(LocalKeyring::open_or_create(&path));
            assert_eq!(kind, Kind::Unavailable);
            assert!(text.contains(&format!("{mode:04o}")) && text.contains("keyring"), "{text}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(LocalKeyring::open_or_create(&path).is_ok());
    }

    #[test]
    fn anything_but_a_keyring_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring");
        let good = LocalKeyring::random(&World::real()).text().to_string();
        let cases = [
            String::new(),
            "phial-keyring/v2\n".to_owned(),
            good.replace("key ", "kee "),
            good.replace("id ", "id x"),
            good.replace('=', ""),
            format!("{good}key AAAA\n"),
            "x".repeat(5000),
        ];
        for text in cases {
            write_durably(&path, text.as_bytes()).unwrap();
            let (kind, said) = kind_and_text(LocalKeyring::open_or_create(&path));
            assert_eq!(kind, Kind::Unavailable, "{text}");
            assert!(!said.contains(good.lines().nth(3).unwrap()), "the key is not quoted");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            fs::remove_file(&path).unwrap();
        }
        let (kind, _) = kind_and_text(LocalKeyring::open_or_create(folder.path()));
        assert_eq!(kind, Kind::Unavailable);
    }

    #[test]
    fn a_wrapped_key_opens_only_in_its_context_and_under_its_root() {
        let keyring = LocalKeyring::random(&World::real());
        let wrapped = keyring.wrap_now("kek/1", &[9; 32]).unwrap();
        assert_eq!(*keyring.unwrap_now("kek/1", &wrapped).unwrap(), [9; 32]);
        assert_eq!(keyring.unwrap_now("kek/2", &wrapped).unwrap_err().kind, Kind::Tampered);
        let other = LocalKeyring::random(&World::real());
        let error = other.unwrap_now("kek/1", &wrapped).unwrap_err();
        assert_eq!(error.kind, Kind::Tampered);
        assert!(error.cause().unwrap().to_string().contains("right keyring"));
        for at in 0..wrapped.len() {
            let mut bad = wrapped.clone();
            bad[at] ^= 1;
            assert_eq!(keyring.unwrap_now("kek/1", &bad).unwrap_err().kind, Kind::Tampered, "byte {at}");
            assert_eq!(keyring.unwrap_now("kek/1", &wrapped[..at]).unwrap_err().kind, Kind::Tampered, "cut at {at}");
        }
    }
}
