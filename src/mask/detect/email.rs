//! E-mail addresses, those with letters beyond ASCII included.

use super::{Hit, byte};
use crate::mask::class::Class;
use crate::mask::redact::MASKED_DOMAIN;

/// RFC 5321 bounds, in bytes; beyond ASCII a character has up to four.
const LONGEST_LOCAL: usize = 4 * 64;
const LONGEST_DOMAIN: usize = 255;

/// Endings that name a file, as in `icon@2x.png`.
const FILE_ENDINGS: &[&str] = &[
    "png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "mjs", "ts", "tsx", "jsx", "json",
    "html", "pdf",
];

pub(super) fn find(text: &str, hits: &mut Vec<Hit>) {
    for at in memchr::memchr_iter(b'@', text.as_bytes()) {
        if let Some(range) = around(text, at) {
            hits.extend(Hit::new(text, range, Class::EMAIL));
        }
    }
}

fn around(text: &str, at: usize) -> Option<std::ops::Range<usize>> {
    let local = text.get(..at)?;
    let in_local =
        |c: &char| c.is_alphanumeric() || matches!(c, '.' | '_' | '%' | '+' | '-' | '\'');
    let taken: usize = {
        let mut taken = 0;
        for c in local.chars().rev().take_while(in_local) {
            taken += c.len_utf8();
            if taken > LONGEST_LOCAL {
                break;
            }
        }
        taken
    };
    let local = local.get(at - taken..)?.trim_start_matches(['.', '\'', '-', '%', '+']);
    let start = at - local.len();
    let domain = text.get(at + 1..)?;
    let in_domain = |c: &char| c.is_alphanumeric() || matches!(c, '.' | '-');
    let mut length = 0;
    for c in domain.chars().take_while(in_domain) {
        length += c.len_utf8();
        if length > LONGEST_DOMAIN {
            return None;
        }
    }
    let domain = domain.get(..domain_length(domain.get(..length)?)?)?;
    let end = at + 1 + domain.len();
    // `git@host:path` is an address of a repository.
    let repository = local == "git" && byte(text, end) == b':';
    (!local.is_empty() && domain != MASKED_DOMAIN && !repository).then_some(start..end)
}

/// How much of `domain` is a name with a top-level domain: what follows may belong to the sentence,
/// as in `bob@example.org.` or `bob@example.org-2024`.
fn domain_length(domain: &str) -> Option<usize> {
    let mut at = 0;
    let mut longest = None;
    for (index, label) in domain.split('.').enumerate() {
        if label.is_empty() {
            break;
        }
        let letters: usize =
            label.chars().take_while(|c| c.is_alphabetic()).map(char::len_utf8).sum();
        let (top, behind) = label.split_at(letters);
        // Digits glued to the end are no part of the name, unless it is a version's.
        let glued = |behind: &str| behind.starts_with(char::is_numeric);
        let named = domain.get(..at).is_some_and(|host| host.contains(char::is_alphabetic));
        if index > 0 && label.starts_with("xn--") {
            longest = Some((at + label.len(), label));
        } else if index > 0
            && top.chars().nth(1).is_some()
            && (behind.is_empty() || behind.starts_with('-') || (named && glued(behind)))
        {
            longest = Some((at + letters, top));
        }
        at += label.len() + 1;
    }
    longest.filter(|(_, top)| !FILE_ENDINGS.contains(top)).map(|(length, _)| length)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{masked, untouched};

    #[test]
    fn addresses_in_text() {
        for (text, expected) in [
            ("ada@example.org", "a***@masked.invalid"),
            ("<Bob.Smith+tag@mail.example.co.uk>,", "<B***@masked.invalid>,"),
            ("mailto:o'brien@example.org.", "mailto:o***@masked.invalid."),
            ("'ada@example.org'", "'a***@masked.invalid'"),
            ("josé.garcía@exämple.es!", "j***@masked.invalid!"),
            ("用户@例子.公司", "x***@masked.invalid"),
            ("a@b.xn--p1ai", "a***@masked.invalid"),
            ("x=ada@example.org&y=bob@example.org", "x=a***@masked.invalid&y=b***@masked.invalid"),
            ("ada@example.org-2024.", "a***@masked.invalid-2024."),
            ("ada@example.org2024", "a***@masked.invalid2024"),
            ("ada@my-mail.co-op.example", "a***@masked.invalid"),
            ("ada@example.org...then", "a***@masked.invalid...then"),
        ] {
            assert_eq!(masked(text), expected);
        }
    }

    #[test]
    fn what_is_no_address() {
        untouched(&[
            "@app.route",
            "lodash@4.17.21",
            "icon@2x.png",
            "user@localhost",
            "a@",
            "@",
            "a@.org",
            "git@github.com:owner/repo.git",
            "a***@masked.invalid",
            "@scope/package",
            "x @ y.org",
        ]);
    }

    #[test]
    fn many_signs_are_no_work() {
        untouched(&[&"@".repeat(10_000), &"a@".repeat(10_000)]);
    }
}
