//! Every fault of a token or a proof, at every endpoint that takes one: refused with its own
//! reason, on record, and never an error of the server's.
//!
//! The forger has the server's own key, which no real one has: only so do the checks behind the
//! signature get to see anything.

use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use crate::support::raw::{self, parts, sign};
use crate::support::{Raw, Server, Site, World, http};

crate::stories![tokens, proofs, identities_and_forms_at_the_exchange, heads_that_are_far_too_long,];

/// Where a token is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gateway,
    Api,
    Exchange,
}

/// A method and a path that take a token.
type Endpoint = (Kind, &'static str, &'static str);

const ENDPOINTS: [Endpoint; 16] = [
    (Kind::Gateway, "POST", "/mcp/ledger"),
    (Kind::Gateway, "GET", "/mcp/ledger"),
    (Kind::Gateway, "DELETE", "/mcp/ledger"),
    (Kind::Exchange, "POST", "/oauth/token"),
    (Kind::Api, "GET", "/api/me"),
    (Kind::Api, "GET", "/api/connections"),
    (Kind::Api, "GET", "/api/approvals"),
    (Kind::Api, "GET", "/api/approvals/apr_0000000000000000"),
    (Kind::Api, "POST", "/api/approvals/apr_0000000000000000"),
    (Kind::Api, "GET", "/api/grants"),
    (Kind::Api, "POST", "/api/grants/gr_0000000000000000/revoke"),
    (Kind::Api, "GET", "/api/tools"),
    (Kind::Api, "POST", "/api/tools/accept"),
    (Kind::Api, "GET", "/api/sessions"),
    (Kind::Api, "GET", "/api/sessions/ses_0000000000000000"),
    (Kind::Api, "GET", "/api/log/checkpoint"),
];

/// What a story of faults needs.
struct Place<'a> {
    server: Server<'a>,
    raw: Raw,
    id_token: String,
    /// The key that signs grant tokens.
    own: EncodingKey,
    /// A good token for the gateway, and one for the API.
    good: [String; 2],
}

impl<'a> Place<'a> {
    fn new(world: &'a World, idp: &crate::support::Idp, ledger: &str) -> anyhow::Result<Self> {
        let server = Site::new(world, idp).http("ledger", ledger).start()?;
        let raw = Raw::new()?;
        let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
        let pem = std::fs::read(server.data().join("keys/grant.key"))?;
        let own = EncodingKey::from_ec_pem(&pem)?;
        let good = [
            raw.token(&server, &id_token, &server.resource("ledger"))?,
            raw.token(&server, &id_token, &format!("{}/api", server.url))?,
        ];
        Ok(Self { server, raw, id_token, own, good })
    }

    /// The good token for an endpoint.
    fn token(&self, kind: Kind) -> &str {
        let [gateway, api] = &self.good;
        if kind == Kind::Api { api } else { gateway }
    }

    /// Sends a request with a token and a proof; an answer, if any came.
    fn send(
        &self,
        (kind, method, path): Endpoint,
        token: &str,
        proofs: &[String],
    ) -> anyhow::Result<http::Answer> {
        let url = format!("{}{path}", self.server.url);
        let mut request = http::client().request(method.parse()?, url);
        for proof in proofs {
            request = request.header("dpop", proof);
        }
        request = match kind {
            Kind::Exchange => request.form(&[
                ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                ("subject_token", &self.id_token),
                ("subject_token_type", "urn:ietf:params:oauth:token-type:id_token"),
                ("resource", &self.server.resource("ledger")),
                ("mcpx_grant", token),
            ]),
            Kind::Gateway | Kind::Api => request.header("authorization", format!("DPoP {token}")),
        };
        if kind == Kind::Gateway && method == "POST" {
            let body = raw::call("note", &json!({"text": "bad"}));
            request = request.header("content-type", "application/json").body(body);
        }
        http::send(request)
    }

    /// A good proof for a request.
    fn proof(&self, (kind, method, path): Endpoint, token: &str) -> anyhow::Result<String> {
        let url = format!("{}{path}", self.server.url);
        let token = (kind != Kind::Exchange).then_some(token);
        self.raw.proof(method, &url, token, |_| ())
    }

