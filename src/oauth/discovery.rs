//! What is published about the server: `.well-known/smart-configuration`, and `.well-known/openid-configuration`, which is also
//! the metadata of RFC 8414.

use serde_json::{Value as Json, json};

use super::form::{GRANT_TYPES, TOKEN_AUTH_METHODS};
use crate::access::scope::OTHER;

/// Where RFC 8414 (section 3.1) has the metadata: between the host of an issuer and its path.
const AUTHORIZATION_SERVER: &str = "/.well-known/oauth-authorization-server";

/// Whether this is the address of the metadata of an issuer with this path, which is empty or begins with a slash.
pub fn is_authorization_server(path: &str, issuer_path: &str) -> bool {
    path.strip_prefix(AUTHORIZATION_SERVER) == Some(issuer_path)
}

/// Everything this server can do of what SMART App Launch 2.2 names, no more.
const CAPABILITIES: [&str; 19] = [
    "launch-ehr",
    "launch-standalone",
    "authorize-post",
    "client-public",
    "client-confidential-symmetric",
    "client-confidential-asymmetric",
    "sso-openid-connect",
    "context-banner",
    "context-style",
    "context-ehr-patient",
    "context-ehr-encounter",
    "context-standalone-patient",
    "context-standalone-encounter",
    "permission-offline",
    "permission-online",
    "permission-patient",
    "permission-user",
    "permission-v1",
    "permission-v2",
];

/// Scopes for resources, as examples: types, granular and other letters are taken too.
const RESOURCE_SCOPES: [&str; 9] = [
    "patient/*.cruds",
    "patient/*.rs",
    "user/*.cruds",
    "user/*.rs",
    "system/*.cruds",
    "system/*.rs",
    "patient/*.read",
    "user/*.read",
    "system/*.read",
];

/// Absolute addresses of the server, made from its issuer.
pub struct Endpoints {
    pub authorize: String,
    pub token: String,
    pub jwks: String,
    pub introspect: String,
    pub revoke: String,
    /// Where people see and end what they have allowed.
    pub manage: String,
    /// The style that apps launched from here may follow.
    pub style: String,
    /// Where apps ask to be registered; None: they may not.
    pub register: Option<String>,
    /// Where developers read about this installation; empty: nowhere.
    documentation: String,
    /// The Bundle of brands and base URLs (SMART App Launch 2.2, "User-access Brands"); empty: none.
    brands: String,
    issuer: String,
}

impl Endpoints {
    pub fn of(issuer: &str) -> Endpoints {
        let at = |path: &str| format!("{issuer}/{path}");
        Endpoints {
            authorize: at("oauth/authorize"),
            token: at("oauth/token"),
            jwks: at("oauth/jwks"),
            introspect: at("oauth/introspect"),
            revoke: at("oauth/revoke"),
            manage: at("account"),
            style: at("smart-style-1.json"),
            register: None,
            documentation: String::new(),
            brands: String::new(),
            issuer: issuer.to_owned(),
        }
    }

    /// The same, with the address at which apps ask to be registered.
    pub fn registering(self) -> Endpoints {
        Endpoints { register: Some(format!("{}/oauth/register", self.issuer)), ..self }
    }

    /// The same, with what the operator publishes elsewhere.
    pub fn published(self, documentation: &str, brands: &str) -> Endpoints {
        Endpoints { documentation: documentation.to_owned(), brands: brands.to_owned(), ..self }
    }

    fn shared(&self) -> Json {
        let mut document = json!({
            "issuer": self.issuer,
            "authorization_endpoint": self.authorize,
            "token_endpoint": self.token,
            "jwks_uri": self.jwks,
            "introspection_endpoint": self.introspect,
            "revocation_endpoint": self.revoke,
            "grant_types_supported": GRANT_TYPES,
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "scopes_supported": OTHER.into_iter().chain(RESOURCE_SCOPES).collect::<Vec<_>>(),
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": TOKEN_AUTH_METHODS,
            "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
            "authorization_response_iss_parameter_supported": true,
        });
        if let Some(register) = &self.register {
            document["registration_endpoint"] = json!(register);
        }
        if !self.documentation.is_empty() {
            document["service_documentation"] = json!(self.documentation);
        }
        document
    }

    /// SMART App Launch 2.2, section 3.1.1.
    pub fn smart_configuration(&self) -> Vec<u8> {
        let mut document = self.shared();
        document["management_endpoint"] = json!(self.manage);
        document["capabilities"] = json!(CAPABILITIES);
        if !self.brands.is_empty() {
            document["user_access_brand_bundle"] = json!(self.brands);
        }
        document.to_string().into_bytes()
    }

    /// OpenID Connect Discovery 1.0, and RFC 8414, which took its members from there.
    pub fn openid_configuration(&self) -> Vec<u8> {
        let mut document = self.shared();
        document["subject_types_supported"] = json!(["public"]);
        document["id_token_signing_alg_values_supported"] = json!(["RS256"]);
        document["claims_supported"] =
            json!(["iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "fhirUser", "profile"]);
        document["request_parameter_supported"] = json!(false);
        document["request_uri_parameter_supported"] = json!(false);
        document.to_string().into_bytes()
    }
}

/// The style document (SMART App Launch, "Styling"); another content needs another address.
pub fn style() -> Vec<u8> {
    json!({
        "color_background": "#ffffff",
        "color_error": "#b3261e",
        "color_highlight": "#0b5c66",
        "color_modal_backdrop": "#1b2b2e",
        "color_success": "#1e6b34",
        "color_text": "#1b2b2e",
        "dim_border_radius": "8px",
        "dim_font_size": "16px",
        "dim_spacing_size": "16px",
        "font_family_body": "system-ui, sans-serif",
        "font_family_heading": "system-ui, sans-serif"
    })
    .to_string()
    .into_bytes()
}
