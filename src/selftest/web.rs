//! What a client and a browser without script do: requests, cookies, redirects, forms.

use std::path::Path;
use std::time::Duration;

use crate::error::Result;
use crate::fetch::blocking;
use crate::fhir::json::Node;
use crate::interaction::form;

const BODY_MAX: u64 = 16 << 20;
const TIMEOUT: Duration = Duration::from_secs(60);
const REDIRECTS_MAX: usize = 10;

/// What went wrong, in words for the report.
pub type Said<T> = std::result::Result<T, String>;
/// Parameters of a query or a form.
pub type Pairs = Vec<(String, String)>;

pub struct Reply {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    pub fn json(&self) -> Node {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub struct Web {
    agent: ureq::Agent,
}

impl Web {
    /// # Errors
    /// When the file of authorities that are trusted cannot be read.
    pub fn new(authorities: Option<&Path>) -> Result<Web> {
        Ok(Web { agent: blocking::agent(authorities, TIMEOUT)? })
    }

    pub fn send(&self, method: &str, url: &str, headers: &[(&str, &str)], body: Option<&str>) -> Said<Reply> {
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.unwrap_or_default().to_owned()).map_err(|e| format!("{url}: {e}"))?;
        let mut reply = self.agent.run(request).map_err(|e| format!("{url} does not answer: {e}"))?;
        let headers = reply.headers().iter();
        let headers =
            headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        let (headers, status) = (headers.collect(), reply.status().as_u16());
        let body = reply.body_mut().with_config().limit(BODY_MAX).read_to_vec().map_err(|e| format!("{url}: {e}"))?;
        Ok(Reply { status, headers, body })
    }

    pub fn get(&self, url: &str, headers: &[(&str, &str)]) -> Said<Reply> {
        self.send("GET", url, headers, None)
    }

    pub fn post(&self, url: &str, headers: &[(&str, &str)], form: &[(String, String)]) -> Said<Reply> {
        let mut all = vec![("Content-Type", "application/x-www-form-urlencoded")];
        all.extend_from_slice(headers);
        self.send("POST", url, &all, Some(&form::encode(form)))
    }
}

/// One browser of one person.
#[derive(Default)]
pub struct Browser {
    cookie: Option<(String, String)>,
}

/// Where a way through the pages has led.
pub enum Place {
    Page {
        url: String,
        status: u16,
        text: String,
    },
    /// An address that is not the server's: the app's.
    Away(String),
}

impl Browser {
    /// Goes to an address, and on where it leads, as long as that is at the server.
    pub fn go(&mut self, web: &Web, origin: &str, url: &str, sent: Option<&[(String, String)]>) -> Said<Place> {
        let elsewhere = false;
        self.went(web, origin, url, sent, elsewhere)
    }

    /// Sends a form of a page of another site: browsers leave our cookie out, and keep the one they have.
    pub fn sent_from_elsewhere(
        &mut self,
        web: &Web,
        origin: &str,
        url: &str,
        sent: &[(String, String)],
    ) -> Said<Place> {
        let elsewhere = true;
        self.went(web, origin, url, Some(sent), elsewhere)
    }

    fn went(
        &mut self,
        web: &Web,
        origin: &str,
        url: &str,
        sent: Option<&[(String, String)]>,
        mut elsewhere: bool,
    ) -> Said<Place> {
        let (mut url, mut sent) = (url.to_owned(), sent);
        for _ in 0..REDIRECTS_MAX {
            let cookie = self.cookie.as_ref().map(|(name, value)| format!("{name}={value}")).unwrap_or_default();
            let mut headers = vec![("Accept", "text/html"), ("User-Agent", "phial selftest")];
            if !cookie.is_empty() && !elsewhere {
                headers.push(("Cookie", &cookie));
            }
            let reply = match sent {
                Some(form) => web.post(&url, &headers, form)?,
                None => web.get(&url, &headers)?,
            };
            if let Some((name, value)) =
                reply.header("set-cookie").split(';').next().and_then(|one| one.split_once('='))
            {
                self.cookie = Some((name.to_owned(), value.to_owned()));
            }
            if !(300..400).contains(&reply.status) {
                return Ok(Place::Page { url, status: reply.status, text: reply.text() });
            }
            let location = reply.header("location");
            url = if location.starts_with('/') { format!("{origin}{location}") } else { location.to_owned() };
            sent = None;
            elsewhere = false;
            if url.strip_prefix(origin).is_none_or(|rest| !rest.starts_with('/')) {
                return Ok(Place::Away(url));
            }
        }
        Err("the pages redirect in a circle".to_owned())
    }
}

/// A form of a page: where it goes and what it carries.
pub struct Form {
    pub action: String,
    pub fields: Vec<Field>,
}

pub struct Field {
    pub name: String,
    pub value: String,
    pub kind: String,
    pub checked: bool,
}

/// The forms of one of the server's own pages: no reader of HTML at large.
pub fn forms(page: &str) -> Vec<Form> {
    let mut out = Vec::new();
    for part in page.split("<form").skip(1) {
        let inner = part.split("</form>").next().unwrap_or_default();
        let mut fields = Vec::new();
        for tag in inner.split('<').skip(1).filter(|tag| tag.starts_with("input") || tag.starts_with("button")) {
            let tag = tag.split('>').next().unwrap_or_default();
            fields.push(Field {
                name: attribute(tag, "name"),
                value: attribute(tag, "value"),
                kind: attribute(tag, "type"),
                checked: tag.ends_with(" checked"),
            });
        }
        out.push(Form { action: attribute(inner.split('>').next().unwrap_or_default(), "action"), fields });
    }
    out
}

impl Form {
    /// What a browser sends when nothing is changed and no button has a name.
    pub fn sent(&self) -> Pairs {
        let kept = self.fields.iter().filter(|field| match field.kind.as_str() {
            "hidden" => true,
            "checkbox" | "radio" => field.checked,
            _ => false,
        });
        kept.map(|field| (field.name.clone(), field.value.clone())).collect()
    }
}

fn attribute(tag: &str, name: &str) -> String {
    let found = tag.split_once(&format!(" {name}=\"")).and_then(|(_, rest)| rest.split_once('"'));
    let value = found.map_or("", |(value, _)| value);
    let plain = [("&#x2f;", "/"), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#x27;", "'"), ("&amp;", "&")];
    plain.iter().fold(value.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

/// The parameters of an address.
pub fn query(url: &str) -> Pairs {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    form::decode(query.split('#').next().unwrap_or_default()).unwrap_or_default()
}

pub fn value<'a>(pairs: &'a [(String, String)], name: &str) -> &'a str {
    pairs.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_as_a_browser_would_send_them() {
        let page = "<form method=\"post\" action=\"/login\"><input type=\"hidden\" name=\"token\" value=\"a&amp;b\">\
                    <input type=\"checkbox\" name=\"s0\" value=\"all\" checked><input type=\"checkbox\" name=\"s1\" value=\"all\">\
                    <input type=\"text\" name=\"q\" value=\"x\"><button name=\"d\" value=\"y\">Go</button></form>";
        let forms = forms(page);
        assert_eq!(forms.len(), 1);
        assert_eq!(forms[0].action, "/login");
        let sent = forms[0].sent();
        assert_eq!((value(&sent, "token"), value(&sent, "s0"), sent.len()), ("a&b", "all", 2));
        assert_eq!(forms[0].fields.len(), 5);
        assert_eq!(value(&query("https://x/cb?code=a%20b&state=s#f"), "code"), "a b");
    }
}
