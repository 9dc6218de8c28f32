//! The server under test, with the clients and users of its `demo.json`, and the ways through it that checks share.

use std::collections::HashMap;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::web::{Browser, Pairs, Place, Reply, Said, Web, forms, query, value};
use crate::fhir::json::Node;
use crate::jobs::credentials;
use crate::oauth::assertion::ASSERTION_TYPE;
use crate::oauth::totp;
use crate::world::World;

/// Pages that one authorization may take.
const PAGES_MAX: usize = 12;
/// Codes of a second factor that are tried: one may have been used a moment before.
const CODES_MAX: usize = 3;

pub struct Subject {
    pub web: Web,
    pub world: World,
    pub demo: Node,
    /// `.well-known/smart-configuration`.
    pub smart: Node,
    browsers: HashMap<String, Browser>,
}

/// An authorization request.
pub struct Ask<'a> {
    /// Name of a client in `demo.json`.
    pub client: &'a str,
    pub user: &'a str,
    pub scope: &'a str,
    /// Parameters to add; one that is there is replaced, with an empty value left out.
    pub with: &'a [(&'a str, &'a str)],
    pub post: bool,
    /// What the person does on the consent page.
    pub decide: fn(&mut Pairs),
}

/// What came back to the app, and what it kept for the token request.
pub struct Answer {
    pub parameters: Pairs,
    pub verifier: String,
    pub redirect_uri: String,
}

impl Ask<'_> {
    pub fn new<'a>(client: &'a str, user: &'a str, scope: &'a str) -> Ask<'a> {
        Ask { client, user, scope, with: &[], post: false, decide: |_| {} }
    }
}

