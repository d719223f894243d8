//! Another verifier, as its authors ship it: `dcap-qvl` for SGX and TDX, on ring.

use attestation::testing::genuine::Genuine;

/// One piece of evidence for the other verifier.
#[cfg(feature = "peers")]
pub(super) struct Peer {
    quote: Vec<u8>,
    /// JSON: reading it is part of the work, as it is of ours.
    collateral: Vec<u8>,
    now: u64,
}

#[cfg(feature = "peers")]
impl Peer {
    /// `None` if the other one cannot be asked: it trusts Intel's root only, and refuses some.
    pub(super) fn new(genuine: &Genuine, captured: bool) -> Option<Self> {
        let attestation::Endorsements::Dcap { collateral } = &genuine.endorsements else {
            return None;
        };
        let peer = Self {
            quote: genuine.evidence.body.clone(),
            collateral: collateral.clone(),
            now: genuine.now.as_secs(),
        };
        (captured && peer.verify()).then_some(peer)
    }

    pub(super) fn verify(&self) -> bool {
        use dcap_qvl::configs::RingConfig;
        use dcap_qvl::verify::QuoteVerifier;
        let Ok(collateral) = serde_json::from_slice(&self.collateral) else {
            return false;
        };
        // What is asked of both is whether it is genuine.
        QuoteVerifier::new_prod()
            .with_config::<RingConfig>()
            .allow_debug(true)
            .allow_service_td(true)
            .verify(&self.quote, &collateral, self.now)
            .is_ok()
    }
}

/// No other verifier in this build.
#[cfg(not(feature = "peers"))]
pub(super) enum Peer {}

#[cfg(not(feature = "peers"))]
impl Peer {
    pub(super) const fn new(_: &Genuine, _: bool) -> Option<Self> {
        None
    }

    pub(super) const fn verify(&self) -> bool {
        match *self {}
    }
}
