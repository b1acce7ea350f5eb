//! The built-in issuer as a SAML 2.0 service provider: people log in at the organisation's
//! identity provider, and the command line polls as in every device flow.
//!
//! | file | owns |
//! |---|---|
//! | `response` | what a posted response must be before it says who somebody is |
//! | `refused` | why one was refused, in stable words |
//! | `pending` | logins that are at the identity provider, in memory |
//! | `pages` | the way there, the way back, and the page on which a user confirms |
//!
//! XML, signatures and conditions are the crate's (`saml-rs`); nothing of a response is read here
//! before it verified. Its trust is pinned: entity id, address and certificates come from a local
//! metadata file, never from a response and never over the network.

pub(super) mod pages;
mod pending;
mod refused;
mod response;

use std::sync::Arc;
use std::time::Duration;

use saml_rs::{
    AcsEndpoint, AssertionSignaturePolicy, AudienceValidationPolicy, AuthnRequestSigningPolicy,
    CertificatePem, Credentials, EntityId, IdpDescriptor, LogoutPolicy, MetadataTrustPolicy,
    NameIdCreationPolicy, NameIdFormat, PendingAuthnRequest, PrivateKeyPem, RelayStateParam,
    ResponseSignaturePolicy, Saml, SamlError, Sp, SpConfig, SpValidationPolicy, StartSso,
    XmlSignatureProfile,
};

use crate::audit::Recorder;
use crate::identity::fetch::{self, FetchError};
use crate::mask::Masker;
use crate::types::{Identity, Secret, sha256};
use pending::PendingLogins;

/// What every `sub` of somebody who came over SAML begins with, and no local user's name.
pub(super) const SUB_PREFIX: &str = "saml_";

/// The service provider's settings.
#[derive(Clone)]
pub struct SamlSettings {
    /// The identity provider's metadata, XML.
    pub idp_metadata: String,
    /// This side's entity id; by default the address of its metadata.
    pub entity_id: Option<String>,
    /// The attribute that names somebody for ever; by default a persistent `NameID`.
    pub subject_attribute: Option<String>,
    /// The attribute with groups.
    pub groups_attribute: Option<String>,
    /// The attribute with an e-mail address.
    pub email_attribute: Option<String>,
    /// How long a login lasts at most.
    pub max_session: Duration,
    /// How far the identity provider's clock may be off.
    pub leeway: Duration,
    /// What requests are signed with.
    pub signing: Option<RequestSigning>,
}

/// What requests are signed with, both PEM.
#[derive(Clone)]
pub struct RequestSigning {
    /// An RSA key.
    pub key: Secret,
    /// Its certificate, which the identity provider knows.
    pub certificate: String,
}

/// The service provider cannot run like this.
#[derive(Debug, thiserror::Error)]
pub enum SamlSettingsError {
    /// The metadata cannot be used.
    #[error("the identity provider's metadata cannot be used")]
    Metadata(#[source] SamlError),
    /// The metadata has no certificate to verify with.
    #[error("the identity provider's metadata has no signing certificate")]
    NoCertificate,
    /// The metadata has no address to send people to.
    #[error("the identity provider's metadata has no SingleSignOnService for HTTP-Redirect")]
    NoAddress,
    /// The address is not safe.
    #[error("the identity provider's address cannot be used")]
    Address(#[source] FetchError),
    /// One side wants signed requests, the other does not.
    #[error(
        "the metadata says WantAuthnRequestsSigned=\"{wanted}\", so `signing_key` and \
         `signing_certificate` must {}be there", if *.wanted { "" } else { "not " }
    )]
    Signing {
        /// What the metadata says.
        wanted: bool,
    },
    /// Entity id, key or certificate cannot be used.
    #[error("the service provider cannot be set up")]
    Provider(#[source] SamlError),
}

/// The service provider: this side, the pinned other side, and what is under way between them.
pub(super) struct ServiceProvider {
    provider: Saml<Sp>,
    idp: IdpDescriptor,
    settings: SamlSettings,
    pending: PendingLogins,
}

/// The service provider with what it writes its refusals to.
pub struct SamlParts {
    /// The settings.
    pub settings: SamlSettings,
    /// The audit log.
    pub recorder: Recorder,
    /// Masks what a stranger's response says before it is recorded.
    pub masker: Arc<Masker>,
}

/// Somebody whom the identity provider vouched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Person {
    /// Opaque, and the same at every login.
    pub(super) sub: String,
    pub(super) email: Option<String>,
    pub(super) groups: Vec<String>,
    /// What the page calls them.
    pub(super) shown: String,
    /// When the login ends, in seconds since 1970.
    pub(super) until: i64,
}

