//! Field names: from `patientSSN`, `pt_ssn` or `PATIENT-SSN` to what the field holds.
//!
//! A name is cut into words, joined without separators and looked up; words before the match are
//! whose it is (`patient`, `billing`), words behind it must be harmless (`number`, `2`).

mod dictionary;
mod words;

use std::collections::HashSet;

use self::dictionary::{
    COUNTING, HARMLESS_TOKENS, LIKELY, NEUTRAL, SUFFIXES, SURE, THING, THING_AT_END,
};
use self::words::{Lexicon, Words};
use super::class::Class;
use super::rules::{Rules, RulesError};

/// How much a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strength {
    /// The name alone decides, for every value and everything below it.
    Sure,
    /// The value must look like the class as well.
    Likely,
}

/// What a field's name says about its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Field {
    /// The class, where the name decides one.
    pub(super) rule: Option<(Class, Strength)>,
    /// Bare digits below it are no finding, and values found elsewhere are not masked in it.
    pub(super) veto: bool,
    /// What part the name plays among its siblings.
    pub(super) part: Part,
}

/// What part a name plays in the shape of the object that it stands in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Part {
    /// None.
    #[default]
    Plain,
    /// The names of columns.
    Columns,
    /// The rows below such columns.
    Rows,
    /// `name`: a person's only beside other facts about a person. Also names its sibling `value`.
    Name,
    /// `key`, `field`: names the field whose value is the sibling `value`.
    Key,
    /// The value named by such a sibling.
    Value,
    /// Says what kind of value its siblings hold.
    Neutral,
}

impl Field {
    /// A field without a name.
    pub(super) const NONE: Self = Self { rule: None, veto: false, part: Part::Plain };

    /// Whether this is a fact about a person, which makes a sibling `name` a person's.
    pub(super) fn is_personal(self) -> bool {
        const PERSONAL: &[Class] =
            &[Class::SSN, Class::EMAIL, Class::PHONE, Class::DOB, Class::MRN];
        self.rule.is_some_and(|(class, _)| PERSONAL.contains(&class))
    }
}

/// The names that the engine knows.
///
/// Every key of a message and every word before a `:` or `=` is asked for, so resolving a name
/// allocates nothing and seldom hashes; there is no cache that hostile names could fill.
#[derive(Debug)]
pub(super) struct Fields {
    names: Lexicon<(Class, Strength)>,
    keep: Lexicon<()>,
    kinds: Lexicon<Kinds>,
    parts: Lexicon<Part>,
    /// Bit `b` of entry `a`: some name, or harmless suffix, ends in the letters `a b`.
    endings: [u32; 32],
}

/// What a single word does to the name that it stands in: a set of the following.
#[derive(Clone, Copy, Debug, Default)]
struct Kinds(u8);

impl Kinds {
    const SUFFIX: Self = Self(1);
    const COUNTING: Self = Self(2);
    const HARMLESS_TOKEN: Self = Self(4);
    const THING: Self = Self(8);
    const THING_AT_END: Self = Self(16);
    const ALL: [(Self, &[&str]); 5] = [
        (Self::SUFFIX, SUFFIXES),
        (Self::COUNTING, COUNTING),
        (Self::HARMLESS_TOKEN, HARMLESS_TOKENS),
        (Self::THING, THING),
        (Self::THING_AT_END, THING_AT_END),
    ];

    fn has(self, kind: Self) -> bool {
        self.0 & kind.0 != 0
    }
}

/// Longer names than this are prose, not names.
const LONGEST_NAME: usize = 80;

