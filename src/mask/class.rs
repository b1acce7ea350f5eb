//! The data classes: the closed list of what the engine can say a value is.

use std::fmt;

use serde::{Serialize, Serializer};

/// What a masked value is, such as `pci.card`. Only the engine's own classes exist.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class(u8);

macro_rules! classes {
    ($($name:ident = $text:literal: $meaning:literal;)*) => {
        /// The classes' numbers, which are places in [`WORDS`].
        #[expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "named as the constants")]
        enum Number { $($name),* }

        /// What each class is called, what it stands for, and what replaces a whole value of it.
        const WORDS: &[(&str, &str, &str)] =
            &[$(($text, $meaning, concat!("[", $text, " masked]"))),*];

        impl Class {
            $(#[doc = $meaning] pub const $name: Self = Self(Number::$name as u8);)*

            /// Every class, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

classes! {
    CARD = "pci.card": "payment card number";
    CVV = "pci.cvv": "card verification value";
    SSN = "pii.ssn": "US social security number";
    EMAIL = "pii.email": "e-mail address";
    IBAN = "pii.iban": "international bank account number";
    NAME = "pii.name": "person's name";
    PHONE = "pii.phone": "phone or fax number";
    DOB = "pii.dob": "date of birth";
    ADDRESS = "pii.address": "street address";
    NATIONAL_ID = "pii.national_id": "passport, licence or tax number";
    ACCOUNT = "pii.account": "bank account or routing number";
    MRN = "phi.mrn": "medical record number";
    HEALTH_PLAN = "phi.health_plan": "health plan or insurance number";
    GITHUB = "secret.github": "GitHub token";
    AWS = "secret.aws": "AWS access key";
    STRIPE = "secret.stripe": "Stripe secret key";
    SLACK = "secret.slack": "Slack token or webhook";
    GOOGLE = "secret.google": "Google API key or client secret";
    PRIVATE_KEY = "secret.private_key": "private key in PEM form";
    PASSWORD = "secret.password": "password, key or token named by its field";
}

impl Class {
    /// The class as it is written in configuration, records and masked text.
    pub fn as_str(self) -> &'static str {
        self.words().0
    }

    /// What the class stands for, in a few words.
    pub fn meaning(self) -> &'static str {
        self.words().1
    }

    /// What stands in place of a value of which nothing is kept.
    pub(super) fn mark(self) -> &'static str {
        self.words().2
    }

    /// The class's place among [`Class::ALL`].
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The class with this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|class| class.as_str() == name)
    }

    fn words(self) -> (&'static str, &'static str, &'static str) {
        WORDS.get(self.index()).copied().unwrap_or_default()
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Class {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
