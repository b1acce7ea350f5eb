//! What stands in a masked value's place.
//!
//! Every transform is a projection: given its own output it gives the same text back, so masking
//! what is masked changes nothing. That is also how a value that arrives masked already is
//! recognised, whoever masked it.

use super::class::Class;

/// The domain of masked e-mail addresses. `.invalid` (RFC 6761) can never be somebody's.
pub(super) const MASKED_DOMAIN: &str = "masked.invalid";

/// The text that replaces `value`.
pub(super) fn replacement(class: Class, value: &str) -> String {
    if is_masked(value) {
        return value.to_owned();
    }
    let partial = match class {
        Class::CARD => keep_last_four(value, 12..=19),
        Class::SSN => keep_last_four(value, 9..=9),
        Class::EMAIL => email(value),
        Class::IBAN => iban(value),
        Class::DOB => date(value),
        _ => None,
    };
    partial.unwrap_or_else(|| whole(class))
}

/// The text that replaces a value of which nothing is kept.
pub(super) fn whole(class: Class) -> String {
    format!("[{class} masked]")
}

/// Whether the text is exactly what one of the transforms writes, of whatever class: a value may
/// have been found under one class by its look and be met again under another by its name.
pub(super) fn is_masked(text: &str) -> bool {
    masked_prefix(text) == Some(text.len())
        || is_starred(text)
        || text
            .split_once("***@")
            .is_some_and(|(first, domain)| first.len() == 1 && domain == MASKED_DOMAIN)
}

/// Stars, and at most four letters or digits behind the last of them; perhaps a country before.
fn is_starred(text: &str) -> bool {
    let Some((first, last)) = text.find('*').zip(text.rfind('*')) else { return false };
    let between = |part: Option<&str>| {
        part.is_some_and(|part| part.bytes().all(|b| matches!(b, b'*' | b' ' | b'-')))
    };
    let tail = text.get(last..).unwrap_or_default();
    let kept = tail.bytes().filter(u8::is_ascii_alphanumeric).count();
    let country = text.get(..first).unwrap_or_default();
    (country.is_empty() || (country.len() == 2 && country.bytes().all(|b| b.is_ascii_alphabetic())))
        && between(text.get(first..last))
        && kept <= 4
        && tail.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'*' | b' ' | b'-'))
        && text.bytes().filter(|b| *b == b'*').count() >= 5
}

/// The length of the masked text that `text` begins with.
pub(super) fn masked_prefix(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('[')?;
    let end = inside.find(" masked]").filter(|end| *end < 32)?;
    Class::from_name(inside.get(..end)?)?;
    Some(end + "[ masked]".len())
}

/// The number that replaces a sensitive one: the same JSON kind, and no length to tell it by.
pub(super) fn number(raw: &str) -> &'static str {
    if raw.contains(['.', 'e', 'E']) { "0.0" } else { "0" }
}

/// Stars for all digits but the last four; separators stay where they were. Stars count as digits
/// so that the output is its own input.
fn keep_last_four(value: &str, length: std::ops::RangeInclusive<usize>) -> Option<String> {
    let shaped = value.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'*' | b' ' | b'-'));
    let digits = value.bytes().filter(|b| b.is_ascii_digit() || *b == b'*').count();
    if !shaped || !length.contains(&digits) {
        return None;
    }
    Some(star_out(value, digits.saturating_sub(4)))
}

/// Replaces the first `count` letters, digits and stars by stars.
fn star_out(value: &str, count: usize) -> String {
    let mut left = count;
    let star = |c: char| {
        if left > 0 && (c.is_ascii_alphanumeric() || c == '*') {
            left -= 1;
            '*'
        } else {
            c
        }
    };
    value.chars().map(star).collect()
}

