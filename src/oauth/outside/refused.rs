//! Why a login at an identity provider came to nothing: a closed list, with the word for the record and the text for
//! the page. Neither says more than the person or the operator needs.

use super::mapping::Unmapped;

/// Why somebody is not logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The answer belongs to no login that this browser began here.
    State,
    /// The provider says that the person, or it, does not want to.
    Denied,
    /// The answer names another issuer, or none where there must be one.
    Issuer,
    /// The provider does not answer, or not as it should.
    Provider,
    /// The provider does not take the code.
    Code,
    /// What is wrong with the token.
    Token(Fault),
    SecondFactor,
    Role,
    Record,
    Disabled,
    /// An administrator has shut the provider.
    Closed,
}

/// What is wrong with a token of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Missing,
    Form,
    Signature,
    Issuer,
    Audience,
    Expired,
    Time,
    Nonce,
    /// It is not the one that came with this access token.
    AccessToken,
    /// A claim that the configuration asks for is absent, or other than it should be.
    Claims,
    /// Of somebody else than the token.
    Userinfo,
}

impl From<Unmapped> for Refused {
    fn from(why: Unmapped) -> Refused {
        match why {
            Unmapped::Role => Refused::Role,
            Unmapped::Record => Refused::Record,
        }
    }
}

impl Refused {
    /// For the record.
    pub fn word(self) -> &'static str {
        match self {
            Refused::State => "provider-state",
            Refused::Denied => "provider-denied",
            Refused::Issuer => "provider-issuer",
            Refused::Provider => "provider-unreachable",
            Refused::Code => "provider-code",
            Refused::Token(fault) => fault.word(),
            Refused::SecondFactor => "provider-second-factor",
            Refused::Role => "provider-role",
            Refused::Record => "provider-record",
            Refused::Disabled => "disabled",
            Refused::Closed => "provider-disabled",
        }
    }

    /// For the person.
    pub fn text(self) -> &'static str {
        match self {
            Refused::State => {
                "This answer belongs to no login that this browser began here, or it came too late. Begin again; \
                 cookies must be allowed."
            }
            Refused::Denied => "The login was cancelled, or your identity provider refused it.",
            Refused::Provider => "Your identity provider does not answer as it should. Try again in a moment.",
            Refused::Issuer | Refused::Code | Refused::Token(_) => {
                "What your identity provider answered cannot be trusted, so nobody was logged in. Begin again; if it \
                 happens once more, tell your administration."
            }
            Refused::SecondFactor => {
                "This server needs a login with a second factor, and your identity provider did not report one. Set \
                 one up there, then log in again."
            }
            Refused::Role => {
                "Your identity provider knows you, but nothing that it says of you gives you a role here. Ask your \
                 administration for the right group."
            }
            Refused::Record => {
                "Your identity provider does not say which record here is yours, or says it wrongly. Ask your \
                 administration."
            }
            Refused::Disabled => "Your account here has been closed. Ask your administration.",
            Refused::Closed => "Nobody can log in through this identity provider now. Ask your administration.",
        }
    }
}

impl Fault {
    fn word(self) -> &'static str {
        match self {
            Fault::Missing => "provider-token-missing",
            Fault::Form => "provider-token-form",
            Fault::Signature => "provider-token-signature",
            Fault::Issuer => "provider-token-issuer",
            Fault::Audience => "provider-token-audience",
            Fault::Expired => "provider-token-expired",
            Fault::Time => "provider-token-time",
            Fault::Nonce => "provider-token-nonce",
            Fault::AccessToken => "provider-token-access-token",
            Fault::Claims => "provider-token-claims",
            Fault::Userinfo => "provider-userinfo",
        }
    }
}
