//! Keys of five providers, and private keys in PEM form.
//!
//! One search for the literals that every such key begins with; at each hit the structure is
//! checked by hand: alphabet, lengths, and GitHub's checksum.

use aho_corasick::{AhoCorasick, MatchKind};

use super::{Hit, before};
use crate::mask::class::Class;

/// The search for the beginnings of keys.
#[derive(Debug)]
pub(in crate::mask) struct Secrets {
    /// `None` only if the constant literals make no automaton, which a test rules out.
    beginnings: Option<AhoCorasick>,
}

/// What keys begin with; the search for all of them is vectorised.
const BEGINNINGS: &[&str] = &[
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "AKIA",
    "ASIA",
    "ABIA",
    "ACCA",
    "sk_live_",
    "sk_test_",
    "sk_prod_",
    "rk_live_",
    "rk_test_",
    "rk_prod_",
    "whsec_",
    "xoxa-",
    "xoxb-",
    "xoxc-",
    "xoxd-",
    "xoxe-",
    "xoxe.",
    "xoxo-",
    "xoxp-",
    "xoxr-",
    "xoxs-",
    "xapp-",
    "hooks.slack.com/",
    "AIza",
    "GOCSPX-",
    "-----BEGIN ",
];

/// The shortest key.
const SHORTEST: usize = 16;

impl Secrets {
    pub(super) fn new() -> Self {
        let mut builder = AhoCorasick::builder();
        Self { beginnings: builder.match_kind(MatchKind::LeftmostFirst).build(BEGINNINGS).ok() }
    }

    pub(super) fn find(&self, text: &str, hits: &mut Vec<Hit>) {
        let Some(beginnings) = self.beginnings.as_ref().filter(|_| text.len() >= SHORTEST) else {
            return;
        };
        let mut done = 0;
        for found in beginnings.find_iter(text) {
            if found.start() < done {
                continue;
            }
            let Some(key) = text.get(found.start()..) else { continue };
            let Some(literal) = BEGINNINGS.get(found.pattern().as_usize()) else { continue };
            if let Some((class, length)) = key_at(text, found.start(), literal, key) {
                let range = found.start()..found.start() + length;
                done = range.end;
                hits.extend(Hit::new(text, range, class));
            }
        }
    }
}