    /// The codes of all refusals on record, in no order.
    fn codes(&self) -> Vec<String> {
        let refused = self.server.leaves_of("refused");
        let codes = refused.iter().map(|leaf| leaf["code"].as_str().unwrap_or_default().to_owned());
        let mut codes: Vec<String> = codes.collect();
        codes.sort_unstable();
        codes
    }
}

/// Fails unless an answer is a refusal with this code, and says a sentence.
#[track_caller]
fn judge(what: &str, endpoint: Endpoint, answer: &http::Answer, code: &str) {
    let (kind, ..) = endpoint;
    let status = if kind == Kind::Exchange { 400 } else { 401 };
    assert_eq!(answer.status, status, "{what} at {endpoint:?}: {answer:#?}");
    let told = answer.json();
    let (found, message) = match kind {
        Kind::Gateway => ("/error/data/mcpx/code", "/error/message"),
        Kind::Api => ("/error/code", "/error/message"),
        Kind::Exchange => ("/mcpx_code", "/error_description"),
    };
    let text = |place: &str| told.pointer(place).and_then(Value::as_str).unwrap_or_default();
    assert_eq!(text(found), code, "{what} at {endpoint:?}: {told}");
    assert!(!text(message).is_empty(), "{what} at {endpoint:?} has no reason: {told}");
}

/// What each kind of endpoint says.
#[derive(Clone, Copy)]
struct Says {
    gateway: &'static str,
    api: &'static str,
    exchange: &'static str,
}

impl Says {
    fn by(self, kind: Kind) -> &'static str {
        match kind {
            Kind::Gateway => self.gateway,
            Kind::Api => self.api,
            Kind::Exchange => self.exchange,
        }
    }
}

const fn all(code: &'static str) -> Says {
    Says { gateway: code, api: code, exchange: code }
}

const fn each(gateway: &'static str, api: &'static str, exchange: &'static str) -> Says {
    Says { gateway, api, exchange }
}

