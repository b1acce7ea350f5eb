//! Somebody logs in at the organisation's SAML identity provider, Debian's simplesamlphp, and
//! everything that a response must not be is refused: with its own word, on the page and on record.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;
use serde_json::{Value, json};

use crate::support::browser::{Browser, Form};
use crate::support::http::{self, Answer};
use crate::support::saml::SamlIdp;
use crate::support::{Client, Person, Server, Site, World};

crate::stories![
    logging_in_working_and_logging_out,
    groups_decide,
    a_session_that_ends,
    responses_that_are_refused,
    forms_that_are_refused,
    responses_that_are_used_twice,
    somebody_elses_login,
];

const SAML: &str = r#"
[saml]
idp_metadata = "idp.xml"
groups_attribute = "groups"
email_attribute = "mail"
"#;

/// Where nobody listens, for stories in which no tool is called.
const NOWHERE: &str = "http://127.0.0.1:9/mcp";

fn site<'a>(
    world: &'a World,
    idp: &SamlIdp,
    ledger: &str,
    more: &str,
) -> anyhow::Result<Server<'a>> {
    let server =
        Site::alone(world).http("ledger", ledger).extra(&format!("{SAML}{more}")).start()?;
    idp.knows(&server)?;
    Ok(server)
}

fn logging_in_working_and_logging_out(world: &World) -> anyhow::Result<()> {
    let idp = SamlIdp::start(world)?;
    let ledger = world.ledger()?;
    let mut server = site(world, &idp, &ledger.url, "")?;
    let alice = Person::new(world, "alice")?;
    let login = alice.login(&server)?;
    assert!(
        login.address.starts_with(&format!("{}/issuer/device", server.url)),
        "{}",
        login.address
    );
    idp.approve(&login.address, "alice")?;
    login.proc.finish()?.exits(0);
    let status = alice.run(&["status", "--json"])?.exits(0);
    assert!(status.stdout.contains("alice@example.test"), "{status:#?}");
    let seen = alice.call(Client::TypeScript1, "ledger", "note", &json!({"text": "over SAML"}))?;
    assert!(format!("{seen:?}").contains("over SAML"), "{seen:?}");
    assert_eq!(world.executed().len(), 1);
    // The login outlives the server's restart, and refreshes without the identity provider.
    server.restart()?;
    alice.run(&["ls"])?.exits(0);
    // Logging in again is the same person: one subject in the log.
    let login = alice.login(&server)?;
    idp.approve(&login.address, "alice")?;
    login.proc.finish()?.exits(0);
    alice.run(&["ls"])?.exits(0);
    let issued = server.leaves_of("token_issued");
    let subjects: std::collections::BTreeSet<_> =
        issued.iter().map(|leaf| leaf["subject"].to_string()).collect();
    assert_eq!(subjects.len(), 1, "{issued:#?}");
    alice.run(&["logout"])?.exits(0);
    alice.run(&["ls"])?.exits(4);
    Ok(())
}

fn groups_decide(world: &World) -> anyhow::Result<()> {
    let idp = SamlIdp::start(world)?;
    idp.signs_responses_too()?;
    let server = site(world, &idp, NOWHERE, "")?;
    let bob = Person::new(world, "bob")?;
    let login = bob.login(&server)?;
    idp.approve(&login.address, "bob")?;
    login.proc.finish()?.exits(0);
    let listed = bob.run(&["ls"])?.exits(0);
    assert!(!listed.stdout.contains("ledger"), "bob is no engineer: {listed:#?}");
    let refused = bob.run(&["connect", "ledger", "--json"])?;
    assert_ne!(refused.code, 0, "{refused:#?}");
    // Here the response was signed, and the assertion in it.
    let signatures = attempt(&server, &idp, "bob")?.xml.matches("<ds:Signature ").count();
    assert_eq!(signatures, 2);
    Ok(())
}

