//! Verifying identity tokens (OpenID Connect Core 1.0, section 3.1.3.7) from issuers that the
//! configuration names.
//!
//! The algorithm comes from a list in the configuration, never from the token alone, and only
//! asymmetric ones can stand on that list.

use std::str::FromStr as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use self::lookup::GroupLookup;
use super::error::TokenError;
use super::jwks::KeyCache;
use crate::types::Identity;

pub use lookup::GroupLookupSettings;
pub use settings::{IssuerSettings, IssuerSettingsError, LoginKind, is_loopback_redirect};

mod lookup;
mod settings;

/// How far clocks may differ, in seconds.
pub(super) const LEEWAY: i64 = 60;

/// Larger than any identity token, with hundreds of groups.
const MAX_TOKEN: usize = 32 * 1024;
const MAX_SUB: usize = 512;

/// Who a verified token speaks for.
#[derive(Clone, Debug)]
pub struct VerifiedIdentity {
    /// The issuer, its name for them, and their groups.
    pub identity: Identity,
    /// When the token expires, in seconds since 1970.
    pub expires: i64,
    /// Every other claim, for trust rules over workload tokens.
    pub claims: Map<String, Value>,
}

/// Verifies one issuer's tokens. A clone shares its keys.
#[derive(Clone)]
pub struct IssuerVerifier {
    settings: IssuerSettings,
    keys: KeyCache,
    lookup: Option<Arc<GroupLookup>>,
}

impl IssuerVerifier {
    /// A verifier that fetches the issuer's keys when the first token comes.
    ///
    /// # Errors
    /// [`IssuerSettingsError`].
    pub fn new(
        settings: IssuerSettings,
        http: reqwest::Client,
    ) -> Result<Self, IssuerSettingsError> {
        settings.check()?;
        let keys = KeyCache::fetched(&settings.url, http);
        let lookup = settings.group_lookup.as_ref();
        let lookup = lookup.map(|lookup| GroupLookup::new(&settings.name, lookup)).transpose()?;
        Ok(Self { settings, keys, lookup: lookup.map(Arc::new) })
    }