/// A change of header and claims of a good token, which is then signed with the server's key.
type Change = (&'static str, fn(&mut Value, &mut Value), Says);

const MALFORMED: Says = all("token_malformed");
const UNKNOWN: Says = each("grant_unknown", "token_unknown", "grant_unknown");
const DISTANT: i64 = 100_000;

const CHANGES: &[Change] = &[
    ("iss of another", |_, c| c["iss"] = json!("https://evil.example"), all("unknown_issuer")),
    ("sub of another", |_, c| c["sub"] = json!("sub_0000000000000000"), UNKNOWN),
    ("sub that is none", |_, c| c["sub"] = json!("alice"), MALFORMED),
    ("another audience", |_, c| c["aud"] = json!("https://evil.example"), all("wrong_audience")),
    (
        "a longer audience",
        |_, c| c["aud"] = json!(format!("{}/", text(&c["aud"]))),
        all("wrong_audience"),
    ),
    ("two audiences", |_, c| c["aud"] = json!([c["aud"].clone(), "x"]), MALFORMED),
    (
        "expired",
        |_, c| c["exp"] = json!(number(&c["iat"]) - 1),
        each("grant_expired", "token_expired", "grant_expired"),
    ),
    (
        "expired long ago",
        |_, c| c["exp"] = json!(0),
        each("grant_expired", "token_expired", "grant_expired"),
    ),
    (
        "before all time",
        |_, c| c["exp"] = json!(i64::MIN),
        each("grant_expired", "token_expired", "grant_expired"),
    ),
    (
        "from the future",
        |_, c| c["iat"] = json!(number(&c["iat"]) + DISTANT),
        all("token_not_yet_valid"),
    ),
    ("a time with a fraction", |_, c| c["exp"] = json!(1e300), MALFORMED),
    ("jti of another", |_, c| c["jti"] = json!("gr_0000000000000000"), UNKNOWN),
    ("jti that is none", |_, c| c["jti"] = json!("nonsense"), UNKNOWN),
    (
        "cnf of another key",
        |_, c| c["cnf"] = json!({"jkt": "A".repeat(43)}),
        each("dpop_other_key", "dpop_other_key", "grant_unknown"),
    ),
    (
        "cnf of a certificate",
        |_, c| c["cnf"] = json!({"x5t#S256": "A".repeat(43)}),
        each("token_needs_certificate", "token_needs_certificate", "grant_unknown"),
    ),
    ("cnf of both kinds", |_, c| c["cnf"]["x5t#S256"] = json!("A".repeat(43)), MALFORMED),
    ("cnf of nothing", |_, c| c["cnf"] = json!({}), MALFORMED),
    ("cnf of another sort", |_, c| c["cnf"] = json!({"jwk": {}}), MALFORMED),
    ("a kind that is none", |_, c| c["mcpx"]["kind"] = json!("admin"), MALFORMED),
    ("a session that is none", |_, c| c["mcpx"]["session"] = json!("../x"), MALFORMED),
    ("a connection that is none", |_, c| c["mcpx"]["connection"] = json!("../x"), MALFORMED),
    ("no typ", |h, _| remove(h, "typ"), all("token_type")),
    ("the typ of identity tokens", |h, _| h["typ"] = json!("JWT"), all("token_type")),
    ("the typ of proofs", |h, _| h["typ"] = json!("dpop+jwt"), all("token_type")),
    ("a typ of another type", |h, _| h["typ"] = json!(7), MALFORMED),
    ("no alg", |h, _| remove(h, "alg"), MALFORMED),
    ("alg none", |h, _| h["alg"] = json!("none"), all("token_algorithm")),
    ("alg None", |h, _| h["alg"] = json!("None"), all("token_algorithm")),
    ("alg HS256", |h, _| h["alg"] = json!("HS256"), all("token_algorithm")),
    ("alg RS256", |h, _| h["alg"] = json!("RS256"), all("token_algorithm")),
    ("alg ES384", |h, _| h["alg"] = json!("ES384"), all("token_algorithm")),
    ("no kid", |h, _| remove(h, "kid"), all("token_key_unknown")),
    ("another kid", |h, _| h["kid"] = json!("A".repeat(43)), all("token_key_unknown")),
    ("a critical extension", |h, _| h["crit"] = json!(["b64"]), MALFORMED),
];

const CLAIMS: [&str; 8] = ["iss", "sub", "aud", "exp", "iat", "jti", "cnf", "mcpx"];

fn remove(part: &mut Value, name: &str) {
    part.as_object_mut().unwrap().remove(name);
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

/// Every fault of one good token: what it is, the token, what is said of it.
fn faults(good: &str, own: &EncodingKey) -> anyhow::Result<Vec<(String, String, Says)>> {
    let (header, claims) = parts(good);
    let mut rows = Vec::new();
    for name in CLAIMS {
        let mut missing = claims.clone();
        remove(&mut missing, name);
        let says = if name == "cnf" { all("token_not_bound") } else { MALFORMED };
        rows.push((format!("no {name}"), sign(own, &header, &missing)?, says));
        for wrong in [json!([1]), json!(null), json!({"x": 1}), json!(true)] {
            let what = format!("{name} is {wrong}");
            let mut claims = claims.clone();
            claims[name] = wrong;
            rows.push((what, sign(own, &header, &claims)?, MALFORMED));
        }
    }
    for (what, change, says) in CHANGES {
        let (mut header, mut claims) = (header.clone(), claims.clone());
        change(&mut header, &mut claims);
        rows.push(((*what).to_owned(), sign(own, &header, &claims)?, *says));
    }
    let (signed, signature) = good.rsplit_once('.').unwrap_or_default();
    let (head, _) = signed.split_once('.').unwrap_or_default();
    let mut row = |what: &str, token: String, says| rows.push((what.to_owned(), token, says));
    row("another key", Raw::new()?.forge(&header, &claims)?, all("token_signature"));
    row("no signature", format!("{signed}."), all("token_signature"));
    row("a signature twice", format!("{good}.{signature}"), MALFORMED);
    row("a cut signature", good[..good.len() - 10].to_owned(), all("token_signature"));
    row("a cut token", good[..good.len() / 2].to_owned(), MALFORMED);
    row("a header alone", head.to_owned(), MALFORMED);
    row("claims that are no JSON", format!("{head}.e30x.{signature}"), all("token_signature"));
    row("a header that is no JSON", format!("AAAA.{signature}.{signature}"), MALFORMED);
    row("no token at all", "nonsense".to_owned(), MALFORMED);
    row("dots", "..".to_owned(), MALFORMED);
    row("100 KB", format!("{head}.{}.{signature}", "A".repeat(100_000)), MALFORMED);
    Ok(rows)
}

fn tokens(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let place = Place::new(world, &idp, &ledger.url)?;
    let mut expected: Vec<String> = place.codes();
    for endpoint in ENDPOINTS {
        let (kind, ..) = endpoint;
        for (what, token, says) in faults(place.token(kind), &place.own)? {
            let proof = place.proof(endpoint, &token)?;
            let answer = place.send(endpoint, &token, &[proof])?;
            judge(&what, endpoint, &answer, says.by(kind));
            let claim = CLAIMS.iter().find(|name| {
                what == format!("no {name}") || what.starts_with(&format!("{name} is "))
            });
            if let Some(claim) = claim {
                assert!(answer.body.contains(claim), "{what} does not name it: {answer:#?}");
            }
            expected.push(says.by(kind).to_owned());
        }
        expected.sort_unstable();
        assert_eq!(place.codes(), expected, "not on record: {endpoint:?}");
    }
    assert!(world.executed().is_empty(), "{:?}", world.executed());
    // The one that all of them were made of is good.
    let body = raw::call("note", &json!({"text": "good"}));
    let answer = place.raw.post(&place.server.resource("ledger"), &place.good[0], &body)?;
    assert_eq!(answer.status, 200, "{answer:#?}");
    place.server.verify()?.exits(0);
    Ok(())
}

/// A change of header and claims of a good proof.
type Spoil = (&'static str, fn(&mut Value, &mut Value), &'static str);

const SPOILS: &[Spoil] = &[
    ("another method", |_, c| c["htm"] = json!("PATCH"), "dpop_other_request"),
    ("another URL", |_, c| c["htu"] = json!("https://evil.example/"), "dpop_other_request"),
    (
        "a URL with a query",
        |_, c| c["htu"] = json!(format!("{}?x", text(&c["htu"]))),
        "dpop_malformed",
    ),
    ("no URL", |_, c| c["htu"] = json!("nonsense"), "dpop_malformed"),
    ("too old", |_, c| c["iat"] = json!(number(&c["iat"]) - 120), "dpop_stale"),
    ("from the future", |_, c| c["iat"] = json!(number(&c["iat"]) + 120), "dpop_stale"),
    ("before all time", |_, c| c["iat"] = json!(i64::MIN), "dpop_stale"),
    ("another token", |_, c| c["ath"] = json!("AAAA"), "dpop_other_request"),
    ("an empty jti", |_, c| c["jti"] = json!(""), "dpop_malformed"),
    ("a long jti", |_, c| c["jti"] = json!("x".repeat(1000)), "dpop_malformed"),
    ("the typ of tokens", |h, _| h["typ"] = json!("at+jwt"), "dpop_malformed"),
    ("no typ", |h, _| remove(h, "typ"), "dpop_malformed"),
    ("alg none", |h, _| h["alg"] = json!("none"), "dpop_key"),
    ("alg HS256", |h, _| h["alg"] = json!("HS256"), "dpop_key"),
    ("alg ES384", |h, _| h["alg"] = json!("ES384"), "dpop_key"),
    ("a critical extension", |h, _| h["crit"] = json!(["x"]), "dpop_malformed"),
    ("no jwk", |h, _| remove(h, "jwk"), "dpop_malformed"),
    ("a private jwk", |h, _| h["jwk"]["d"] = json!("AAAA"), "dpop_key"),
    ("another curve", |h, _| h["jwk"]["crv"] = json!("P-384"), "dpop_key"),
    ("a symmetric jwk", |h, _| h["jwk"] = json!({"kty": "oct"}), "dpop_key"),
    ("no point of the curve", |h, _| h["jwk"]["x"] = json!("A".repeat(43)), "dpop_signature"),
];

fn proofs(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let place = Place::new(world, &idp, &ledger.url)?;
    let mut expected = place.codes();
    for endpoint in ENDPOINTS {
        let (kind, ..) = endpoint;
        let token = place.token(kind);
        let good = place.proof(endpoint, token)?;
        let (header, claims) = parts(&good);
        let mut rows: Vec<(String, Vec<String>, &str)> = Vec::new();
        for name in ["jti", "htm", "htu", "iat"] {
            let mut missing = claims.clone();
            remove(&mut missing, name);
            let mut wrong = claims.clone();
            wrong[name] = json!([1]);
            for (how, claims) in [("no", missing), ("wrong", wrong)] {
                let proof = place.raw.forge(&header, &claims)?;
                rows.push((format!("{how} {name}"), vec![proof], "dpop_malformed"));
            }
        }
        for (what, change, code) in SPOILS {
            let (mut header, mut claims) = (header.clone(), claims.clone());
            change(&mut header, &mut claims);
            let proof = place.raw.forge(&header, &claims)?;
            rows.push(((*what).to_owned(), vec![proof], code));
        }
        let none = if kind == Kind::Exchange { "dpop_missing" } else { "dpop_malformed" };
        let thief = Raw::new()?;
        rows.push(("no proof".to_owned(), vec![], none));
        let mut row = |what: &str, proofs: &[&str], code| {
            let proofs = proofs.iter().map(|proof| (*proof).to_owned()).collect();
            rows.push((what.to_owned(), proofs, code));
        };
        row("two proofs", &[&good, &good], "dpop_malformed");
        row("a cut proof", &[&good[..good.len() / 2]], "dpop_malformed");
        row("a cut signature", &[&good[..good.len() - 10]], "dpop_signature");
        row("nothing", &[""], "dpop_malformed");
        row("nonsense", &["nonsense"], "dpop_malformed");
        row("100 KB", &[&format!("{good}{}", "A".repeat(100_000))], "dpop_malformed");
        let mut other_header = header.clone();
        other_header["jwk"] = thief.jwk();
        row("another jwk", &[&place.raw.forge(&other_header, &claims)?], "dpop_signature");
        if kind != Kind::Exchange {
            row("another key", &[&thief.forge(&other_header, &claims)?], "dpop_other_key");
            let mut free = claims.clone();
            remove(&mut free, "ath");
            row("of no token", &[&place.raw.forge(&header, &free)?], "dpop_other_request");
        }
        for (what, proofs, code) in rows {
            let answer = place.send(endpoint, token, &proofs)?;
            judge(&what, endpoint, &answer, code);
            expected.push(code.to_owned());
        }
        expected.sort_unstable();
        assert_eq!(place.codes(), expected, "not on record: {endpoint:?}");
    }
    assert!(world.executed().is_empty(), "{:?}", world.executed());
    // A good one is good once, wherever it is used.
    for endpoint in ENDPOINTS {
        let (kind, ..) = endpoint;
        let proof = [place.proof(endpoint, place.token(kind))?];
        let first = place.send(endpoint, place.token(kind), &proof)?;
        assert!(first.status != 401 && first.status < 500, "{endpoint:?}: {first:#?}");
        let again = place.send(endpoint, place.token(kind), &proof)?;
        judge("a proof used twice", endpoint, &again, "dpop_replayed");
    }
    place.server.verify()?.exits(0);
    Ok(())
}

fn identities_and_forms_at_the_exchange(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let place = Place::new(world, &idp, &ledger.url)?;
    let now = number(&parts(&place.good[0]).1["iat"]);
    let claims = json!({
        "iss": idp.url, "aud": "mcpx-cli", "sub": "mallory", "groups": ["eng"],
        "iat": now, "exp": now + 600,
    });
    let good = idp.sign(claims.clone())?;
    let resource = place.server.resource("ledger");
    assert_eq!(place.raw.exchange(&place.server, &good, &resource)?.status, 200);
    let mut rows: Vec<(String, String, &str)> = Vec::new();
    for name in ["iss", "sub", "aud", "exp"] {
        let mut missing = claims.clone();
        remove(&mut missing, name);
        let mut wrong = claims.clone();
        wrong[name] = json!({"x": 1});
        rows.push((format!("no {name}"), idp.sign(missing)?, "token_malformed"));
        rows.push((format!("wrong {name}"), idp.sign(wrong)?, "token_malformed"));
    }
    let values: [(&str, &str, Value, &str); 8] = [
        ("another issuer", "iss", json!("https://evil.example"), "unknown_issuer"),
        ("another audience", "aud", json!("somebody-else"), "wrong_audience"),
        ("expired", "exp", json!(now - 600), "token_expired"),
        ("from the future", "iat", json!(now + DISTANT), "token_not_yet_valid"),
        ("not yet", "nbf", json!(now + DISTANT), "token_not_yet_valid"),
        ("an empty sub", "sub", json!(""), "token_malformed"),
        ("a sub of a line", "sub", json!("a\nb"), "token_malformed"),
        ("groups that are none", "groups", json!(7), "token_malformed"),
    ];
    for (what, name, value, code) in values {
        let mut claims = claims.clone();
        claims[name] = value;
        rows.push((what.to_owned(), idp.sign(claims)?, code));
    }
    let (header, _) = parts(&good);
    let with = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        place.raw.forge(&header, &claims)
    };
    let (signed, _) = good.rsplit_once('.').unwrap_or_default();
    let mut row = |what: &str, token: String, code| rows.push((what.to_owned(), token, code));
    row("another key", with("typ", json!("JWT"))?, "token_signature");
    row("an unknown key", with("kid", json!("nobody's"))?, "token_key_unknown");
    row("alg none", with("alg", json!("none"))?, "token_algorithm");
    row("alg HS256", with("alg", json!("HS256"))?, "token_algorithm");
    row("a critical extension", with("crit", json!(["x"]))?, "token_malformed");
    row("the typ of grants", with("typ", json!("at+jwt"))?, "token_type");
    row("no signature", format!("{signed}."), "token_signature");
    row("a cut token", good[..good.len() / 2].to_owned(), "token_malformed");
    row("1 MB", format!("{good}{}", "A".repeat(1 << 20)), "token_malformed");
    row("a grant token", place.good[0].clone(), "unknown_issuer");
    row("nothing", String::new(), "token_malformed");
    let mut expected = place.codes();
    let endpoint = (Kind::Exchange, "POST", "/oauth/token");
    for (what, token, code) in rows {
        let answer = place.raw.exchange(&place.server, &token, &resource)?;
        judge(&what, endpoint, &answer, code);
        expected.push(code.to_owned());
    }
    // What is no form of an exchange.
    let url = format!("{}/oauth/token", place.server.url);
    let post = || http::client().post(&url);
    let form = [("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")];
    let huge = "x".repeat(4 << 20);
    let requests = [
        ("nothing", post()),
        ("no fields", post().form(&form[..0])),
        ("one field", post().form(&form)),
        ("another type", post().header("content-type", "application/json").body("{}")),
        ("no UTF-8", {
            let form = "application/x-www-form-urlencoded";
            post().header("content-type", form).body(vec![0xff; 9])
        }),
        ("far too much", post().form(&[("grant_type", &*huge)])),
    ];
    for (what, request) in requests {
        let answer = http::send(request)?;
        judge(what, endpoint, &answer, "bad_request");
        expected.push("bad_request".to_owned());
    }
    expected.sort_unstable();
    assert_eq!(place.codes(), expected, "not on record");
    place.server.verify()?.exits(0);
    Ok(())
}

fn heads_that_are_far_too_long(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let place = Place::new(world, &idp, &ledger.url)?;
    let huge = "A".repeat(1 << 20);
    for endpoint in ENDPOINTS {
        let (kind, ..) = endpoint;
        let before = place.codes().len();
        let sent = match kind {
            Kind::Exchange => place.send(endpoint, place.token(kind), std::slice::from_ref(&huge)),
            Kind::Gateway | Kind::Api => place.send(endpoint, &huge, &[]),
        };
        // Whoever still writes when the answer comes may not get to read it.
        if let Ok(answer) = sent {
            assert_eq!(answer.status, 431, "{endpoint:?}: {answer:#?}");
        }
        crate::support::until("it is on record", || {
            let codes = place.codes();
            assert!(codes.len() <= before + 1, "{codes:?}");
            Ok((codes.iter().filter(|code| *code == "head_too_large").count() > 0
                && codes.len() == before + 1)
                .then_some(()))
        })?;
    }
    assert!(world.executed().is_empty());
    Ok(())
}