impl Fields {
    pub(super) fn new(rules: &Rules, off: &HashSet<Class>) -> Result<Self, RulesError> {
        let mut names = Lexicon::default();
        for (table, strength) in [(LIKELY, Strength::Likely), (SURE, Strength::Sure)] {
            for (class, entries) in table.iter().filter(|(class, _)| !off.contains(class)) {
                for name in *entries {
                    names.insert(name.as_bytes(), (*class, strength));
                }
            }
        }
        let mut extra = HashSet::new();
        for (class, name) in rules.extra()? {
            let compact = compact_name("fields", name)?;
            if !off.contains(&class) {
                names.insert(&compact, (class, Strength::Sure));
            }
            extra.insert(compact);
        }
        let mut keep = Lexicon::default();
        for name in &rules.keep {
            let compact = compact_name("keep", name)?;
            if extra.contains(&compact) {
                return Err(RulesError::KeptAndMasked { name: name.clone() });
            }
            keep.insert(&compact, ());
        }
        let mut kinds = Lexicon::default();
        for (kind, words) in Kinds::ALL {
            for word in words {
                let before: Kinds = kinds.get(word.as_bytes()).copied().unwrap_or_default();
                kinds.insert(word.as_bytes(), Kinds(before.0 | kind.0));
            }
        }
        let mut parts = Lexicon::default();
        for (part, words) in PARTS.iter().chain([&(Part::Neutral, NEUTRAL)]).rev() {
            for word in *words {
                parts.insert(word.as_bytes(), *part);
            }
        }
        let mut endings = [0; 32];
        let known = names.words().chain(SUFFIXES.iter().map(|word| word.as_bytes()));
        for name in known.chain(keep.words()) {
            let (before, last) = ending(name);
            set_ending(&mut endings, before, last);
            // The plural.
            set_ending(&mut endings, last, b's');
            set_ending(&mut endings, b'e', b's');
        }
        Ok(Self { names, keep, kinds, parts, endings })
    }

    /// What `name` says.
    pub(super) fn resolve(&self, name: &str) -> Field {
        if name.is_empty() || name.len() > LONGEST_NAME {
            return Field::NONE;
        }
        let words = Words::of(name);
        let compact = words.joined(0, words.count());
        if self.keep.get(compact).is_some() {
            return Field { veto: true, ..Field::NONE };
        }
        let rule = self.rule(&words);
        let is = |at: usize, kind: Kinds| self.kind(words.word(at)).has(kind);
        let last = words.count().saturating_sub(1);
        let veto = rule.is_none()
            && ((0..words.count()).any(|at| is(at, Kinds::THING)) || is(last, Kinds::THING_AT_END));
        Field { rule, veto, part: self.parts.get(compact).copied().unwrap_or_default() }
    }

    /// A cheap test that says no to most text that no name ends with.
    pub(super) fn may_end_name(&self, text: &[u8]) -> bool {
        let (before, last) = ending(text);
        if last.is_ascii_digit() {
            // `email2` is a name, the hour of a time is not.
            return !before.is_ascii_digit();
        }
        if !before.is_ascii_alphabetic() {
            return true;
        }
        self.endings
            .get(usize::from(before & 31))
            .is_some_and(|bits| bits & (1 << (last & 31)) != 0)
    }

    fn rule(&self, words: &Words) -> Option<(Class, Strength)> {
        let is = |at: usize, kind: Kinds| self.kind(words.word(at)).has(kind);
        for end in (1..=words.count()).rev() {
            for start in 0..end {
                let joined = words.joined(start, end);
                let Some(&(class, strength)) = self.lookup(joined) else { continue };
                let counting =
                    start > 0 && (is(0, Kinds::COUNTING) || is(start - 1, Kinds::COUNTING));
                let harmless = joined.ends_with(b"token")
                    && (0..words.count()).any(|at| is(at, Kinds::HARMLESS_TOKEN));
                // A digest of a password still serves for guessing it; a digest of anything else
                // is an opaque id.
                let hash = class != Class::PASSWORD
                    && (end..words.count()).any(|at| words.word(at) == b"hash");
                if counting || harmless || hash {
                    return None;
                }
                return Some((class, strength));
            }
            if !is(end - 1, Kinds::SUFFIX) {
                return None;
            }
        }
        None
    }

    fn kind(&self, word: &[u8]) -> Kinds {
        self.kinds.get(word).copied().unwrap_or_default()
    }

    fn lookup(&self, joined: &[u8]) -> Option<&(Class, Strength)> {
        self.names.get(joined).or_else(|| {
            // `tokens` are counted words of a language model, not secrets.
            let singular = joined.strip_suffix(b"s").filter(|name| !name.ends_with(b"token"))?;
            let found = self.names.get(singular);
            found.or_else(|| self.names.get(singular.strip_suffix(b"e")?))
        })
    }
}

