//! A browser without script: cookies of each side, redirects, forms.

use std::collections::BTreeMap;
use std::time::Duration;

const STEPS_MAX: usize = 20;

/// Follows nothing by itself; statuses are never errors.
pub fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
    config.timeout_global(Some(Duration::from_secs(60))).build().into()
}

/// A browser: cookies of each side, redirects, forms of Keycloak.
pub struct Browser {
    agent: ureq::Agent,
    cookies: BTreeMap<(String, String), String>,
    /// Where it is.
    pub url: String,
    pub status: u16,
    pub text: String,
}

fn origin(url: &str) -> &str {
    url.match_indices('/').nth(2).map_or(url, |(at, _)| &url[..at])
}

/// What stands between the first `from` and the next `to`.
pub fn between<'t>(text: &'t str, from: &str, to: &str) -> Option<&'t str> {
    text.split_once(from)?.1.split(to).next()
}

impl Browser {
    pub fn new() -> Browser {
        Browser { agent: agent(), cookies: BTreeMap::new(), url: String::new(), status: 0, text: String::new() }
    }

    /// Goes there, and on where it leads on this machine; elsewhere is only looked at.
    pub fn go(&mut self, url: &str, mut form: Option<Vec<(&str, &str)>>) {
        let mut url = url.to_owned();
        for _ in 0..STEPS_MAX {
            let here = origin(&url).to_owned();
            let own = self.cookies.iter().filter(|((of, _), _)| *of == here);
            let cookies: Vec<String> = own.map(|((_, name), value)| format!("{name}={value}")).collect();
            let cookies = cookies.join("; ");
            let mut reply = match form.take() {
                Some(form) => self.agent.post(&url).header("cookie", &cookies).header("origin", &here).send_form(form),
                None => self.agent.get(&url).header("cookie", &cookies).call(),
            }
            .unwrap_or_else(|error| panic!("{url}: {error}"));
            for cookie in reply.headers().get_all("set-cookie") {
                let (name, value) = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
                self.cookies.insert((here.clone(), name.to_owned()), value.trim_matches('"').to_owned());
            }
            self.cookies.retain(|_, value| !value.is_empty());
            let to = reply.headers().get("location").map(|to| to.to_str().unwrap().to_owned());
            (self.status, self.text) = (reply.status().as_u16(), reply.body_mut().read_to_string().unwrap());
            self.url.clone_from(&url);
            match to {
                Some(to) if to.starts_with('/') => url = format!("{here}{to}"),
                Some(to) if !to.starts_with("http://127.0.0.1:") => return self.url = to,
                Some(to) => url = to,
                None => return,
            }
        }
        panic!("it leads in a circle: {url}");
    }

    /// Sends a form of a page of ours: what stands hidden in it, and these.
    pub fn submit(&mut self, url: &str, fields: &[(&str, &str)]) {
        let page = self.text.clone();
        let hidden = |name: &str| between(&page, &format!("name=\"{name}\" value=\""), "\"").unwrap_or_default();
        let hidden = |name: &str| hidden(name).replace("&#x2f;", "/").replace("&amp;", "&");
        let kept = ["token", "request", "to"].map(|name| (name, hidden(name)));
        let kept = kept.iter().map(|(name, value)| (*name, value.as_str()));
        self.go(url, Some(kept.chain(fields.iter().copied()).collect()));
    }
}
