//! The devices that are spoken to by ioctl: the only unsafe code of this crate.
//!
//! Each request is a structure of the kernel's (or Occlum's) ABI whose pointers lead to buffers
//! that outlive the call and are as long as that ABI says.

#![expect(
    unsafe_code,
    reason = "ioctl(2) writes through pointers inside of structures, which no safe wrapper knows"
)]

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use rustix::ioctl::{Opcode, Updater, ioctl};

use crate::nsm::NsmDevice;
use crate::occlum::{KEY_REQUEST, OcclumSgx, REPORT};
use crate::sev_guest::{DerivedKeyRequest, RESPONSE, Refusal, SevGuest};

/// A device, opened once.
#[derive(Debug)]
pub struct Device(File);

impl Device {
    /// # Errors
    /// The kernel's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self(file))
    }
}

fn address<T: ?Sized>(of: &T) -> u64 {
    std::ptr::from_ref(of).cast::<u8>().expose_provenance() as u64
}

fn address_mut<T: ?Sized>(of: &mut T) -> u64 {
    std::ptr::from_mut(of).cast::<u8>().expose_provenance() as u64
}

/// `struct snp_guest_request_ioctl` (include/uapi/linux/sev-guest.h).
#[repr(C)]
struct GuestRequest {
    msg_version: u8,
    req: u64,
    resp: u64,
    exitinfo2: u64,
}

/// `struct snp_report_req`.
#[repr(C)]
struct ReportRequest {
    user_data: [u8; 64],
    vmpl: u32,
    reserved: [u8; 28],
}

/// `struct snp_ext_report_req`.
#[repr(C)]
struct ExtendedReportRequest {
    report: ReportRequest,
    certs_address: u64,
    certs_len: u32,
}

/// `struct snp_derived_key_req`.
#[repr(C)]
struct KeyRequest {
    root_key_select: u32,
    reserved: u32,
    guest_field_select: u64,
    vmpl: u32,
    guest_svn: u32,
    tcb_version: u64,
}

const SNP_GET_REPORT: Opcode = 0xc020_5300;
const SNP_GET_DERIVED_KEY: Opcode = 0xc020_5301;
const SNP_GET_EXT_REPORT: Opcode = 0xc020_5302;
/// The response to a key request: status, reserved, key (AMD 56860, MSG_KEY_RSP).
const KEY_RESPONSE: usize = 64;

const fn report_request(report_data: &[u8; 64], vmpl: u32) -> ReportRequest {
    ReportRequest {
        user_data: *report_data,
        vmpl,
        reserved: [0; 28],
    }
}

impl Device {
    fn guest<const OPCODE: Opcode, Q, R: ?Sized>(
        &self,
        request: &mut Q,
        response: &mut R,
    ) -> Result<(), Refusal> {
        let mut envelope = GuestRequest {
            msg_version: 1,
            req: address_mut(request),
            resp: address_mut(response),
            exitinfo2: 0,
        };
        // SAFETY: all three opcodes take a `snp_guest_request_ioctl`. `req` leads to a structure
        // of the type that goes with OPCODE and `resp` to a buffer of the response's size, both
        // borrowed exclusively until the call returns; the callers below pair them.
        let done = unsafe { ioctl(&self.0, Updater::<OPCODE, _>::new(&mut envelope)) };
        done.map_err(|errno| Refusal {
            source: errno.into(),
            exitinfo2: envelope.exitinfo2,
            certificates_len: 0,
        })
    }
}

impl SevGuest for Device {
    fn report(
        &self,
        report_data: &[u8; 64],
        vmpl: u32,
        response: &mut [u8; RESPONSE],
    ) -> Result<(), Refusal> {
        let mut request = report_request(report_data, vmpl);
        self.guest::<SNP_GET_REPORT, _, _>(&mut request, response)
    }

    fn extended_report(
        &self,
        report_data: &[u8; 64],
        vmpl: u32,
        response: &mut [u8; RESPONSE],
        certificates: &mut [u8],
    ) -> Result<(), Refusal> {
        let certs_len = u32::try_from(certificates.len()).unwrap_or(u32::MAX);
        let mut request = ExtendedReportRequest {
            report: report_request(report_data, vmpl),
            // The kernel writes at most `certs_len` bytes here.
            certs_address: address_mut(certificates),
            certs_len,
        };
        self.guest::<SNP_GET_EXT_REPORT, _, _>(&mut request, response)
            .map_err(|refusal| Refusal {
                certificates_len: request.certs_len,
                ..refusal
            })
    }

