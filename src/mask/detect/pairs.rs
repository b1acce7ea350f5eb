//! Values that stand behind their name in text: `password=…`, `"ssn": "…"`, `Patient name: …`.
//!
//! At each `=` and `:` the words before it are resolved like a JSON key. How far the value goes
//! depends on what the name says it is.

use std::ops::Range;

use super::{Hit, before, byte};
use crate::mask::class::Class;
use crate::mask::fields::{Fields, Strength};
use crate::mask::redact;

pub(super) fn find(fields: &Fields, text: &str, hits: &mut Vec<Hit>) {
    let mut done = 0;
    for at in memchr::memchr2_iter(b':', b'=', text.as_bytes()) {
        if at < done {
            continue;
        }
        let Some(key) = key_before(fields, text, at) else { continue };
        let Some((class, strength)) = fields.resolve(key).rule else { continue };
        let Some((range, quoted)) = value_after(text, at, class) else { continue };
        let Some(value) = text.get(range.clone()) else { continue };
        if is_trivial(value)
            || (strength == Strength::Likely && !fits(class, value))
            || !(quoted || (plausible(class, value) && !is_call(text, range.end)))
        {
            continue;
        }
        done = range.end;
        hits.extend(Hit::new(text, range, class));
    }
}

/// Whether the number that begins at `at` stands behind a name such as `order_id`.
pub(super) fn named_a_thing(fields: &Fields, text: &str, at: usize) -> bool {
    let lead = text.as_bytes().get(..at).unwrap_or_default();
    let gap = |b: &&u8| matches!(b, b' ' | b'"' | b'\'' | b'#');
    let sign = at - lead.iter().rev().take(4).take_while(gap).count();
    matches!(before(text, sign), b':' | b'=')
        && key_before(fields, text, sign - 1).is_some_and(|key| fields.resolve(key).veto)
}

/// Whether a value says nothing: absent, a yes or no, a placeholder.
pub(in crate::mask) fn is_trivial(value: &str) -> bool {
    let value = value.trim();
    let mut chars = value.chars();
    let Some(first) = chars.next() else { return true };
    if matches!(first, 'x' | 'X') || !first.is_alphanumeric() {
        return chars.all(|c| c == first);
    }
    first.is_ascii_alphabetic() && is_one_of(value, is_trivial_word)
}

fn is_trivial_word(word: &[u8]) -> bool {
    matches!(
        word,
        b"null"
            | b"none"
            | b"nil"
            | b"n/a"
            | b"na"
            | b"unknown"
            | b"undefined"
            | b"true"
            | b"false"
            | b"yes"
            | b"no"
            | b"tbd"
            | b"empty"
            | b"redacted"
            | b"masked"
            | b"hidden"
            | b"required"
            | b"optional"
            | b"string"
            | b"str"
            | b"text"
            | b"number"
            | b"int"
            | b"integer"
            | b"bool"
            | b"boolean"
            | b"object"
            | b"array"
            | b"any"
            | b"not set"
            | b"unset"
            | b"default"
            | b"invalid"
            | b"valid"
            | b"verified"
            | b"unverified"
            | b"missing"
            | b"pending"
            | b"active"
            | b"inactive"
            | b"enabled"
            | b"disabled"
            | b"date"
            | b"email"
            | b"uuid"
            | b"varchar"
    )
}

/// Whether a short word, in lower case, is one of a list's.
fn is_one_of(word: &str, list: fn(&[u8]) -> bool) -> bool {
    let mut lower = [0; 10];
    lower.get_mut(..word.len()).is_some_and(|lower| {
        lower.copy_from_slice(word.as_bytes());
        lower.make_ascii_lowercase();
        list(lower)
    })
}

/// Whether a value has the shape of its class, asked where the name alone does not decide.
pub(in crate::mask) fn fits(class: Class, value: &str) -> bool {
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    let spaced = value.contains(char::is_whitespace);
    if redact::is_masked(value) {
        return true;
    }
    match class {
        Class::CARD => digits >= 12 && !value.contains(char::is_alphabetic),
        Class::CVV => (3..=4).contains(&digits) && digits == value.len(),
        Class::EMAIL => value.contains('@'),
        Class::PHONE => digits >= 7 && !value.contains('@'),
        Class::ADDRESS => {
            digits >= 1 && spaced && value.contains(char::is_alphabetic) && !value.contains("://")
        }
        Class::ACCOUNT | Class::NATIONAL_ID => digits >= 5,
        Class::MRN | Class::HEALTH_PLAN => digits >= 4 && !spaced,
        _ => value.len() >= 8 && !spaced,
    }
}

