//! Switches for measuring what protection costs: audit, authorization and encryption can be left out of one run, so that
//! a benchmark gives ratios. This module and every place that asks it exist only in builds with the feature
//! `bench-switches`, which are for measuring and must never hold data of anybody.

use std::sync::OnceLock;

/// Names the parts to leave out, separated by commas.
pub const VARIABLE: &str = "PHIAL_BENCH_OFF";

/// What is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Off {
    /// No audit entry is made; content is released without one.
    pub audit: bool,
    /// Any bearer token is taken for one that may do everything.
    pub authorization: bool,
    /// Content is stored as it is, keys are neither made nor fetched, terms and tokens are hashes without a key.
    pub encryption: bool,
}

impl Off {
    /// `audit,encryption`; empty: nothing is left out.
    ///
    /// # Errors
    /// The first name that is unknown.
    pub fn parse(text: &str) -> Result<Off, String> {
        let mut off = Off::default();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "audit" => off.audit = true,
                "authorization" => off.authorization = true,
                "encryption" => off.encryption = true,
                unknown => return Err(unknown.to_owned()),
            }
        }
        Ok(off)
    }
}

/// What the environment says; read once.
///
/// # Panics
/// On a name that is unknown: a benchmark must not measure something else than it says.
pub fn off() -> Off {
    static OFF: OnceLock<Off> = OnceLock::new();
    *OFF.get_or_init(|| {
        let text = std::env::var(VARIABLE).unwrap_or_default();
        Off::parse(&text).unwrap_or_else(|name| panic!("{VARIABLE}: unknown part `{name}`"))
    })
}

/// What to tell whoever starts a server of such a build.
pub fn warning() -> String {
    format!(
        "WARNING: this build has the feature bench-switches. It is for measuring only and must not hold data of anybody.\n\
         WARNING: switched off by {VARIABLE}: {:?}",
        off()
    )
}

#[cfg(test)]
mod tests {
    use super::Off;

    #[test]
    fn parts_are_named() {
        assert_eq!(Off::parse(""), Ok(Off::default()));
        assert_eq!(Off::parse("audit, encryption"), Ok(Off { audit: true, encryption: true, ..Off::default() }));
        assert_eq!(Off::parse("audit,audti"), Err("audti".to_owned()));
    }
}
