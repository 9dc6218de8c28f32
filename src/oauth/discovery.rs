//! What is published about the server: `.well-known/smart-configuration`.

use serde_json::{Value as Json, json};

use super::form::TOKEN_AUTH_METHODS;

/// The SMART configuration document (SMART App Launch 2.2, section 3.1.1): what this server can do today, no more.
/// `issuer` is left out: it goes with OpenID Connect, which is not offered.
pub fn smart_configuration(token_url: &str, jwks_url: &str) -> Vec<u8> {
    let document: Json = json!({
        "token_endpoint": token_url,
        "jwks_uri": jwks_url,
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": TOKEN_AUTH_METHODS,
        "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
        "scopes_supported": ["system/*.cruds", "system/*.rs", "system/*.*", "system/*.read", "system/*.write"],
        "code_challenge_methods_supported": ["S256"],
        "capabilities": ["client-confidential-asymmetric", "permission-v1", "permission-v2"]
    });
    document.to_string().into_bytes()
}
