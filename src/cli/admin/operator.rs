//! The name of whoever sits at the console, for the record: the owner of this process, and who became that by `sudo`.

use std::os::unix::fs::MetadataExt;

/// `alice`, `root (sudo by alice)`, `uid 1001` where the system knows no name.
pub fn name() -> String {
    let own = match std::fs::metadata("/proc/self") {
        Ok(of) => {
            let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
            account(&accounts, of.uid()).unwrap_or_else(|| format!("uid {}", of.uid()))
        }
        // Without /proc the environment says it, for what that is worth.
        Err(_) => format!("{} (as the environment says)", std::env::var("USER").unwrap_or_default()),
    };
    let own = match std::env::var("SUDO_USER") {
        Ok(before) if !before.is_empty() => format!("{own} (sudo by {before})"),
        _ => own,
    };
    own.chars().filter(|c| !c.is_control()).take(100).collect()
}

fn account(accounts: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    let mut rows = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
    rows.find(|row| row.get(2) == Some(&uid.as_str())).map(|row| row[0].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_number() {
        let accounts = "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(account(accounts, 1000).as_deref(), Some("ann"));
        assert_eq!(account(accounts, 100), None);
        assert!(!name().is_empty());
    }
}
