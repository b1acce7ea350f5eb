//! The service provider against the crate's own identity provider. What an independent one and
//! forgers send is told in `tests/story/saml.rs`.

use std::path::Path;
use std::time::SystemTime;

use saml_rs::{
    AuthnRequest, BrowserInput, Idp, IdpConfig, IdpValidationPolicy, NameId, ReplayPolicy,
    RespondSso, SamlValidationContext, SpDescriptor, SsoEndpoint, Subject,
};

use super::response::{Failure, Posted};
use super::*;
use crate::control::issuer::saml::refused::Why;
use crate::store::Store;
use crate::types::{Clock as _, SystemClock};

const BASE: &str = "https://mcpx.example/issuer";

fn pair() -> RequestSigning {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let certificate = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
    RequestSigning { key: Secret::new(key.serialize_pem()), certificate: certificate.pem() }
}

fn idp(validation: IdpValidationPolicy) -> Saml<Idp> {
    let pair = pair();
    let config = IdpConfig::builder(EntityId::try_new("https://idp.example").unwrap())
        .sso_endpoint(SsoEndpoint::redirect("https://idp.example/sso").unwrap())
        .credentials(Credentials {
            signing_key: Some(PrivateKeyPem::new(pair.key.expose())),
            signing_certificate: Some(CertificatePem::new(pair.certificate)),
            ..Credentials::default()
        })
        .validation(validation);
    Saml::idp(config.build().unwrap()).unwrap()
}

fn settings(metadata: &str) -> SamlSettings {
    SamlSettings {
        idp_metadata: metadata.to_owned(),
        entity_id: None,
        subject_attribute: None,
        groups_attribute: Some("groups".to_owned()),
        email_attribute: None,
        max_session: Duration::from_secs(3600),
        leeway: Duration::from_secs(60),
        signing: None,
    }
}

/// What the identity provider answers a fresh request with, for somebody.
fn answer(
    provider: &ServiceProvider,
    idp: &Saml<Idp>,
    name_id: NameId,
) -> (PendingAuthnRequest, Posted) {
    let (request, address) = provider.request("relay").unwrap();
    let query = address.split_once('?').unwrap().1.to_owned();
    let entity = EntityId::try_new(format!("{BASE}/saml/metadata")).unwrap();
    let trust = MetadataTrustPolicy::UnsignedForCompatibility;
    let sp = SpDescriptor::from_metadata_xml_for(entity, provider.metadata(), trust).unwrap();
    let clock = SystemTime::UNIX_EPOCH + Duration::from_secs(now().unsigned_abs());
    let context = SamlValidationContext::new(clock, ReplayPolicy::DisabledForCompatibility);
    let input = BrowserInput::<AuthnRequest>::redirect(query);
    let received = idp.receive_sso(&sp, input, context).unwrap();
    let subject = Subject::new(name_id, vec![]);
    let outbound = idp.respond_sso(&sp, &received, subject, RespondSso::post()).unwrap();
    let form = outbound.post_form().unwrap();
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form.fields().iter().map(|field| (field.name(), field.value())))
        .finish();
    (request, response::read(body.as_bytes()).unwrap())
}

fn persistent(name: &str) -> NameId {
    NameId::new(name, Some(NameIdFormat::Persistent))
}

fn now() -> i64 {
    SystemClock.now_seconds()
}

/// Takes a response with the database at a path, opened anew.
async fn accept(
    provider: &Arc<ServiceProvider>,
    (request, posted): &(PendingAuthnRequest, Posted),
    path: &Path,
    now: i64,
) -> Result<Person, Why> {
    let store = Store::open(path).await.unwrap();
    let (provider, request) = (Arc::clone(provider), request.clone());
    let posted = posted.clone();
    let taken = move || provider.accept(&posted, &request, &store, now);
    tokio::task::spawn_blocking(taken).await.unwrap().map_err(|failure| match failure {
        Failure::Refused(refused) => refused.why,
        Failure::Store(error) => panic!("{error}"),
    })
}

