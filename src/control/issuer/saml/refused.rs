//! Why a login over SAML was refused: a stable word for the record, and a sentence for the user
//! that says nothing of what the response held.

use axum::http::StatusCode;
use saml_rs::SamlError;
use saml_rs::error::SubjectConfirmationReason;

/// A refusal. Its detail may quote the response, so it goes, masked, into the record's body only.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) why: Why,
    pub(super) detail: String,
}

/// Our own words for why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    ContentType,
    Form,
    TooLarge,
    NotBase64,
    NotXml,
    Markup,
    Unsolicited,
    OtherLogin,
    Unsigned,
    Signature,
    Wrapped,
    Algorithm,
    Certificate,
    Issuer,
    Audience,
    Destination,
    Recipient,
    Confirmation,
    Time,
    Replayed,
    Status,
    Encrypted,
    Profile,
    SubjectUnstable,
    Attributes,
    OtherBrowser,
    CodeGone,
}

impl Why {
    pub(super) fn with(self, detail: impl Into<String>) -> Refused {
        Refused { why: self, detail: detail.into() }
    }

    /// The stable word.
    pub(super) fn code(self) -> &'static str {
        self.words().0
    }

    /// One sentence for the user.
    pub(super) fn sentence(self) -> &'static str {
        self.words().1
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Form | Self::NotBase64 | Self::NotXml | Self::Markup | Self::CodeGone => {
                StatusCode::BAD_REQUEST
            }
            _ => StatusCode::FORBIDDEN,
        }
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::ContentType => ("saml_content_type", "The response was not sent by a form."),
            Self::Form => ("saml_form", "The form holds no response, or more than one."),
            Self::TooLarge => ("saml_too_large", "The response is too large."),
            Self::NotBase64 => ("saml_not_base64", "The response is not base64."),
            Self::NotXml => ("saml_not_xml", "The response is not XML."),
            Self::Markup => (
                "saml_markup",
                "The response holds a DOCTYPE, an entity, a comment or an instruction, which no \
                 response may hold.",
            ),
            Self::Unsolicited => {
                ("saml_unsolicited", "No login waits for this response, or it waited for too long.")
            }
            Self::OtherLogin => ("saml_other_login", "The response answers another login."),
            Self::Unsigned => ("saml_unsigned", "The assertion is not signed."),
            Self::Signature => ("saml_signature", "A signature in the response does not verify."),
            Self::Wrapped => {
                ("saml_wrapped", "What is signed in the response is not what it wants to say.")
            }
            Self::Algorithm => {
                ("saml_algorithm", "A signature is not RSA with SHA-256, SHA-384 or SHA-512.")
            }
            Self::Certificate => {
                ("saml_certificate", "A signature is by another certificate than the known ones.")
            }
            Self::Issuer => ("saml_issuer", "The response is from another identity provider."),
            Self::Audience => ("saml_audience", "The response is meant for another service."),
            Self::Destination => ("saml_destination", "The response was sent to another address."),
            Self::Recipient => ("saml_recipient", "The assertion is meant for another address."),
            Self::Confirmation => {
                ("saml_confirmation", "The assertion does not say that its bearer is its subject.")
            }
            Self::Time => ("saml_time", "The response is not valid yet, or no longer."),
            Self::Replayed => ("saml_replayed", "The response was used before."),
            Self::Status => ("saml_status", "The identity provider refused the login."),
            Self::Encrypted => (
                "saml_encrypted",
                "The assertion is encrypted, which this server does not read; turn that off at \
                 the identity provider.",
            ),
            Self::Profile => ("saml_profile", "The response breaks a rule of SAML 2.0."),
            Self::SubjectUnstable => (
                "saml_subject_unstable",
                "The response names nobody for ever: it needs a persistent NameID, or the \
                 attribute that `subject_attribute` names.",
            ),
            Self::Attributes => {
                ("saml_attributes", "An attribute holds what no group or address can be.")
            }
            Self::OtherBrowser => (
                "saml_other_browser",
                "This login was begun in another browser. If you did not begin it yourself, \
                 somebody may be trying to log you in as somebody else.",
            ),
            Self::CodeGone => ("saml_code_gone", "The command line no longer waits for this code."),
        }
    }
}

impl From<SamlError> for Refused {
    fn from(error: SamlError) -> Self {
        use SamlError as E;
        let why = match &error {
            E::Base64(_) => Why::NotBase64,
            E::Xml(_) => Why::NotXml,
            // Too deep, too many elements: the crate has no variant of its own for its limits.
            E::Invalid(what) if what.starts_with("ERR_XML_LIMIT") => Why::TooLarge,
            E::IssuerMismatch { .. } | E::UnmatchIssuer => Why::Issuer,
            E::DestinationMismatch { .. } | E::UnmatchDestination => Why::Destination,
            E::InResponseToMismatch { .. } | E::InvalidInResponseTo => Why::OtherLogin,
            E::RelayStateMismatch { .. } => Why::Unsolicited,
            E::AudienceMismatch { .. } | E::UnmatchAudience => Why::Audience,
            E::StatusNotSuccess { .. } | E::UndefinedStatus | E::FailedStatus { .. } => Why::Status,
            E::TimeWindowInvalid { .. } | E::ExpiredSession => Why::Time,
            E::SubjectConfirmationInvalid { reason } => match reason {
                SubjectConfirmationReason::RecipientMismatch => Why::Recipient,
                SubjectConfirmationReason::InResponseToMismatch => Why::OtherLogin,
                SubjectConfirmationReason::TimeWindowInvalid => Why::Time,
                _ => Why::Confirmation,
            },
            E::SubjectUnconfirmed => Why::Confirmation,
            E::ReplayDetected { .. } => Why::Replayed,
            E::SignatureMissing | E::AssertionSignatureRequired => Why::Unsigned,
            E::SignatureVerification { .. } | E::FailedToVerifySignature | E::Crypto(_) => {
                Why::Signature
            }
            E::ReferenceResolution { .. }
            | E::SignedReferenceMismatch
            | E::PotentialWrappingAttack => Why::Wrapped,
            E::AlgorithmUnsupported => Why::Algorithm,
            E::NoTrustedCertificate | E::CertificateMismatch | E::UnmatchCertificate => {
                Why::Certificate
            }
            _ => Why::Profile,
        };
        why.with(error.to_string())
    }
}
