//! Payment cards and social security numbers: runs of digits, checked.
//!
//! Cards need an issuer's prefix, a length that the issuer uses and the Luhn check digit; SSNs
//! need an area, group and serial that were or can be issued. Undashed SSNs need words near them
//! as well, since a third of all nine-digit numbers would pass.

use std::ops::Range;

use super::{Finds, Hit, before, byte, iban, pairs};
use crate::mask::class::Class;
use crate::mask::fields::{Field, Fields};
use crate::mask::redact::How;

/// Cards, SSNs and IBANs in `text`; also undashed SSNs that words before them give away.
pub(super) fn find(fields: &Fields, field: Field, text: &str, finds: &mut Finds) {
    let Finds { hits, bare_ssns, .. } = finds;
    let mut groups = Vec::new();
    let mut at = 0;
    while let Some(start) = next_digit(text, at) {
        if let Some(range) = iban::at_digits(text, start) {
            at = start;
            while let Some(run) = next_digit(text, at).filter(|run| *run < range.end) {
                at = digits_end(text, run);
                bare_ssns.extend(Some(run..at).filter(|run| is_bare_ssn(text, run)));
            }
            at = range.end;
            hits.extend(Hit::new(text, range, Class::IBAN));
            continue;
        }
        at = chain(text, start, &mut groups);
        let first = bare_ssns.len();
        bare_ssns.extend(groups.iter().filter(|group| is_bare_ssn(text, group)).cloned());
        let ssns = bare_ssns.get(first..).unwrap_or_default();
        let mut index = 0;
        while index < groups.len() {
            let found = grouped(text, &groups, index).or_else(|| {
                bare(text, &groups, index, ssns, |range| {
                    !field.veto && !pairs::named_a_thing(fields, text, range.start)
                })
            });
            match found {
                Some((range, class, used)) => {
                    let mut hit = Hit::new(text, range, class);
                    // A card and its three-digit code can pass for a longer card, whose last four
                    // digits would show the code.
                    if let Some(hit) = hit.as_mut().filter(|_| used == 5) {
                        hit.how = How::Whole;
                    }
                    hits.extend(hit);
                    index += used;
                }
                None => index += 1,
            }
        }
    }
}

/// Whether a run of digits is an undashed SSN that words before it give away, whatever the field
/// or what it is written with says.
fn is_bare_ssn(text: &str, range: &Range<usize>) -> bool {
    range.len() == 9 && is_ssn(text, range) && is_free(text, range) && says_ssn(text, range.start)
}

/// Whether digits alone, without separators, are a card number.
pub(in crate::mask) fn is_card(digits: &str) -> bool {
    is_card_number(digits.as_bytes())
}

fn next_digit(text: &str, from: usize) -> Option<usize> {
    let rest = text.as_bytes().get(from..)?;
    rest.iter().position(u8::is_ascii_digit).map(|step| from + step)
}

fn digits_end(text: &str, start: usize) -> usize {
    let rest = text.as_bytes().get(start..).unwrap_or_default();
    start + rest.iter().take_while(|b| b.is_ascii_digit()).count()
}

/// Collects runs of digits that single blanks or dashes join; gives back where they end.
fn chain(text: &str, start: usize, groups: &mut Vec<Range<usize>>) -> usize {
    groups.clear();
    let mut at = start;
    loop {
        let end = digits_end(text, at);
        groups.push(at..end);
        if !matches!(byte(text, end), b' ' | b'-') || !byte(text, end + 1).is_ascii_digit() {
            return end;
        }
        at = end + 1;
    }
}

/// How the digits of a written number are grouped, and what it may then be.
const GROUPINGS: &[(&[usize], Class)] = &[
    (&[4, 4, 4, 4, 3], Class::CARD),
    (&[4, 4, 4, 4], Class::CARD),
    (&[4, 6, 5], Class::CARD),
    (&[4, 6, 4], Class::CARD),
    (&[4, 4, 5], Class::CARD),
    (&[3, 2, 4], Class::SSN),
];