    /// A verifier with keys that are known already: the built-in issuer's.
    ///
    /// # Errors
    /// [`IssuerSettingsError`].
    pub fn with_keys<'a>(
        settings: IssuerSettings,
        keys: impl IntoIterator<Item = &'a Jwk>,
    ) -> Result<Self, IssuerSettingsError> {
        settings.check()?;
        Ok(Self { settings, keys: KeyCache::fixed(keys), lookup: None })
    }

    /// The issuer's keys.
    pub(super) fn keys(&self) -> &KeyCache {
        &self.keys
    }

    /// What this verifier was made with.
    pub fn settings(&self) -> &IssuerSettings {
        &self.settings
    }

    /// Verifies an identity token.
    ///
    /// # Errors
    /// [`TokenError`]: what is wrong, and whose fault it is.
    pub async fn verify(&self, token: &str, now: i64) -> Result<VerifiedIdentity, TokenError> {
        let (header, signed, signature): (TokenHeader, _, _) = split(token)?;
        // An access token or a proof signed by the same key is no identity token.
        if let Some(typ) = header.typ.filter(|typ| !typ.eq_ignore_ascii_case("JWT")) {
            return Err(TokenError::WrongType { expected: "JWT", found: typ });
        }
        if header.crit.is_some() {
            return Err(malformed("it has critical extensions that are not known here"));
        }
        let algorithm = Algorithm::from_str(&header.alg)
            .ok()
            .filter(|algorithm| self.settings.algorithms.contains(algorithm))
            .ok_or(TokenError::Algorithm(header.alg))?;
        // Before any key is looked up: a stranger's token must not make us ask our issuer.
        let claims: Claims = claims(token)?;
        if claims.iss != self.settings.url {
            return Err(TokenError::UnknownIssuer(claims.iss));
        }
        let key = self.keys.key(header.kid.as_deref(), algorithm, now).await?;
        match jsonwebtoken::crypto::verify(signature, signed, &key, algorithm) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(TokenError::Signature),
        }
        let verified = self.judge(claims, now)?;
        self.with_all_groups(verified, now).await
    }

    async fn with_all_groups(
        &self,
        mut verified: VerifiedIdentity,
        now: i64,
    ) -> Result<VerifiedIdentity, TokenError> {
        if let Some(groups) = self.left_out_groups(&verified.claims, now).await? {
            verified.identity.groups = groups;
        }
        Ok(verified)
    }

    /// Groups that the issuer left out of a verified token are asked for, or their absence is an
    /// error: to go on without them could turn off a rule that forbids something to a group. None
    /// where it left none out.
    pub(super) async fn left_out_groups(
        &self,
        claims: &Map<String, Value>,
        now: i64,
    ) -> Result<Option<Vec<String>>, TokenError> {
        if !lookup::left_out(claims, &self.settings.groups_claim) {
            return Ok(None);
        }
        let Some(lookup) = &self.lookup else {
            return Err(TokenError::GroupsLeftOut { issuer: self.settings.url.clone() });
        };
        let found = lookup.groups(claims, now).await;
        let found = found.map_err(|why| TokenError::GroupsUnavailable {
            issuer: self.settings.url.clone(),
            why,
        })?;
        group_names(&Value::from(found)).map(Some)
    }

    fn judge(&self, claims: Claims, now: i64) -> Result<VerifiedIdentity, TokenError> {
        let wrong_audience = || TokenError::WrongAudience {
            expected: match self.settings.audience.as_slice() {
                [] => self.settings.client_id.clone(),
                accepted => accepted.join(" or "),
            },
        };
        let audience = claims.aud.as_slice();
        if !audience.iter().any(|audience| self.settings.accepts(audience)) {
            return Err(wrong_audience());
        }
        if let Some(party) = &claims.azp
            && audience.len() > 1
            && *party != self.settings.client_id
            && !self.settings.accepts(party)
        {
            return Err(wrong_audience());
        }
        check_times(claims.exp.0, claims.nbf.map(|t| t.0), claims.iat.map(|t| t.0), now, LEEWAY)?;
        // Whoever writes a job may choose its token's audience, and so make it look like a login's.
        let logged_in = claims.rest.contains_key("auth_time") || claims.rest.contains_key("nonce");
        if self.settings.signs_for_jobs && !logged_in {
            return Err(TokenError::NoLogin);
        }
        if claims.sub.is_empty() || claims.sub.len() > MAX_SUB || !printable(&claims.sub) {
            return Err(malformed("sub is empty, too long or not printable"));
        }
        let groups = find_claim(&claims.rest, &self.settings.groups_claim);
        let groups = groups.map(group_names).transpose()?.unwrap_or_default();
        // An address that the issuer itself calls unverified may be anybody's.
        let verified = claims.rest.get("email_verified") != Some(&Value::Bool(false));
        let email = claims.rest.get("email").and_then(Value::as_str);
        let email = email.filter(|email| verified && printable(email)).map(str::to_owned);
        Ok(VerifiedIdentity {
            identity: Identity { issuer: claims.iss, sub: claims.sub, email, groups },
            expires: claims.exp.0,
            claims: claims.rest,
        })
    }
}

/// All issuers that are trusted, by their URL.
pub struct Issuers {
    verifiers: Vec<IssuerVerifier>,
}

impl Issuers {
    /// A set of issuers.
    ///
    /// # Errors
    /// [`IssuerSettingsError::Twice`].
    pub fn new(verifiers: Vec<IssuerVerifier>) -> Result<Self, IssuerSettingsError> {
        let mut urls: Vec<&str> = verifiers.iter().map(|v| v.settings.url.as_str()).collect();
        urls.sort_unstable();
        let twice = urls.windows(2).find_map(|pair| match pair {
            [a, b] if a == b => Some((*a).to_owned()),
            _ => None,
        });
        match twice {
            Some(url) => Err(IssuerSettingsError::Twice { url }),
            None => Ok(Self { verifiers }),
        }
    }

    /// The issuers, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &IssuerVerifier> {
        self.verifiers.iter()
    }

    /// Verifies a token of whichever issuer it names.
    ///
    /// # Errors
    /// [`TokenError::UnknownIssuer`] when that is none of these, or what the issuer's verifier
    /// says.
    pub async fn verify(&self, token: &str, now: i64) -> Result<VerifiedIdentity, TokenError> {
        /// Only to choose the verifier; it reads the claim again and verifies it.
        #[derive(Deserialize)]
        struct Named {
            iss: String,
        }
        let Named { iss } = claims(token)?;
        let verifier = self.verifiers.iter().find(|verifier| verifier.settings.url == iss);
        verifier.ok_or(TokenError::UnknownIssuer(iss))?.verify(token, now).await
    }
}