fn a_session_that_ends(world: &World) -> anyhow::Result<()> {
    let idp = SamlIdp::start(world)?;
    // Longer than the five seconds between two polls.
    let server = site(world, &idp, NOWHERE, "max_session = \"12s\"\n")?;
    let alice = Person::new(world, "alice")?;
    let login = alice.login(&server)?;
    idp.approve(&login.address, "alice")?;
    login.proc.finish()?.exits(0);
    // The identity provider may set an earlier end.
    let mut earlier = attempt(&server, &idp, "alice")?;
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(6);
    let xml = all(
        &earlier.xml,
        r#"SessionNotOnOrAfter="[^"]*""#,
        &format!("SessionNotOnOrAfter=\"{end:.0}\""),
    );
    let response = idp.resign(&xml, "server", "sha256")?;
    let page = earlier.browser.submit(&earlier.form, &[("SAMLResponse", &response)])?;
    earlier.browser.submit(&page.form()?, &[("action", "approve")])?;
    let tokens = earlier.poll(&server)?;
    assert!(tokens["expires_in"].as_i64().is_some_and(|life| (1..=6).contains(&life)), "{tokens}");
    let refresh = || {
        let token = tokens["refresh_token"].as_str().unwrap_or_default();
        let form =
            [("client_id", "mcpx-cli"), ("grant_type", "refresh_token"), ("refresh_token", token)];
        http::send(http::client().post(format!("{}/issuer/token", server.url)).form(&form))
    };
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert_eq!(refresh()?.json()["error"], "invalid_grant");
    std::thread::sleep(std::time::Duration::from_secs(6));
    alice.run(&["ls"])?.exits(4).says("mcpx login");
    Ok(())
}

/// A login that has a response and has not posted it.
struct Attempt {
    device_code: String,
    browser: Browser,
    form: Form,
    relay: String,
    /// The document.
    xml: String,
}

fn attempt(server: &Server, idp: &SamlIdp, name: &str) -> anyhow::Result<Attempt> {
    let url = format!("{}/issuer/device_authorization", server.url);
    let form = [("client_id", "mcpx-cli"), ("scope", "openid groups offline_access")];
    let begun = http::send(http::client().post(url).form(&form))?.json();
    let text = |key: &str| begun[key].as_str().unwrap_or_default().to_owned();
    let mut browser = Browser::default();
    let form = idp.sign_in(&mut browser, &text("verification_uri_complete"), name)?;
    let xml = STANDARD.decode(form.field("SAMLResponse").unwrap_or_default())?;
    let relay = form.field("RelayState").unwrap_or_default().to_owned();
    let xml = String::from_utf8(xml)?;
    Ok(Attempt { device_code: text("device_code"), browser, form, relay, xml })
}

impl Attempt {
    fn post(&self, server: &Server, response: &str) -> anyhow::Result<Answer> {
        post(server, response, &self.relay)
    }

    fn poll(&self, server: &Server) -> anyhow::Result<Value> {
        let form = [
            ("client_id", "mcpx-cli"),
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", &self.device_code),
        ];
        let url = format!("{}/issuer/token", server.url);
        Ok(http::send(http::client().post(url).form(&form))?.json())
    }
}

fn post(server: &Server, response: &str, relay: &str) -> anyhow::Result<Answer> {
    let form = [("SAMLResponse", response), ("RelayState", relay)];
    let url = format!("{}/issuer/saml/acs", server.url);
    http::send(http::client().post(url).form(&form))
}

/// Fails unless an answer refuses with one of these words, and one new record says the same.
#[track_caller]
fn refuses(server: &Server, before: usize, what: &str, codes: &[&str], answer: &Answer) {
    assert!((400..500).contains(&answer.status), "{what}: {answer:#?}");
    let shown = codes.iter().find(|code| answer.body.contains(&format!("<code>{code}</code>")));
    let Some(code) = shown else { panic!("{what}: not {codes:?}: {answer:#?}") };
    let refused = server.leaves_of("refused");
    assert_eq!(refused.len(), before + 1, "{what}: not one record");
    let newest = refused.iter().filter(|leaf| leaf["code"] == *code && leaf["stage"] == "login");
    assert!(newest.count() > 0, "{what}: no record says {code}: {refused:#?}");
}

fn all(xml: &str, pattern: &str, with: &str) -> String {
    let changed = Regex::new(pattern).unwrap().replace_all(xml, with).into_owned();
    assert_ne!(changed, xml, "{pattern} changes nothing in {xml}");
    changed
}

