//! Access tokens of an organisation's own authorization server, as MCP's authorization has a client
//! bring them: JWTs (RFC 9068) for one resource (RFC 8707), of a trusted issuer.
//!
//! They are not grant tokens, and nothing here takes one for the other: the issuer differs, and what
//! a token is bound to is told to the caller, who has to hold the bearer to it. An audience is
//! compared as text, and a token for several is refused: whoever else it is for could use it here.

use std::collections::HashMap;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::dpop::Thumbprint;
use super::error::TokenError;
use super::oidc::{
    IssuerSettings, IssuerVerifier, Issuers, LEEWAY, claims, find_claim, group_names, malformed,
    printable, split,
};
use crate::types::{Identity, sha256};

/// What RFC 9068 calls an access token in the header.
pub const TYP: &str = "at+jwt";

/// Verified tokens that are remembered.
const CACHE: usize = 4096;
/// After so many seconds a remembered token's signature is looked at again: its issuer may have
/// withdrawn the key.
const RECHECK: i64 = 300;
/// Longer than the names that issuers give to people, clients, logins and tokens.
const MAX_NAME: usize = 512;

/// Which access tokens are accepted.
#[derive(Clone, Debug)]
pub struct AccessRules {
    /// Whose: URLs of trusted issuers.
    pub issuers: Vec<String>,
    /// Accepted `typ` headers.
    pub types: Vec<String>,
    /// How many seconds after its `iat` a token is good at most, whatever its `exp` says.
    pub life: i64,
}

/// What a verified access token says.
#[derive(Clone, Debug)]
pub struct AccessClaims {
    /// SHA-256 of the whole token.
    pub hash: [u8; 32],
    /// Whom it speaks for.
    pub identity: Identity,
    /// The client that it was given to.
    pub client: String,
    /// The issuer's name for the login behind it, where it tells one.
    pub login: Option<String>,
    /// When that login was, in seconds since 1970, where the issuer tells it.
    pub authenticated: Option<i64>,
    /// The issuer's name for the token.
    pub jti: Option<String>,
    /// When it was made.
    pub issued: i64,
    /// When it is good no longer.
    pub until: i64,
    /// What it permits, in the issuer's words.
    pub scopes: Vec<String>,
    /// The key that its holder must prove; without one, whoever has the token may use it.
    pub jkt: Option<Thumbprint>,
}

/// Verifies access tokens. Whether the grant behind one was revoked is not its concern.
pub struct AccessVerifier {
    issuers: Vec<IssuerVerifier>,
    types: Vec<String>,
    life: i64,
    /// Tokens that were found good, by hash, with their audience and when that was; times are judged
    /// each time.
    verified: Mutex<HashMap<[u8; 32], Verified>>,
}

struct Verified {
    claims: Arc<AccessClaims>,
    audience: String,
    at: i64,
}

impl AccessVerifier {
    /// A verifier that shares the keys of those issuers that the rules name.
    pub fn new(issuers: &Issuers, rules: &AccessRules) -> Self {
        let trusted = issuers.iter().filter(|one| rules.issuers.contains(&one.settings().url));
        Self {
            issuers: trusted.cloned().collect(),
            types: rules.types.iter().map(|typ| bare(typ).to_owned()).collect(),
            life: rules.life,
            verified: Mutex::default(),
        }
    }

    /// Whether a token says that it comes from one of the issuers. Unverified: only to choose the
    /// rule by which it is judged.
    pub fn names(&self, token: &str) -> bool {
        named_issuer(token)
            .is_some_and(|iss| self.issuers.iter().any(|one| one.settings().url == iss))
    }

    /// Verifies a token for one resource.
    ///
    /// The caller then holds the bearer to [`AccessClaims::jkt`].
    ///
    /// # Errors
    /// [`TokenError`]: what is wrong, and whose fault it is.
    pub async fn verify(
        &self,
        token: &str,
        audience: &str,
        now: i64,
    ) -> Result<Arc<AccessClaims>, TokenError> {
        let hash = sha256(token.as_bytes());
        let fresh = |known: &&Verified| known.audience == audience && now - known.at < RECHECK;
        let known = self.cache().get(&hash).filter(fresh).map(|known| Arc::clone(&known.claims));
        if let Some(claims) = known {
            return still_good(&claims, now).map(|()| claims);
        }
        let claims = self.verify_anew(token, hash, audience, now).await?;
        let claims = Arc::new(claims);
        self.remember(audience, &claims, now);
        Ok(claims)
    }

