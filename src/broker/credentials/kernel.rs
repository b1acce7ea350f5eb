//! The Linux kernel's keyring (keyutils), for machines without a Secret Service: the user's
//! persistent keyring, which is in memory only, so that a reboot forgets it, and some days without
//! use (`/proc/sys/kernel/keys/persistent_keyring_expiry`).

use zeroize::Zeroizing;

use super::Keyring;

/// The kernel's keyring.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelKeyring;

#[cfg(target_os = "linux")]
mod keyutils {
    use keyring_core::api::CredentialStoreApi as _;
    use keyring_core::{Entry, Error};
    use linux_keyutils_keyring_store::Store;

    use crate::broker::credentials::SERVICE;

    pub(super) fn entry(user: &str) -> Result<Entry, String> {
        let store = Store::new().map_err(|error| error.to_string())?;
        store.build(SERVICE, user, None).map_err(|error| said(&error))
    }

    pub(super) fn said(error: &Error) -> String {
        format!("the kernel's keyring: {error}")
    }
}

#[cfg(target_os = "linux")]
impl Keyring for KernelKeyring {
    fn get(&self, user: &str) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        match keyutils::entry(user)?.get_secret() {
            Ok(secret) => Ok(Some(Zeroizing::new(secret))),
            Err(keyring_core::Error::NoEntry) => Ok(None),
            Err(error) => Err(keyutils::said(&error)),
        }
    }

    fn set(&self, user: &str, secret: &[u8]) -> Result<(), String> {
        keyutils::entry(user)?.set_secret(secret).map_err(|error| keyutils::said(&error))
    }

    fn delete(&self, user: &str) -> Result<(), String> {
        match keyutils::entry(user)?.delete_credential() {
            Ok(()) | Err(keyring_core::Error::NoEntry) => Ok(()),
            Err(error) => Err(keyutils::said(&error)),
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Keyring for KernelKeyring {
    fn get(&self, _: &str) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        Err(NO_KERNEL.to_owned())
    }

    fn set(&self, _: &str, _: &[u8]) -> Result<(), String> {
        Err(NO_KERNEL.to_owned())
    }

    fn delete(&self, _: &str) -> Result<(), String> {
        Err(NO_KERNEL.to_owned())
    }
}

#[cfg(not(target_os = "linux"))]
const NO_KERNEL: &str = "only Linux keeps keys in the kernel";