fn compact_name(place: &'static str, name: &str) -> Result<Vec<u8>, RulesError> {
    let words = Words::of(name);
    let compact = words.joined(0, words.count());
    if compact.is_empty() {
        return Err(RulesError::EmptyName { place, name: name.to_owned() });
    }
    Ok(compact.to_vec())
}

/// The names that play a part among their siblings.
const PARTS: &[(Part, &[&str])] = &[
    (Part::Columns, &["columns", "fields", "headers", "header", "columnnames", "cols"]),
    (Part::Rows, &["rows", "data", "values", "records", "results"]),
    (Part::Name, &["name", "names"]),
    (Part::Key, &["key", "field", "column", "attribute", "property", "label"]),
    (Part::Value, &["value", "val"]),
];

/// The last two letters of a name, lower-cased; digits and separators as they are.
fn ending(text: &[u8]) -> (u8, u8) {
    let byte = |back: usize| {
        let at = text.len().checked_sub(back);
        at.and_then(|at| text.get(at)).map_or(0, u8::to_ascii_lowercase)
    };
    (byte(2), byte(1))
}

fn set_ending(endings: &mut [u32; 32], before: u8, last: u8) {
    if let Some(bits) = endings.get_mut(usize::from(before & 31)) {
        *bits |= 1 << (last & 31);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        Fields::new(&Rules::default(), &HashSet::new()).unwrap()
    }

    #[test]
    fn spellings_of_one_name_mean_the_same() {
        let fields = fields();
        for (names, class) in [
            (
                "ssn SSN patientSSN pt_ssn PATIENT-SSN user.ssn ssns SSNNumber ssn_last_4 customerSsn2",
                Class::SSN,
            ),
            ("first_name firstName FIRSTNAME LastName cust_last_name contactName", Class::NAME),
            (
                "e-mail email eMail EmailAddress billing_email email2 emails home_emails",
                Class::EMAIL,
            ),
            ("mrn MRN patient_mrn medicalRecordNumber Medical-Record-No", Class::MRN),
            ("card_number creditCardNumber cc_num card CardNo", Class::CARD),
            (
                "password db_password PASSWORD_HASH apiKey x-api-key client_secret token",
                Class::PASSWORD,
            ),
            ("dob DateOfBirth birth_date patient.birthDate", Class::DOB),
            ("phone phone_number phones mobile_phone cell home_phone_2", Class::PHONE),
        ] {
            for name in names.split(' ') {
                let rule = fields.resolve(name).rule;
                assert_eq!(rule.map(|(class, _)| class), Some(class), "{name}");
                assert!(fields.may_end_name(name.as_bytes()), "{name} fails the quick test");
            }
        }
    }

    #[test]
    fn near_misses_are_no_rule() {
        let fields = fields();
        for name in "file_name name progressToken nextPageToken max_tokens tokens total_tokens \
                     input_tokens email_count has_ssn num_phones is_email emailed ssnake \
                     card_type card_brand phone_type email_hash status order_id id panel cellar"
            .split_whitespace()
        {
            assert_eq!(fields.resolve(name).rule, None, "{name}");
        }
    }

    #[test]
    fn things_veto_bare_digits() {
        let fields = fields();
        for name in "order_id orderId trace_id uuid sha256 digest updated_at ts created customer_id"
            .split(' ')
        {
            assert!(fields.resolve(name).veto, "{name}");
        }
        for name in ["note", "text", "msg", "ssn", "order_email", "value"] {
            assert!(!fields.resolve(name).veto, "{name}");
        }
    }

    #[test]
    fn operators_add_and_keep_fields() {
        let rules = Rules {
            off: vec!["pii.phone".to_owned()],
            fields: [("phi.mrn".to_owned(), vec!["patient_number".to_owned()])].into(),
            keep: vec!["support_email".to_owned()],
        };
        let fields = Fields::new(&rules, &rules.off().unwrap()).unwrap();
        assert_eq!(fields.resolve("PatientNumber").rule, Some((Class::MRN, Strength::Sure)));
        assert_eq!(fields.resolve("supportEmail").rule, None);
        assert!(fields.resolve("support_email").veto);
        assert!(fields.resolve("email").rule.is_some());
        assert_eq!(fields.resolve("phone").rule, None);
    }
}
