//! A named trust rule as the configuration says it, and what no rule may leave open.

use std::time::Duration;

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde_json::{Map, Value};

use super::pattern::Pattern;
use crate::identity::fetch::{self, FetchError};
use crate::identity::jwks::KeyPlace;

/// Which jobs' tokens are accepted, and what they get.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What people and jobs call it.
    pub name: String,
    /// The issuer's URL, exactly as in its tokens' `iss`.
    pub issuer: String,
    /// Accepted audiences; empty means the server's own URL.
    pub audience: Vec<String>,
    /// Accepted signature algorithms.
    pub algorithms: Vec<Algorithm>,
    /// Where the issuer's keys are.
    pub keys: KeyPlace,
    /// The groups that a job gets.
    pub groups: Vec<String>,
    /// How long a job's grant can be renewed for, besides what bounds every grant.
    pub max: Option<Duration>,
    /// What has to stand in the token; all of it.
    pub claims: Vec<ClaimRule>,
}

/// What one claim has to be.
#[derive(Clone, Debug)]
pub struct ClaimRule {
    /// The claim's name; a dot leads into an object.
    pub path: String,
    /// Any of these will do.
    pub accepts: Vec<Pattern>,
}

/// A rule that must not be.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// The issuer's URL, or that of its keys, is not safe to use.
    #[error("the {what} cannot be used")]
    Url {
        /// Which URL.
        what: &'static str,
        /// Why.
        #[source]
        source: FetchError,
    },
    /// The rule would let in more than anybody means.
    #[error("{0}")]
    Open(String),
    /// A setting that says nothing, or too much.
    #[error("{0}")]
    Setting(String),
}

/// More than any issuer's claims have.
const MOST_DOTS: usize = 8;

/// Issuers that sign tokens for anybody in the world, and the claims that say whose job it is. The
/// workflow that a job reuses is none of these: anybody may reuse a public one.
const FOR_ANYBODY: &[(&str, &[&str])] = &[
    (
        "https://token.actions.githubusercontent.com",
        &[
            "repository_id",
            "repository_owner_id",
            "enterprise_id",
            "repository",
            "repository_owner",
            "enterprise",
            "sub",
        ],
    ),
    (
        "https://gitlab.com",
        &["project_id", "namespace_id", "project_path", "namespace_path", "sub"],
    ),
    ("https://accounts.google.com", &["sub", "azp", "email"]),
];