/// A number written in groups that begins at group `index`; also how many groups it uses.
fn grouped(
    text: &str,
    groups: &[Range<usize>],
    index: usize,
) -> Option<(Range<usize>, Class, usize)> {
    let first = groups.get(index)?;
    if !matches!(first.len(), 3 | 4) {
        return None;
    }
    let separator = byte(text, first.end);
    GROUPINGS.iter().find_map(|(lengths, class)| {
        let used = groups.get(index..index + lengths.len())?;
        let same = used.iter().zip(*lengths).all(|(group, length)| group.len() == *length)
            && used.iter().take(lengths.len() - 1).all(|g| byte(text, g.end) == separator);
        let range = first.start..used.last()?.end;
        if !same || !is_free(text, &range) {
            return None;
        }
        // A number that goes on behind a dash is a longer one. Blanks also part words, so a blank
        // and more digits say nothing against a card, whose check digit speaks for it.
        let joins = |at: usize| {
            byte(text, at) == b'-'
                || (separator == b' ' && *class == Class::SSN && byte(text, at) == b' ')
        };
        let goes_on = joins(range.end) && byte(text, range.end + 1).is_ascii_digit()
            || range.start >= 2
                && joins(range.start - 1)
                && byte(text, range.start - 2).is_ascii_digit();
        if goes_on {
            return None;
        }
        let ok = if *class == Class::SSN { is_ssn(text, &range) } else { is_card_at(text, &range) };
        ok.then_some((range, *class, lengths.len()))
    })
}

/// A number written without separators that is group `index`; `ssns` are the bare SSNs among the
/// groups (those near words that say so, hence few).
fn bare(
    text: &str,
    groups: &[Range<usize>],
    index: usize,
    ssns: &[Range<usize>],
    allowed: impl Fn(&Range<usize>) -> bool,
) -> Option<(Range<usize>, Class, usize)> {
    let range = groups.get(index)?.clone();
    if !(9..=19).contains(&range.len()) || !is_free(text, &range) {
        return None;
    }
    let dashed =
        |at: usize, beyond: usize| byte(text, at) == b'-' && byte(text, beyond).is_ascii_digit();
    if dashed(range.end, range.end + 1)
        || (range.start >= 2 && dashed(range.start - 1, range.start - 2))
    {
        return None;
    }
    let class = if range.len() == 9 {
        ssns.contains(&range).then_some(Class::SSN)
    } else {
        is_card_at(text, &range).then_some(Class::CARD)
    };
    class.filter(|_| allowed(&range)).map(|class| (range, class, 1))
}

/// Whether the range is no part of a longer word, number, decimal or UUID.
fn is_free(text: &str, range: &Range<usize>) -> bool {
    let (left, right) = (before(text, range.start), byte(text, range.end));
    if left.is_ascii_alphanumeric() || right.is_ascii_alphanumeric() {
        return false;
    }
    let decimal_left =
        left == b'.' && range.start >= 2 && byte(text, range.start - 2).is_ascii_digit();
    let decimal_right = right == b'.' && byte(text, range.end + 1).is_ascii_digit();
    !decimal_left && !decimal_right && !in_uuid(text, range)
}

/// Whether the range lies in `8-4-4-4-12` hexadecimal digits.
fn in_uuid(text: &str, range: &Range<usize>) -> bool {
    let part = |b: &u8| b.is_ascii_hexdigit() || *b == b'-';
    let bytes = text.as_bytes();
    let left = bytes.get(..range.start).unwrap_or_default();
    let start = range.start - left.iter().rev().take(36).take_while(|b| part(b)).count();
    let token = bytes.get(start..).unwrap_or_default();
    let token = token.get(..token.iter().take(37).take_while(|b| part(b)).count());
    token.is_some_and(|token| {
        token.len() == 36
            && [8, 13, 18, 23].iter().all(|at| token.get(*at) == Some(&b'-'))
            && token.iter().filter(|b| **b == b'-').count() == 4
    })
}

/// The digits of a range of at most 19 digits and a few separators.
fn digits_of(text: &str, range: &Range<usize>) -> ([u8; 19], usize) {
    let mut digits = [0; 19];
    let mut count = 0;
    for byte in text.as_bytes().get(range.clone()).unwrap_or_default() {
        if let Some(slot) = digits.get_mut(count).filter(|_| byte.is_ascii_digit()) {
            *slot = *byte;
            count += 1;
        }
    }
    (digits, count)
}

fn is_card_at(text: &str, range: &Range<usize>) -> bool {
    let (digits, count) = digits_of(text, range);
    digits.get(..count).is_some_and(is_card_number)
}

