//! A browser without script for the pages: a cookie jar, links and forms.

use axum::body::Body;
use axum::http::Request;
use serde_json::Value;

use super::{Reply, TestApp};
use crate::access::Role;
use crate::interaction::form;
use crate::oauth::{ClientKind, NewUser, Registration, User, totp};

pub const PASSWORD: &str = "Quiet-Lamp-4711";
pub const SECRET: &[u8] = b"12345678901234567890";
pub const REDIRECT: &str = "https://app.example/cb";
/// RFC 7636, appendix B.
pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// One browser. Its cookie is all it knows.
pub struct Browser<'a> {
    pub app: &'a TestApp,
    pub cookie: Option<String>,
}

fn pairs(of: &[(&str, &str)]) -> String {
    let owned: Vec<(String, String)> = of.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    form::encode(&owned)
}

/// The values of the hidden fields of a page's forms; the first of each name.
fn hidden(page: &str, name: &str) -> Option<String> {
    let mark = format!("name=\"{name}\" value=\"");
    let at = page.find(&mark)? + mark.len();
    Some(page[at..].split('"').next()?.to_owned())
}

/// A parameter of an address.
pub fn parameter(url: &str, name: &str) -> Option<String> {
    let query = url.split_once('?')?.1;
    form::decode(query).unwrap().into_iter().find(|(own, _)| own == name).map(|(_, value)| value)
}

impl<'a> Browser<'a> {
    pub fn new(app: &'a TestApp) -> Browser<'a> {
        Browser { app, cookie: None }
    }

    async fn send(&mut self, mut request: axum::http::request::Builder, body: String) -> Reply {
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", format!("other=1; phial={cookie}"));
        }
        let reply = self.app.send(request.body(Body::from(body)).unwrap()).await;
        if let Some(cookie) = reply.header("set-cookie").strip_prefix("phial=") {
            self.cookie = cookie.split(';').next().map(str::to_owned);
        }
        reply
    }

    /// One GET, no redirect followed.
    pub async fn get(&mut self, path: &str) -> Reply {
        self.send(Request::get(path), String::new()).await
    }

    /// Follows redirects that stay here.
    pub async fn open(&mut self, path: &str) -> Reply {
        let mut reply = self.get(path).await;
        while reply.status == 303 && reply.header("location").starts_with('/') {
            let to = reply.header("location").to_owned();
            reply = self.get(&to).await;
        }
        reply
    }

    /// One POST with exactly these fields.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        self.send(request, pairs(fields)).await
    }

    /// Sends a form of a page: its hidden fields and these. Redirects that stay here are followed.
    pub async fn submit(&mut self, page: &Reply, path: &str, fields: &[(&str, &str)]) -> Reply {
        let text = page.text();
        let kept = ["token", "request", "to", "code"].map(|name| (name, hidden(&text, name).unwrap_or_default()));
        let mut all: Vec<(&str, &str)> = kept.iter().map(|(name, value)| (*name, value.as_str())).collect();
        all.retain(|(name, _)| !fields.iter().any(|(own, _)| own == name));
        all.extend(fields);
        let reply = self.post(path, &all).await;
        if reply.status == 303 && reply.header("location").starts_with('/') {
            let to = reply.header("location").to_owned();
            return self.open(&to).await;
        }
        reply
    }

    /// Logs in from whatever page asks for it.
    pub async fn login(&mut self, page: &Reply, username: &str) -> Reply {
        let fields = [("step", "login"), ("username", username), ("password", PASSWORD)];
        let page = self.submit(page, "/login", &fields).await;
        if !page.text().contains("Enter your code") {
            return page;
        }
        // A code counts once: the next login is in the next half minute.
        self.app.pass(30);
        let code = totp::code_at(SECRET, self.app.app().world.now());
        self.submit(&page, "/login", &[("step", "factor"), ("code", &code)]).await
    }
}

impl TestApp {
    pub async fn user(&self, username: &str, role: Role, record: Option<&str>) -> User {
        let new = NewUser {
            username: username.into(),
            role,
            fhir_user: record.map(str::to_owned),
            password: Some(PASSWORD.to_owned().into()),
            totp_secret: role.is_staff().then(|| SECRET.to_vec()),
            demo: false,
        };
        self.app().oauth.users().add(new).await.expect("the user is added")
    }

