//! Whose cryptography drivers use that bring TLS along and ask the process for it.

use rustls::crypto::{CryptoProvider, ring};

/// Such a driver panics if there is a choice and nobody made it. Making it here changes nothing for a process that has.
pub(crate) fn choose() {
    if CryptoProvider::get_default().is_none() {
        // Another thread may be faster, which is as good.
        let _ = ring::default_provider().install_default();
    }
}
