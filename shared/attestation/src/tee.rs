//! The kinds of TEE: a verifier for each, and the checks of a policy that only it has.

pub mod azure;
pub mod ccc;
pub mod dcap;
pub mod nitro;
pub mod nvidia;
mod p384;
pub mod snp;

use std::sync::Arc;
use std::time::Duration;

use crate::evidence::{Claims, VerifierSet};
use crate::facts::Facts;
use crate::measurements::Measurements;
use crate::policy::AppraisalPolicy;
use crate::scorecard::Scorecard;

/// Verifiers of every TEE that is real, with the vendors' roots.
#[must_use]
pub fn real_verifiers() -> VerifierSet {
    VerifierSet::new(vec![
        Arc::new(dcap::DcapVerifier::sgx()),
        Arc::new(dcap::DcapVerifier::tdx()),
        Arc::new(snp::SnpVerifier::amd()),
        Arc::new(azure::AzSnpVerifier::amd()),
        Arc::new(azure::AzTdxVerifier::intel()),
        Arc::new(nitro::NitroVerifier::aws()),
    ])
}

/// The checks of `policy` that only this kind of TEE has; all of them go on the card.
pub(crate) fn judge(
    claims: &Claims,
    policy: &AppraisalPolicy,
    now: Duration,
    card: &mut Scorecard,
) {
    match &claims.facts {
        Facts::Dcap(facts) => dcap::judge(claims, facts, &policy.intel, card),
        Facts::Snp(facts) => match claims.measurements() {
            Measurements::Snp(guest) => snp::judge(guest, facts, &policy.snp, card),
            Measurements::AzSnp(azure) => {
                snp::judge(&azure.hardware, facts, &policy.snp, card);
            }
            // No verifier makes these of a report.
            Measurements::Sgx(_)
            | Measurements::Tdx(_)
            | Measurements::Nitro(_)
            | Measurements::AzTdx(_)
            | Measurements::Simulated(_) => {}
        },
        Facts::Nitro(facts) => nitro::judge(facts, &policy.nitro, now, card),
        Facts::None => {}
    }
    match claims.measurements() {
        Measurements::AzSnp(vm) => azure::judge(&vm.pcrs, vm.secure_boot, &policy.azure, card),
        Measurements::AzTdx(vm) => azure::judge(&vm.pcrs, vm.secure_boot, &policy.azure, card),
        Measurements::Sgx(_)
        | Measurements::Tdx(_)
        | Measurements::Snp(_)
        | Measurements::Nitro(_)
        | Measurements::Simulated(_) => {}
    }
}
