//! What a posted response must be before it says who somebody is.
//!
//! Here: the form, the base64, and that the document is nothing but elements and text. All else
//! (XML, signature, issuer, audience, recipient, times, correlation) is the crate's, with its
//! strictest settings; then it must be exactly one assertion, covered by a signature itself.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use saml_rs::{
    BrowserInput, ClockSkew, FormField, NameIdFormat, PendingAuthnRequest, ReplayCache, ReplayKey,
    ReplayPolicy, SamlError, SamlValidationContext, SsoResponse, SsoSession,
    VerifiedXmlSignatureCoverage,
};
use tokio::runtime::Handle;

use super::refused::{Refused, Why};
use super::{Person, SUB_PREFIX, ServiceProvider};
use crate::store::{Store, StoreError};
use crate::types::{Timestamp, sha256};

/// The longest body of a form. The largest real responses, with hundreds of groups, are a quarter.
pub(super) const MAX_FORM: usize = 512 * 1024;
/// The longest document.
const MAX_XML: usize = 256 * 1024;
const MAX_GROUPS: usize = 2_000;
/// The longest group, address or name, in bytes.
const MAX_TEXT: usize = 512;

/// A posted form: a document that is elements and text, in canonical base64, and whose answer it
/// says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Posted {
    response: String,
    pub(super) relay_state: String,
}

/// Why no person came of a response.
#[derive(Debug)]
pub(super) enum Failure {
    Refused(Refused),
    /// The database failed; nothing is known of the response.
    Store(StoreError),
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// Reads a form's body.
pub(super) fn read(body: &[u8]) -> Result<Posted, Refused> {
    let (mut response, mut relay_state) = (None, None);
    for (name, value) in url::form_urlencoded::parse(body) {
        let place = match &*name {
            "SAMLResponse" => &mut response,
            "RelayState" => &mut relay_state,
            "SAMLRequest" | "Signature" | "SigAlg" | "SAMLart" => {
                return Err(Why::Form.with(format!("the form has the field {name}")));
            }
            _ => continue,
        };
        if place.replace(value.into_owned()).is_some() {
            return Err(Why::Form.with(format!("the form has the field {name} twice")));
        }
    }
    let Some(response) = response else {
        return Err(Why::Form.with("the form has no field SAMLResponse"));
    };
    let response = STANDARD.encode(document(&response)?);
    Ok(Posted { response, relay_state: relay_state.unwrap_or_default() })
}

/// Decodes a document and sees to it that it holds elements and text only. In XML, `<!` and `<?`
/// stand nowhere but at the beginning of what is refused here, so this cannot miss any.
fn document(encoded: &str) -> Result<String, Refused> {
    let packed: String = encoded.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = STANDARD.decode(packed).map_err(|error| Why::NotBase64.with(error.to_string()))?;
    if bytes.len() > MAX_XML {
        return Err(Why::TooLarge.with(format!("the document has {} bytes", bytes.len())));
    }
    let text = String::from_utf8(bytes).map_err(|error| Why::NotXml.with(error.to_string()))?;
    let start = text.trim_start_matches('\u{feff}').trim_start();
    let root = match start.strip_prefix("<?xml ") {
        None => start,
        Some(rest) => match rest.split_once("?>") {
            Some((declaration, root)) if !declaration.contains('<') => root.trim_start(),
            _ => return Err(Why::NotXml.with("the XML declaration is malformed")),
        },
    };
    if !root.starts_with('<') {
        return Err(Why::NotXml.with("the document does not begin with an element"));
    }
    if root.contains("<!") || root.contains("<?") {
        return Err(Why::Markup.with("the document holds markup besides elements"));
    }
    Ok(text)
}

impl ServiceProvider {
    /// Who a response says that somebody is. Blocks: signatures take a while, and the ids of
    /// responses that were seen are in the database.
    pub(super) fn accept(
        &self,
        posted: &Posted,
        request: &PendingAuthnRequest,
        store: &Store,
        now: i64,
    ) -> Result<Person, Failure> {
        let fields = vec![
            FormField::new("SAMLResponse", posted.response.as_str()),
            FormField::new("RelayState", posted.relay_state.as_str()),
        ];
        let mut seen = Seen { store, runtime: Handle::current(), now, failure: None };
        let leeway = i64::try_from(self.settings.leeway.as_millis()).unwrap_or(0);
        let clock = SystemTime::UNIX_EPOCH + Duration::from_secs(now.max(0).unsigned_abs());
        let context = SamlValidationContext::new(clock, ReplayPolicy::RequireCache(&mut seen))
            .with_clock_skew(ClockSkew::from_millis(-leeway, leeway));
        let input = BrowserInput::<SsoResponse>::post(fields);
        let accepted = self.provider.finish_sso(&self.idp, request, input, context);
        if let Some(failure) = seen.failure {
            return Err(Failure::Store(failure));
        }
        let session = accepted.map_err(|error| {
            let refused = Refused::from(error);
            let unreadable = matches!(refused.why, Why::NotXml | Why::Profile | Why::Unsigned);
            if unreadable && posted.is_encrypted() {
                return Why::Encrypted.with(refused.detail);
            }
            refused
        })?;
        Ok(self.person(&session, now)?)
    }

