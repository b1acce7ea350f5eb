//! A person's browser, as far as sign-in and approval pages need one: cookies with paths,
//! redirects, and HTML forms that are filled in and submitted.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use reqwest::Url;

use super::http;

/// A browser with its own cookies.
#[derive(Default)]
pub struct Browser {
    cookies: BTreeMap<(String, String, String), String>,
}

/// A page as the browser shows it.
#[derive(Debug)]
pub struct Page {
    /// Where redirects ended.
    pub url: Url,
    /// The HTML.
    pub html: String,
}

/// The fields of a form, with what they hold when the page is loaded.
#[derive(Debug)]
pub struct Form {
    action: Url,
    fields: BTreeMap<String, String>,
}

impl Browser {
    /// Opens an address.
    ///
    /// # Errors
    /// Nothing answers there.
    pub fn open(&mut self, url: &str) -> anyhow::Result<Page> {
        self.fetch(Url::parse(url)?, None)
    }

    /// Submits a form after filling in some fields.
    ///
    /// # Errors
    /// Nothing answers there.
    pub fn submit(&mut self, form: &Form, filled: &[(&str, &str)]) -> anyhow::Result<Page> {
        let mut fields = form.fields.clone();
        fields.extend(filled.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        self.fetch(form.action.clone(), Some(fields))
    }

    fn fetch(
        &mut self,
        mut url: Url,
        mut form: Option<BTreeMap<String, String>>,
    ) -> anyhow::Result<Page> {
        for _redirect in 0..20 {
            let request = match form.take() {
                Some(fields) => http::client()
                    .post(url.clone())
                    .form(&fields)
                    // Browsers name the origin of a form; servers may look at it.
                    .header("origin", url.origin().ascii_serialization()),
                None => http::client().get(url.clone()),
            };
            let answer = http::send(request.header("cookie", self.cookies_for(&url)))?;
            for cookie in answer.headers.get_all("set-cookie") {
                self.keep(&url, cookie.to_str()?);
            }
            if !(300..400).contains(&answer.status) {
                return Ok(Page { url, html: answer.body });
            }
            url = url.join(answer.header("location"))?;
        }
        bail!("twenty redirects led nowhere, last to {url}")
    }

    fn cookies_for(&self, url: &Url) -> String {
        let host = authority(url);
        let sent = self.cookies.iter().filter(|((at, path, _), _)| {
            let rest = url.path().strip_prefix(path.as_str());
            *at == host
                && rest.is_some_and(|rest| {
                    rest.is_empty() || path.ends_with('/') || rest.starts_with('/')
                })
        });
        let sent: Vec<_> = sent.map(|((_, _, name), value)| format!("{name}={value}")).collect();
        sent.join("; ")
    }

    fn keep(&mut self, url: &Url, header: &str) {
        let mut parts = header.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|part| part.split_once('=')) else {
            return;
        };
        let mut path = "/".to_owned();
        let mut gone = value.is_empty();
        for part in parts {
            let (attribute, value) = part.split_once('=').unwrap_or((part, ""));
            match attribute.to_ascii_lowercase().as_str() {
                "path" if value.starts_with('/') => path = value.to_owned(),
                "max-age" if value.starts_with('-') || value == "0" => gone = true,
                "expires" if value.contains(" 1970 ") => gone = true,
                _ => (),
            }
        }
        let key = (authority(url), path, name.to_owned());
        if gone {
            self.cookies.remove(&key);
        } else {
            self.cookies.insert(key, value.to_owned());
        }
    }
}

fn authority(url: &Url) -> String {
    url.authority().to_owned()
}

impl Form {
    /// What a field holds.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }
}

impl Page {
    /// The page's form.
    ///
    /// # Errors
    /// It has none.
    pub fn form(&self) -> anyhow::Result<Form> {
        let start = self.html.find("<form").with_context(|| format!("no form: {self:#?}"))?;
        let rest = self.html.get(start..).unwrap_or_default();
        let html = rest.split("</form>").next().unwrap_or(rest);
        let mut tags = html.split('<').filter(|tag| !tag.is_empty());
        let form = tags.next().unwrap_or_default();
        let action = self.url.join(&attribute(form, "action").unwrap_or_default())?;
        let fields = tags
            .filter(|tag| tag.starts_with("input"))
            .filter_map(|tag| {
                Some((attribute(tag, "name")?, attribute(tag, "value").unwrap_or_default()))
            })
            .collect();
        Ok(Form { action, fields })
    }

    /// Whether the page says something.
    pub fn says(&self, text: &str) -> bool {
        self.html.contains(text)
    }
}

/// An attribute's value in a tag, for the plain HTML of the pages that tests meet.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let start = tag.find(&format!(" {name}="))? + name.len() + 2;
    let rest = tag.get(start..)?;
    let value = match rest.chars().next()? {
        quote @ ('"' | '\'') => rest.get(1..)?.split(quote).next()?,
        _ => rest.split([' ', '>', '/']).next()?,
    };
    Some(value.replace("&quot;", "\"").replace("&#39;", "'").replace("&amp;", "&"))
}
