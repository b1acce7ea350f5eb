//! Field names: from `patientSSN`, `pt_ssn` or `PATIENT-SSN` to what the field holds.
//!
//! A name is cut into words, joined without separators and looked up; words before the match are
//! whose it is (`patient`, `billing`), words behind it must be harmless (`number`, `2`).

mod dictionary;

use std::collections::{HashMap, HashSet};

use self::dictionary::{
    COUNTING, HARMLESS_TOKENS, LIKELY, NEUTRAL, SUFFIXES, SURE, THING, THING_AT_END,
};
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
#[derive(Debug)]
pub(super) struct Fields {
    names: HashMap<String, (Class, Strength)>,
    keep: HashSet<String>,
    /// Bit `b` of entry `a`: some name, or harmless suffix, ends in the letters `a b`.
    endings: [u32; 32],
}

/// Longer names than this are prose, not names.
const LONGEST_NAME: usize = 80;
const MOST_WORDS: usize = 10;

impl Fields {
    pub(super) fn new(rules: &Rules, off: &HashSet<Class>) -> Result<Self, RulesError> {
        let mut names = HashMap::new();
        for (table, strength) in [(LIKELY, Strength::Likely), (SURE, Strength::Sure)] {
            for (class, entries) in table.iter().filter(|(class, _)| !off.contains(class)) {
                names.extend(entries.iter().map(|name| ((*name).to_owned(), (*class, strength))));
            }
        }
        let mut extra = HashSet::new();
        for (class, name) in rules.extra()? {
            let compact = compact_name("fields", name)?;
            extra.insert(compact.clone());
            if !off.contains(&class) {
                names.insert(compact, (class, Strength::Sure));
            }
        }
        let mut keep = HashSet::new();
        for name in &rules.keep {
            let compact = compact_name("keep", name)?;
            if extra.contains(&compact) {
                return Err(RulesError::KeptAndMasked { name: name.clone() });
            }
            keep.insert(compact);
        }
        let mut endings = [0; 32];
        let known = names.keys().map(String::as_str).chain(SUFFIXES.iter().copied());
        for name in known.chain(keep.iter().map(String::as_str)) {
            let (before, last) = ending(name.as_bytes());
            set_ending(&mut endings, before, last);
            // The plural.
            set_ending(&mut endings, last, b's');
            set_ending(&mut endings, b'e', b's');
        }
        Ok(Self { names, keep, endings })
    }

    /// What `name` says.
    pub(super) fn resolve(&self, name: &str) -> Field {
        if name.is_empty() || name.len() > LONGEST_NAME {
            return Field::NONE;
        }
        let words = words(name);
        let compact = words.concat();
        if self.keep.contains(&compact) {
            return Field { veto: true, ..Field::NONE };
        }
        let rule = self.rule(&words);
        let is = |list: &[&str], word: &String| list.contains(&word.as_str());
        let veto = rule.is_none()
            && (words.iter().any(|word| is(THING, word))
                || words.last().is_some_and(|word| is(THING_AT_END, word)));
        Field { rule, veto, part: part(&compact) }
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

    fn rule(&self, words: &[String]) -> Option<(Class, Strength)> {
        let mut joined = String::new();
        for end in (1..=words.len()).rev() {
            for start in 0..end {
                joined.clear();
                for word in words.get(start..end)? {
                    joined.push_str(word);
                }
                let Some(&(class, strength)) = self.lookup(&joined) else { continue };
                let before = words.get(..start)?;
                let behind = words.get(end..)?;
                let ends = before.first().into_iter().chain(before.last());
                let counting = ends.into_iter().any(|word| COUNTING.contains(&word.as_str()));
                let harmless = joined.ends_with("token")
                    && words.iter().any(|word| HARMLESS_TOKENS.contains(&word.as_str()));
                // A digest of a password still serves for guessing it; a digest of anything else
                // is an opaque id.
                let hash = behind.iter().any(|word| word == "hash") && class != Class::PASSWORD;
                if counting || harmless || hash {
                    return None;
                }
                return Some((class, strength));
            }
            if !words.get(end - 1).is_some_and(|word| SUFFIXES.contains(&word.as_str())) {
                return None;
            }
        }
        None
    }

    fn lookup(&self, joined: &str) -> Option<&(Class, Strength)> {
        self.names.get(joined).or_else(|| {
            // `tokens` are counted words of a language model, not secrets.
            let singular = joined.strip_suffix('s').filter(|name| !name.ends_with("token"))?;
            let found = self.names.get(singular);
            found.or_else(|| self.names.get(singular.strip_suffix('e')?))
        })
    }
}

fn compact_name(place: &'static str, name: &str) -> Result<String, RulesError> {
    let compact = words(name).concat();
    if compact.is_empty() {
        return Err(RulesError::EmptyName { place, name: name.to_owned() });
    }
    Ok(compact)
}

fn part(compact: &str) -> Part {
    match compact {
        "columns" | "fields" | "headers" | "header" | "columnnames" | "cols" => Part::Columns,
        "rows" | "data" | "values" | "records" | "results" => Part::Rows,
        "name" | "names" => Part::Name,
        "key" | "field" | "column" | "attribute" | "property" | "label" => Part::Key,
        "value" | "val" => Part::Value,
        other if NEUTRAL.contains(&other) => Part::Neutral,
        _ => Part::Plain,
    }
}

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

/// Cuts a name into lower-case words at separators, case changes and digits.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut previous = ' ';
    let mut rest = name.chars().peekable();
    while let Some(character) = rest.next() {
        let lower_next = rest.peek().is_some_and(|next| next.is_lowercase());
        let cut = character.is_numeric() != previous.is_numeric()
            || (character.is_uppercase()
                && (previous.is_lowercase() || (previous.is_uppercase() && lower_next)));
        if (cut || !character.is_alphanumeric()) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if character.is_alphanumeric() {
            word.extend(character.to_lowercase());
        }
        previous = character;
    }
    if !word.is_empty() {
        words.push(word);
    }
    // What a name holds stands at its end.
    words.split_off(words.len().saturating_sub(MOST_WORDS))
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
