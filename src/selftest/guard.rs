//! The checks of what must come to nothing: tokens in wrong places, parameters sent twice, forms from elsewhere.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::checks::{Entry, FULL, PUBLIC, SECRET, text, wants};
use super::subject::{Ask, Subject, pairs};
use super::web::{Place, Said, value};

pub const CHECKS: &[Entry] = &[
    ("an access token counts in the Authorization header alone", token_in_query),
    ("a refresh token and an id_token are no access tokens", other_tokens),
    ("a token without signature is refused, whatever key it names", unsigned),
    ("a parameter that is sent twice is refused", twice),
    ("prompt=none shows no page and gives no code", prompt_none),
    ("pages cannot be framed or kept", framed),
    ("a form from elsewhere is refused, and takes no session away", forged_form),
    ("a preflight request names what apps may send", preflight),
    ("errors of the token endpoint are not to be kept", error_headers),
];

fn token_in_query(s: &mut Subject) -> Said<()> {
    let body = s.launch(&Ask::new(PUBLIC, "patient", FULL))?;
    let url = format!("{}/Patient/{}?access_token={}", s.base(), text(&body, "patient"), text(&body, "access_token"));
    let reply = s.web.get(&url, &[])?;
    wants(reply.status == 401, || format!("with the token in the query a read answers {}, not 401", reply.status))
}

fn other_tokens(s: &mut Subject) -> Said<()> {
    let body = s.launch(&Ask::new(PUBLIC, "patient", FULL))?;
    for name in ["refresh_token", "id_token"] {
        let reply = s.read(&text(&body, name), &format!("Patient/{}", text(&body, "patient")))?;
        wants(reply.status == 401, || format!("with the {name} as bearer a read answers {}, not 401", reply.status))?;
    }
    Ok(())
}

fn unsigned(s: &mut Subject) -> Said<()> {
    let body = s.launch(&Ask::new(PUBLIC, "patient", FULL))?;
    let token = text(&body, "access_token");
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { return Err("the access token is no JWT".to_owned()) };
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|e| e.to_string())?;
    let mut header: serde_json::Value = serde_json::from_slice(&header).map_err(|e| e.to_string())?;
    header["alg"] = "none".into();
    let header = URL_SAFE_NO_PAD.encode(header.to_string());
    for forged in [format!("{header}.{claims}."), format!("{header}.{claims}.{signature}")] {
        let reply = s.read(&forged, &format!("Patient/{}", text(&body, "patient")))?;
        wants(reply.status == 401, || format!("a token with alg none is answered {}, not 401", reply.status))?;
    }
    Ok(())
}

fn twice(s: &mut Subject) -> Said<()> {
    let form = [("grant_type", "refresh_token"), ("refresh_token", "x"), ("refresh_token", "y")];
    let reply = s.as_client(SECRET, "token_endpoint", &form)?;
    wants(reply.status == 400 && reply.json()["error"] == "invalid_request", || {
        format!("the token endpoint answers {} {}", reply.status, reply.json()["error"])
    })?;
    let ask = Ask::new(PUBLIC, "provider", FULL);
    let (mut form, _) = s.request(&ask)?;
    form.extend(pairs(&[("redirect_uri", "https://evil.example/cb")]));
    match s.walk(&ask, &form)? {
        Place::Page { status: 400..=499, .. } => Ok(()),
        Place::Page { status, .. } => Err(format!("an authorization request with two redirect URIs answers {status}")),
        Place::Away(_) => Err("an authorization request with two redirect URIs is redirected".to_owned()),
    }
}

fn prompt_none(s: &mut Subject) -> Said<()> {
    let answer = s.authorize(&Ask { with: &[("prompt", "none")], ..Ask::new(PUBLIC, "patient", FULL) })?;
    let error = value(&answer.parameters, "error");
    wants(["login_required", "consent_required", "interaction_required"].contains(&error), || {
        format!("the app is told `{error}`")
    })
}

fn framed(s: &mut Subject) -> Said<()> {
    let reply = s.web.get(&format!("{}/login", s.endpoint("issuer")?), &[])?;
    let policy = reply.header("content-security-policy");
    wants(reply.status == 200 && policy.contains("frame-ancestors 'none'"), || {
        format!("the login page answers {} with the policy `{policy}`", reply.status)
    })?;
    wants(reply.header("cache-control").contains("no-store"), || "the login page may be kept".to_owned())
}

fn forged_form(s: &mut Subject) -> Said<()> {
    let issuer = s.endpoint("issuer")?;
    for path in ["login", "logout", "oauth/decide", "account"] {
        let url = format!("{issuer}/{path}");
        let reply = s.web.post(&url, &[("Origin", "https://evil.example")], &pairs(&[("token", "x")]))?;
        wants(reply.status == 403, || format!("{url} answers a form from elsewhere with {}, not 403", reply.status))?;
        wants(reply.header("set-cookie").is_empty(), || format!("{url} gives a cookie to a form from elsewhere"))?;
    }
    Ok(())
}

fn preflight(s: &mut Subject) -> Said<()> {
    let token = s.endpoint("token_endpoint")?;
    let headers = [("Origin", "https://client.example"), ("Access-Control-Request-Method", "POST")];
    let reply = s.web.send("OPTIONS", &token, &headers, None)?;
    let allowed = reply.header("access-control-allow-headers").to_ascii_lowercase();
    let missing = ["authorization", "content-type", "accept", "if-match", "if-none-match", "prefer"]
        .into_iter()
        .find(|name| !allowed.contains(name));
    wants(matches!(reply.status, 200 | 204) && missing.is_none(), || {
        format!("OPTIONS answers {}; {missing:?} is not allowed", reply.status)
    })
}

fn error_headers(s: &mut Subject) -> Said<()> {
    let reply = s.as_client(SECRET, "token_endpoint", &[("grant_type", "refresh_token"), ("refresh_token", "x")])?;
    wants(reply.header("cache-control").contains("no-store"), || "an error may be kept".to_owned())
}