/// Whether an unquoted value is one, and not the next word of a sentence or a piece of code.
fn plausible(class: Class, value: &str) -> bool {
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    match class {
        Class::EMAIL => value.contains('@'),
        Class::NAME => value.starts_with(|c: char| c.is_alphanumeric() && !c.is_ascii_digit()),
        Class::ADDRESS => digits >= 1 && value.contains(' '),
        Class::PASSWORD | Class::AWS | Class::PRIVATE_KEY => {
            const SENTENCE: &[&str] = &[
                "the", "is", "are", "was", "must", "should", "your", "and", "or", "to", "see",
                "click", "enter", "please", "this", "that", "for", "with", "not", "sent", "reset",
                "expired", "updated", "changed", "field", "here", "used", "type", "self", "os",
                "process", "env", "getenv", "bearer",
            ];
            value.len() >= 4
                && !value.starts_with(['$', '<', '{', '%', '(', '[', '/'])
                && !SENTENCE.iter().any(|word| value.eq_ignore_ascii_case(word))
        }
        Class::CVV => digits >= 3,
        _ => digits >= 4,
    }
}

/// Whether what ends at `end` is a function or an array in a piece of code.
fn is_call(text: &str, end: usize) -> bool {
    matches!(byte(text, end), b'(' | b'[')
}

/// The longest name looked for before a sign.
const LONGEST_KEY: usize = 60;

/// The name before the sign at `at`: quoted, or up to three words of a line.
fn key_before<'a>(fields: &Fields, text: &'a str, at: usize) -> Option<&'a str> {
    let bytes = text.as_bytes().get(..at)?;
    let skip = |end: usize, what: &[u8], most: usize| {
        let tail = bytes.get(..end).unwrap_or_default();
        end - tail.iter().rev().take(most).take_while(|b| what.contains(b)).count()
    };
    let end = skip(at, b" \t?:.*]", 6);
    let unquoted = skip(end, b"\"'`\\", 4);
    if !fields.may_end_name(bytes.get(..unquoted)?) {
        return None;
    }
    let quoted = unquoted < end;
    let part = |b: &u8| {
        b.is_ascii_alphanumeric()
            || matches!(b, b'_' | b'-' | b'.' | b' ')
            || (!quoted && *b == b'\'')
    };
    let lead = bytes.get(..unquoted)?;
    let length = lead.iter().rev().take(LONGEST_KEY).take_while(|b| part(b)).count();
    let key = text.get(unquoted - length..unquoted).filter(|key| !key.is_empty())?;
    if quoted {
        return Some(key);
    }
    let mut start = key.len();
    for word in key.rsplit(' ').take(3) {
        if is_one_of(word, is_parting) {
            break;
        }
        start = (word.as_ptr().addr()).saturating_sub(key.as_ptr().addr());
    }
    key.get(start..).map(str::trim).filter(|key| !key.is_empty())
}

/// Words that no name has in it.
fn is_parting(word: &[u8]) -> bool {
    matches!(
        word,
        b"the"
            | b"is"
            | b"my"
            | b"your"
            | b"his"
            | b"her"
            | b"their"
            | b"our"
            | b"a"
            | b"an"
            | b"with"
            | b"and"
            | b"or"
            | b"to"
            | b"of"
            | b"new"
            | b"for"
    )
}

/// The longest value that is taken.
const LONGEST_VALUE: usize = 512;