    fn derived_key(&self, request: &DerivedKeyRequest) -> Result<[u8; 32], Refusal> {
        let mut request = KeyRequest {
            root_key_select: request.root_key_select,
            reserved: 0,
            guest_field_select: request.guest_field_select,
            vmpl: request.vmpl,
            guest_svn: request.guest_svn,
            tcb_version: request.tcb_version,
        };
        let mut response = zeroize::Zeroizing::new([0_u8; KEY_RESPONSE]);
        self.guest::<SNP_GET_DERIVED_KEY, _, _>(&mut request, &mut *response)?;
        let status = response.first_chunk().map(|b| u32::from_le_bytes(*b));
        match (status, response.last_chunk::<32>()) {
            (Some(0), Some(key)) => Ok(*key),
            _ => Err(Refusal {
                source: io::ErrorKind::InvalidData.into(),
                exitinfo2: 0,
                certificates_len: 0,
            }),
        }
    }
}

/// `struct nsm_raw` (include/uapi/linux/nsm.h): two `struct nsm_iovec`.
#[repr(C)]
struct NsmRaw {
    request_address: u64,
    request_len: u64,
    response_address: u64,
    response_len: u64,
}

const NSM_RAW: Opcode = 0xc020_0a00;

impl NsmDevice for Device {
    fn exchange(&self, request: &[u8], response: &mut [u8]) -> io::Result<usize> {
        let mut raw = NsmRaw {
            request_address: address(request),
            request_len: request.len() as u64,
            response_address: address_mut(response),
            response_len: response.len() as u64,
        };
        // SAFETY: NSM_RAW takes a `nsm_raw`; the kernel reads `request_len` bytes of the request
        // and writes at most `response_len` bytes of the response, both borrowed until it returns.
        unsafe { ioctl(&self.0, Updater::<NSM_RAW, _>::new(&mut raw)) }?;
        usize::try_from(raw.response_len)
            .ok()
            .filter(|len| *len <= response.len())
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Occlum's `IoctlGenDCAPQuoteArg`.
#[repr(C)]
struct QuoteRequest {
    report_data: u64,
    quote_size: u64,
    quote: u64,
}

/// Occlum's `IoctlCreateReportArg`.
#[repr(C)]
struct CreateReport {
    target: u64,
    report_data: u64,
    report: u64,
}

/// Occlum's `IoctlGetKeyArg`.
#[repr(C)]
struct KeyOf {
    request: u64,
    key: u64,
}

/// SGX wants these aligned in memory (Intel SDM, EREPORT and EGETKEY).
#[repr(C, align(512))]
struct Aligned<const N: usize>([u8; N]);

const SGXIOC_CREATE_REPORT: Opcode = 0xc018_7304;
const SGXIOC_GET_DCAP_QUOTE_SIZE: Opcode = 0x8004_7307;
const SGXIOC_GEN_DCAP_QUOTE: Opcode = 0xc018_7308;
const SGXIOC_GET_KEY: Opcode = 0xc010_730b;

impl OcclumSgx for Device {
    fn quote_size(&self) -> io::Result<u32> {
        let mut size = 0_u32;
        // SAFETY: the request writes one u32.
        unsafe {
            ioctl(
                &self.0,
                Updater::<SGXIOC_GET_DCAP_QUOTE_SIZE, _>::new(&mut size),
            )
        }?;
        Ok(size)
    }

    fn quote(&self, report_data: &[u8; 64], quote: &mut [u8]) -> io::Result<()> {
        let mut size = u32::try_from(quote.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut request = QuoteRequest {
            report_data: address(report_data),
            quote_size: address_mut(&mut size),
            quote: address_mut(quote),
        };
        // SAFETY: Occlum reads 64 bytes of report data and the u32, and writes at most that many
        // bytes of quote; all are borrowed until it returns.
        unsafe {
            ioctl(
                &self.0,
                Updater::<SGXIOC_GEN_DCAP_QUOTE, _>::new(&mut request),
            )
        }?;
        Ok(())
    }

    fn report(&self) -> io::Result<[u8; REPORT]> {
        let mut report = Aligned([0; REPORT]);
        let mut request = CreateReport {
            target: 0,
            report_data: 0,
            report: address_mut(&mut report.0),
        };
        // SAFETY: null for target and report data means none; Occlum writes one report of 432
        // bytes into memory that is borrowed until it returns.
        unsafe {
            ioctl(
                &self.0,
                Updater::<SGXIOC_CREATE_REPORT, _>::new(&mut request),
            )
        }?;
        Ok(report.0)
    }

    fn key(&self, request: &[u8; KEY_REQUEST]) -> io::Result<[u8; 16]> {
        let request = Aligned(*request);
        let mut key = Aligned([0; 16]);
        let mut both = KeyOf {
            request: address(&request.0),
            key: address_mut(&mut key.0),
        };
        // SAFETY: Occlum reads one key request of 512 bytes and writes a key of 16, both of which
        // live until it returns.
        unsafe { ioctl(&self.0, Updater::<SGXIOC_GET_KEY, _>::new(&mut both)) }?;
        Ok(key.0)
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    /// `_IOC(dir, type, nr, size)` of include/uapi/asm-generic/ioctl.h.
    fn ioc(dir: u32, kind: u8, nr: u32, size: usize) -> u32 {
        let size = u32::try_from(size).unwrap();
        (dir << 30) | (size << 16) | (u32::from(kind) << 8) | nr
    }

    #[test]
    fn structures_have_the_layout_of_the_abi() {
        assert_eq!(offset_of!(GuestRequest, req), 8);
        assert_eq!(offset_of!(GuestRequest, exitinfo2), 24);
        assert_eq!(size_of::<ReportRequest>(), 96);
        assert_eq!(offset_of!(ExtendedReportRequest, certs_address), 96);
        assert_eq!(offset_of!(ExtendedReportRequest, certs_len), 104);
        assert_eq!(size_of::<ExtendedReportRequest>(), 112);
        assert_eq!(offset_of!(KeyRequest, guest_field_select), 8);
        assert_eq!(offset_of!(KeyRequest, tcb_version), 24);
        assert_eq!(size_of::<KeyRequest>(), 32);
    }

    #[test]
    fn opcodes_agree_with_the_sizes_of_the_structures() {
        const READ_WRITE: u32 = 3;
        const READ: u32 = 2;
        let guest = size_of::<GuestRequest>();
        assert_eq!(SNP_GET_REPORT, ioc(READ_WRITE, b'S', 0, guest));
        assert_eq!(SNP_GET_DERIVED_KEY, ioc(READ_WRITE, b'S', 1, guest));
        assert_eq!(SNP_GET_EXT_REPORT, ioc(READ_WRITE, b'S', 2, guest));
        assert_eq!(NSM_RAW, ioc(READ_WRITE, 0x0a, 0, size_of::<NsmRaw>()));
        assert_eq!(SGXIOC_GET_DCAP_QUOTE_SIZE, ioc(READ, b's', 7, 4));
        assert_eq!(
            SGXIOC_GEN_DCAP_QUOTE,
            ioc(READ_WRITE, b's', 8, size_of::<QuoteRequest>())
        );
        assert_eq!(
            SGXIOC_CREATE_REPORT,
            ioc(READ_WRITE, b's', 4, size_of::<CreateReport>())
        );
        assert_eq!(
            SGXIOC_GET_KEY,
            ioc(READ_WRITE, b's', 11, size_of::<KeyOf>())
        );
    }

    #[test]
    fn a_file_that_is_no_device_answers_enotty() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let device = Device::open(file.path()).unwrap();
        let enotty = rustix::io::Errno::NOTTY.raw_os_error();
        let refusal = SevGuest::report(&device, &[0; 64], 0, &mut [0; RESPONSE]).unwrap_err();
        assert_eq!(refusal.source.raw_os_error(), Some(enotty));
        let error = device.exchange(b"x", &mut [0; 8]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(enotty));
        let error = device.quote_size().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(enotty));
        assert!(device.key(&[0; KEY_REQUEST]).is_err());
        assert!(OcclumSgx::report(&device).is_err());
        assert!(device.quote(&[0; 64], &mut [0; 8]).is_err());
        assert!(device.derived_key(&DerivedKeyRequest::sealing()).is_err());
    }
}
