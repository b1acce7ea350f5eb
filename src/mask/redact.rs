//! What stands in a masked value's place.
//!
//! Every transform is a projection: given its own output it gives the same text back, so masking
//! what is masked changes nothing. That is also how a value that arrives masked already is
//! recognised, whoever masked it.

use super::class::Class;

/// The domain of masked e-mail addresses. `.invalid` (RFC 6761) can never be somebody's.
pub(super) const MASKED_DOMAIN: &str = "masked.invalid";

/// How a value is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Nothing is kept but the class.
    Whole,
    /// Behind the first `skip` bytes, so many letters, digits and stars become stars.
    Stars { skip: u8, count: u8 },
    /// The first character and a domain that is nobody's: still an address to a schema that asks
    /// for `format: email`.
    Email,
    /// The first of January 1900 in the value's own notation, so that `format: date` still holds.
    Date,
    /// The same JSON kind, and no length to tell the number by.
    Number,
}

/// How a text of a class is replaced; `None` if it is masked already.
pub(super) fn how(class: Class, value: &str) -> Option<How> {
    if is_masked(value) {
        return None;
    }
    let partial = match class {
        Class::CARD => keep_last_four(value, 12..=19),
        Class::SSN => keep_last_four(value, 9..=9),
        Class::EMAIL => is_address(value).then_some(How::Email),
        Class::IBAN => iban(value),
        Class::DOB => date(value).map(|_| How::Date),
        _ => None,
    };
    let same = match partial {
        Some(How::Stars { skip, count }) => starred(value, skip, count).eq(value.chars()),
        Some(How::Date) => date(value) == Some(value),
        _ => false,
    };
    (!same).then_some(partial.unwrap_or(How::Whole))
}

/// How a number is replaced; `None` if it says nothing already.
pub(super) fn how_number(raw: &str) -> Option<How> {
    (raw != number(raw)).then_some(How::Number)
}

impl How {
    /// Adds what replaces `value` to `out`.
    pub(super) fn write(self, class: Class, value: &str, out: &mut String) {
        match self {
            Self::Whole => out.push_str(class.mark()),
            Self::Stars { skip, count } => out.extend(starred(value, skip, count)),
            Self::Email => {
                let first = value.chars().next().filter(char::is_ascii_alphanumeric);
                out.push(first.unwrap_or('x'));
                out.push_str("***@");
                out.push_str(MASKED_DOMAIN);
            }
            Self::Date => out.push_str(date(value).unwrap_or(class.mark())),
            Self::Number => out.push_str(number(value)),
        }
    }
}

/// Whether the text is exactly what one of the transforms writes, of whatever class: a value may
/// have been found under one class by its look and be met again under another by its name.
pub(super) fn is_masked(text: &str) -> bool {
    masked_prefix(text) == Some(text.len()) || is_starred(text) || is_masked_email(text)
}

/// One character of one byte, stars, and the domain that is nobody's.
fn is_masked_email(text: &str) -> bool {
    let rest = text.get(1..).and_then(|rest| rest.strip_prefix("***@"));
    rest == Some(MASKED_DOMAIN)
}

/// Stars, and at most four letters or digits behind the last of them; perhaps a country before.
fn is_starred(text: &str) -> bool {
    let first = memchr::memchr(b'*', text.as_bytes());
    let last = memchr::memrchr(b'*', text.as_bytes());
    let Some((first, last)) = first.zip(last) else { return false };
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

fn number(raw: &str) -> &'static str {
    if raw.contains(['.', 'e', 'E']) { "0.0" } else { "0" }
}

/// Stars for all digits but the last four; separators stay where they were. Stars count as digits
/// so that the output is its own input.
fn keep_last_four(value: &str, length: std::ops::RangeInclusive<usize>) -> Option<How> {
    let mut digits = 0;
    for byte in value.bytes() {
        match byte {
            b'0'..=b'9' | b'*' => digits += 1,
            b' ' | b'-' => {}
            _ => return None,
        }
    }
    let count = u8::try_from(digits - 4_usize.min(digits)).ok()?;
    length.contains(&digits).then_some(How::Stars { skip: 0, count })
}

/// The country and the last four stay, as on a bank statement.
fn iban(value: &str) -> Option<How> {
    let (country, rest) = value.split_at_checked(2)?;
    let shaped = rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'*' | b' ' | b'-'));
    let length = rest.bytes().filter(|b| !matches!(b, b' ' | b'-')).count();
    if !shaped || !(13..=32).contains(&length) || !country.bytes().all(|b| b.is_ascii_alphabetic())
    {
        return None;
    }
    Some(How::Stars { skip: 2, count: u8::try_from(length - 4).ok()? })
}

/// `value` with its first `count` letters, digits and stars behind `skip` bytes replaced by stars.
fn starred(value: &str, skip: u8, count: u8) -> impl Iterator<Item = char> {
    let mut left = count;
    value.char_indices().map(move |(at, c)| {
        if left > 0 && at >= usize::from(skip) && (c.is_ascii_alphanumeric() || c == '*') {
            left -= 1;
            '*'
        } else {
            c
        }
    })
}

/// Whether a value is one e-mail address and nothing else.
fn is_address(value: &str) -> bool {
    let sane = |part: &str| {
        let parting = |c: char| {
            c.is_whitespace() || matches!(c, '@' | '<' | '>' | '"' | '(' | ')' | ',' | ';' | ':')
        };
        !part.is_empty() && !part.contains(parting)
    };
    value.split_once('@').is_some_and(|(local, domain)| sane(local) && sane(domain))
}

/// The first of January 1900 as the value writes a date, if it is one.
fn date(value: &str) -> Option<&'static str> {
    let mut shape = [0; 10];
    for (slot, byte) in shape.iter_mut().zip(value.bytes()) {
        *slot = if byte.is_ascii_digit() { b'0' } else { byte };
    }
    let fixed = match shape.get(..value.len()).unwrap_or(&shape) {
        b"0000-00-00" if value.as_bytes().get(10) == Some(&b'T') => {
            if value.ends_with('Z') {
                "1900-01-01T00:00:00Z"
            } else if value.get(19..).is_some_and(|rest| rest.contains(['+', '-'])) {
                "1900-01-01T00:00:00+00:00"
            } else {
                "1900-01-01T00:00:00"
            }
        }
        _ if value.len() > shape.len() => return None,
        b"0000-00-00" => "1900-01-01",
        b"0000/00/00" => "1900/01/01",
        b"00000000" => "19000101",
        b"00/00/0000" | b"0/0/0000" | b"0/00/0000" | b"00/0/0000" => "01/01/1900",
        b"00-00-0000" => "01-01-1900",
        b"00.00.0000" => "01.01.1900",
        _ => return None,
    };
    Some(fixed)
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
            assert_eq!(
                replaced(class, value).as_deref().unwrap_or(value),
                masked,
                "{class} {value}"
            );
        }
    }

    fn replaced(class: Class, value: &str) -> Option<String> {
        let mut out = String::new();
        how(class, value)?.write(class, value, &mut out);
        Some(out)
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
            if let Some(once) = replaced(class, &value) {
                prop_assert!(once != value);
                prop_assert_eq!(replaced(class, &once), None);
            }
        }
    }
}