#[tokio::test]
async fn a_response_is_taken_once_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mcpx.db");
    let idp = idp(IdpValidationPolicy::recommended());
    let provider = Arc::new(ServiceProvider::new(settings(idp.metadata_xml()), BASE).unwrap());
    let first = answer(&provider, &idp, persistent("alice"));
    let alice = accept(&provider, &first, &path, now()).await.unwrap();
    assert!(alice.sub.starts_with(SUB_PREFIX), "{alice:?}");
    assert!((now() + 3590..=now() + 3600).contains(&alice.until), "{alice:?}");
    // The same, with the same request, as if memory still knew it.
    assert_eq!(accept(&provider, &first, &path, now()).await, Err(Why::Replayed));

    let again = answer(&provider, &idp, persistent("alice"));
    let again = accept(&provider, &again, &path, now()).await;
    assert_eq!(again.unwrap().sub, alice.sub, "the same at every login");
    let other = answer(&provider, &idp, persistent("alicia"));
    let other = accept(&provider, &other, &path, now()).await;
    assert_ne!(other.unwrap().sub, alice.sub);
}

#[tokio::test]
async fn what_does_not_fit_this_login_is_refused_and_uses_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mcpx.db");
    let idp = idp(IdpValidationPolicy::recommended());
    let provider = Arc::new(ServiceProvider::new(settings(idp.metadata_xml()), BASE).unwrap());
    let good = answer(&provider, &idp, persistent("alice"));
    for (why, at) in [(Why::Time, now() + 3600), (Why::Time, now() - 3600)] {
        assert_eq!(accept(&provider, &good, &path, at).await, Err(why), "{at}");
    }
    let (other, _) = answer(&provider, &idp, persistent("alice"));
    let swapped = (other, good.1.clone());
    assert_eq!(accept(&provider, &swapped, &path, now()).await, Err(Why::OtherLogin));
    let stranger = idp_with_other_key();
    let forged = (good.0.clone(), answer(&provider, &stranger, persistent("alice")).1);
    let refused = accept(&provider, &forged, &path, now()).await.unwrap_err();
    assert!(matches!(refused, Why::Certificate | Why::Signature), "{refused:?}");
    let transient = answer(&provider, &idp, NameId::new("x", Some(NameIdFormat::Transient)));
    assert_eq!(accept(&provider, &transient, &path, now()).await, Err(Why::SubjectUnstable));
    assert!(accept(&provider, &good, &path, now()).await.is_ok(), "nothing was used up");
}

fn idp_with_other_key() -> Saml<Idp> {
    idp(IdpValidationPolicy::recommended())
}

#[tokio::test]
async fn requests_are_signed_where_the_metadata_wants_it() {
    let signed = IdpValidationPolicy {
        authn_requests: saml_rs::AuthnRequestValidationPolicy::RequireSigned,
        ..IdpValidationPolicy::recommended()
    };
    let idp = idp(signed);
    let unsigned = settings(idp.metadata_xml());
    assert!(matches!(unsigned.check(), Err(SamlSettingsError::Signing { wanted: true })));
    let settings = SamlSettings { signing: Some(pair()), ..unsigned };
    let provider = Arc::new(ServiceProvider::new(settings, BASE).unwrap());
    let dir = tempfile::tempdir().unwrap();
    // The identity provider verifies the request before it answers.
    let answer = answer(&provider, &idp, persistent("alice"));
    assert!(accept(&provider, &answer, &dir.path().join("mcpx.db"), now()).await.is_ok());
}

#[test]
fn metadata_that_cannot_be_pinned_is_refused() {
    use SamlSettingsError as E;
    let idp = idp(IdpValidationPolicy::recommended());
    let good = idp.metadata_xml();
    assert!(settings(good).check().is_ok());
    let check = |metadata: &str| settings(metadata).check().unwrap_err();
    assert!(matches!(check(""), E::Metadata(_)));
    assert!(matches!(check("<a/>"), E::Metadata(_)));
    assert!(matches!(check(&format!("<!DOCTYPE a>{good}")), E::Metadata(_)));
    let keys = regex::Regex::new("(?s)<[a-z:]*KeyDescriptor.*</[a-z:]*KeyDescriptor>").unwrap();
    assert!(matches!(check(&keys.replace(good, "")), E::NoCertificate));
    assert!(matches!(check(&good.replace("HTTP-Redirect", "HTTP-POST")), E::NoAddress));
    assert!(matches!(
        check(&good.replace("https://idp.example/sso", "http://idp/sso")),
        E::Address(_)
    ));
    let error = settings(&good.replace("\"false\"", "\"true\"")).check().unwrap_err();
    assert!(error.to_string().contains("signing_key"), "{error}");
}