    fn person(&self, session: &SsoSession, now: i64) -> Result<Person, Refused> {
        // The response, and one assertion.
        if session.replay_keys().len() != 2 {
            return Err(Why::Profile.with("there must be exactly one assertion"));
        }
        let covered = session.verified_xml_signatures().iter().any(|signature| {
            matches!(
                signature.coverage(),
                VerifiedXmlSignatureCoverage::ConsumedAssertion
                    | VerifiedXmlSignatureCoverage::ResponseRootAndConsumedAssertion
            )
        });
        if !covered {
            return Err(Why::Unsigned.with("no signature covers the assertion"));
        }
        let settings = &self.settings;
        let name = match &settings.subject_attribute {
            Some(attribute) => match values(session, attribute).as_slice() {
                [value] => vec!["attribute", attribute, value],
                others => {
                    let count = others.len();
                    let why = format!("the attribute {attribute} has {count} values, not one");
                    return Err(Why::SubjectUnstable.with(why));
                }
            },
            None => match session.name_id().format() {
                Some(NameIdFormat::Persistent) => vec!["persistent", session.name_id().value()],
                other => {
                    let format = other.map_or("no format", NameIdFormat::as_uri);
                    return Err(Why::SubjectUnstable.with(format!("the NameID has {format}")));
                }
            },
        };
        let sub = sub(self.idp.entity_id().as_str(), &name);
        let groups: BTreeSet<String> = match &settings.groups_attribute {
            None => BTreeSet::new(),
            Some(attribute) => values(session, attribute).into_iter().map(str::to_owned).collect(),
        };
        let email = settings.email_attribute.as_ref();
        let email = email.and_then(|name| values(session, name).first().map(|v| (*v).to_owned()));
        let shown = email.clone().unwrap_or_else(|| session.name_id().value().to_owned());
        let bearable = |text: &String| {
            !text.trim().is_empty() && text.len() <= MAX_TEXT && !text.chars().any(char::is_control)
        };
        let named = name.last().is_some_and(|name| !name.trim().is_empty());
        if groups.len() > MAX_GROUPS
            || !named
            || !groups.iter().chain(email.as_ref()).chain([&shown]).all(bearable)
        {
            let why = "a value is empty, too long or has control characters, or there are too many";
            return Err(Why::Attributes.with(why));
        }
        let until = session_end(session)?.unwrap_or(i64::MAX);
        let longest = i64::try_from(settings.max_session.as_secs()).unwrap_or(i64::MAX);
        let until = until.min(now.saturating_add(longest));
        if until <= now {
            return Err(Why::Time.with("the session at the identity provider is over"));
        }
        Ok(Person { sub, email, groups: groups.into_iter().collect(), shown, until })
    }
}

/// A name that tells nothing, is the same at every login, and is nobody else's: every part is
/// hashed with its length, the identity provider's entity id first.
fn sub(entity_id: &str, name: &[&str]) -> String {
    let mut text = String::new();
    for part in [&[entity_id], name].concat() {
        text.push_str(&format!("{}:{part}", part.len()));
    }
    format!("{SUB_PREFIX}{}", URL_SAFE_NO_PAD.encode(sha256(text.as_bytes())))
}

fn values<'a>(session: &'a SsoSession, attribute: &str) -> Vec<&'a str> {
    let attributes = session.attributes().as_slice().iter();
    attributes
        .filter(|found| found.name() == attribute)
        .flat_map(|found| found.values())
        .map(saml_rs::AttributeValue::as_str)
        .collect()
}

/// The earliest end that the identity provider sets to its sessions.
fn session_end(session: &SsoSession) -> Result<Option<i64>, Refused> {
    let mut earliest: Option<i64> = None;
    for end in session.authn_sessions().iter().filter_map(|session| session.not_on_or_after()) {
        let end: Timestamp =
            end.as_str().parse().map_err(|_| Why::Time.with("SessionNotOnOrAfter is no time"))?;
        let end = end.as_second();
        earliest = Some(earliest.map_or(end, |earliest| earliest.min(end)));
    }
    Ok(earliest)
}

impl Posted {
    fn is_encrypted(&self) -> bool {
        STANDARD
            .decode(&self.response)
            .is_ok_and(|xml| memchr::memmem::find(&xml, b"EncryptedAssertion").is_some())
    }
}