/// Where the value behind the sign at `at` stands, and whether quotes say so.
fn value_after(text: &str, at: usize, class: Class) -> Option<(Range<usize>, bool)> {
    let assigned = byte(text, at) == b'=';
    let skip = |from: usize, what: &[u8], most: usize| {
        let rest = text.as_bytes().get(from..).unwrap_or_default();
        from + rest.iter().take(most).take_while(|b| what.contains(b)).count()
    };
    let sign = skip(at + 1, b"=>:", 4);
    // Markdown closes bold print behind the colon; other stars may be the value's.
    let bold = text.get(sign..)?.strip_prefix("** ").map_or(sign, |_| sign + 3);
    let start = skip(bold, b" \t", 4);
    let bare = skip(start, b"\\", 3);
    let quote = byte(text, bare);
    if matches!(quote, b'"' | b'\'' | b'`') {
        let inside = text.get(bare + 1..)?;
        let length = closing(inside.as_bytes(), quote, bare - start)?;
        return Some((bare + 1..bare + 1 + length, true));
    }
    let rest = text.get(start..)?;
    if redact::masked_prefix(rest).is_some() {
        return None;
    }
    let rest = clip(rest, LONGEST_VALUE);
    let mut from = 0;
    let mut token = word_length(rest, class);
    let scheme = rest.get(..token)?;
    if ["bearer", "basic", "token", "bot"].iter().any(|name| scheme.eq_ignore_ascii_case(name)) {
        from = skip(start + token, b" \t", 2) - start;
        token = word_length(rest.get(from..)?, class);
    }
    let value = rest.get(from..)?;
    let length = match class {
        Class::NAME => name_length(value, assigned),
        Class::ADDRESS if !assigned => line_length(value),
        Class::DOB if !value.starts_with(|c: char| c.is_ascii_digit()) && !assigned => {
            line_length(clip(value, 24))
        }
        Class::PHONE => phone_length(value),
        Class::CARD | Class::SSN | Class::IBAN | Class::ACCOUNT => {
            grouped_length(value, token, class)
        }
        _ => token,
    };
    let value = value.get(..length)?.trim_end_matches(['.', ' ', ')', ']', '}', '?', '!', ':']);
    let start = start + from;
    let end = start + value.len();
    // A value that stops within a word would leave the word's end to look like something new.
    let rest = text.get(end..)?;
    let word = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
    let glued = value.ends_with(char::is_alphanumeric);
    let end = if glued { end + word } else { end };
    (!value.is_empty()).then_some((start..end, false))
}