    /// A public app, or one with a secret, which is given back.
    pub async fn client(&self, id: &str, kind: ClientKind, scopes: &str) -> Option<String> {
        let registration = Registration {
            client_id: Some(id.into()),
            name: format!("The app {id}"),
            kind,
            jwks: None,
            jwks_url: None,
            scopes: scopes.into(),
            redirect_uris: vec![REDIRECT.into(), "https://app.example/other".into()],
            launch_uri: Some("https://app.example/launch".into()),
            ehr: false,
            demo: false,
        };
        let added = self.app().oauth.clients().add(registration).await.expect("the client is registered");
        added.secret.map(|secret| secret.to_string())
    }

    /// The address of an authorization request, with these parameters in place of the usual ones; None leaves one out.
    pub fn authorize(&self, client: &str, scope: &str, other: &[(&str, Option<&str>)]) -> String {
        let mut all = vec![
            ("response_type", Some("code")),
            ("client_id", Some(client)),
            ("redirect_uri", Some(REDIRECT)),
            ("scope", Some(scope)),
            ("state", Some("st&te")),
            ("aud", Some("http://phial.test/fhir")),
            ("code_challenge", Some(CHALLENGE)),
            ("code_challenge_method", Some("S256")),
        ];
        for (name, value) in other {
            all.retain(|(own, _)| own != name);
            all.push((name, *value));
        }
        let given: Vec<(&str, &str)> = all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        format!("/oauth/authorize?{}", pairs(&given))
    }

    /// A form to one of the OAuth endpoints.
    pub async fn form(&self, path: &str, fields: &[(&str, &str)], authorization: Option<&str>) -> Reply {
        let mut request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        self.send(request.body(Body::from(pairs(fields))).unwrap()).await
    }

    /// Redeems a code as a public client would.
    pub async fn redeem(&self, client: &str, code: &str) -> Reply {
        let fields = [
            ("grant_type", "authorization_code"),
            ("client_id", client),
            ("code", code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
        ];
        self.form("/oauth/token", &fields, None).await
    }

    pub async fn refresh(&self, client: &str, token: &str) -> Reply {
        let fields = [("grant_type", "refresh_token"), ("client_id", client), ("refresh_token", token)];
        self.form("/oauth/token", &fields, None).await
    }

    /// GET below the FHIR base with a bearer token.
    pub async fn fhir(&self, token: &str, path: &str) -> Reply {
        let request = Request::get(format!("/fhir/{path}")).header("authorization", format!("Bearer {token}"));
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// A whole launch of a public app by a person: the answer of the token endpoint. Everything asked for is allowed.
    pub async fn launched(&self, client: &str, username: &str, scope: &str, patient: Option<&str>) -> Value {
        let code = self.code(client, username, scope, patient).await;
        let reply = self.redeem(client, &code).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    }

    /// The code that such a launch gives.
    pub async fn code(&self, client: &str, username: &str, scope: &str, patient: Option<&str>) -> String {
        let mut browser = Browser::new(self);
        let page = browser.open(&self.authorize(client, scope, &[])).await;
        let mut page = browser.login(&page, username).await;
        if let Some(patient) = patient {
            page = browser.submit(&page, "/oauth/patient", &[("id", patient)]).await;
        }
        let reply = browser.allow_all(&page).await;
        assert_eq!(reply.status, 302, "{}", reply.text());
        parameter(reply.header("location"), "code").unwrap_or_else(|| panic!("{}", reply.header("location")))
    }
}

impl Browser<'_> {
    /// Says yes to all that the consent page offers.
    pub async fn allow_all(&mut self, page: &Reply) -> Reply {
        let text = page.text();
        assert!(text.contains("name=\"decision\""), "a consent page: {text}");
        let items: Vec<String> = (0..64).map(|n| format!("s{n}")).collect();
        let mut fields = vec![("decision", "allow"), ("lasting", "yes")];
        fields.extend(items.iter().map(|item| (item.as_str(), "all")));
        self.submit(page, "/oauth/decide", &fields).await
    }
}