pub fn pairs(list: &[(&str, &str)]) -> Pairs {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl Subject {
    /// # Errors
    /// When the server does not say how it is to be spoken to.
    pub fn new(demo: Node, web: Web) -> Said<Subject> {
        let base = demo["base_url"].as_str().ok_or("demo.json names no base_url")?;
        let url = format!("{base}/.well-known/smart-configuration");
        let reply = web.get(&url, &[])?;
        if reply.status != 200 || !reply.json().is_object() {
            return Err(format!("{url} answers {} and no JSON object: nothing can be tested", reply.status));
        }
        let smart = reply.json();
        Ok(Subject { web, world: World::real(), demo, smart, browsers: HashMap::new() })
    }

    pub fn base(&self) -> &str {
        self.demo["base_url"].as_str().unwrap_or_default()
    }

    pub fn endpoint(&self, name: &str) -> Said<String> {
        self.smart[name].as_str().map(str::to_owned).ok_or_else(|| format!("smart-configuration names no {name}"))
    }

    pub fn client(&self, name: &str) -> Said<Node> {
        let clients = self.demo["clients"].as_array().map_or(&[][..], Vec::as_slice);
        let found = clients.iter().find(|one| one["name"] == name || (name == "backend" && one["name"].is_null()));
        found.cloned().ok_or_else(|| format!("demo.json describes no client {name}"))
    }

    fn user(&self, name: &str) -> Said<Node> {
        let users = self.demo["users"].as_array().map_or(&[][..], Vec::as_slice);
        users.iter().find(|one| one["username"] == name).cloned().ok_or_else(|| format!("demo.json has no user {name}"))
    }

    pub fn random(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.world.uuid().as_bytes()))
    }

    /// The parameters of an authorization request as an app makes them.
    pub fn request(&self, ask: &Ask<'_>) -> Said<(Pairs, Answer)> {
        let client = self.client(ask.client)?;
        let text = |node: &Node| node.as_str().unwrap_or_default().to_owned();
        let (verifier, redirect_uri) = (self.random(), text(&client["redirect_uris"][0]));
        let challenge = challenge(&verifier);
        let mut form = pairs(&[
            ("response_type", "code"),
            ("client_id", &text(&client["client_id"])),
            ("redirect_uri", &redirect_uri),
            ("scope", ask.scope),
            ("state", &self.random()),
            ("aud", self.base()),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        for (name, value) in ask.with {
            form.retain(|(own, _)| own != name);
            if !value.is_empty() {
                form.push(((*name).to_owned(), (*value).to_owned()));
            }
        }
        Ok((form, Answer { parameters: Vec::new(), verifier, redirect_uri }))
    }

    /// Sends a request and goes through the pages as the person would, until the app has its answer.
    pub fn authorize(&mut self, ask: &Ask<'_>) -> Said<Answer> {
        let (form, mut answer) = self.request(ask)?;
        match self.walk(ask, &form)? {
            Place::Away(url) if url.starts_with(&answer.redirect_uri) => {
                answer.parameters = query(&url);
                if value(&answer.parameters, "state") != value(&form, "state") {
                    return Err("the answer has another state than the request".to_owned());
                }
                Ok(answer)
            }
            Place::Away(url) => Err(format!("the server redirects to {url}, which the app has not registered")),
            Place::Page { status, text, .. } => {
                Err(format!("the app gets no answer; a page of status {status} says: {}", words(&text)))
            }
        }
    }

    /// The same, with a code: anything else is a failure.
    pub fn code(&mut self, ask: &Ask<'_>) -> Said<Answer> {
        let answer = self.authorize(ask)?;
        let error = value(&answer.parameters, "error");
        if !error.is_empty() || value(&answer.parameters, "code").is_empty() {
            return Err(format!("no code: {error} {}", value(&answer.parameters, "error_description")));
        }
        Ok(answer)
    }

    /// Sends the request and fills in whatever page comes; gives the place where nothing more is to be filled in.
    pub fn walk(&mut self, ask: &Ask<'_>, form: &[(String, String)]) -> Said<Place> {
        let url = self.endpoint("authorization_endpoint")?;
        let issuer = self.demo["issuer"].as_str().unwrap_or_default();
        // Pages name addresses from the root.
        let root: String = issuer.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        let user = self.user(ask.user)?;
        let mut browser = self.browsers.remove(ask.user).unwrap_or_default();
        let sign = if url.contains('?') { '&' } else { '?' };
        let mut place = match ask.post {
            true => browser.sent_from_elsewhere(&self.web, &root, &url, form)?,
            false => {
                let url = format!("{url}{sign}{}", crate::interaction::form::encode(form));
                browser.go(&self.web, &root, &url, None)?
            }
        };
        let mut codes = 0;
        for _ in 0..PAGES_MAX {
            let Place::Page { url, text, .. } = &place else { break };
            let Some((action, sent)) = self.filled(ask, &user, text, &mut codes)? else { break };
            let action = if action.starts_with('/') { format!("{root}{action}") } else { url.clone() };
            place = browser.go(&self.web, &root, &action, Some(&sent))?;
        }
        self.browsers.insert(ask.user.to_owned(), browser);
        Ok(place)
    }

    /// What the person sends on a page; None: there is nothing to be filled in.
    fn filled(&self, ask: &Ask<'_>, user: &Node, page: &str, codes: &mut usize) -> Said<Option<(String, Pairs)>> {
        let has = |form: &super::web::Form, name: &str| form.fields.iter().any(|field| field.name == name);
        for form in forms(page) {
            let mut sent = form.sent();
            let mut put = |name: &str, text: &str| sent.push((name.to_owned(), text.to_owned()));
            if has(&form, "username") {
                put("username", ask.user);
                put("password", user["password"].as_str().unwrap_or_default());
            } else if has(&form, "code") {
                *codes += 1;
                if *codes > CODES_MAX {
                    return Err("the server takes no code of the second factor".to_owned());
                }
                let secret = user["totp_secret"].as_str().and_then(totp::from_base32);
                let secret = secret.ok_or_else(|| format!("demo.json has no second factor of {}", ask.user))?;
                if *codes > 1 {
                    let now = self.world.now().seconds();
                    let rest = totp::STEP_SECONDS - now.rem_euclid(totp::STEP_SECONDS);
                    std::thread::sleep(Duration::from_secs(rest.unsigned_abs() + 1));
                }
                put("code", &totp::code_at(&secret, self.world.now()));
            } else if form.action.ends_with("/oauth/decide") {
                put("decision", "allow");
                (ask.decide)(&mut sent);
            } else if !["/oauth/patient", "/oauth/encounter"].iter().any(|end| form.action.ends_with(end)) {
                continue;
            }
            return Ok(Some((form.action, sent)));
        }
        Ok(None)
    }

    /// A request to an OAuth endpoint as a client, authenticated in the way of its kind.
    pub fn as_client(&self, client: &str, endpoint: &str, form: &[(&str, &str)]) -> Said<Reply> {
        let client = self.client(client)?;
        let url = self.endpoint(endpoint)?;
        let id = client["client_id"].as_str().unwrap_or_default();
        let mut form = pairs(form);
        let mut basic = String::new();
        if let Some(secret) = client["client_secret"].as_str() {
            basic = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
        } else if client["jwk"].is_object() {
            let audience = self.endpoint("token_endpoint")?;
            let assertion = credentials::assertion(&self.world, &client, &audience).map_err(|e| e.to_string())?;
            form.extend(pairs(&[("client_assertion_type", ASSERTION_TYPE), ("client_assertion", &assertion)]));
        } else {
            form.extend(pairs(&[("client_id", id)]));
        }
        let mut headers = vec![("Accept", "application/json")];
        if !basic.is_empty() {
            headers.push(("Authorization", &basic));
        }
        self.web.post(&url, &headers, &form)
    }

    /// The token request for a code; the verifier may be another than the right one, or missing when empty.
    pub fn exchange(&self, client: &str, answer: &Answer, verifier: &str) -> Said<Reply> {
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", value(&answer.parameters, "code")),
            ("redirect_uri", &answer.redirect_uri),
        ];
        if !verifier.is_empty() {
            form.push(("code_verifier", verifier));
        }
        self.as_client(client, "token_endpoint", &form)
    }

    /// The whole launch: what the token endpoint gives at its end.
    pub fn launch(&mut self, ask: &Ask<'_>) -> Said<Node> {
        let answer = self.code(ask)?;
        granted(&self.exchange(ask.client, &answer, &answer.verifier)?)
    }

    pub fn read(&self, token: &str, path: &str) -> Said<Reply> {
        let bearer = format!("Bearer {token}");
        let url = format!("{}/{path}", self.base());
        self.web.get(&url, &[("Authorization", &bearer), ("Accept", "application/fhir+json")])
    }
}

/// PKCE S256.
pub fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()))
}

/// The body of a token response that is one.
pub fn granted(reply: &Reply) -> Said<Node> {
    let body = reply.json();
    if reply.status != 200 || !body["access_token"].is_string() {
        return Err(format!("the token endpoint answers {}: {}", reply.status, body));
    }
    Ok(body)
}

/// The text of a page, shortened.
fn words(page: &str) -> String {
    let body = page.split("<main").nth(1).unwrap_or(page);
    let mut text = String::new();
    let mut inside = true;
    for c in body.chars() {
        match c {
            '<' => inside = true,
            '>' => inside = false,
            c if !inside => text.push(c),
            _ => {}
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect()
}