    async fn verify_anew(
        &self,
        token: &str,
        hash: [u8; 32],
        audience: &str,
        now: i64,
    ) -> Result<AccessClaims, TokenError> {
        #[derive(Deserialize)]
        struct AccessHeader {
            alg: String,
            typ: Option<String>,
            kid: Option<String>,
            crit: Option<Value>,
        }
        let (header, signed, signature): (AccessHeader, _, _) = split(token)?;
        let typ = header.typ.unwrap_or_default();
        if !self.types.iter().any(|accepted| accepted.eq_ignore_ascii_case(bare(&typ))) {
            let own = matches!(&*self.types, [only] if only == TYP);
            let expected = if own { TYP } else { "one of oauth.token_types" };
            return Err(TokenError::WrongType { expected, found: typ });
        }
        if header.crit.is_some() {
            return Err(malformed("it has critical extensions that are not known here"));
        }
        let said = Said(claims(token)?);
        let iss = said.text("iss")?;
        let issuer = self.issuers.iter().find(|issuer| issuer.settings().url == iss);
        let issuer = issuer.ok_or_else(|| TokenError::UnknownIssuer(iss.to_owned()))?;
        let settings = issuer.settings();
        let algorithm = Algorithm::from_str(&header.alg)
            .ok()
            .filter(|algorithm| settings.algorithms.contains(algorithm))
            .ok_or(TokenError::Algorithm(header.alg))?;
        let key = issuer.keys().key(header.kid.as_deref(), algorithm, now).await?;
        match jsonwebtoken::crypto::verify(signature, signed, &key, algorithm) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(TokenError::Signature),
        }
        said.audience(audience)?;
        let mut found =
            said.judge(hash, settings, self.life, bare(&typ).eq_ignore_ascii_case(TYP))?;
        if let Some(begins) = said.time("nbf")?.filter(|begins| *begins > now + LEEWAY) {
            return Err(TokenError::NotYetValid { ahead: begins - now });
        }
        if found.until <= now && said.time("exp")? > Some(now) {
            return Err(TokenError::Claim { name: "iat", fault: "is longer ago than is accepted" });
        }
        still_good(&found, now)?;
        if let Some(groups) = issuer.left_out_groups(&said.0, now).await? {
            found.identity.groups = groups;
        }
        Ok(found)
    }

    fn remember(&self, audience: &str, claims: &Arc<AccessClaims>, now: i64) {
        let mut verified = self.cache();
        if verified.len() >= CACHE && !verified.contains_key(&claims.hash) {
            verified.retain(|_, known| known.claims.until > now);
            // All alive: start over. It costs signatures, never a wrong answer.
            if verified.len() >= CACHE {
                verified.clear();
            }
        }
        let (claims, audience) = (Arc::clone(claims), audience.to_owned());
        verified.insert(claims.hash, Verified { claims, audience, at: now });
    }

    fn cache(&self) -> MutexGuard<'_, HashMap<[u8; 32], Verified>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The issuer that a token names, unverified.
pub fn named_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        iss: String,
    }
    claims::<Named>(token).ok().map(|named| named.iss)
}

/// No leeway at the end: the issuer said when it is.
fn still_good(claims: &AccessClaims, now: i64) -> Result<(), TokenError> {
    if claims.until <= now {
        return Err(TokenError::Expired { ago: now.saturating_sub(claims.until) });
    }
    if claims.issued > now.saturating_add(LEEWAY) {
        return Err(TokenError::NotYetValid { ahead: claims.issued - now });
    }
    Ok(())
}

/// A type without the prefix that RFC 7515, section 4.1.9, lets leave out.
fn bare(typ: &str) -> &str {
    let prefix = "application/";
    match typ.get(..prefix.len()) {
        Some(head) if head.eq_ignore_ascii_case(prefix) => typ.get(prefix.len()..).unwrap_or(typ),
        _ => typ,
    }
}

/// A token's claims, each of which is asked for by name.
struct Said(Map<String, Value>);

impl Said {
    fn judge(
        &self,
        hash: [u8; 32],
        settings: &IssuerSettings,
        life: i64,
        whole: bool,
    ) -> Result<AccessClaims, TokenError> {
        let exp = self.needed_time("exp")?;
        let issued = self.needed_time("iat")?;
        let sub = self.text("sub")?.to_owned();
        // RFC 9068 names the client; issuers from before it each had a word of their own.
        let names = ["client_id", "azp", "appid", "cid"];
        let named = names.iter().find(|name| self.0.contains_key(**name)).unwrap_or(&"client_id");
        let client = self.text(named)?.to_owned();
        // RFC 9068, section 5: a service's own token names the service as its subject.
        if sub == client {
            let fault = "names the client: it is a service's own, and no person's";
            return Err(TokenError::Claim { name: "sub", fault });
        }
        let jti = self.optional_text("jti")?;
        if whole && jti.is_none() {
            return Err(TokenError::Claim { name: "jti", fault: "is missing" });
        }
        let rest = &self.0;
        let groups = find_claim(rest, &settings.groups_claim);
        let groups = groups.map(group_names).transpose()?.unwrap_or_default();
        // An address that the issuer itself calls unverified may be anybody's.
        let verified = rest.get("email_verified") != Some(&Value::Bool(false));
        let email = rest.get("email").and_then(Value::as_str);
        let email = email.filter(|email| verified && printable(email)).map(str::to_owned);
        let until = exp.min(issued.saturating_add(life));
        Ok(AccessClaims {
            hash,
            identity: Identity { issuer: settings.url.clone(), sub, email, groups },
            client,
            login: self.optional_text("sid")?,
            authenticated: self.time("auth_time")?,
            jti,
            issued,
            until,
            scopes: self.scopes()?,
            jkt: self.bound_to()?,
        })
    }

