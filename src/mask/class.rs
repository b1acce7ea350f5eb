//! The data classes: the closed list of what the engine can say a value is.

use std::fmt;

use serde::{Serialize, Serializer};

/// What a masked value is, such as `pci.card`. Only the engine's own classes exist.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class(&'static str);

macro_rules! classes {
    ($($name:ident = $text:literal: $meaning:literal;)*) => {
        impl Class {
            $(#[doc = $meaning] pub const $name: Self = Self($text);)*

            /// Every class, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// What the class stands for, in a few words.
            pub fn meaning(self) -> &'static str {
                match self.0 {
                    $($text => $meaning,)*
                    _ => "",
                }
            }
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
        self.0
    }

    /// The class with this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|class| class.0 == name)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl fmt::Debug for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Serialize for Class {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}
