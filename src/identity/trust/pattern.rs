//! What a claim may be: one value exactly, or a text that a glob matches.
//!
//! A glob is anchored at both ends and knows three signs: `*` is any run of characters without
//! `/`, `**` is any run at all, `?` is one character that is not `/`. There is no other syntax, so
//! there is nothing to escape into. That `*` stops at `/` is what keeps
//! `octo/*/deploy.yml@refs/heads/main` from matching a branch that somebody named
//! `x@refs/heads/main`. Matching takes at most as many steps as text and glob have characters,
//! multiplied.

use serde_json::Value;

/// One accepted value of a claim.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    /// This value: a string, a number or a boolean.
    Exact(Value),
    /// Any text that this matches.
    Glob(Glob),
}

impl Pattern {
    /// Whether a claim's value is accepted: itself, or, of a list, one of its items.
    pub fn accepts(&self, found: &Value) -> bool {
        match found {
            Value::Array(items) => items.iter().any(|item| self.accepts_one(item)),
            one => self.accepts_one(one),
        }
    }

    fn accepts_one(&self, found: &Value) -> bool {
        match self {
            Self::Exact(wanted) => wanted == found,
            Self::Glob(glob) => found.as_str().is_some_and(|text| glob.matches(text)),
        }
    }

    /// As it is shown to people.
    pub fn shown(&self) -> String {
        match self {
            Self::Exact(value) => value.to_string(),
            Self::Glob(glob) => format!("glob {:?}", glob.text),
        }
    }
}

/// A parsed glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Character(char),
    /// `?`
    One,
    /// `*`
    Run,
    /// `**`
    Anything,
}

/// Longer ones are no pattern of anybody's.
const LONGEST: usize = 1024;

impl Glob {
    /// Parses a glob.
    ///
    /// # Errors
    /// Why it is none: empty, too long, or three stars in a row.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("a glob must not be empty");
        }
        if text.len() > LONGEST {
            return Err("a glob may have at most 1024 bytes");
        }
        if text.contains("***") {
            return Err("a glob knows * and **, not ***");
        }
        let mut parts = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            parts.push(match character {
                '*' if rest.next_if_eq(&'*').is_some() => Part::Anything,
                '*' => Part::Run,
                '?' => Part::One,
                other => Part::Character(other),
            });
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// Whether the whole text matches.
    pub fn matches(&self, text: &str) -> bool {
        // Every place in the glob that what was read so far can have led to.
        let mut places = vec![false; self.parts.len() + 1];
        self.stand(&mut places, 0);
        for character in text.chars() {
            let mut next = vec![false; places.len()];
            for (at, part) in self.parts.iter().enumerate() {
                if !places.get(at).copied().unwrap_or_default() {
                    continue;
                }
                match part {
                    Part::Character(wanted) if *wanted == character => {
                        self.stand(&mut next, at + 1);
                    }
                    Part::One if character != '/' => self.stand(&mut next, at + 1),
                    Part::Run if character != '/' => self.stand(&mut next, at),
                    Part::Anything => self.stand(&mut next, at),
                    Part::Character(_) | Part::One | Part::Run => {}
                }
            }
            places = next;
        }
        places.last().copied().unwrap_or_default()
    }

    /// What every text that matches begins with.
    pub(super) fn beginning(&self) -> String {
        let literal = |part: &Part| match part {
            Part::Character(character) => Some(*character),
            Part::One | Part::Run | Part::Anything => None,
        };
        self.parts.iter().map_while(literal).collect()
    }

    /// Marks a place, and those behind it that need no character to be reached.
    fn stand(&self, places: &mut [bool], at: usize) {
        for place in at..places.len() {
            if let Some(mark) = places.get_mut(place) {
                *mark = true;
            }
            if !matches!(self.parts.get(place), Some(Part::Run | Part::Anything)) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;
    use serde_json::json;

    use super::*;

    fn matches(glob: &str, text: &str) -> bool {
        Glob::parse(glob).unwrap().matches(text)
    }

    #[test]
    fn globs_are_anchored_and_stop_at_slashes() {
        for (glob, yes, no) in [
            ("refs/tags/v*", "refs/tags/v1.2", "refs/tags/v1/x"),
            ("refs/tags/v*", "refs/tags/v", "xrefs/tags/v1"),
            ("refs/heads/**", "refs/heads/a/b", "refs/tags/a"),
            ("octo/*", "octo/app", "octo-evil/app"),
            ("v?.?", "v1.2", "v1.23"),
            ("a", "a", "ab"),
            ("**", "", "\0".repeat(0).as_str()),
        ] {
            assert!(matches(glob, yes), "{glob} {yes}");
            if !no.is_empty() {
                assert!(!matches(glob, no), "{glob} {no}");
            }
        }
        let workflow = "octo/ci/.github/workflows/*@refs/heads/main";
        assert!(matches(workflow, "octo/ci/.github/workflows/a.yml@refs/heads/main"));
        let branch = "octo/ci/.github/workflows/a.yml@refs/heads/x@refs/heads/main";
        assert!(!matches(workflow, branch), "a branch's name passed for another");
        for wrong in ["", "a***b", &"a".repeat(1025)] {
            assert!(Glob::parse(wrong).is_err());
        }
    }

    #[test]
    fn a_glob_made_to_be_slow_is_not() {
        let glob = Glob::parse(&"*a".repeat(200)).unwrap();
        assert!(!glob.matches(&format!("{}b", "a".repeat(20_000))));
    }

    #[test]
    fn values_keep_their_type_and_lists_hold_one_that_fits() {
        let exact = |value: Value| Pattern::Exact(value);
        assert!(exact(json!("7")).accepts(&json!("7")));
        assert!(!exact(json!(7)).accepts(&json!("7")));
        assert!(!exact(json!(true)).accepts(&json!("true")));
        assert!(exact(json!(true)).accepts(&json!(true)));
        assert!(exact(json!("b")).accepts(&json!(["a", "b"])));
        assert!(!exact(json!("b")).accepts(&json!([["b"]])), "a list within a list");
        assert!(!exact(json!("b")).accepts(&json!({"b": "b"})));
        assert!(!exact(json!("b")).accepts(&json!([])));
        let glob = Pattern::Glob(Glob::parse("**").unwrap());
        assert!(glob.accepts(&json!("")) && !glob.accepts(&json!(1)) && !glob.accepts(&json!({})));
    }

    proptest! {
        /// The same, said by a library.
        #[test]
        fn globs_match_what_their_regular_expression_does(
            glob in "[ab/*?.]{1,8}", text in "[ab/.\n]{0,10}",
        ) {
            let Ok(parsed) = Glob::parse(&glob) else { return Ok(()) };
            let mut expression = "(?s)^".to_owned();
            let mut rest = glob.chars().peekable();
            while let Some(sign) = rest.next() {
                match sign {
                    '*' if rest.next_if_eq(&'*').is_some() => expression.push_str(".*"),
                    '*' => expression.push_str("[^/]*"),
                    '?' => expression.push_str("[^/]"),
                    other => expression.push_str(&regex::escape(&other.to_string())),
                }
            }
            expression.push_str(r"\z");
            let reference = Regex::new(&expression).unwrap();
            prop_assert_eq!(parsed.matches(&text), reference.is_match(&text), "{:?}", glob);
        }

        #[test]
        fn any_text_is_a_glob_of_itself_or_none(text in "\\PC{1,40}") {
            if let Ok(glob) = Glob::parse(&text) {
                prop_assert!(glob.matches(&text.replace(['*', '?'], "x")));
                prop_assert!(text.starts_with(&glob.beginning()));
            }
        }
    }
}