impl Rule {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`RuleError`].
    pub fn check(&self) -> Result<(), RuleError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > 63 || !self.name.chars().all(plain) {
            let what =
                format!("a rule's name must be 1 to 63 of a-z, 0-9 and '-', not {:?}", self.name);
            return Err(RuleError::Setting(what));
        }
        let url = |what, text: &str| {
            fetch::safe_url(text).map(drop).map_err(|source| RuleError::Url { what, source })
        };
        url("issuer", &self.issuer)?;
        if let KeyPlace::Url(text) = &self.keys {
            url("jwks_uri", text)?;
        }
        let setting = |what: &str| Err(RuleError::Setting(what.to_owned()));
        if self.algorithms.is_empty() {
            return setting("algorithms must not be empty");
        }
        let symmetric = |algorithm: &&Algorithm| algorithm.family() == AlgorithmFamily::Hmac;
        if let Some(algorithm) = self.algorithms.iter().find(symmetric) {
            return Err(RuleError::Setting(format!(
                "the algorithm {algorithm:?} is symmetric and cannot be accepted"
            )));
        }
        let bad = |text: &String| text.trim().is_empty() || text.chars().any(char::is_control);
        if self.audience.iter().any(bad) {
            return setting("an audience must not be empty");
        }
        if self.groups.iter().any(bad) {
            return setting("a group must not be empty or hold control characters");
        }
        self.narrow()
    }

    /// Whether the claims leave anything to be desired.
    fn narrow(&self) -> Result<(), RuleError> {
        let open = |what: String| Err(RuleError::Open(what));
        if self.claims.is_empty() {
            return open("without claims every token of that issuer would be let in".to_owned());
        }
        // Each dot may be part of a name or not, so that many would take many ways to read.
        let deep = |claim: &&ClaimRule| {
            claim.path.is_empty() || claim.path.matches('.').count() > MOST_DOTS
        };
        if let Some(deep) = self.claims.iter().find(deep) {
            let what =
                format!("{:?} is no claim: a path has 1 to {MOST_DOTS} dots, or none", deep.path);
            return Err(RuleError::Setting(what));
        }
        if let Some(empty) = self.claims.iter().find(|claim| claim.accepts.is_empty()) {
            return open(format!("the claim {:?} accepts nothing", empty.path));
        }
        let globbed = |claim: &ClaimRule| {
            claim.accepts.iter().any(|pattern| matches!(pattern, Pattern::Glob(_)))
        };
        if self.claims.iter().all(|claim| claim.path == "sub" && globbed(claim)) {
            let what = "a glob on sub alone reads parts out of a name that its issuer may write \
                        anew (GitHub did so in 2026); match the claims that say the same, such as \
                        repository_id, environment and ref, or sub exactly";
            return open(what.to_owned());
        }
        let whose =
            FOR_ANYBODY.iter().find(|(issuer, _)| self.issuer.trim_end_matches('/') == *issuer);
        if let Some((issuer, names)) = whose
            && !self
                .claims
                .iter()
                .any(|claim| names.contains(&claim.path.as_str()) && says_whose(claim))
        {
            return open(format!(
                "{issuer} signs tokens for anybody's jobs: match one of {} exactly, so that it is \
                 yours",
                names.join(", ")
            ));
        }
        Ok(())
    }
}

/// Whether a claim names an owner: exactly, or with a glob that begins with one.
fn says_whose(claim: &ClaimRule) -> bool {
    claim.accepts.iter().all(|pattern| match pattern {
        Pattern::Exact(_) => true,
        Pattern::Glob(glob) => {
            let beginning = glob.beginning();
            beginning.find('/').is_some_and(|at| at > 0)
        }
    })
}

/// A claim by its path. Names of claims may have dots themselves (`kubernetes.io`, and URLs), so
/// every way to read the path is looked at; where two lead to something, neither is taken.
pub(super) fn find<'a>(
    claims: &'a Map<String, Value>,
    path: &str,
) -> Result<Option<&'a Value>, Twice> {
    let mut found = None;
    for (at, _) in path.match_indices('.').chain([(path.len(), "")]) {
        let (name, rest) = path.split_at(at);
        let Some(value) = claims.get(name) else { continue };
        let value = match (rest.strip_prefix('.'), value) {
            (None, value) => Some(value),
            (Some(rest), Value::Object(inner)) => find(inner, rest)?,
            (Some(_), _) => None,
        };
        if value.is_some() && found.is_some() {
            return Err(Twice);
        }
        found = found.or(value);
    }
    Ok(found)
}