const ASSERTION: &str = "(?s)<saml:Assertion.*</saml:Assertion>";
const SIGNATURE: &str = "(?s)<ds:Signature .*?</ds:Signature>";

/// The assertion of a document, and the same as a forger would have it.
fn forged(xml: &str) -> (String, String) {
    let real = Regex::new(ASSERTION).unwrap().find(xml).unwrap().as_str().to_owned();
    let evil = all(&real, SIGNATURE, "");
    let evil = all(&evil, r#" ID="[^"]*""#, r#" ID="_evil""#);
    (real, all(&evil, "alice@example.test", "mallory@example.test"))
}

fn responses_that_are_refused(world: &World) -> anyhow::Result<()> {
    let idp = SamlIdp::start(world)?;
    let server = site(world, &idp, NOWHERE, "")?;
    let encode = |xml: &str| STANDARD.encode(xml);
    let signed = |xml: &str| idp.resign(xml, "server", "sha256").unwrap();
    let around = |xml: &str, to: &dyn Fn(&str, &str) -> String| {
        let (real, evil) = forged(xml);
        encode(&xml.replace(&real, &to(&real, &evil)))
    };
    let within = |evil: &str, element: &str, inner: &str| {
        let end = format!("</saml:{element}>");
        assert!(evil.contains(&end), "{evil}");
        evil.replace(&end, &format!("{inner}{end}"))
    };
    type Change<'c> = Box<dyn Fn(&str) -> String + 'c>;
    let wrapped: &[&str] =
        &["saml_wrapped", "saml_signature", "saml_unsigned", "saml_profile", "saml_certificate"];
    let rows: Vec<(&str, &[&str], Change)> = vec![
        (
            "tampered",
            &["saml_signature"],
            Box::new(|xml| encode(&all(xml, "alice@example.test", "mallory@example.test"))),
        ),
        ("unsigned", &["saml_unsigned"], Box::new(|xml| encode(&all(xml, SIGNATURE, "")))),
        (
            "signed by a stranger",
            &["saml_certificate", "saml_signature"],
            Box::new(|xml| idp.resign(xml, "stranger", "sha256").unwrap()),
        ),
        (
            "signed by a stranger under the known certificate",
            &["saml_signature"],
            Box::new(|xml| {
                let known = Regex::new("(?s)<ds:X509Certificate>.*?</ds:X509Certificate>").unwrap();
                let known = known.find(xml).unwrap().as_str().to_owned();
                let strange = idp.resign(xml, "stranger", "sha256").unwrap();
                let strange = String::from_utf8(STANDARD.decode(strange).unwrap()).unwrap();
                encode(&all(&strange, "(?s)<ds:X509Certificate>.*?</ds:X509Certificate>", &known))
            }),
        ),
        ("SHA-1", &["saml_algorithm"], Box::new(|xml| idp.resign(xml, "server", "sha1").unwrap())),
        (
            "expired",
            &["saml_time"],
            Box::new(|xml| {
                let xml = all(xml, r#"NotBefore="[^"]*""#, r#"NotBefore="2019-01-01T00:00:00Z""#);
                signed(&all(
                    &xml,
                    r#"NotOnOrAfter="[^"]*""#,
                    r#"NotOnOrAfter="2020-01-01T00:00:00Z""#,
                ))
            }),
        ),
        (
            "not valid yet",
            &["saml_time"],
            Box::new(|xml| {
                let xml = all(xml, r#"NotBefore="[^"]*""#, r#"NotBefore="2090-01-01T00:00:00Z""#);
                signed(&all(
                    &xml,
                    r#"NotOnOrAfter="[^"]*""#,
                    r#"NotOnOrAfter="2091-01-01T00:00:00Z""#,
                ))
            }),
        ),
        (
            "another audience",
            &["saml_audience"],
            Box::new(|xml| {
                signed(&all(xml, "(<saml:Audience>)[^<]*", "${1}https://other.example"))
            }),
        ),
        (
            "no audience",
            &["saml_audience"],
            Box::new(|xml| {
                signed(&all(xml, "(?s)<saml:AudienceRestriction>.*</saml:AudienceRestriction>", ""))
            }),
        ),
        (
            "another recipient",
            &["saml_recipient"],
            Box::new(|xml| {
                signed(&all(
                    xml,
                    r#"Recipient="[^"]*""#,
                    r#"Recipient="https://other.example/acs""#,
                ))
            }),
        ),
        (
            "another destination",
            &["saml_destination"],
            Box::new(|xml| {
                encode(&all(
                    xml,
                    r#"Destination="[^"]*""#,
                    r#"Destination="https://other.example""#,
                ))
            }),
        ),
        (
            "another issuer",
            &["saml_issuer"],
            Box::new(|xml| {
                signed(&all(xml, "(<saml:Issuer[^>]*>)[^<]*", "${1}https://other.example"))
            }),
        ),
        (
            "another assertion's issuer",
            &["saml_issuer"],
            Box::new(|xml| {
                let (head, rest) = xml.split_once("<saml:Assertion").unwrap();
                let rest = all(rest, "(<saml:Issuer[^>]*>)[^<]*", "${1}https://other.example");
                signed(&format!("{head}<saml:Assertion{rest}"))
            }),
        ),
        (
            "another login's, in the assertion only",
            &["saml_other_login"],
            Box::new(|xml| {
                let (head, rest) = xml.split_once("<saml:Assertion").unwrap();
                let rest = all(rest, r#"InResponseTo="[^"]*""#, r#"InResponseTo="_another""#);
                signed(&format!("{head}<saml:Assertion{rest}"))
            }),
        ),
        (
            "no InResponseTo",
            &["saml_other_login"],
            Box::new(|xml| signed(&all(xml, r#" InResponseTo="[^"]*""#, ""))),
        ),
        (
            "a transient NameID",
            &["saml_subject_unstable"],
            Box::new(|xml| {
                signed(&all(xml, "nameid-format:persistent", "nameid-format:transient"))
            }),
        ),
        (
            "holder of key",
            &["saml_confirmation"],
            Box::new(|xml| signed(&all(xml, "cm:bearer", "cm:holder-of-key"))),
        ),
        (
            "a failure",
            &["saml_status"],
            Box::new(|xml| encode(&all(xml, "status:Success", "status:Responder"))),
        ),
        (
            "a DOCTYPE",
            &["saml_markup"],
            Box::new(|xml| encode(&all(xml, "<samlp:Response", "<!DOCTYPE r><samlp:Response"))),
        ),
        (
            "an entity",
            &["saml_markup"],
            Box::new(|xml| {
                let xml = all(xml, "alice@example.test", "&who;");
                let doctype = "<!DOCTYPE r [<!ENTITY who SYSTEM \"file:///etc/passwd\">]>";
                encode(&all(&xml, "<samlp:Response", &format!("{doctype}<samlp:Response")))
            }),
        ),
        (
            "an undeclared entity",
            &["saml_not_xml", "saml_signature"],
            Box::new(|xml| encode(&all(xml, "alice@example.test", "&who;"))),
        ),
        (
            "a comment in the NameID",
            &["saml_markup"],
            Box::new(|xml| encode(&all(xml, "(<saml:NameID[^>]*>...)", "$1<!---->"))),
        ),
        (
            "XSW: the forged one first",
            wrapped,
            Box::new(|xml| around(xml, &|real, evil| format!("{evil}{real}"))),
        ),
        (
            "XSW: the forged one last",
            wrapped,
            Box::new(|xml| around(xml, &|real, evil| format!("{real}{evil}"))),
        ),
        (
            "XSW: two with the same ID",
            wrapped,
            Box::new(|xml| {
                around(xml, &|real, evil| {
                    let id = Regex::new(r#" ID="([^"]*)""#).unwrap().captures(real).unwrap()[1]
                        .to_owned();
                    format!("{}{real}", evil.replace("_evil", &id))
                })
            }),
        ),
        (
            "XSW: the real one in the forged one",
            wrapped,
            Box::new(|xml| around(xml, &|real, evil| within(evil, "Assertion", real))),
        ),
        (
            "XSW: the real one in the forged one's advice",
            wrapped,
            Box::new(|xml| {
                around(xml, &|real, evil| {
                    let advice = format!("<saml:Advice>{real}</saml:Advice><saml:AuthnStatement");
                    evil.replacen("<saml:AuthnStatement", &advice, 1)
                })
            }),
        ),
        (
            "XSW: the real one in an object of its signature, over the forged one",
            wrapped,
            Box::new(|xml| {
                around(xml, &|real, evil| {
                    let signature =
                        Regex::new(SIGNATURE).unwrap().find(real).unwrap().as_str().to_owned();
                    let bare = real.replace(&signature, "");
                    let holder = signature.replace(
                        "</ds:Signature>",
                        &format!("<ds:Object>{bare}</ds:Object></ds:Signature>"),
                    );
                    evil.replacen("<saml:Subject>", &format!("{holder}<saml:Subject>"), 1)
                })
            }),
        ),
        (
            "XSW: the real response in the extensions of a forged one",
            wrapped,
            Box::new(|xml| {
                let (_, evil) = forged(xml);
                let outer = all(xml, ASSERTION, &evil.replace('$', "$$"));
                let outer =
                    all(&outer, r#"(<samlp:Response[^>]*) ID="[^"]*""#, r#"$1 ID="_outer""#);
                encode(&outer.replacen(
                    "<samlp:Status>",
                    &format!("<samlp:Extensions>{xml}</samlp:Extensions><samlp:Status>"),
                    1,
                ))
            }),
        ),
    ];
    for (records, (what, codes, change)) in rows.into_iter().enumerate() {
        let attempt = attempt(&server, &idp, "alice")?;
        let answer = attempt.post(&server, &change(&attempt.xml))?;
        refuses(&server, records, what, codes, &answer);
        assert!(!answer.body.contains("mallory"), "{what}: {answer:#?}");
        assert_eq!(attempt.poll(&server)?["error"], "authorization_pending", "{what}");
        // What was refused spoils nothing: the real one still works where its ids are unused.
        if what == "tampered" {
            let answer = attempt.post(&server, &encode(&attempt.xml))?;
            assert_eq!(answer.status, 200, "{what}: {answer:#?}");
        }
    }
    // The same change to nothing is taken: what signs anew here signs well.
    let attempt = attempt(&server, &idp, "alice")?;
    let answer = attempt.post(&server, &signed(&attempt.xml))?;
    assert_eq!(answer.status, 200, "{answer:#?}");
    // Nothing of what strangers wrote stands readable in the log.
    server.holds_none_of(["mallory@example.test"]);
    server.verify()?.exits(0);
    Ok(())
}

fn forms_that_are_refused(world: &World) -> anyhow::Result<()> {
    let idp = SamlIdp::start(world)?;
    let server = site(world, &idp, NOWHERE, "")?;
    let url = format!("{}/issuer/saml/acs", server.url);
    let raw = |kind: &str, body: String| {
        http::send(http::client().post(&url).header("content-type", kind).body(body))
    };
    let form = "application/x-www-form-urlencoded";
    let attempt = attempt(&server, &idp, "alice")?;
    let response = attempt.form.field("SAMLResponse").unwrap_or_default();
    let good =
        format!("SAMLResponse={}&RelayState={}", response.replace('+', "%2B"), attempt.relay);
    let rows = [
        ("1 MB", "saml_too_large", raw(form, format!("SAMLResponse={}", "A".repeat(1 << 20)))?),
        ("much XML", "saml_too_large", post(&server, &"A".repeat(400_000), &attempt.relay)?),
        ("not base64", "saml_not_base64", post(&server, "<samlp:Response/>", &attempt.relay)?),
        ("not UTF-8", "saml_not_xml", post(&server, "/////w==", &attempt.relay)?),
        ("not XML", "saml_not_xml", post(&server, &STANDARD.encode("hello"), &attempt.relay)?),
        (
            "cut",
            "saml_not_xml",
            post(&server, &STANDARD.encode(&attempt.xml[..attempt.xml.len() / 2]), &attempt.relay)?,
        ),
        (
            "deep",
            "saml_too_large",
            post(&server, &STANDARD.encode("<a>".repeat(50_000)), &attempt.relay)?,
        ),
        ("JSON", "saml_content_type", raw("application/json", "{}".to_owned())?),
        ("no content type", "saml_content_type", raw("", good.clone())?),
        ("multipart", "saml_content_type", raw("multipart/form-data; boundary=x", good.clone())?),
        ("nothing", "saml_form", raw(form, String::new())?),
        ("two responses", "saml_form", raw(form, format!("{good}&{good}"))?),
        ("a request", "saml_form", raw(form, format!("{good}&SAMLRequest=PGEvPg"))?),
        ("no RelayState", "saml_unsolicited", post(&server, response, "")?),
        ("an unknown RelayState", "saml_unsolicited", post(&server, response, "unknown")?),
    ];
    let refused = server.leaves_of("refused");
    assert_eq!(refused.len(), rows.len(), "{refused:#?}");
    for (what, code, answer) in rows {
        assert!((400..500).contains(&answer.status), "{what}: {answer:#?}");
        assert!(answer.body.contains(&format!("<code>{code}</code>")), "{what}: {answer:#?}");
        assert!(refused.iter().any(|leaf| leaf["code"] == code), "{what}: {refused:#?}");
    }
    let answer = http::send(http::client().get(&url))?;
    assert_eq!(answer.status, 405, "{answer:#?}");
    Ok(())
}

fn responses_that_are_used_twice(world: &World) -> anyhow::Result<()> {
    let idp = SamlIdp::start(world)?;
    let mut server = site(world, &idp, NOWHERE, "")?;
    let one = attempt(&server, &idp, "alice")?;
    let response = one.form.field("SAMLResponse").unwrap_or_default();
    assert_eq!(one.post(&server, response)?.status, 200);
    let again = one.post(&server, response)?;
    refuses(&server, 0, "again", &["saml_replayed"], &again);
    // Another login does not take it either.
    let two = attempt(&server, &idp, "alice")?;
    let answer = two.post(&server, response)?;
    refuses(&server, 1, "in another login", &["saml_other_login"], &answer);
    server.restart()?;
    let answer = one.post(&server, response)?;
    refuses(&server, 2, "after a restart", &["saml_unsolicited"], &answer);
    Ok(())
}

fn somebody_elses_login(world: &World) -> anyhow::Result<()> {
    let idp = SamlIdp::start(world)?;
    let server = site(world, &idp, NOWHERE, "")?;
    // Mallory (here bob) begins, signs in as himself, and makes alice's browser post the response.
    let mut mallory = attempt(&server, &idp, "bob")?;
    let mut alice = attempt(&server, &idp, "alice")?;
    let page = alice.browser.submit(&mallory.form, &[])?;
    assert!(page.says("bob@example.test"), "the page says who: {page:#?}");
    let done = alice.browser.submit(&page.form()?, &[("action", "approve")])?;
    assert!(done.says("<code>saml_other_browser</code>"), "{done:#?}");
    assert_eq!(mallory.poll(&server)?["error"], "authorization_pending");
    // A confirmation that nobody can know.
    let forged = [("handle", "x"), ("action", "approve")];
    let url = format!("{}/issuer/saml/confirm", server.url);
    let answer = http::send(http::client().post(url).form(&forged))?;
    refuses(&server, 1, "an unknown handle", &["saml_unsolicited"], &answer);
    // A code that was denied meanwhile.
    let page = alice.browser.submit(&alice.form, &[])?;
    let confirm = page.form()?;
    let denied = alice.browser.submit(&confirm, &[("action", "deny")])?;
    assert!(denied.says("Nobody was logged in"), "{denied:#?}");
    assert_eq!(alice.poll(&server)?["error"], "access_denied");
    let late = alice.browser.submit(&confirm, &[("action", "approve")])?;
    assert!(late.says("<code>saml_unsolicited</code>"), "{late:#?}");
    // Begun in one browser, the page there does nothing without that browser's cookie.
    let device = mallory.browser.open(&format!("{}/issuer/device", server.url))?;
    let mut other = Browser::default();
    let stale = other.submit(&device.form()?, &[("user_code", "BCDF-GHJK"), ("action", "saml")])?;
    assert!(stale.says("open for too long"), "{stale:#?}");
    Ok(())
}
