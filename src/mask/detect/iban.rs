//! International bank account numbers: ISO 13616 lengths and the mod-97 check.

use std::ops::Range;

use super::{before, byte};

/// The length of each country's IBAN, from the SWIFT registry.
const LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HN", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];

/// The IBAN whose check digits stand at `digits`, if they do.
pub(super) fn at_digits(text: &str, digits: usize) -> Option<Range<usize>> {
    let start = digits.checked_sub(2)?;
    let country = [byte(text, start), byte(text, start + 1)];
    if !country.iter().all(u8::is_ascii_alphabetic)
        || !byte(text, digits + 1).is_ascii_digit()
        || before(text, start).is_ascii_alphanumeric()
    {
        return None;
    }
    let upper = country.map(|b| b.to_ascii_uppercase());
    let (_, length) = LENGTHS.iter().find(|(code, _)| **code == upper)?;
    let mut number = Vec::with_capacity(*length);
    let mut at = start;
    // Paper form has a blank (or dash) after every fourth character; both forms end on a
    // character of the number.
    while number.len() < *length {
        let next = byte(text, at);
        if matches!(next, b' ' | b'-') && number.len() % 4 == 0 && number.len() >= 4 {
            at += 1;
        }
        let next = byte(text, at);
        if !next.is_ascii_alphanumeric() {
            return None;
        }
        number.push(next.to_ascii_uppercase());
        at += 1;
    }
    let lower_hex =
        country.iter().any(u8::is_ascii_lowercase) && number.iter().all(u8::is_ascii_hexdigit);
    let free = !byte(text, at).is_ascii_alphanumeric();
    (free && !lower_hex && checks(&number)).then_some(start..at)
}

/// ISO 7064 mod 97-10: the country and check digits move to the end, letters count as 10 to 35.
fn checks(number: &[u8]) -> bool {
    let (head, tail) = number.split_at(4.min(number.len()));
    let remainder = tail.iter().chain(head).fold(0, |sum: u32, b| {
        let value = char::from(*b).to_digit(36).unwrap_or(0);
        let shift = if value > 9 { 100 } else { 10 };
        (sum * shift + value) % 97
    });
    remainder == 1
}

#[cfg(test)]
mod tests {
    use super::super::tests::{masked, untouched};

    #[test]
    fn ibans_in_text() {
        for (text, expected) in [
            ("GB82WEST12345698765432", "GB****************5432"),
            ("to DE89 3704 0044 0532 0130 00 today", "to DE** **** **** **** **30 00 today"),
            ("NO9386011117947", "NO*********7947"),
            ("iban:gb82west12345698765432;", "iban:gb****************5432;"),
            ("FR14 2004 1010 0505 0001 3M02 606", "FR** **** **** **** **** ***2 606"),
        ] {
            assert_eq!(masked(text), expected);
        }
    }

    #[test]
    fn what_is_no_iban() {
        untouched(&[
            "GB82WEST12345698765433",  // check digits
            "GB82WEST1234569876543",   // too short
            "GB82WEST123456987654321", // too long
            "ZZ82WEST12345698765432",  // no such country
            "XGB82WEST12345698765432", // inside a word
            "GB82 WEST1 2345 6987 65432",
        ]);
    }
}