/// First and last six-digit prefix of an issuer's range, and the card lengths it uses.
const ISSUERS: &[(u32, u32, &[usize])] = &[
    // Visa
    (400_000, 499_999, &[13, 16, 18, 19]),
    // Mastercard
    (510_000, 559_999, &[16]),
    (222_100, 272_099, &[16]),
    // American Express
    (340_000, 349_999, &[15]),
    (370_000, 379_999, &[15]),
    // Discover
    (601_100, 601_199, &[16, 17, 18, 19]),
    (622_126, 622_925, &[16, 17, 18, 19]),
    (644_000, 659_999, &[16, 17, 18, 19]),
    // JCB
    (352_800, 358_999, &[16, 17, 18, 19]),
    (213_100, 213_199, &[15]),
    (180_000, 180_099, &[15]),
    // Diners Club
    (300_000, 305_999, &[14, 16, 17, 18, 19]),
    (309_500, 309_599, &[14, 16, 17, 18, 19]),
    (360_000, 369_999, &[14, 15, 16, 17, 18, 19]),
    (380_000, 399_999, &[14, 16, 17, 18, 19]),
    // UnionPay
    (620_000, 629_999, &[16, 17, 18, 19]),
    (810_000, 817_199, &[16, 17, 18, 19]),
    // Maestro
    (501_800, 501_899, &[12, 13, 14, 15, 16, 17, 18, 19]),
    (502_000, 502_099, &[12, 13, 14, 15, 16, 17, 18, 19]),
    (503_800, 503_899, &[12, 13, 14, 15, 16, 17, 18, 19]),
    (589_300, 589_399, &[12, 13, 14, 15, 16, 17, 18, 19]),
    (630_400, 630_499, &[12, 13, 14, 15, 16, 17, 18, 19]),
    (675_900, 675_999, &[12, 13, 14, 15, 16, 17, 18, 19]),
    (676_100, 676_399, &[12, 13, 14, 15, 16, 17, 18, 19]),
    // RuPay, Verve, Mir, Troy
    (508_500, 508_999, &[16]),
    (606_985, 607_984, &[16]),
    (506_099, 506_198, &[16, 18, 19]),
    (220_000, 220_499, &[16, 17, 18, 19]),
    (979_200, 979_289, &[16]),
];