/// The class and length of the key that `key` begins with.
fn key_at(text: &str, at: usize, literal: &str, key: &str) -> Option<(Class, usize)> {
    if literal == "-----BEGIN " {
        return pem(key).map(|length| (Class::PRIVATE_KEY, length));
    }
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    if literal != "hooks.slack.com/" && word(&before(text, at)) {
        return None;
    }
    let body = key.get(literal.len()..)?.as_bytes();
    let nested = literal.ends_with('.') && body.starts_with(b"xox");
    if literal.starts_with('x') && !nested && !body.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let run = |allowed: fn(&u8) -> bool| body.iter().take(256).take_while(|b| allowed(b)).count();
    let run_of_letters = || run(u8::is_ascii_alphanumeric);
    let wordy = run(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let (class, length) = match literal {
        "github_pat_" => {
            let whole = body.get(22) == Some(&b'_') || run_of_letters() >= 82;
            (Class::GITHUB, (wordy == 82 && whole).then_some(wordy))
        }
        "AKIA" | "ASIA" | "ABIA" | "ACCA" => {
            let plain = |b: &u8| matches!(b, b'A'..=b'Z' | b'0'..=b'9');
            let ok = wordy == 16 && body.iter().take(16).all(plain);
            (Class::AWS, ok.then_some(16))
        }
        "AIza" => (Class::GOOGLE, (wordy == 35).then_some(35)),
        "GOCSPX-" => (Class::GOOGLE, (wordy == 28).then_some(28)),
        "whsec_" => {
            let length = run(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
            (Class::STRIPE, (length >= 24).then_some(length))
        }
        "hooks.slack.com/" => (Class::SLACK, webhook(body)),
        _ if literal.starts_with("gh") => {
            // A token's last six characters are a checksum, which is not asked for: a mistyped or
            // newer token is masked as well, and nothing else looks like this.
            (Class::GITHUB, (wordy >= 36 && wordy == run_of_letters()).then_some(wordy))
        }
        _ if literal.starts_with('x') => {
            let length = run(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
            (Class::SLACK, slack(body.get(..length)?).then_some(length))
        }
        _ => (Class::STRIPE, (wordy >= 10 && wordy == run_of_letters()).then_some(wordy)),
    };
    let length = length?;
    let body = body.get(..length)?;
    varied(body).then_some((class, literal.len() + length))
}

/// Whether a key's body is no placeholder such as `xxxxxxxx`.
fn varied(body: &[u8]) -> bool {
    let mut seen = [false; 256];
    for byte in body {
        if let Some(slot) = seen.get_mut(usize::from(*byte)) {
            *slot = true;
        }
    }
    seen.iter().filter(|seen| **seen).count() >= 5
}

/// `T…/B…/…` and its younger kin below `services`, `workflows` and `triggers`.
fn webhook(body: &[u8]) -> Option<usize> {
    let kinds: [&[u8]; 3] = [b"services/", b"workflows/", b"triggers/"];
    let kind = kinds.into_iter().find(|kind| body.starts_with(kind))?;
    let path = body.get(kind.len()..)?;
    let length =
        path.iter().take(200).take_while(|b| b.is_ascii_alphanumeric() || **b == b'/').count();
    (length >= 30).then_some(kind.len() + length)
}

/// Parts joined by dashes, the first of them numeric or (in rotated tokens) a nested kind, and a
/// long part that holds the secret.
fn slack(body: &[u8]) -> bool {
    let parts: Vec<&[u8]> = body.split(|b| *b == b'-').collect();
    let numeric = parts.iter().any(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit));
    let long =
        parts.iter().any(|part| part.len() >= 10 && part.iter().any(u8::is_ascii_alphabetic));
    body.len() >= 20 && parts.len() >= 2 && numeric && long
}

/// The length of the private key in PEM form at the beginning of `key`, up to its END line or, if
/// it was cut off, up to the last character that can belong to it.
fn pem(key: &str) -> Option<usize> {
    const MARK: &str = "-----";
    let label = key.get("-----BEGIN ".len()..)?;
    let label = label.get(..label.as_bytes().iter().take(64).position(|b| *b == b'-')?)?;
    if !label.ends_with("PRIVATE KEY") && !label.ends_with("PRIVATE KEY BLOCK") {
        return None;
    }
    let start = "-----BEGIN ".len() + label.len();
    let body = key.get(start..)?.strip_prefix(MARK)?;
    // A mention of the header alone is no key. Looking only so far also keeps a text of nothing
    // but headers from being read to its end at each.
    let near = body.as_bytes().get(..body.len().min(256))?;
    let material = near.chunk_by(|a, b| is_base64(a) == is_base64(b));
    if !material.into_iter().any(|run| run.len() >= 16 && run.first().is_some_and(is_base64)) {
        return None;
    }
    let inside = |b: &u8| {
        is_base64(b) || b.is_ascii_whitespace() || matches!(b, b'\\' | b':' | b',' | b'.' | b'-')
    };
    let mut length = body.bytes().take_while(inside).count();
    if let Some(end) = body.get(..length).and_then(|body| body.find("-----END ")) {
        let closing = body.get(end + "-----END ".len()..)?;
        let rest = closing.find(MARK).filter(|rest| *rest < 64);
        length = end + "-----END ".len() + rest.map_or(0, |rest| rest + MARK.len());
    }
    Some(start + MARK.len() + length)
}

fn is_base64(b: &u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=')
}

#[cfg(test)]
mod tests {
    use super::super::tests::{masked, untouched};
    use super::*;

    /// A GitHub token, put together here so that no scanner takes this file for a leak.
    fn github(prefix: &str) -> String {
        format!("{prefix}_{}", "q37nvbkxcKNNif7xjcbe5mz0Qp3nk0uR81aZ")
    }

    #[test]
    fn the_beginnings_compile() {
        assert!(Secrets::new().beginnings.is_some());
    }

    #[test]
    fn provider_keys() {
        let mixed = "aB3dE5gH7jK9mN1pQ3sT5vX7z";
        for (key, class) in [
            (github("ghp"), "secret.github"),
            (github("ghs"), "secret.github"),
            (
                format!("github_pat_{}_{}{}", &mixed[..22], mixed.repeat(2), &mixed[..9]),
                "secret.github",
            ),
            (format!("AKIA{}", "Z2QX7YJ5KD3WLM6P"), "secret.aws"),
            (format!("ASIA{}", "Z2QX7YJ5KD3WLM6P"), "secret.aws"),
            (format!("sk_live_{mixed}"), "secret.stripe"),
            (format!("rk_test_{mixed}"), "secret.stripe"),
            (format!("whsec_{mixed}"), "secret.stripe"),
            (format!("xoxb-781236542736-2364535789652-{}", &mixed[..24]), "secret.slack"),
            (format!("xapp-1-A052KTRHJ2M-5222872460800-{}", mixed.repeat(2)), "secret.slack"),
            (
                format!("hooks.slack.com/services/T0ABCDEFG/B0ABCDEFG/{}", &mixed[..24]),
                "secret.slack",
            ),
            (format!("AIza{mixed}{}", &mixed[..10]), "secret.google"),
            (format!("GOCSPX-{mixed}abc"), "secret.google"),
        ] {
            for (left, right) in [("", ""), ("use '", "'."), ("k=", "\n"), ("(", ")")] {
                let text = format!("{left}{key}{right}");
                assert_eq!(masked(&text), format!("{left}[{class} masked]{right}"), "{text}");
            }
        }
    }

    #[test]
    fn near_misses() {
        let short = &github("ghp")[..39];
        let inside = "x".to_owned() + &github("ghp");
        untouched(&[
            short,
            &inside,
            "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "github_pat_short",
            "AKIAZ2QX7YJ5KD3WLM6",   // one short
            "AKIAZ2QX7YJ5KD3WLM6PA", // one long
            "AKIAZ2QX7YJ5KD3wLM6P",  // lower case
            "sk_live_short",
            "pk_live_aB3dE5gH7jK9mN1pQ3sT5vX7z", // public
            "task_live_aB3dE5gH7jK9mN1pQ3",
            "xoxb-not-a-token",
            "AIzaShort",
            "https://hooks.slack.com/docs",
            "sk_live_xxxxxxxxxxxxxxxxxxxxxxxx",
        ]);
    }

    #[test]
    fn private_keys_whole_and_cut() {
        let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj";
        let begin = |kind: &str| format!("-----BEGIN {kind}PRIVATE KEY-----\n");
        for kind in ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "] {
            let key = format!("{}{body}\n-----END {kind}PRIVATE KEY-----", begin(kind));
            assert_eq!(masked(&format!("a {key}\nz!")), "a [secret.private_key masked]\nz!");
            let flat = key.replace('\n', "\\n");
            assert_eq!(masked(&format!("\"{flat}\"")), "\"[secret.private_key masked]\"");
            let cut = format!("{}{body}", begin(kind));
            assert_eq!(masked(&format!("a {cut}")), "a [secret.private_key masked]");
        }
        untouched(&[
            &format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----"),
            &format!("-----BEGIN CERTIFICATE-----\n{body}"),
            "a key file begins with -----BEGIN PRIVATE KEY----- (see RFC 7468)",
        ]);
        // Many beginnings are one key cut off, not many scans.
        let many = begin("").repeat(2000);
        let _ = masked(&many);
    }
}