#[derive(Deserialize)]
struct TokenHeader {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: NumericDate,
    nbf: Option<NumericDate>,
    iat: Option<NumericDate>,
    azp: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(audience) => std::slice::from_ref(audience),
            Self::Several(audiences) => audiences,
        }
    }
}

/// Seconds since 1970; RFC 7519 allows a fraction, which some issuers send.
struct NumericDate(i64);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        let seconds = number.as_i64().or_else(|| {
            let seconds = number.as_f64()?.floor();
            #[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
            (seconds.abs() < 9e15).then_some(seconds as i64)
        });
        seconds.map(Self).ok_or_else(|| serde::de::Error::custom("not a time"))
    }
}

/// Splits a compact JWS into its decoded header, what was signed, and the signature.
pub(super) fn split<H: DeserializeOwned>(token: &str) -> Result<(H, &[u8], &str), TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(malformed("it is too long"));
    }
    let (signed, signature) = token.rsplit_once('.').ok_or_else(|| malformed("it has no parts"))?;
    let (header, payload) = signed.split_once('.').ok_or_else(|| malformed("it has no claims"))?;
    if payload.contains('.') {
        return Err(malformed("it has more than three parts"));
    }
    Ok((decode(header)?, signed.as_bytes(), signature))
}

/// Decodes the claims of a compact JWS that [`split`] accepted or will judge.
pub(super) fn claims<C: DeserializeOwned>(token: &str) -> Result<C, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(malformed("it is too long"));
    }
    decode(token.split('.').nth(1).ok_or_else(|| malformed("it has no claims"))?)
}

fn decode<T: DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed("it is not base64url"))?;
    serde_json::from_slice(&bytes).map_err(|error| TokenError::Malformed(error.to_string()))
}

pub(super) fn malformed(why: &str) -> TokenError {
    TokenError::Malformed(why.to_owned())
}

pub(super) fn check_times(
    exp: i64,
    nbf: Option<i64>,
    iat: Option<i64>,
    now: i64,
    leeway: i64,
) -> Result<(), TokenError> {
    let ago = now.saturating_sub(exp);
    if ago >= leeway {
        return Err(TokenError::Expired { ago });
    }
    for start in [nbf, iat].into_iter().flatten() {
        let ahead = start.saturating_sub(now);
        if ahead > LEEWAY {
            return Err(TokenError::NotYetValid { ahead });
        }
    }
    Ok(())
}

/// A claim by its whole name first (namespaced names are URLs, full of dots), then as a JSON pointer
/// (RFC 6901) if it begins like one, else as a path.
pub fn find_claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    if let Some(pointer) = name.strip_prefix('/') {
        let (first, rest) = pointer.split_once('/').unzip();
        let first = first.unwrap_or(pointer).replace("~1", "/").replace("~0", "~");
        let claim = claims.get(&first)?;
        return rest.map_or(Some(claim), |rest| claim.pointer(&format!("/{rest}")));
    }
    let (first, rest) = name.split_once('.')?;
    rest.split('.').try_fold(claims.get(first)?, |value, step| value.get(step))
}

/// An array of strings, or one string with commas. Any other shape is refused: to read it as "no
/// groups" could turn off a rule that forbids something to a group.
pub(super) fn group_names(value: &Value) -> Result<Vec<String>, TokenError> {
    let mut groups: Vec<String> = match value {
        Value::Null => Vec::new(),
        Value::String(text) => text.split(',').map(|group| group.trim().to_owned()).collect(),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| malformed("a group is not a string"))?,
        _ => return Err(malformed("the groups claim is neither a list nor a string")),
    };
    groups.retain(|group| !group.is_empty());
    if !groups.iter().all(|group| printable(group)) {
        return Err(malformed("a group's name is not printable"));
    }
    groups.sort_unstable();
    groups.dedup();
    Ok(groups)
}

pub(super) fn printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests;