/// The first character and a domain that is nobody's: still an address to a schema that asks for
/// `format: email`.
fn email(value: &str) -> Option<String> {
    let (local, domain) = value.split_once('@')?;
    let sane = |part: &str| {
        !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || "@<>\"(),;:".contains(c))
    };
    if !sane(local) || !sane(domain) {
        return None;
    }
    let first = local.chars().next().filter(char::is_ascii_alphanumeric).unwrap_or('x');
    Some(format!("{first}***@{MASKED_DOMAIN}"))
}

/// The country and the last four stay, as on a bank statement.
fn iban(value: &str) -> Option<String> {
    let (country, rest) = value.split_at_checked(2)?;
    let shaped = rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'*' | b' ' | b'-'));
    let length = rest.bytes().filter(|b| !matches!(b, b' ' | b'-')).count();
    if !shaped || !(13..=32).contains(&length) || !country.bytes().all(|b| b.is_ascii_alphabetic())
    {
        return None;
    }
    Some(format!("{country}{}", star_out(rest, length - 4)))
}

/// The first of January 1900 in the value's own notation, so that `format: date` still holds.
fn date(value: &str) -> Option<String> {
    let shape: String = value.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let fixed = match shape.as_str() {
        "0000-00-00" => "1900-01-01",
        "0000/00/00" => "1900/01/01",
        "00000000" => "19000101",
        "00/00/0000" | "0/0/0000" | "0/00/0000" | "00/0/0000" => "01/01/1900",
        "00-00-0000" => "01-01-1900",
        "00.00.0000" => "01.01.1900",
        _ if shape.starts_with("0000-00-00T") => {
            if shape.ends_with('Z') {
                "1900-01-01T00:00:00Z"
            } else if shape.get(19..).is_some_and(|rest| rest.contains(['+', '-'])) {
                "1900-01-01T00:00:00+00:00"
            } else {
                "1900-01-01T00:00:00"
            }
        }
        _ => return None,
    };
    Some(fixed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn transforms_keep_the_format() {
        for (class, value, masked) in [
            (Class::CARD, "4111111111111111", "************1111"),
            (Class::CARD, "4111-1111-1111-1111", "****-****-****-1111"),
            (Class::CARD, "3782 822463 10005", "**** ****** *0005"),
            (Class::CARD, "ask Bob", "[pci.card masked]"),
            (Class::SSN, "078-05-1120", "***-**-1120"),
            (Class::SSN, "078051120", "*****1120"),
            (Class::SSN, "12", "[pii.ssn masked]"),
            (Class::EMAIL, "ada.lovelace@example.org", "a***@masked.invalid"),
            (Class::EMAIL, "Ada <ada@example.org>", "[pii.email masked]"),
            (Class::EMAIL, "żółw@example.org", "x***@masked.invalid"),
            (Class::IBAN, "GB82WEST12345698765432", "GB****************5432"),
            (Class::IBAN, "GB82 WEST 1234 5698 7654 32", "GB** **** **** **** **54 32"),
            (Class::DOB, "1932-06-03", "1900-01-01"),
            (Class::DOB, "1932-06-03T10:00:00+02:00", "1900-01-01T00:00:00+00:00"),
            (Class::DOB, "June 3rd", "[pii.dob masked]"),
            (Class::NAME, "Ada", "[pii.name masked]"),
            (Class::PASSWORD, "[pii.name masked]", "[pii.name masked]"),
            (Class::PASSWORD, "[no.class masked]", "[secret.password masked]"),
        ] {
            assert_eq!(replacement(class, value), masked, "{class} {value}");
        }
    }

    proptest! {
        #[test]
        fn every_transform_is_a_projection(
            class in proptest::sample::select(Class::ALL),
            value in prop_oneof![
                "\\PC{0,24}", "[0-9 *-]{0,24}", "[A-Z]{2}[0-9A-Z* ]{10,34}", "[a-z.*@-]{1,20}",
                "[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:+Z-]{0,16})?"
            ],
        ) {
            let once = replacement(class, &value);
            prop_assert_eq!(replacement(class, &once), once);
        }
    }
}
