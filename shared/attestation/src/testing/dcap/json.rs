//! Collateral of the fake Intel.

use serde_json::{Value, json};

use super::pki::{CA_SERIAL, PCK_SERIAL, TCB_SERIAL, pck_crl, root_crl};
use super::{DAY, FakePck, Keys, QE_SIGNER, SEAM_SIGNER, TEE_TCB_SVN, pem};
use crate::evidence::Tee;

/// What collateral says. [`FakeCollateral::new`] fits [`FakePck::default`], which is up to date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeCollateral {
    pub tee: Tee,
    pub fmspc: [u8; 6],
    pub pce_id: [u8; 2],
    /// Intel's name of the state of a platform that meets the first level.
    pub status: &'static str,
    pub advisories: Vec<&'static str>,
    /// State of the TDX module and of the quoting enclave.
    pub module_status: &'static str,
    pub qe_status: &'static str,
    /// Security version of every SGX component that the first and only level demands.
    pub demanded_svn: u8,
    /// Security version that the only level of the TDX module demands.
    pub demanded_module_svn: u8,
    /// `tcbEvaluationDataNumber` of TCB info and QE identity.
    pub tcb_evaluation: u32,
    pub qe_evaluation: u32,
    /// From when to when, in seconds since the UNIX epoch.
    pub tcb_info: (u64, u64),
    pub qe_identity: (u64, u64),
    pub root_crl: (u64, u64),
    pub pck_crl: (u64, u64),
    /// The PCK revocation list is the processor CA's.
    pub processor_ca: bool,
    pub pck_revoked: bool,
    pub ca_revoked: bool,
    pub tcb_signing_revoked: bool,
    /// Overrides the quote's own chain in some verifiers, PEM.
    pub pck_certificate_chain: Option<String>,
}

impl FakeCollateral {
    /// Issued a day before `now` (seconds since the UNIX epoch), for 30 days.
    #[must_use]
    pub fn new(tee: Tee, now: u64) -> Self {
        let window = (now - DAY, now + 29 * DAY);
        let pck = FakePck::default();
        Self {
            tee,
            fmspc: pck.fmspc,
            pce_id: pck.pce_id,
            status: "UpToDate",
            advisories: Vec::new(),
            module_status: "UpToDate",
            qe_status: "UpToDate",
            demanded_svn: 3,
            demanded_module_svn: 5,
            tcb_evaluation: 17,
            qe_evaluation: 17,
            tcb_info: window,
            qe_identity: window,
            root_crl: window,
            pck_crl: window,
            processor_ca: false,
            pck_revoked: false,
            ca_revoked: false,
            tcb_signing_revoked: false,
            pck_certificate_chain: None,
        }
    }

    fn tcb_info(&self) -> Value {
        let components = |svns: [u8; 16]| -> Vec<_> {
            svns.into_iter().map(|svn| json!({ "svn": svn })).collect()
        };
        let tdx = self.tee == Tee::Tdx;
        let mut tcb = json!({
            "sgxtcbcomponents": components([self.demanded_svn; 16]),
            "pcesvn": 13,
        });
        let mut info = json!({
            "id": if tdx { "TDX" } else { "SGX" },
            "version": 3,
            "issueDate": date(self.tcb_info.0),
            "nextUpdate": date(self.tcb_info.1),
            "fmspc": hex::encode_upper(self.fmspc),
            "pceId": hex::encode(self.pce_id),
            "tcbType": 0,
            "tcbEvaluationDataNumber": self.tcb_evaluation,
        });
        if tdx {
            tcb["tdxtcbcomponents"] = components(TEE_TCB_SVN).into();
            let module = json!({
                "mrsigner": hex::encode(SEAM_SIGNER),
                "attributes": "0000000000000000",
                "attributesMask": "FFFFFFFFFFFFFFFF",
            });
            let mut identity = module.clone();
            identity["id"] = "TDX_01".into();
            identity["tcbLevels"] = json!([{
                "tcb": { "isvsvn": self.demanded_module_svn },
                "tcbDate": "2024-03-13T00:00:00Z",
                "tcbStatus": self.module_status,
            }]);
            info["tdxModule"] = module;
            info["tdxModuleIdentities"] = json!([identity]);
        }
        info["tcbLevels"] = json!([{
            "tcb": tcb,
            "tcbDate": "2024-03-13T00:00:00Z",
            "tcbStatus": self.status,
            "advisoryIDs": self.advisories,
        }]);
        info
    }

    fn qe_identity(&self) -> Value {
        json!({
            "id": if self.tee == Tee::Tdx { "TD_QE" } else { "QE" },
            "version": 2,
            "issueDate": date(self.qe_identity.0),
            "nextUpdate": date(self.qe_identity.1),
            "tcbEvaluationDataNumber": self.qe_evaluation,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": hex::encode_upper(QE_SIGNER),
            "isvprodid": super::quote::qe_product(self.tee),
            "tcbLevels": [{
                "tcb": { "isvsvn": 4 },
                "tcbDate": "2024-03-13T00:00:00Z",
                "tcbStatus": self.qe_status,
            }],
        })
    }
}

pub(super) fn write(keys: &Keys, collateral: &FakeCollateral) -> Vec<u8> {
    let tcb_info = collateral.tcb_info().to_string();
    let qe_identity = collateral.qe_identity().to_string();
    let ca = if collateral.processor_ca {
        &keys.processor_ca
    } else {
        &keys.platform_ca
    };
    let chain = |leaf: &[u8]| pem(leaf) + &pem(&keys.root.der);
    let mut root_revoked = Vec::new();
    root_revoked.extend(collateral.ca_revoked.then_some(CA_SERIAL));
    root_revoked.extend(collateral.tcb_signing_revoked.then_some(TCB_SERIAL));
    let pck_revoked: &[u8] = if collateral.pck_revoked {
        &[PCK_SERIAL]
    } else {
        &[]
    };
    let pck_list = pck_crl(
        keys,
        collateral.processor_ca,
        collateral.pck_crl,
        pck_revoked,
    );
    let mut json = json!({
        "pck_crl_issuer_chain": chain(&ca.der),
        "root_ca_crl": hex::encode(root_crl(keys, collateral.root_crl, &root_revoked)),
        "pck_crl": hex::encode(pck_list),
        "tcb_info_issuer_chain": chain(&keys.tcb_signing.der),
        "tcb_info_signature": hex::encode(keys.tcb_signing.sign(tcb_info.as_bytes())),
        "tcb_info": tcb_info,
        "qe_identity_issuer_chain": chain(&keys.qe_identity_signing.der),
        "qe_identity_signature":
            hex::encode(keys.qe_identity_signing.sign(qe_identity.as_bytes())),
        "qe_identity": qe_identity,
    });
    if let Some(chain) = &collateral.pck_certificate_chain {
        json["pck_certificate_chain"] = chain.clone().into();
    }
    json.to_string().into_bytes()
}

/// RFC 3339, of seconds since the UNIX epoch.
fn date(seconds: u64) -> String {
    let at = rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds);
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}