impl Person {
    pub(super) fn identity(&self, issuer: &str) -> Identity {
        Identity {
            issuer: issuer.to_owned(),
            sub: self.sub.clone(),
            email: self.email.clone(),
            groups: self.groups.clone(),
        }
    }
}

impl SamlSettings {
    /// Checks the settings as far as they can be without knowing the server's address.
    ///
    /// # Errors
    /// [`SamlSettingsError`].
    pub fn check(&self) -> Result<(), SamlSettingsError> {
        ServiceProvider::new(self.clone(), "https://mcpx.invalid/issuer").map(drop)
    }
}

impl ServiceProvider {
    /// A service provider below the issuer's URL.
    pub(super) fn new(settings: SamlSettings, base: &str) -> Result<Self, SamlSettingsError> {
        // Not signed by a federation: the administrator who wrote the file is who is trusted.
        let trust = MetadataTrustPolicy::UnsignedForCompatibility;
        let idp = IdpDescriptor::from_metadata_xml(&settings.idp_metadata, trust)
            .map_err(SamlSettingsError::Metadata)?;
        let metadata = idp.metadata();
        if metadata.x509_certificates(saml_rs::constants::CertUse::Signing).is_empty() {
            return Err(SamlSettingsError::NoCertificate);
        }
        let address = metadata
            .get_single_sign_on_service(saml_rs::constants::Binding::Redirect)
            .ok_or(SamlSettingsError::NoAddress)?;
        fetch::safe_url(&address).map_err(SamlSettingsError::Address)?;
        let wanted = metadata.is_want_authn_requests_signed();
        if wanted != settings.signing.is_some() {
            return Err(SamlSettingsError::Signing { wanted });
        }
        let provider = provider(&settings, base).map_err(SamlSettingsError::Provider)?;
        let made = Self { provider, idp, settings, pending: PendingLogins::default() };
        // An unusable key is found now, not at the first login.
        made.request("check").map_err(SamlSettingsError::Provider)?;
        Ok(made)
    }

    /// This side's metadata.
    pub(super) fn metadata(&self) -> &str {
        self.provider.metadata_xml()
    }

    /// What logins are bound to besides their person: another identity provider ends them.
    pub(super) fn credential(&self) -> Vec<u8> {
        sha256(format!("saml\0{}", self.idp.entity_id().as_str()).as_bytes()).to_vec()
    }

    /// A new request, and the address that takes a browser to the identity provider with it.
    fn request(&self, relay_state: &str) -> Result<(PendingAuthnRequest, String), SamlError> {
        let relay_state = RelayStateParam::try_from_option(Some(relay_state))?;
        let start =
            StartSso::redirect().relay_state(relay_state).apply_web_browser_sso_generation_rules();
        let started = self.provider.start_sso(&self.idp, start)?;
        let address = started.outbound.redirect_url()?.to_owned();
        Ok((started.pending, address))
    }
}

fn provider(settings: &SamlSettings, base: &str) -> Result<Saml<Sp>, SamlError> {
    let entity = settings.entity_id.clone().unwrap_or_else(|| format!("{base}/saml/metadata"));
    let validation = SpValidationPolicy {
        assertions: AssertionSignaturePolicy::RequireSigned,
        responses: ResponseSignaturePolicy::RequireForEncryptedCbc,
        xml_signatures: XmlSignatureProfile::StrictRsaSha2,
        authn_requests: match settings.signing {
            Some(_) => AuthnRequestSigningPolicy::Sign,
            None => AuthnRequestSigningPolicy::DoNotSignForCompatibility,
        },
        audience: AudienceValidationPolicy::Validate,
        name_id_creation: NameIdCreationPolicy::AllowCreate,
        logout: LogoutPolicy::recommended(),
    };
    let mut config = SpConfig::builder(EntityId::try_new(entity)?)
        .acs_endpoint(AcsEndpoint::post(format!("{base}/saml/acs"))?)
        .validation(validation);
    if settings.subject_attribute.is_none() {
        config = config.name_id_format(NameIdFormat::Persistent);
    }
    if let Some(signing) = &settings.signing {
        config = config.credentials(Credentials {
            signing_key: Some(PrivateKeyPem::new(signing.key.expose())),
            signing_certificate: Some(CertificatePem::new(signing.certificate.as_str())),
            ..Credentials::default()
        });
    }
    Saml::sp(config.build()?)
}

#[cfg(test)]
mod tests;