/// A path that leads to two claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Twice;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::identity::trust::pattern::Glob;

    const GITHUB: &str = "https://token.actions.githubusercontent.com";

    fn rule(issuer: &str, claims: &[(&str, Pattern)]) -> Rule {
        Rule {
            name: "deploy".to_owned(),
            issuer: issuer.to_owned(),
            audience: vec![],
            algorithms: vec![Algorithm::RS256],
            keys: KeyPlace::Discovery,
            groups: vec!["ci".to_owned()],
            max: None,
            claims: claims
                .iter()
                .map(|(path, pattern)| ClaimRule {
                    path: (*path).to_owned(),
                    accepts: vec![pattern.clone()],
                })
                .collect(),
        }
    }

    fn exact(text: &str) -> Pattern {
        Pattern::Exact(json!(text))
    }

    fn glob(text: &str) -> Pattern {
        Pattern::Glob(Glob::parse(text).unwrap())
    }

    #[test]
    fn rules_that_leave_too_much_open_are_refused() {
        let own = "https://gitlab.example.com";
        for (issuer, claims, why) in [
            (own, vec![], "every token"),
            (own, vec![("sub", glob("repo:octo/*"))], "sub"),
            (GITHUB, vec![("ref", exact("refs/heads/main"))], "anybody"),
            (GITHUB, vec![("repository", glob("*/app"))], "anybody"),
            (GITHUB, vec![("repository", glob("**"))], "anybody"),
            (GITHUB, vec![("job_workflow_ref", exact("octo/a/b.yml@main"))], "anybody"),
            ("https://gitlab.com", vec![("ref_protected", exact("true"))], "anybody"),
        ] {
            let error = rule(issuer, &claims).check().unwrap_err().to_string();
            assert!(error.contains(why), "{claims:?}: {error}");
        }
        for (issuer, claims) in [
            (own, vec![("project_id", exact("7"))]),
            (own, vec![("sub", exact("system:serviceaccount:ci:deploy"))]),
            (own, vec![("sub", glob("x:*")), ("ref", exact("main"))]),
            (GITHUB, vec![("repository_id", exact("7"))]),
            (GITHUB, vec![("repository", glob("octo/*"))]),
            (GITHUB, vec![("sub", exact("repo:octo/app:ref:refs/heads/main"))]),
        ] {
            rule(issuer, &claims).check().unwrap();
        }
    }

    #[test]
    fn settings_that_cannot_be_used_are_refused() {
        let good = || rule("https://gitlab.example.com", &[("project_id", exact("7"))]);
        let spoiled: [fn(&mut Rule); 10] = [
            |rule| rule.claims[0].path = ".".repeat(9),
            |rule| rule.claims[0].path.clear(),
            |rule| rule.name = "Bad Name".to_owned(),
            |rule| rule.issuer = "http://gitlab.example.com".to_owned(),
            |rule| rule.keys = KeyPlace::Url("http://gitlab.example.com/keys".to_owned()),
            |rule| rule.algorithms.clear(),
            |rule| rule.algorithms = vec![Algorithm::HS256],
            |rule| rule.audience = vec![" ".to_owned()],
            |rule| rule.groups = vec!["a\nb".to_owned()],
            |rule| rule.claims[0].accepts.clear(),
        ];
        good().check().unwrap();
        for spoil in spoiled {
            let mut rule = good();
            spoil(&mut rule);
            assert!(rule.check().is_err(), "{rule:?}");
        }
    }

    #[test]
    fn paths_lead_through_names_with_dots_and_never_to_two_places() {
        let claims = json!({
            "ref": "main",
            "kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "deploy"}},
            "a": {"b.c": 1, "b": {"d": 2}},
            "a.b": {"c": 3},
        });
        let claims = claims.as_object().unwrap();
        let found = |path: &str| find(claims, path).map(|value| value.cloned());
        assert_eq!(found("ref"), Ok(Some(json!("main"))));
        assert_eq!(found("kubernetes.io.namespace"), Ok(Some(json!("ci"))));
        assert_eq!(found("kubernetes.io.serviceaccount.name"), Ok(Some(json!("deploy"))));
        assert_eq!(found("a.b.d"), Ok(Some(json!(2))));
        assert_eq!(found("a.b.c"), Err(Twice));
        for none in ["", "kubernetes", "kubernetes.io.x", "ref.x", ".", "a..b"] {
            assert_eq!(found(none), Ok(None), "{none:?}");
        }
    }

    proptest! {
        #[test]
        fn any_path_into_anything_ends(path in "[a.]{0,20}", depth in 0usize..6) {
            let claims = (0..depth).fold(json!("x"), |inner, _| json!({"a": inner.clone(), "a.a": inner}));
            let mut whole = Map::new();
            whole.insert("a".to_owned(), claims);
            let _found = find(&whole, &path);
        }
    }
}
