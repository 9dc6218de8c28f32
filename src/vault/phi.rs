//! Values that must not be printed by accident.

use zeroize::Zeroize;

/// Protected health information: no Debug, no Display, no Serialize; wiped when dropped. Reading it is a deliberate
/// call that a reviewer can search for.
///
/// ```compile_fail
/// let name = phial::vault::Phi::new(String::from("Ann"));
/// format!("{name:?}");
/// ```
/// ```compile_fail
/// let name = phial::vault::Phi::new(String::from("Ann"));
/// format!("{name}");
/// ```
/// ```compile_fail
/// let name = phial::vault::Phi::new(String::from("Ann"));
/// serde_json::to_string(&name);
/// ```
/// ```
/// let name = phial::vault::Phi::new(String::from("Ann"));
/// assert_eq!(name.expose(), "Ann");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Phi<T: Zeroize>(T);

impl<T: Zeroize> Phi<T> {
    pub fn new(value: T) -> Self {
        Phi(value)
    }

    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Phi<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
