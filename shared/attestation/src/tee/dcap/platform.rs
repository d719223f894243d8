//! Which machine a quote is of, and how new collateral is; unverified.

use std::time::Duration;

use dcap_qvl::config::PckCa as QvlCa;
use dcap_qvl::intel::{parse_pck_extension_with, pck_ca_with};

use super::backend::AwsLc;
use super::collateral::{Collateral, Window};
use super::quote::{self, Certification};
use crate::evidence::{Malformed, Tee};
use crate::platform::{Currency, Edition, PckCa, Platform};

const PCK: Malformed = Malformed {
    field: "PCK certificate",
};

pub(crate) fn platform(quote: &[u8], tdx: bool) -> Result<Platform, Malformed> {
    let quote = quote::read(quote)?;
    if (quote.report.said.measurements.tee() == Tee::Tdx) != tdx {
        return Err(Malformed {
            field: "kind of TEE",
        });
    }
    let Certification::Chain(chain) = quote.certification else {
        return Err(PCK);
    };
    let leaf = chain.first().ok_or(PCK)?;
    let extension = parse_pck_extension_with::<AwsLc>(leaf).map_err(|_| PCK)?;
    let ca = match pck_ca_with::<AwsLc>(leaf).map_err(|_| PCK)? {
        QvlCa::Processor => PckCa::Processor,
        QvlCa::Platform => PckCa::Platform,
    };
    Ok(Platform::Intel {
        tdx,
        fmspc: extension.fmspc,
        ca,
    })
}

fn since_epoch(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

fn edition(window: Window, evaluation: u32) -> Edition {
    Edition {
        issued: since_epoch(window.from),
        evaluation,
    }
}

pub(crate) fn currency(collateral: &[u8]) -> Result<Currency, Malformed> {
    let of = |field| move || Malformed { field };
    let read = Collateral::read(collateral).map_err(|_| Malformed {
        field: "collateral",
    })?;
    let fmspc = hex::decode(&read.tcb_info.fmspc)
        .ok()
        .and_then(|fmspc| fmspc.try_into().ok())
        .ok_or_else(of("FMSPC of the collateral"))?;
    let tdx = match read.tcb_info.id.as_str() {
        "TDX" => true,
        "SGX" => false,
        _ => return Err(of("id of the TCB info")()),
    };
    // The common names that Intel gives its two authorities.
    let issuer = |name: &[u8]| {
        let mut windows = read.pck_crl.issuer.windows(name.len());
        windows.any(|window| window == name)
    };
    let ca = match (issuer(b"Processor CA"), issuer(b"Platform CA")) {
        (true, false) => PckCa::Processor,
        (false, true) => PckCa::Platform,
        _ => return Err(of("issuer of the PCK revocation list")()),
    };
    let ends = [
        read.tcb_info_window,
        read.qe_identity_window,
        read.root_crl.window,
        read.pck_crl.window,
    ];
    let next_update = ends.iter().map(|window| window.to).min();
    Ok(Currency {
        tdx,
        fmspc,
        tcb_info: edition(
            read.tcb_info_window,
            read.tcb_info.tcb_evaluation_data_number,
        ),
        qe_identity: edition(
            read.qe_identity_window,
            read.qe_identity.tcb_evaluation_data_number,
        ),
        root_crl: since_epoch(read.root_crl.window.from),
        pck_crl: (ca, since_epoch(read.pck_crl.window.from)),
        next_update: since_epoch(next_update.unwrap_or_default()),
    })
}
