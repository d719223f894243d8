//! What becomes of each case by the default policy, and why: written by hand, held against what
//! `meta.json` says of the evidence.

use std::collections::BTreeSet;

use attestation::CheckName::{
    self, ChipNotMasked, EndorsementsPresent, NotDebug, SeptVeDisable, ServiceTd, SigningKey,
    TcbStatus, Vmpl,
};

use crate::case::Case;

/// Whether a policy can accept what the default one rejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Otherwise {
    /// It is accepted by default.
    Accepted,
    /// A policy that names every reason accepts it.
    ByPolicy,
    /// It is not shown to be genuine, or lacks what no policy gives up.
    Never,
}

/// One case: the checks that fail by default.
pub(crate) struct Verdict {
    pub(crate) case: &'static str,
    pub(crate) fails: &'static [CheckName],
    pub(crate) otherwise: Otherwise,
    pub(crate) why: &'static str,
}

const fn accept(case: &'static str, why: &'static str) -> Verdict {
    Verdict {
        case,
        fails: &[],
        otherwise: Otherwise::Accepted,
        why,
    }
}

const fn reject(case: &'static str, fails: &'static [CheckName], why: &'static str) -> Verdict {
    Verdict {
        case,
        fails,
        otherwise: Otherwise::ByPolicy,
        why,
    }
}

const fn never(case: &'static str, fails: &'static [CheckName], why: &'static str) -> Verdict {
    Verdict {
        case,
        fails,
        otherwise: Otherwise::Never,
        why,
    }
}

#[rustfmt::skip]
pub(crate) const VERDICTS: &[Verdict] = &[
    accept("sgx/automata-00606a-swhard", "SWHardeningNeeded is accepted by default"),
    reject("sgx/automata-00a067-debug", &[NotDebug, TcbStatus], "debug; ConfigurationAndSWHardeningNeeded"),
    reject("sgx/phala-00a067-confswhard", &[TcbStatus], "ConfigurationAndSWHardeningNeeded"),
    reject("sgx/trustee-occlum-debug-outofdate", &[NotDebug, TcbStatus], "debug; OutOfDate"),
    reject("ratls/gramine-cert", &[NotDebug, TcbStatus], "debug; OutOfDate"),
    never("ratls/intel-sgxsdk-cert", &[EndorsementsPresent], "no collateral, so the platform is unknown"),
    accept("tdx/phala-b0c06f-v4-uptodate", "UpToDate"),
    accept("tdx/phala-b0c06f-v5-td15ex", "UpToDate"),
    reject("tdx/automata-90c06f-v5-uptodate", &[ServiceTd], "UpToDate, but MR_SERVICE_TD is not zero"),
    accept("tdx/gotdx-00806f-v4-gcp-padded", "UpToDate; trailing zeros are the kernel's padding"),
    reject("tdx/trustee-00a06d-v4-outofdate", &[TcbStatus], "OutOfDate"),
    reject("tdx/trustee-50806f-v4-debug", &[NotDebug, TcbStatus], "debug; OutOfDate"),
    never("tdx/trustee-90c06f-v5-servicetd", &[TcbStatus], "below every published patch level"),
    never("tdx/zkdcap-00806f-v4-septve", &[SeptVeDisable], "SEPT_VE_DISABLE is not set"),
    never("tdx/phala-90c06f-v5-nolevel", &[TcbStatus], "below every published patch level"),
    accept("snp/trustee-milan-v2-vcek", "VCEK, VMPL 0, production policy"),
    reject("snp/trustee-milan-v3-vlek-aws", &[Vmpl, SigningKey, ChipNotMasked], "VMPL 1; VLEK; chip id zero"),
    reject("snp/gosev-milan-v2-debugpolicy", &[NotDebug], "the guest policy allows debugging"),
    accept("snp/lunal-genoa-v5", "VCEK, VMPL 0, production policy"),
    accept("snp/routex-genoa-v3", "VCEK, VMPL 0, production policy"),
    accept("snp/routex-turin-v5", "VCEK, VMPL 0, production policy"),
    accept("nitro/dstack-prod", "production PCRs"),
    reject("nitro/dstack-debug", &[NotDebug], "PCR0 is zero"),
    reject("nitro/evervault-ga-debug", &[NotDebug], "PCR0 is zero"),
    accept("az-snp/lunal-live-milan", "paravisor's report at VMPL 0, bound to the TPM"),
    accept("az-snp/trustee-genoa", "paravisor's report at VMPL 0, bound to the TPM"),
    accept("az-tdx/lunal-live", "UpToDate, bound to the TPM"),
    never("az-tdx/trustee-v1-septve", &[SeptVeDisable], "SEPT_VE_DISABLE is not set (preview of 2023)"),
    accept("nvidia/trustee-h100", "signed by the device; measurements are not compared, and say so"),
];

impl Verdict {
    pub(crate) fn fails(&self) -> BTreeSet<CheckName> {
        self.fails.iter().copied().collect()
    }

    /// The table by hand against what `meta.json` says of the evidence, field by field.
    pub(crate) fn check_against_meta(&self, case: &Case) {
        let name = self.case;
        let fails = |check| self.fails.contains(&check);
        let tcb = case.expect("tcb_status").as_str().unwrap_or("none");
        let judged = self.otherwise != Otherwise::Never;
        if let Some(debug) = case.expect("debug").as_bool()
            && judged
        {
            assert_eq!(fails(NotDebug), debug, "{name}: debug");
        }
        if judged {
            let bad = ["OutOfDate", "ConfigurationAndSWHardeningNeeded"].contains(&tcb);
            assert_eq!(fails(TcbStatus), bad, "{name}: {tcb}");
        } else {
            assert_eq!(tcb, "none", "{name}: what cannot be accepted has no status");
        }
        if let Some(vmpl) = case.expect("vmpl").as_u64() {
            assert_eq!(fails(Vmpl), vmpl != 0, "{name}: VMPL");
        }
        if let Some(subject) = case.expect("vek")["subject"].as_str() {
            let vlek = subject.contains("SEV-VLEK");
            assert_eq!(fails(SigningKey), vlek, "{name}: {subject}");
        }
        if let Some(service_td) = case.expect("mr_service_td").as_str()
            && judged
        {
            let bound = service_td.bytes().any(|digit| digit != b'0');
            assert_eq!(fails(ServiceTd), bound, "{name}: service TD");
        }
        if let Some(attributes) = case.expect("td_attributes").as_str() {
            // Bit 28: the low one of the fourth byte's upper digit.
            let disabled = attributes.as_bytes().get(6) == Some(&b'1');
            assert_eq!(fails(SeptVeDisable), !disabled, "{name}: {attributes}");
        }
        assert!(!self.why.is_empty());
    }
}
