//! How possession is proved: `client_certificates_from`, `dpop_nonce` and
//! `tls.client_certificates` of `[server]`, checked.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;

use super::ConfigError;
use super::file::{Place, Server};
use crate::identity::possession::Settings;

/// A nonce that lives shorter costs a second request for every other one; one that lives longer
/// is not worth having.
const NONCE_LIFE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(24 * 60 * 60);

pub(super) fn check(server: &Server, place: &Place<'_>) -> Result<Settings, ConfigError> {
    let balancers = &server.client_certificates_from;
    let balancers: Vec<IpNet> =
        balancers.iter().map(|network| balancer(network, place)).collect::<Result<_, _>>()?;
    let nonce_life = match &server.dpop_nonce {
        None => None,
        Some(span) if NONCE_LIFE.contains(&span.get_ref().0) => {
            i64::try_from(span.get_ref().0.as_secs()).ok()
        }
        Some(span) => {
            let what = "a nonce must live between \"10s\" and \"24h\"";
            return Err(place.error(span.span().start, what));
        }
    };
    let own = server.tls.as_ref().is_some_and(|tls| tls.client_certificates);
    Ok(Settings { certificates: own || !balancers.is_empty(), balancers, nonce_life })
}

fn balancer(written: &Spanned<String>, place: &Place<'_>) -> Result<IpNet, ConfigError> {
    let (text, at) = (written.get_ref(), written.span().start);
    let network = text.parse::<IpNet>().ok();
    let network = network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let network = network.ok_or_else(|| {
        let what =
            format!("{text:?} is no address or network, such as \"10.0.0.5\" or \"10.1.0.0/16\"");
        place.error(at, what)
    })?;
    if network.prefix_len() == 0 {
        let what = "everybody could say whose certificate they show; name the balancers only";
        return Err(place.error(at, what));
    }
    Ok(network)
}