    fn value(&self, name: &'static str) -> Result<&Value, TokenError> {
        let value = self.0.get(name).filter(|value| !value.is_null());
        value.ok_or(TokenError::Claim { name, fault: "is missing" })
    }

    fn text(&self, name: &'static str) -> Result<&str, TokenError> {
        let wrong = |fault| TokenError::Claim { name, fault };
        let text = self.value(name)?.as_str().ok_or_else(|| wrong("is not a text"))?;
        match text.len() {
            0 => Err(wrong("is empty")),
            1..=MAX_NAME if printable(text) => Ok(text),
            1..=MAX_NAME => Err(wrong("is not printable")),
            _ => Err(wrong("is too long")),
        }
    }

    fn optional_text(&self, name: &'static str) -> Result<Option<String>, TokenError> {
        let there = self.0.get(name).is_some_and(|value| !value.is_null());
        there.then(|| self.text(name).map(str::to_owned)).transpose()
    }

    fn needed_time(&self, name: &'static str) -> Result<i64, TokenError> {
        self.value(name)?;
        self.time(name)?.ok_or(TokenError::Claim { name, fault: "is missing" })
    }

    /// Seconds since 1970; RFC 7519 allows a fraction, which some issuers send.
    fn time(&self, name: &'static str) -> Result<Option<i64>, TokenError> {
        let Some(value) = self.0.get(name).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let seconds = value.as_i64().or_else(|| {
            let seconds = value.as_f64()?.floor();
            #[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
            (seconds.abs() < 9e15).then_some(seconds as i64)
        });
        let seconds = seconds.filter(|seconds| seconds.unsigned_abs() < 1 << 53);
        seconds.map(Some).ok_or(TokenError::Claim { name, fault: "is not a time" })
    }

    /// The audience has to be exactly the one resource.
    fn audience(&self, expected: &str) -> Result<(), TokenError> {
        let wrong = |fault| TokenError::Claim { name: "aud", fault };
        let only = match self.value("aud")? {
            Value::String(one) => one,
            Value::Array(several) => match several.as_slice() {
                [] => return Err(wrong("is empty")),
                [Value::String(one)] => one,
                more if more.iter().all(Value::is_string) => {
                    return Err(wrong(
                        "names several audiences, each of which could use the token",
                    ));
                }
                _ => return Err(wrong("is not a text")),
            },
            _ => return Err(wrong("is not a text")),
        };
        if only == expected {
            Ok(())
        } else {
            Err(TokenError::WrongAudience { expected: expected.to_owned() })
        }
    }

    /// `scope` is one text (RFC 8693, section 4.2); others say `scp`, as a text or a list.
    fn scopes(&self) -> Result<Vec<String>, TokenError> {
        let words =
            |text: &str| text.split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect();
        for name in ["scope", "scp"] {
            let wrong = TokenError::Claim { name, fault: "is not a text of scopes" };
            match self.0.get(name) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) => return Ok(words(text)),
                Some(Value::Array(items)) if name == "scp" => {
                    let items = items.iter().map(|item| item.as_str().map(str::to_owned));
                    return items.collect::<Option<_>>().ok_or(wrong);
                }
                Some(_) => return Err(wrong),
            }
        }
        Ok(Vec::new())
    }

    /// What the token is bound to (RFC 7800). A binding that is not understood is no binding that
    /// may be left out.
    fn bound_to(&self) -> Result<Option<Thumbprint>, TokenError> {
        let wrong = |fault| TokenError::Claim { name: "cnf", fault };
        let cnf = match self.0.get("cnf") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Object(cnf)) => cnf,
            Some(_) => return Err(wrong("is not an object")),
        };
        if cnf.len() != 1 || !cnf.contains_key("jkt") {
            return Err(wrong("binds the token to something that is not checked here"));
        }
        let jkt = cnf.get("jkt").cloned().and_then(|jkt| serde_json::from_value(jkt).ok());
        let jkt: Thumbprint = jkt.ok_or_else(|| wrong("holds no thumbprint of a key"))?;
        // 32 bytes as unpadded base64url.
        if jkt.as_str().len() != 43 {
            return Err(wrong("holds no thumbprint of a key"));
        }
        Ok(Some(jkt))
    }
}

#[cfg(test)]
mod tests;