/// The ids that were seen, in the database.
struct Seen<'a> {
    store: &'a Store,
    runtime: Handle,
    now: i64,
    failure: Option<StoreError>,
}

impl ReplayCache for Seen<'_> {
    fn check_and_store(&mut self, key: ReplayKey, expires_at: SystemTime) -> Result<(), SamlError> {
        let key = key.cache_key();
        let expires = expires_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let expires = i64::try_from(expires.as_secs()).unwrap_or(i64::MAX).saturating_add(1);
        match self.runtime.block_on(self.store.saml_first_seen(&key, expires, self.now)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(SamlError::ReplayDetected { key }),
            Err(error) => {
                self.failure = Some(error);
                Err(SamlError::Invalid("the database failed".to_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn why(text: &str) -> Option<Why> {
        document(&STANDARD.encode(text)).err().map(|refused| refused.why)
    }

    #[test]
    fn a_document_is_elements_and_text() {
        for good in ["<a/>", "<?xml version=\"1.0\"?>\n<a>b &amp; c</a>", "\u{feff} <a b=\"!\"/>"] {
            assert_eq!(why(good), None, "{good}");
        }
        for bad in [
            "<!DOCTYPE a><a/>",
            "<?xml version=\"1.0\"?><!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>",
            "<a><!-- b --></a>",
            "<a><![CDATA[b]]></a>",
            "<a><?b c?></a>",
            "<?xml version=\"1.0\"?><?xml-stylesheet href=\"b\"?><a/>",
            "<?xml-stylesheet href=\"b\"?><a/>",
        ] {
            assert_eq!(why(bad), Some(Why::Markup), "{bad}");
        }
        for bad in ["", "hello", "<?xml version=\"1.0\"", "<?xml ?>", "<?xml <!-- ?><a/>"] {
            assert_eq!(why(bad), Some(Why::NotXml), "{bad}");
        }
        assert_eq!(why(&format!("<a>{}</a>", "x".repeat(MAX_XML))), Some(Why::TooLarge));
        for bad in ["PGEvPg", "PGEvPg==!", "PGEvPg===", "PGE-Pg=="] {
            assert_eq!(document(bad).unwrap_err().why, Why::NotBase64, "{bad}");
        }
        assert_eq!(document("PGEv\r\n Pg==").unwrap(), "<a/>");
        assert_eq!(document("/w==").unwrap_err().why, Why::NotXml, "not UTF-8");
    }

    #[test]
    fn a_form_holds_one_response() {
        let read = |body: &str| read(body.as_bytes()).map_err(|refused| refused.why);
        let posted = read("SAMLResponse=PGEvPg%3D%3D&RelayState=r&x=1").unwrap();
        assert_eq!((posted.relay_state.as_str(), posted.response.as_str()), ("r", "PGEvPg=="));
        for bad in [
            "",
            "RelayState=r",
            "SAMLResponse=PGEvPg%3D%3D&SAMLResponse=PGEvPg%3D%3D",
            "SAMLResponse=PGEvPg%3D%3D&RelayState=a&RelayState=b",
            "SAMLResponse=PGEvPg%3D%3D&SAMLRequest=PGEvPg%3D%3D",
            "SAMLResponse=PGEvPg%3D%3D&Signature=x",
        ] {
            assert_eq!(read(bad).unwrap_err(), Why::Form, "{bad}");
        }
    }

    #[test]
    fn a_sub_tells_who_from_whom() {
        let alice = sub("https://idp", &["persistent", "alice"]);
        assert_eq!(alice, sub("https://idp", &["persistent", "alice"]));
        assert!(alice.starts_with(SUB_PREFIX) && !alice.contains("alice"));
        for other in [
            sub("https://idp2", &["persistent", "alice"]),
            sub("https://idp", &["persistent", "alicf"]),
            sub("https://idp", &["attribute", "persistent", "alice"]),
            sub("https://idp10:persistent", &["alice"]),
        ] {
            assert_ne!(alice, other);
        }
    }

    proptest! {
        #[test]
        fn no_body_is_a_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            read(&body).ok();
        }

        #[test]
        fn nothing_but_elements_and_text_passes(text in "(<[a!?/]|-|>|\\[|x|<!--|<\\?xml |\\?>| ){0,12}") {
            if let Ok(passed) = document(&STANDARD.encode(&text)) {
                prop_assert_eq!(&passed, &text);
                prop_assert!(!passed.contains("<!"));
                let declarations = usize::from(passed.trim_start().starts_with("<?xml "));
                prop_assert!(passed.matches("<?").count() <= declarations);
            }
        }
    }
}