/// At most so many bytes, cut between characters.
fn clip(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// The length up to a quote that has as many backslashes before it as the opening one.
fn closing(inside: &[u8], quote: u8, backslashes: usize) -> Option<usize> {
    let within = inside.get(..inside.len().min(LONGEST_VALUE))?;
    memchr::memchr_iter(quote, within).find_map(|at| {
        let lead = within.get(..at)?;
        let before = lead.iter().rev().take_while(|b| **b == b'\\').count();
        (before <= backslashes).then_some(at - before)
    })
}

fn word_length(text: &str, class: Class) -> usize {
    let secret = matches!(class, Class::PASSWORD | Class::AWS | Class::PRIVATE_KEY);
    // Stopping where another name may begin also keeps a text of nothing but names from being
    // read on from each of them.
    let stops = |c: char| {
        c.is_whitespace()
            || matches!(c, ',' | ';' | '"' | '\'' | '`' | '&' | '<' | '>' | '\\' | '(' | '[')
            || (!secret && matches!(c, '|' | ')' | ']' | '{' | '}' | '='))
            || (c == ':' && !secret && class != Class::DOB)
    };
    let end = text.find(stops).unwrap_or(text.len());
    let bracket = matches!(text.as_bytes().get(end), Some(b'(' | b'['));
    let code = |b: u8| b.is_ascii_alphabetic() || matches!(b, b'_' | b'.');
    if !secret || !bracket || text.bytes().take(end).all(code) {
        return end;
    }
    // A bracket in a password, not in a piece of code.
    let ends =
        |c: char| c.is_whitespace() || matches!(c, ',' | ';' | '"' | '\'' | '`' | '&' | '<' | '\\');
    text.find(ends).unwrap_or(text.len())
}

/// Up to the end of what a line says.
fn line_length(text: &str) -> usize {
    let text = clip(text, 160);
    let end = text.find(['\n', '\r', '\t', ';', '|', '"']).unwrap_or(text.len());
    text.get(..end).and_then(|line| line.find("  ")).unwrap_or(end)
}

/// Capitalised words; a name in small letters goes up to the next comma or line.
fn name_length(text: &str, assigned: bool) -> usize {
    let text = clip(text, 96);
    let line = text.find(['\n', '\r', '\t', ';', '|', '"', '(', '<']).unwrap_or(text.len());
    let line = text.get(..line).unwrap_or_default();
    let capital = |word: &str| word.starts_with(char::is_uppercase) && !word.contains(['=', ':']);
    let mut length = 0;
    let mut at = 0;
    for word in line.split(' ').take(6) {
        if !capital(word) {
            break;
        }
        let bare = word.trim_end_matches([',', '.']);
        length = at + bare.len();
        at += word.len() + 1;
        // `Smith, John` is one name; `John Smith, MRN …` is a name and something else.
        if word.ends_with('.') && bare.chars().count() > 2
            || word.ends_with(',') && at > word.len() + 1
        {
            break;
        }
    }
    match (length, assigned) {
        (0, true) => line.find([' ', ',', '&']).unwrap_or(line.len()),
        (0, false) => line.find(',').unwrap_or(clip(line, 64).len()),
        (length, _) => length,
    }
}

/// Digits and what is written between them, an extension included.
fn phone_length(text: &str) -> usize {
    let inside = |b: &u8| {
        b.is_ascii_digit() || matches!(b, b'+' | b'(' | b')' | b'-' | b'.' | b'/' | b' ' | b'x')
    };
    text.bytes().take(40).take_while(inside).count()
}

/// A token and the groups of digits (in an IBAN, of capitals as well) that follow it after single
/// blanks.
fn grouped_length(text: &str, token: usize, class: Class) -> usize {
    let bytes = text.as_bytes();
    let inside = |b: &u8| b.is_ascii_digit() || (class == Class::IBAN && b.is_ascii_uppercase());
    let mut end = token;
    for _ in 0..9 {
        let rest = bytes.get(end..).unwrap_or_default();
        let Some((b' ', group)) = rest.split_first() else { break };
        let group = group.iter().take_while(|b| inside(b)).count();
        if group == 0 {
            break;
        }
        end += 1 + group;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::super::tests::{masked, untouched};
    use super::*;

    #[test]
    fn named_values() {
        for (text, expected) in [
            ("password=hunter22 next", "password=[secret.password masked] next"),
            ("DB_PASSWORD: \"p,a ss\"", "DB_PASSWORD: \"[secret.password masked]\""),
            ("{'ssn': '078051120', 'a': 1}", "{'ssn': '*****1120', 'a': 1}"),
            (
                r#"log {\"apiKey\":\"abc123def\"}"#,
                r#"log {\"apiKey\":\"[secret.password masked]\"}"#,
            ),
            ("Patient name: John Smith, age 4", "Patient name: [pii.name masked], age 4"),
            ("**First name:** Ada", "**First name:** [pii.name masked]"),
            ("full_name=Ada King email=x", "full_name=[pii.name masked] email=x"),
            ("MRN: 12345678.", "MRN: [phi.mrn masked]."),
            ("?access_token=abcd1234efgh&x=1", "?access_token=[secret.password masked]&x=1"),
            ("Authorization: Bearer abc.def-123", "Authorization: Bearer [secret.password masked]"),
            ("phone: (555) 010-9999 x12, home", "phone: [pii.phone masked], home"),
            ("SSN: 078 05 1120\nok", "SSN: *** ** 1120\nok"),
            ("card: 4111 1111 1111 1112", "card: **** **** **** 1112"),
            (
                "var githubToken string = \"ghp_q37nv\"",
                "var githubToken string = \"[secret.password masked]\"",
            ),
            ("password=Xk9(2!)z next", "password=[secret.password masked] next"),
            ("dob: 1932-06-03", "dob: 1900-01-01"),
            ("dob: 1932-06-03T10:20:00Z, x", "dob: 1900-01-01T00:00:00Z, x"),
            ("Address: 12 High Street, Leeds\nnext", "Address: [pii.address masked]\nnext"),
        ] {
            assert_eq!(masked(text), expected);
        }
    }

    #[test]
    fn sentences_and_code_are_left_alone() {
        untouched(&[
            "password: required",
            "Reset your password: click here",
            "password = os.environ['X']",
            "password=$DB_PASSWORD",
            "let token: String = x",
            "progressToken=abcdefghij",
            "max_tokens: 40960000",
            "name: order-service",
            "ssn: pending",
            "phone: n/a",
            "https://example.org:8443/x",
            "12:30:45",
            "password=[secret.password masked]",
            "card: ************1111",
        ]);
    }

    #[test]
    fn trivial_values() {
        for value in ["", " ", "null", "N/A", "true", "****", "xxxx", "-"] {
            assert!(is_trivial(value), "{value:?}");
        }
        for value in ["Ada", "0000", "hunter2", "x1"] {
            assert!(!is_trivial(value), "{value:?}");
        }
    }
}