fn is_card_number(digits: &[u8]) -> bool {
    let Some(prefix) = digits.get(..6) else { return false };
    let prefix = prefix.iter().fold(0, |sum, b| sum * 10 + u32::from(b.wrapping_sub(b'0')));
    let issued = ISSUERS.iter().any(|(first, last, lengths)| {
        (*first..=*last).contains(&prefix) && lengths.contains(&digits.len())
    });
    // A run of one digit passes Luhn at some lengths and is a placeholder.
    issued && luhn(digits) && digits.iter().any(|b| Some(b) != digits.first())
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(digit.wrapping_sub(b'0'));
            match (place % 2, digit) {
                (0, digit) => digit,
                (_, digit @ 0..5) => 2 * digit,
                (_, digit) => 2 * digit - 9,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Whether nine digits can be a social security number.
fn is_ssn(text: &str, range: &Range<usize>) -> bool {
    let (digits, count) = digits_of(text, range);
    let number = |part: Range<usize>| {
        let digits = digits.get(part).unwrap_or_default();
        digits.iter().fold(0, |sum, b| sum * 10 + u32::from(b.wrapping_sub(b'0')))
    };
    let area = number(0..3);
    count == 9
        && !matches!(area, 0 | 666 | 900..)
        && number(3..5) != 0
        && number(5..9) != 0
        && digits.get(1..9) != digits.get(..8)
}

/// How far before a number the words that name it may stand.
const CONTEXT: usize = 48;

/// Whether the words just before `at` speak of a social security number, and of nothing else that
/// has a number since.
fn says_ssn(text: &str, at: usize) -> bool {
    let before = text.as_bytes().get(at.saturating_sub(CONTEXT)..at).unwrap_or_default();
    let mut near = [0; CONTEXT];
    for (slot, byte) in near.iter_mut().zip(before) {
        *slot = byte.to_ascii_lowercase();
    }
    let near = near.get(..before.len()).unwrap_or_default();
    const NAMES: [&[u8]; 4] = [b"ssn", b"social security", b"soc sec", b"social-security"];
    let mut named = [None; NAMES.len()];
    for at in memchr::memrchr_iter(b's', near) {
        for (name, last) in NAMES.iter().zip(&mut named) {
            if last.is_none() && near.get(at..).is_some_and(|rest| rest.starts_with(name)) {
                *last = Some(at + name.len());
            }
        }
    }
    let [ssn, ..] = &mut named;
    let letter =
        |at: Option<usize>| at.and_then(|at| near.get(at)).is_some_and(u8::is_ascii_alphabetic);
    *ssn = ssn.filter(|end| {
        !letter(end.checked_sub(4))
            && !near.get(*end).is_some_and(|b| *b != b's' && b.is_ascii_alphabetic())
    });
    let Some(end) = named.into_iter().flatten().max() else { return false };
    let since = near.get(end..).unwrap_or_default();
    const OTHERS: [&[u8]; 9] = [
        b"order",
        b"phone",
        b"account",
        b"invoice",
        b"ticket",
        b"case",
        b"zip",
        b"\n\n",
        b"tracking",
    ];
    let begins =
        |at: usize| since.get(at..).is_some_and(|rest| OTHERS.iter().any(|o| rest.starts_with(o)));
    !(0..since.len()).any(begins)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{masked, untouched};
    use super::*;

    #[test]
    fn cards_in_text() {
        for (text, expected) in [
            ("4111111111111111", "************1111"),
            ("pay 4111 1111 1111 1111 now", "pay **** **** **** 1111 now"),
            ("4111-1111-1111-1111.", "****-****-****-1111."),
            ("qty 3 4111 1111 1111 1111 12/27", "qty 3 **** **** **** 1111 12/27"),
            ("amex 3782 822463 10005", "amex **** ****** *0005"),
            ("diners 3056 930902 5904", "diners **** ****** 5904"),
            ("(5555555555554444)", "(************4444)"),
            ("mc2 2223003122003222", "mc2 ************3222"),
            ("jcb 3530111333300000, next", "jcb ************0000, next"),
            ("6011000990139424\n4222222222222", "************9424\n*********2222"),
            ("4111 1111 1111 1111 078-05-1120", "**** **** **** 1111 ***-**-1120"),
            ("4111 1111 1111 1111 078", "[pci.card masked]"),
            ("card_4111111111111111", "card_************1111"),
            ("1,4111111111111111,x", "1,************1111,x"),
        ] {
            assert_eq!(masked(text), expected);
        }
    }

    #[test]
    fn what_is_no_card() {
        untouched(&[
            "4111111111111112",                        // Luhn
            "1234567812345670",                        // Luhn holds, no such issuer
            "411111111111111",                         // Visa has no 15 digits
            "94111111111111111",                       // inside a longer run
            "a4111111111111111",                       // inside a word
            "4111111111111111f",                       // hexadecimal
            "0.4111111111111111",                      // a decimal
            "4111111111111111.25",                     // a decimal
            "4111-1111-1111-1111-1111",                // a longer number
            "41111111-1111-4111-8111-411111111111111", // not quite a UUID
            "12345678-1234-1234-1234-501800000009",    // a UUID
            "411111 1111111 111",                      // implausible groups
            "4444444444444444444 0000000000000000",    // placeholders
            "order_id=4111111111111111",               // the name says what it is
            "order id: 321146487",
        ]);
    }

    #[test]
    fn social_security_numbers_in_text() {
        for (text, expected) in [
            ("078-05-1120", "***-**-1120"),
            ("ssn 078 05 1120.", "ssn *** ** 1120."),
            ("his SSN is 078051120", "his SSN is *****1120"),
            ("Social Security Number (078051120)", "Social Security Number (*****1120)"),
            ("[474-28-2696]", "[***-**-2696]"),
        ] {
            assert_eq!(masked(text), expected);
        }
        untouched(&[
            "000-12-3456",
            "666-12-3456",
            "900-12-3456",
            "123-00-4567",
            "123-45-0000",
            "123-45-67890",
            "123-45-6789-01",
            "1123-45-6789",
            "078051120", // nothing says so
            "order 078051120",
            "ssn on file, order 078051120", // something else says so
            "lessn 078051120",
            "2024-01-02",
            "555-12-345",
        ]);
    }

    #[test]
    fn luhn_agrees_with_known_numbers() {
        assert!(luhn(b"79927398713"));
        assert!(!luhn(b"79927398710"));
    }
}
